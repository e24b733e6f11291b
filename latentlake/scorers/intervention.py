"""Intervention scoring: what a push by the latent does to how likely its explanation is after the text.

S = mean over prompts x of log p(z | pushed continuation of x) - log p(z | clean continuation of x), in nats, by a language model
that is told to say what a text speaks of. It finds latents that are known by what they do, and not by what they fire on.

Controls: another latent's explanation after the same texts (``shuffled``), and the latent's own after continuations under a
direction drawn at random that moves the subject as far (``random_direction``). Scores compare at equal divergence only.
"""

from collections.abc import Sequence
from math import isfinite, nan
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

import polars as pl
from pydantic import Field

from latentlake.choices import ExplainerNames, ReadingLLMName, Refers
from latentlake.marking import in_a_line
from latentlake.protocols import Answer, Asked, Score
from latentlake.registry import SCORERS
from latentlake.scorers import RANDOM_DIRECTION, SHUFFLED, Judgement, Scorer, answered
from latentlake.sources import MILLIONS, Source

if TYPE_CHECKING:
    from latentlake.work import Work

_PLACES = ("text", "explanation")
_PLACE = ["latent", "shard", "context", "start"]


@SCORERS.register("intervention")
class Intervention(Scorer):
    """``explainers``: whose explanations are judged. ``intervention``: which one's continuations. ``target``: at which of its
    divergences latents are compared; those at the others are in `slices`. ``most_prompts``: of the continuations, those of so
    many prompts by rank.
    """

    version: ClassVar[str] = "1"
    source: ClassVar[Source | None] = MILLIONS
    controls: ClassVar[tuple[str, ...]] = (SHUFFLED, RANDOM_DIRECTION)
    metrics: ClassVar[tuple[str, ...]] = ("nats", "kl")
    method: Literal["intervention"]
    explainers: ExplainerNames
    intervention: Annotated[str, Refers("interventions", stage="continuations")]
    target: Annotated[float, Field(gt=0)] = 1.0
    most_prompts: Annotated[int, Field(ge=2)] = 30
    llm: ReadingLLMName
    prompt: Annotated[str, Refers("prompts", places=((), _PLACES), apart=_PLACES)] = "intervention"

    @property
    def judged(self) -> tuple[str, ...]:
        """Those that are named."""
        return self.explainers

    @property
    def most_calls(self) -> int:
        """For each target, of each prompt: two explanations after the clean text and after the pushed one, and the latent's own
        after that of a random direction."""
        return 5 * self.most_prompts

    def judgements(self, work: "Work", given: pl.DataFrame) -> pl.DataFrame:
        """A row for each explanation, target and prompt, in the order of latents, controls, targets and ranks."""
        said = work.frame(f"continuations/{self.intervention}").collect()
        number = pl.col("rank").rank("dense").over("latent")  # of the prompt: not every window makes one
        said = said.filter(number <= self.most_prompts)
        clean = said.filter(pl.col("target").is_null()).select(*_PLACE, clean="text", clean_error="error")
        pushed = said.filter(pl.col("target").is_not_null()).select(
            *_PLACE, "rank", "decile", "source", "target", "kl", "text", push="control", failed="error"
        )
        explained = given.filter(pl.col("explanation").is_not_null()).drop("error")
        # the latent's own direction, but for the control that is about directions
        explained = explained.with_columns(push=pl.when(pl.col("control") == RANDOM_DIRECTION).then("control"))
        rows = explained.join(pushed, on=["latent", "push"], nulls_equal=True).join(clean, on=_PLACE, how="left")
        rows = rows.with_columns(failed=pl.coalesce("failed", "clean_error"), is_activating=pl.lit(True))
        rows = rows.sort("latent", "control", "target", "rank", nulls_last=False)
        answers = answered(self._judge(work, rows))
        kept = rows.drop("explanation", "rank", "text", "clean", "clean_error", "push", "failed")
        return pl.concat([kept, answers], how="horizontal")

    def score(self, given: pl.DataFrame, judgements: pl.DataFrame) -> tuple[pl.DataFrame, pl.DataFrame]:
        """Means over prompts of nats, and of the divergence that was reached; at every target in `slices`."""
        from latentlake.measures.scoring import averaged  # scipy: a second that reading a study need not wait

        return averaged(given, judgements, {"nats": "measure", "kl": "kl"}, self.target)

    def _judge(self, work: "Work", rows: pl.DataFrame) -> list[Judgement]:
        """What each push does to each explanation, one at a time in order."""
        wanted = rows.filter(pl.col("failed").is_null())
        pairs = list(
            dict.fromkeys(
                (latent, text, explanation)
                for latent, explanation, *texts in wanted.select("latent", "explanation", "text", "clean").iter_rows()
                for text in texts
            )
        )
        answers = dict(zip(pairs, self._ask(work, pairs), strict=True))
        return [
            Judgement(error=failed)
            if failed is not None
            else _compared(answers[latent, text, explanation], answers[latent, clean, explanation])
            for latent, explanation, text, clean, failed in rows.select(
                "latent", "explanation", "text", "clean", "failed"
            ).iter_rows()
        ]

    def _ask(self, work: "Work", pairs: Sequence[tuple[int, str, str]]) -> Sequence[Answer]:
        """Log-probabilities of explanations after texts. The text stands in the suffix, so that all calls share a prefix."""
        prompt, is_chat = work.study.prompt(self.prompt), work.study.llms[self.llm].chat
        sampling = Score(after=prompt.between(*_PLACES))
        filled = ({"text": in_a_line(text), "explanation": in_a_line(said)} for _, text, said in pairs)
        asked = [
            Asked(latent, prompt.call(sampling, is_chat, values))
            for (latent, *_), values in zip(pairs, filled, strict=True)
        ]
        return work.ask(self.llm, asked) if asked else []


def _compared(pushed: Answer, clean: Answer) -> Judgement:
    likelihoods = [sum(answer.reply.logprobs or [nan]) for answer in (pushed, clean)]
    for answer, likelihood in zip((pushed, clean), likelihoods, strict=True):
        if answer.reply.error is not None or not isfinite(likelihood):
            return Judgement(error=answer.reply.error or "no_logprobs", call=answer.key)
    return Judgement(measure=round(likelihoods[0] - likelihoods[1], 4), call=pushed.key)
