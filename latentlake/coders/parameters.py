"""The parameters of a sparse coder in one form, whatever its checkpoint's format, and what a checkpoint says of itself."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from latentlake.coders.rules import Rule
from latentlake.coders.scaling import Constant, Scaling

if TYPE_CHECKING:
    from torch import Tensor


TINY = 1e-30  # in the place of norms of 0, by which is divided
TRANSCODERS = ("transcoder", "skip transcoder")


@dataclass(frozen=True)
class Parameters:
    """A sparse coder. Of an input x [d_in], scaled,

        before = encoder (x - centre) + bias          pre-activations [width]; the rule says which latents fire
        activation = ReLU(gain · before + offset)     of those that fire
        output = decoder^T activations + decoder_bias, scaled back, + skip x (as it came)

    Tensors are on the CPU in the type in which they are stored. ``encoder``: [width, d_in], None for the identity (neurons);
    ``decoder``: [width, d_out], a direction a row, None likewise. ``centre``: [d_in]. ``gain``, ``offset``: [width].
    ``skip``: [d_out, d_in]. ``width``, ``d_in``, ``d_out`` need saying only where nothing else says them.
    """

    rule: Rule
    encoder: Tensor | None
    bias: Tensor | None
    decoder: Tensor | None
    decoder_bias: Tensor | None
    centre: Tensor | None = None
    gain: Tensor | None = None
    offset: Tensor | None = None
    skip: Tensor | None = None
    scaling: Scaling = field(default_factory=Constant)
    neurons: int = 0

    @property
    def width(self) -> int:
        """Number of latents."""
        return self.neurons if self.encoder is None else int(self.encoder.shape[0])

    @property
    def d_in(self) -> int:
        """Width of inputs."""
        return self.neurons if self.encoder is None else int(self.encoder.shape[1])

    @property
    def d_out(self) -> int:
        """Width of outputs."""
        return self.neurons if self.decoder is None else int(self.decoder.shape[1])


@dataclass(frozen=True)
class Stated:
    """What a checkpoint says of itself beside its tensors; None where it does not say.

    ``kind``: `sae`, `transcoder` or `skip transcoder`. ``model``, ``hookpoint``: what it was trained on, in its own words.
    ``l0``: mean number of latents that fire.
    """

    kind: str | None = None
    model: str | None = None
    hookpoint: str | None = None
    l0: float | None = None


@dataclass(frozen=True)
class Facts:
    """A sparse coder looked at without using it; all of it JSON values. ``k``, ``l0``, ``kind`` as in `Stated` and `Rule`."""

    width: int
    d_in: int
    d_out: int
    family: str
    k: int | None = None
    kind: str | None = None
    model: str | None = None
    hookpoint: str | None = None
    l0: float | None = None


def facts_of(parameters: Parameters, stated: Stated) -> Facts:
    """The facts of a coder that was read."""
    return Facts(
        width=parameters.width,
        d_in=parameters.d_in,
        d_out=parameters.d_out,
        family=parameters.rule.family,
        k=parameters.rule.k,
        kind=stated.kind,
        model=stated.model,
        hookpoint=stated.hookpoint,
        l0=stated.l0,
    )
