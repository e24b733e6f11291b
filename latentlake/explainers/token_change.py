"""Explanations out of the tokens that become likelier when a latent is pushed (output-centric: TokenChange).

They say what a latent does, whatever it fires on, and come from other prompts than those by which interventions are scored.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

import polars as pl
from pydantic import Field

from latentlake.choices import Positive, Refers
from latentlake.explainers import Hypothesis
from latentlake.explainers.asking import Asking
from latentlake.explainers.tokens import words_of
from latentlake.registry import EXPLAINERS
from latentlake.sources import OUTPUT_CENTRIC, Source

if TYPE_CHECKING:
    from latentlake.work import Work

NO_TOKENS = "no_tokens"


@EXPLAINERS.register("token_change")
class TokenChange(Asking):
    """``intervention``: which one's prompts are pushed. ``target``: at which of its divergences. ``words``: how many are shown,
    those whose probability rises most over all prompts first.
    """

    version: ClassVar[str] = "1"
    source: ClassVar[Source | None] = OUTPUT_CENTRIC
    method: Literal["token_change"]
    intervention: Annotated[str, Refers("interventions", stage="token_changes")]
    target: Annotated[float, Field(gt=0)] = 1.0
    words: Positive = 20
    prompt: Annotated[str, Refers("prompts", places=((), ("tokens",)))] = "token_change"

    def explain(self, work: "Work", latents: Sequence[int]) -> Mapping[int, Sequence[Hypothesis]]:
        """The replies; of a latent that makes no token likelier, or cannot be pushed so far, that."""
        found = super().explain(work, latents)
        shown = self._words(work, latents)
        return {
            latent: own if latent in shown else own or [Hypothesis("draw", None, NO_TOKENS)]
            for latent, own in found.items()
        }

    def fillings(self, work: "Work", latents: Sequence[int]) -> Iterator[tuple[int, Mapping[str, str]]]:
        """The words of each latent."""
        for latent, words in self._words(work, latents).items():
            yield latent, {"tokens": " ".join(", ".join(words).split())}

    def _words(self, work: "Work", latents: Sequence[int]) -> dict[int, list[str]]:
        """Words in the order of what their tokens rise by over all prompts, of each latent that has any."""
        rows = work.frame(f"token_changes/{self.intervention}").filter(
            pl.col("latent").is_in(list(latents)), target=self.target
        )
        risen = (
            rows.select("latent", "tokens")
            .explode("tokens", empty_as_null=False)
            .unnest("tokens")
            .group_by("latent", "token", "text")
            .agg(rise=pl.col("rise").sort().sum())
            .sort("latent", pl.col("rise").round(6), "token", descending=[False, True, False])
            .collect()
        )
        words = {
            latent: words_of(own["text"].to_list())[: self.words]
            for (latent,), own in risen.partition_by("latent", as_dict=True).items()
        }
        return {latent: own for latent, own in words.items() if own}
