"""Example embedding scoring: whether windows in which a latent fires are nearer to others of that kind than to those in which
it does not.

No explanation is judged, but whether there is anything to explain, as far as an embedder sees it. Half of the windows of each
kind are examples, the other half are held against them. Held against all others of both kinds instead, random vectors are not at
chance: a window is missing among its own kind and not in the other, so that it comes out a little nearer to the other. With 10
windows of each kind, of clustered vectors, the mean AUROC over 4,000 draws was .477 so, and .501 with halves. Given the examples,
the windows that are judged are also independent of one another, as the intervals of AUROC take them to be.
"""

from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

import numpy as np
import polars as pl
from pydantic import Field

from latentlake.choices import EmbedderName, ScoreSample
from latentlake.registry import SCORERS
from latentlake.scorers import Scorer, without_few
from latentlake.sources import UNEXPLAINED, Source

if TYPE_CHECKING:
    from latentlake.work import Work


@SCORERS.register("example_embedding")
class ExampleEmbedding(Scorer):
    """``windows``: how many activating windows of the sample, and how many others, are used, the first by rank. Of each latent
    the first half are examples; the rest are judged: a measure is the mean cosine to activating examples less that to the others.
    Of scores, AUROC, chance is .5.
    """

    version: ClassVar[str] = "1"
    source: ClassVar[Source | None] = UNEXPLAINED
    metrics: ClassVar[tuple[str, ...]] = ("auroc",)
    chance: ClassVar[float | None] = 0.5
    method: Literal["example_embedding"]
    embedder: EmbedderName
    sample: ScoreSample
    windows: Annotated[int, Field(ge=2)]

    @property
    def needs(self) -> int:
        """Activating windows of a latent that the sample must draw."""
        return self.windows

    def judgements(self, work: "Work", given: pl.DataFrame) -> pl.DataFrame:
        """A row a window that is judged, of latents that have examples of both kinds."""
        columns = ["latent", "shard", "context", "start", "source", "decile", "is_activating", "rank", "text"]
        windows = work.frame(f"examples/{self.sample}").filter(pl.col("rank") < self.windows).select(columns)
        kind = ["latent", "is_activating"]
        rows = windows.with_columns(is_example=pl.col("rank") < pl.len().over(kind) // 2).collect()
        both = pl.col("is_activating").filter("is_example").n_unique().over("latent") == 2
        rows = rows.filter(both).sort("latent", "is_activating", "rank")
        measures = [pl.Series(dtype=pl.Float64)]
        if len(rows):
            texts = rows["text"].unique().sort().to_list()
            embedded = dict(zip(texts, work.handles.embedder(self.embedder).embed(texts), strict=True))
            groups = rows.partition_by("latent", maintain_order=True)
            measures = [
                pl.Series(_measures(each, np.array([embedded[text] for text in each["text"]]))) for each in groups
            ]
        control = pl.lit(None, pl.String).alias("control")
        judged = rows.filter(~pl.col("is_example")).drop("is_example", "rank", "text")
        return judged.with_columns(control, pl.lit(None, pl.String).alias("error"), measure=pl.concat(measures))

    def score(self, given: pl.DataFrame, judgements: pl.DataFrame) -> tuple[pl.DataFrame, pl.DataFrame]:
        """AUROC of the measures."""
        from latentlake.measures.scoring import score  # scipy: a second that reading a study need not wait

        return score(without_few(given), judgements, is_labelling=False)


def _measures(rows: pl.DataFrame, embedded: np.ndarray) -> np.ndarray:
    """Of the windows of one latent that are judged. ``embedded``: all its windows, of unit length, float32 [windows, width]."""
    is_example, fires = rows["is_example"].to_numpy(), rows["is_activating"].to_numpy()
    firing, silent = (embedded[is_example & of].mean(axis=0, dtype=np.float64) for of in (fires, ~fires))
    measures: np.ndarray = (embedded[~is_example] @ (firing - silent)).round(5)
    return measures
