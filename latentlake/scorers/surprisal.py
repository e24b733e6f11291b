"""Surprisal scoring: how much likelier a window is to a base language model that has read the explanation first.

The measure is log p(window | explanation) - log p(window | a fixed neutral text), in nats. The
neutral part depends on the window alone and is computed once for all explanations.
"""

from collections.abc import Sequence
from math import isfinite
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from latentlake.choices import ReadingLLMName, Refers
from latentlake.marking import in_a_line
from latentlake.protocols import Answer, Asked, Score
from latentlake.registry import SCORERS
from latentlake.scorers import EXPLANATIONS, Case, Judgement, WindowScorer
from latentlake.sources import MILLIONS, Source

if TYPE_CHECKING:
    from latentlake.work import Work


@SCORERS.register("surprisal")
class Surprisal(WindowScorer):
    """``neutral``: what stands in the place of the explanation for comparison."""

    version: ClassVar[str] = "1"
    source: ClassVar[Source | None] = MILLIONS
    method: Literal["surprisal"]
    llm: ReadingLLMName
    prompt: Annotated[str, Refers("prompts", places=(("explanation",), ("window",)))] = "surprisal"
    neutral: str = "various things"

    @property
    def most_calls(self) -> int:
        """One a window, activating or not, for each explanation and the neutral text."""
        return (EXPLANATIONS + 1) * 2 * self.windows

    def judge(self, work: "Work", cases: Sequence[Case]) -> Sequence[Judgement]:
        """Differences of log-likelihoods, as measures."""
        prompt, is_chat = work.study.prompt(self.prompt), work.study.llms[self.llm].chat
        neutral = {(case.latent, case.text): self.neutral for case in cases}  # what a window is without is asked once
        said = [(*key, text) for key, text in neutral.items()]
        said += [(case.latent, case.text, case.explanation) for case in cases]
        asked = [
            Asked(latent, prompt.call(Score(), is_chat, {"explanation": in_a_line(text), "window": in_a_line(window)}))
            for latent, window, text in said
        ]
        answers = work.ask(self.llm, asked)
        without = dict(zip(neutral, answers, strict=False))
        given = answers[len(neutral) :]
        return [_compare(each, without[case.latent, case.text]) for case, each in zip(cases, given, strict=True)]


def _compare(given: Answer, neutral: Answer) -> Judgement:
    for answer in (given, neutral):
        if answer.reply.error is not None:
            return Judgement(error=answer.reply.error, call=answer.key)
        if answer.reply.logprobs is None or not isfinite(sum(answer.reply.logprobs)):
            return Judgement(error="no_logprobs", call=answer.key)
    likelihoods = [sum(answer.reply.logprobs or ()) for answer in (given, neutral)]
    return Judgement(measure=round(likelihoods[0] - likelihoods[1], 4), call=given.key)
