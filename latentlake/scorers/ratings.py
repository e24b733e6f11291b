"""Ratings by people, or by whatever else gives a latent's explanation a number. Nothing is judged here."""

from typing import TYPE_CHECKING, ClassVar, Literal

import polars as pl

from latentlake.choices import DictionaryFiles, ExplainerNames
from latentlake.registry import SCORERS
from latentlake.scorers import Scorer

if TYPE_CHECKING:
    from latentlake.work import Work


@SCORERS.register("ratings")
class Ratings(Scorer):
    """``files``: of each dictionary a file of ratings by latent, relative to the study file (`latentlake.imported` says in which
    forms). Several ratings of a latent are of several people. A latent that has none, and a dictionary without a file, is not
    rated.

    ``explainers``: whose explanations the ratings are of; they are to be made anew when these say something else.
    """

    version: ClassVar[str] = "1"
    metrics: ClassVar[tuple[str, ...]] = ("rating",)
    method: Literal["ratings"]
    explainers: ExplainerNames
    files: DictionaryFiles

    @property
    def judged(self) -> tuple[str, ...]:
        """Those that are named."""
        return self.explainers

    def known(self, work: "Work", given: pl.DataFrame) -> pl.DataFrame:
        """With the ratings of each latent, null and the reason where there are none."""
        name = work.stage.constants["scorer"]
        file = work.origins.imported("scorers", name, work.dictionary)
        ratings = pl.DataFrame(schema={"latent": pl.Int32, "rating": pl.Float64})
        if file is not None:
            ratings = work.shared(("ratings", name, work.dictionary), file.read)
        found = given.join(ratings.group_by("latent").agg("rating"), on="latent", how="left", maintain_order="left")
        unrated = pl.when(pl.col("rating").is_null()).then(pl.lit("not_rated"))
        return found.with_columns(error=pl.coalesce("error", unrated))

    def judgements(self, work: "Work", given: pl.DataFrame) -> pl.DataFrame:
        """None."""
        return pl.DataFrame()

    def score(self, given: pl.DataFrame, judgements: pl.DataFrame) -> tuple[pl.DataFrame, pl.DataFrame]:
        """Means of ratings, with the interval by Student's t where there are several."""
        from latentlake.measures.scoring import laid_out, means  # scipy: a second that reading a study need not wait

        rated = given.filter(pl.col("error").is_null()).explode("rating")
        return laid_out(given, judgements, means(rated, "rating"), self.metrics)
