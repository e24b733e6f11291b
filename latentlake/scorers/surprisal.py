"""Surprisal scoring: how much likelier a window is to a base language model that has read the explanation first.

The measure is log p(window | explanation) - log p(window | a fixed neutral text), in nats (arXiv 2410.13928). The
neutral part depends on the window alone and is computed once for all explanations.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from latentlake.choices import LLMName, Refers
from latentlake.protocols import Answer, Asked, Call, Score
from latentlake.registry import SCORERS
from latentlake.scorers import Case, Judgement, Scorer

if TYPE_CHECKING:
    from latentlake.work import Work


@SCORERS.register("surprisal")
class Surprisal(Scorer):
    """``neutral``: what stands in the place of the explanation for comparison."""

    version: ClassVar[str] = "1"
    method: Literal["surprisal"]
    llm: LLMName
    prompt: Annotated[str, Refers("prompts", places=(("explanation",), ("window",)))] = "surprisal"
    neutral: str = "various things"

    @property
    def most_calls(self) -> int:
        """One a window, activating or not, for the explanation, the control and the neutral text."""
        return 6 * self.windows

    def judge(self, work: "Work", cases: Sequence[Case]) -> Sequence[Judgement]:
        """Differences of log-likelihoods, as measures."""
        neutral = [Case(case.latent, self.neutral, case.text) for case in cases]
        prompt = work.study.prompt(self.prompt)
        asked = [
            Asked(
                case.latent,
                Call(
                    prompt.fill_prefix(explanation=case.explanation),
                    prompt.fill_suffix(window=" ".join(case.text.split())),
                    Score(),
                ),
            )
            for case in (*neutral, *cases)
        ]
        answers = work.ask(self.llm, asked)
        return [_compare(*pair) for pair in zip(answers[len(cases) :], answers[: len(cases)], strict=True)]


def _compare(given: Answer, neutral: Answer) -> Judgement:
    for answer in (given, neutral):
        if answer.reply.error is not None:
            return Judgement(error=answer.reply.error, call=answer.key)
        if answer.reply.logprobs is None:
            return Judgement(error="no_logprobs", call=answer.key)
    likelihoods = [sum(answer.reply.logprobs or ()) for answer in (given, neutral)]
    return Judgement(measure=round(likelihoods[0] - likelihoods[1], 4), call=given.key)
