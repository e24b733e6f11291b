"""The study's section on dictionaries: which sparse coders, on which hookpoints, and which of their latents are asked about."""

from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from latentlake.choices import Choices, Positive
from latentlake.errors import nearest
from latentlake.registry import CODERS

NEURONS = "neurons"


class Training(Choices):
    """How a coder is trained, with `sparsify`, where the study names none.

    ``latents``: its width, of which ``k`` fire, by ``activation``. ``shards``: it reads that many shards of the corpus, the
    first that were registered, ``epochs`` times, each time in another order; later shards do not train it anew. The subject
    reads them in the first epoch alone, if what it gives fits into 64 GiB of the temporary folder. ``contexts``: of a step.
    ``optimizer``, ``lr`` (None: by the width) and ``auxk`` (weight of the loss that revives dead latents) are sparsify's; a
    latent is dead that did not fire for ``dead_after`` tokens. ``skip``: a linear skip connection, of a transcoder. ``seed``:
    another coder.
    """

    latents: Positive
    k: Positive = 32
    activation: Literal["topk", "groupmax"] = "topk"
    shards: Positive = 1
    epochs: Positive = 1
    contexts: Positive = 16
    optimizer: Literal["signum", "adam", "muon"] = "signum"
    lr: Annotated[float, Field(gt=0)] | None = None
    auxk: Annotated[float, Field(ge=0)] = 1 / 32
    dead_after: Positive = 100_000
    skip: bool = False
    seed: int = 0

    @model_validator(mode="after")
    def _k_fits(self) -> "Training":
        if self.k > self.latents:
            raise ValueError(f"k is {self.k}, more than the {self.latents:,} latents")
        if self.activation == "groupmax" and self.latents % self.k:
            raise ValueError(
                f"groupmax divides {self.latents:,} latents into k = {self.k} equal groups, which cannot be"
            )
        return self


class Dictionary(Choices):
    """A sparse coder on a hookpoint, or latents that are planted in the texts, and which of them are asked about.

    ``hookpoint``: what the coder reads, ``layers.9``, ``layers.9.mlp``, or a name that other libraries have for it.
    ``writes``: the hookpoint that its decoder speaks of, where that is another: a transcoder reads ``layers.9.mlp.input`` and
    writes ``layers.9.mlp`` (which is what None means there).
    ``coder``: a checkpoint, as a path or as ``ORGANISATION/NAME/FOLDER`` of the Hugging Face hub at a ``revision``; or
    ``neurons``, the hookpoint's own coordinates, of which the ``k`` largest of each token count. ``format``: of the
    checkpoint; None: by its files. ``train`` instead of a coder: one is trained. ``k``: where the checkpoint does not say it.
    ``control``: what the coder is compared with: the same with ``directions`` drawn at random, one as it is ``initialised``
    before training, or the coder on a ``model`` of random weights; the first two let ``k`` latents fire where it is given.
    ``planted`` instead of all that: a file of rules, relative to the study file, by which latents fire whose meaning is known
    (``coders/planted.py``). They read texts, not the model, and have no hookpoint.
    ``latents``: ``all``, a number (each block gives its share, by hash), or a list.
    """

    hookpoint: str = ""
    writes: str | None = None
    coder: str | None = None
    planted: str | None = None
    revision: str | None = None
    format: str | None = None
    train: Training | None = None
    k: Positive | None = None
    control: Literal["directions", "initialised", "model"] | None = None
    latents: Literal["all"] | Positive | tuple[Annotated[int, Field(ge=0)], ...] = "all"

    @property
    def is_neurons(self) -> bool:
        """Whether the hookpoint's own coordinates are the latents."""
        return self.coder == NEURONS

    @field_validator("format")
    @classmethod
    def _is_known(cls, name: str | None) -> str | None:
        known = CODERS.classes()
        if name is not None and name not in known:
            raise ValueError(f"there is no coder format {name!r}{nearest(name, known)}")
        return name

    @model_validator(mode="after")
    def _is_one_kind(self) -> "Dictionary":
        if self.planted is not None:
            foreign = sorted(self.model_fields_set - {"planted", "latents"})
            if foreign:
                raise ValueError(
                    f"{foreign[0]!r} is of coders; a `planted` dictionary has `latents` beside it, and nothing else"
                )
            return self
        if not self.hookpoint:
            raise ValueError("the key 'hookpoint' is missing")
        if (self.coder is None) == (self.train is None):
            raise ValueError("a dictionary has either a `coder` or `train`, which makes one")
        drawn = self.control in ("directions", "initialised")
        if self.is_neurons and (self.k is None or drawn or self.format is not None or self.revision is not None):
            raise ValueError("neurons need a `k`, have no format and no revision, and no control but `model`")
        if self.train is not None and (
            self.k is not None or drawn or self.format is not None or self.revision is not None
        ):
            raise ValueError(
                "a coder that is trained takes no `k`, format or revision here, and no control but `model`"
            )
        return self


class Reconstruction(Choices):
    """How well coders reconstruct is measured on about this many ``tokens`` of the corpus, in contexts drawn by hash."""

    tokens: Positive = 1024
