"""Explanations out of what a latent promotes, whatever sets it off (output-centric: VocabProj).

There, descriptions of inputs and of outputs together told more than either. `max_act_logits` shows both.
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


class Promoting(Asking):
    """``promoted``: words shown of the tokens that the latent promotes most, of those that the study's ``logits`` keep."""

    reads: ClassVar[tuple[str, ...]] = ("logits",)
    promoted: Positive = 20

    def explain(self, work: "Work", latents: Sequence[int]) -> Mapping[int, Sequence[Hypothesis]]:
        """The replies; of a latent that promotes nothing that can be shown, why."""
        found, errors = super().explain(work, latents), _errors(work, latents)
        silent = set(latents) - listed(work, latents, "promoted", self.promoted).keys()
        none = {latent: [Hypothesis("draw", None, errors.get(latent) or NO_TOKENS)] for latent in silent}
        return {latent: own or none.get(latent, []) for latent, own in found.items()}


@EXPLAINERS.register("vocabulary")
class Vocabulary(Promoting):
    """Shows promoted tokens, and ``suppressed`` words of those that the latent suppresses most, and nothing else."""

    version: ClassVar[str] = "1"
    source: ClassVar[Source | None] = OUTPUT_CENTRIC
    method: Literal["vocabulary"]
    suppressed: Annotated[int, Field(ge=0)] = 10
    prompt: Annotated[str, Refers("prompts", places=((), ("promoted", "suppressed")))] = "vocabulary"

    def fillings(self, work: "Work", latents: Sequence[int]) -> Iterator[tuple[int, Mapping[str, str]]]:
        """The words of each latent."""
        suppressed = listed(work, latents, "suppressed", self.suppressed)
        for latent, words in listed(work, latents, "promoted", self.promoted).items():
            yield latent, {"promoted": one_line(words), "suppressed": one_line(suppressed.get(latent, []))}


def one_line(words: Sequence[str]) -> str:
    """Words as a prompt shows them; a dash for none."""
    return " ".join(", ".join(words).split()) or "-"


def listed(work: "Work", latents: Sequence[int], name: str, n: int) -> dict[int, list[str]]:
    """The first n different words of a list of the table ``logits``, for each latent that has any."""
    rows = work.frame("logits").filter(pl.col("latent").is_in(list(latents))).select("latent", name).sort("latent")
    texts = {row["latent"]: [each["text"] for each in row[name] or []] for row in rows.collect().iter_rows(named=True)}
    words = {latent: words_of(own)[:n] for latent, own in texts.items()}
    return {latent: own for latent, own in words.items() if own}


def _errors(work: "Work", latents: Sequence[int]) -> dict[int, str | None]:
    """Why latents have no lists; null for those that have."""
    rows = work.frame("logits").filter(pl.col("latent").is_in(list(latents))).select("latent", "error").collect()
    return dict(rows.iter_rows())
