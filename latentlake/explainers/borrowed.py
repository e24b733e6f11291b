"""Explanations that were given to other latents which are all but the same: near-identical latents share one. No model is
asked."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

import polars as pl
from pydantic import Field, model_validator

from latentlake.choices import Refers
from latentlake.explainers import Explainer, Hypothesis, Lender
from latentlake.registry import EXPLAINERS
from latentlake.sections.comparisons import BETWEEN

if TYPE_CHECKING:
    from latentlake.work import Work

NO_PARTNER = "no_partner"
NOT_EXPLAINED = "not_explained"


@EXPLAINERS.register("borrowed")
class Borrowed(Explainer):
    """Takes what ``explainer`` says of a latent that is all but the same: by decoder and by encoder, at a cosine of ``least`` or
    more each.

    With ``comparison`` and ``of``: of the partner that the comparison gives it in that dictionary, by decoder and by encoder
    alike; in that dictionary itself each latent is its own. Without them: within each dictionary, of the first that is explained
    among the latent and those near it in the table ``neighbours``; a latent that nothing is near to is its own.
    """

    version: ClassVar[str] = "1"
    method: Literal["borrowed"]
    explainer: Annotated[str, Refers("explainers")]
    comparison: Annotated[str | None, Refers("comparisons")] = None
    of: Annotated[str | None, Refers("dictionaries")] = None
    least: Annotated[float, Field(gt=0, le=1)] = 0.9

    @model_validator(mode="after")
    def _is_within_or_between(self) -> "Borrowed":
        if (self.comparison is None) != (self.of is None):
            raise ValueError("`comparison` and `of` go together; give both, or neither to borrow within a dictionary")
        return self

    @property
    def lender(self) -> Lender:
        """Whose explanations these are."""
        return Lender(self.comparison, self.of, self.explainer)

    def explain(self, work: "Work", latents: Sequence[int]) -> Mapping[int, Sequence[Hypothesis]]:
        """One hypothesis a latent."""
        rows = work.frame(f"explanations/{self.explainer}").select("latent", "explanation", "error")
        partner = {latent: latent for latent in latents}
        if self.of is None:
            partner |= self._nearest(work, rows)
        elif work.dictionary != self.of:
            partner = self._partners(work)
        wanted = sorted({partner[latent] for latent in latents if latent in partner})
        said = {latent: rest for latent, *rest in rows.filter(pl.col("latent").is_in(wanted)).collect().iter_rows()}
        lender = self.of or work.dictionary
        return {latent: [_hypothesis(lender, partner.get(latent), said)] for latent in latents}

    def _nearest(self, work: "Work", rows: pl.LazyFrame) -> dict[int, int]:
        """Of each latent the first that is explained among itself and those near it, where one is."""
        is_near = pl.min_horizontal("decoder_cosine", "encoder_cosine") >= self.least
        near = work.frame("neighbours").filter(is_near).select("latent", other="neighbour")
        back = near.select(
            latent="other", other="latent"
        )  # of two that are near, one may be among too many near the other
        explained = rows.drop_nulls("explanation").select(other="latent")
        itself = explained.select("other", latent="other").select("latent", "other")
        found = (
            pl.concat([near, back, itself]).join(explained, on="other").group_by("latent").agg(pl.col("other").min())
        )
        return dict(found.collect().iter_rows())

    def _partners(self, work: "Work") -> dict[int, int]:
        """The partner of each latent that has one."""
        assert self.of is not None
        assert self.comparison is not None
        pair = sorted([work.dictionary, self.of])
        if BETWEEN.join(pair) not in work.study.pairs(self.comparison):
            return {}
        is_near = pl.min_horizontal("decoder_cosine", "encoder_cosine") >= self.least
        is_same = pl.col("decoder_partner") == pl.col("encoder_partner")
        rows = work.frame(f"alignments/{self.comparison}").filter(is_near & is_same, pair=BETWEEN.join(pair))
        own, other = ("latent", "decoder_partner") if pair[0] == work.dictionary else ("decoder_partner", "latent")
        return dict(rows.select(own, other).collect().iter_rows())


def _hypothesis(lender: str, partner: int | None, said: Mapping[int, Sequence[str | None]]) -> Hypothesis:
    if partner is None:
        return Hypothesis("borrowed", None, NO_PARTNER)
    text, error = said.get(partner, (None, NOT_EXPLAINED))
    return Hypothesis("borrowed", text, error, from_dictionary=lender, from_latent=partner)
