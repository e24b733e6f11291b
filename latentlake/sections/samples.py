"""The study's section on samples: which windows of a latent are drawn."""

from typing import Annotated, Literal, get_args

from pydantic import Field, model_validator

from latentlake.choices import Choices, EmbedderNameOrNone, Positive
from latentlake.sections.latents import SplitName

NegativeSource = Literal[
    "random", "decoder_neighbours", "encoder_neighbours", "co_occurring_neighbours", "similar", "token_matched"
]


SOURCES: tuple[str, ...] = get_args(NegativeSource)


class Sample(Choices):
    """Windows drawn for each latent from one split.

    ``sampler``: how activating windows are drawn: equally from each decile of strength (``quantiles``), the strongest
    (``top``), uniformly (``random``), or ``mix``: a share ``top`` of the strongest, the rest by quantiles of the others.
    ``windows``: how many. ``seed``: another draw.

    ``length``: tokens of a window (None: ``selection.window``). ``alignment``: windows begin at multiples of ``stride`` (None:
    their length) in their context (``grid``), or stand around the strongest token of each ``stride``, a quarter of the window
    after it (``centred``).

    ``negatives``: how many windows in which the latent never fires: a number, of random ones, or numbers by source:
    ``random``; where a latent near to it fires (``decoder_neighbours``, ``encoder_neighbours``, ``co_occurring_neighbours``);
    ``similar`` to its own by ``embedder``; ``token_matched``, with the token on which it fires in its own.
    """

    split: SplitName
    sampler: Literal["quantiles", "top", "random", "mix"] = "quantiles"
    windows: Positive
    top: Annotated[float, Field(gt=0, lt=1)] = 0.25
    length: Positive | None = None
    stride: Positive | None = None
    alignment: Literal["grid", "centred"] = "grid"
    negatives: Annotated[int, Field(ge=0)] | dict[NegativeSource, Positive] = 0
    embedder: EmbedderNameOrNone = None
    seed: int = 0

    @property
    def sources(self) -> dict[str, int]:
        """How many negatives of each source."""
        if isinstance(self.negatives, dict):
            return {str(source): number for source, number in self.negatives.items()}
        return {"random": self.negatives} if self.negatives else {}

    @model_validator(mode="after")
    def _embeds_what_it_compares(self) -> "Sample":
        if ("similar" in self.sources) != (self.embedder is not None):
            raise ValueError("negatives that are `similar` need an `embedder`, and nothing else does")
        return self
