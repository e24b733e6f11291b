"""Detection scoring: a language model says of each window whether it fits the explanation (arXiv 2410.13928).

One window a prompt, and the probability of "yes" from the model's logits: no reply is parsed, so none can fail to parse.
"""

from collections.abc import Sequence
from math import exp, inf
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from latentlake.choices import LLMName, Refers
from latentlake.protocols import Answer, Asked, Call, Choose
from latentlake.registry import SCORERS
from latentlake.scorers import Case, Judgement, Scorer

if TYPE_CHECKING:
    from latentlake.work import Work


@SCORERS.register("detection")
class Detection(Scorer):
    """``yes``, ``no``: the answers whose probabilities are compared."""

    version: ClassVar[str] = "1"
    is_labelling: ClassVar[bool] = True
    method: Literal["detection"]
    llm: LLMName
    prompt: Annotated[str, Refers("prompts", places=(("explanation",), ("window",)))] = "detection"
    yes: str = " yes"
    no: str = " no"

    @property
    def most_calls(self) -> int:
        """One a window, activating or not, for the explanation and for the control."""
        return 4 * self.windows

    def judge(self, work: "Work", cases: Sequence[Case]) -> Sequence[Judgement]:
        """Probabilities of yes, and the labels that follow at one half."""
        prompt, sampling = work.study.prompt(self.prompt), Choose((self.yes, self.no))
        asked = [
            Asked(
                case.latent,
                Call(
                    prompt.fill_prefix(explanation=case.explanation),
                    prompt.fill_suffix(window=" ".join(case.text.split())),
                    sampling,
                ),
            )
            for case in cases
        ]
        return [_read(answer) for answer in work.ask(self.llm, asked)]


def _read(answer: Answer) -> Judgement:
    reply = answer.reply
    if reply.error is not None or reply.logprobs is None:
        return Judgement(error=reply.error or "no_logprobs", call=answer.key)
    yes, no = reply.logprobs
    if max(yes, no) == -inf:
        return Judgement(error="no_logprobs", call=answer.key)
    probability = round(1 / (1 + exp(min(no - yes, 700.0))), 6)
    return Judgement(prediction=probability > 0.5, probability=probability, call=answer.key)
