"""An explanation out of token statistics: the tokens that carry most of a latent's activation. No model is asked."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

import polars as pl
from pydantic import Field

from latentlake.explainers import Explainer, Hypothesis
from latentlake.registry import EXPLAINERS

if TYPE_CHECKING:
    from latentlake.work import Work


@EXPLAINERS.register("tokens")
class Tokens(Explainer):
    """Lists the top tokens by activation mass, each word once. ``n``: how many."""

    version: ClassVar[str] = "1"
    method: Literal["tokens"]
    n: Annotated[int, Field(ge=1)] = 5

    def explain(self, work: "Work", latents: Sequence[int]) -> Mapping[int, Sequence[Hypothesis]]:
        """One hypothesis a latent."""
        return {latent: [list_tokens(words, self.n)] for latent, words in top_words(work, latents).items()}


def top_words(work: "Work", latents: Sequence[int]) -> dict[int, list[str]]:
    """Texts of the top tokens of each latent, by mass, largest first."""
    rows = work.frame("latents").filter(pl.col("latent").is_in(list(latents))).select("latent", "top_tokens").collect()
    return {row["latent"]: [each["text"] for each in row["top_tokens"]] for row in rows.iter_rows(named=True)}


def words_of(texts: Sequence[str]) -> list[str]:
    """The different words among the texts of tokens, in order. A token that is a part of a character has no text of its own."""
    return list(dict.fromkeys(text.strip() for text in texts if text.strip() and "\ufffd" not in text))


def list_tokens(texts: Sequence[str], n: int) -> Hypothesis:
    """The first n different words among the texts of tokens, as an explanation."""
    words = words_of(texts)[:n]
    if not words:
        return Hypothesis("tokens", None, error="no_tokens")
    return Hypothesis("tokens", ", ".join(words))
