"""Latents that fire on nearly one token are named by it; no model is asked, and no other latent is explained."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, ClassVar, Literal

import polars as pl

from latentlake.explainers import Explainer, Hypothesis
from latentlake.explainers.tokens import top_words
from latentlake.registry import EXPLAINERS

if TYPE_CHECKING:
    from latentlake.work import Work


@EXPLAINERS.register("single_token")
class SingleToken(Explainer):
    """Names the token of latents whose triage is ``single_token``."""

    version: ClassVar[str] = "1"
    method: Literal["single_token"]

    def explain(self, work: "Work", latents: Sequence[int]) -> Mapping[int, Sequence[Hypothesis]]:
        """One hypothesis a latent."""
        rows = work.frame("latents").filter(pl.col("latent").is_in(list(latents))).select("latent", "triage").collect()
        triage, words = dict(rows.iter_rows()), top_words(work, latents)
        return {latent: [_named(triage.get(latent), words.get(latent, []))] for latent in latents}


def _named(triage: str | None, words: Sequence[str]) -> Hypothesis:
    if triage != "single_token":
        return Hypothesis("token", None, error="not_single_token")
    text = words[0].strip() if words else ""
    if not text or "\ufffd" in text:  # a space, or a part of a character
        return Hypothesis("token", None, error="no_tokens")
    kind = "token" if text.isalnum() else "character" if len(text) == 1 else "characters"
    return Hypothesis("token", f'the {kind} "{text}"')
