"""A language model sees windows in which the latent fires beside windows in which it does not, and says what tells them apart.

The windows in which it does not fire should be hard to tell from the others: the sample names their sources.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

import polars as pl

from latentlake.choices import Positive, Refers
from latentlake.explainers.asking import windows_of
from latentlake.explainers.default import Showing
from latentlake.registry import EXPLAINERS
from latentlake.sources import MILLIONS, Source

if TYPE_CHECKING:
    from latentlake.work import Work


@EXPLAINERS.register("contrastive")
class Contrastive(Showing):
    """``windows``, ``negatives``: how many are shown in which the latent fires, and in which it does not."""

    version: ClassVar[str] = "1"
    source: ClassVar[Source | None] = MILLIONS
    method: Literal["contrastive"]
    prompt: Annotated[str, Refers("prompts", places=((), ("windows", "others")))]
    windows: Positive = 15
    negatives: Positive = 5

    def fillings(self, work: "Work", latents: Sequence[int]) -> Iterator[tuple[int, Mapping[str, str]]]:
        """The windows of each latent that has both kinds."""
        shown = windows_of(work, self.sample, latents, max(self.windows, self.negatives))
        for (latent,), rows in shown.partition_by("latent", as_dict=True, maintain_order=True).items():
            own = rows.filter("is_activating", pl.col("rank") < self.windows)
            others = rows.filter(~pl.col("is_activating"), pl.col("rank") < self.negatives)
            if len(own) and len(others):
                yield latent, {"windows": self.lines(own), "others": self.lines(others)}
