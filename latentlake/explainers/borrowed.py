"""Explanations that were given to latents elsewhere which are all but the same: near-identical latents share one. No model is
asked."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

import polars as pl
from pydantic import Field

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
    """Takes what ``explainer`` says of a latent's partner in the dictionary ``of``, where a ``comparison`` gives it the same
    partner by decoder and by encoder, at a cosine of ``least`` or more each. In that dictionary itself each latent is its own.
    """

    version: ClassVar[str] = "1"
    method: Literal["borrowed"]
    comparison: Annotated[str, Refers("comparisons")]
    of: Annotated[str, Refers("dictionaries")]
    explainer: Annotated[str, Refers("explainers")]
    least: Annotated[float, Field(gt=0, le=1)] = 0.9

    @property
    def lender(self) -> Lender:
        """Whose explanations these are."""
        return Lender(self.comparison, self.of, self.explainer)

    def explain(self, work: "Work", latents: Sequence[int]) -> Mapping[int, Sequence[Hypothesis]]:
        """One hypothesis a latent."""
        partner = {latent: latent for latent in latents} if work.dictionary == self.of else self._partners(work)
        rows = work.frame(f"explanations/{self.explainer}").select("latent", "explanation", "error")
        wanted = sorted({partner[latent] for latent in latents if latent in partner})
        said = {latent: rest for latent, *rest in rows.filter(pl.col("latent").is_in(wanted)).collect().iter_rows()}
        return {latent: [self._hypothesis(partner.get(latent), said)] for latent in latents}

    def _partners(self, work: "Work") -> dict[int, int]:
        """The partner of each latent that has one."""
        pair = sorted([work.dictionary, self.of])
        if BETWEEN.join(pair) not in work.study.pairs(self.comparison):
            return {}
        is_near = pl.min_horizontal("decoder_cosine", "encoder_cosine") >= self.least
        is_same = pl.col("decoder_partner") == pl.col("encoder_partner")
        rows = work.frame(f"alignments/{self.comparison}").filter(is_near & is_same, pair=BETWEEN.join(pair))
        own, other = ("latent", "decoder_partner") if pair[0] == work.dictionary else ("decoder_partner", "latent")
        return dict(rows.select(own, other).collect().iter_rows())

    def _hypothesis(self, partner: int | None, said: Mapping[int, Sequence[str | None]]) -> Hypothesis:
        if partner is None:
            return Hypothesis("borrowed", None, NO_PARTNER)
        text, error = said.get(partner, (None, NOT_EXPLAINED))
        return Hypothesis("borrowed", text, error, from_dictionary=self.of, from_latent=partner)
