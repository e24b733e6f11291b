"""The section of a study on interventions."""

from typing import Annotated

from pydantic import Field, field_validator

from latentlake.choices import Choices, ExplainSampleOrNone, Positive, ScoreSample, SelectSample


class Intervention(Choices):
    """What the subject says when a latent's decoder direction is added to what it computes (arXiv 2410.13928).

    The direction, of length 1, is added so many times to what the latent's coder writes, whatever else that holds, from the last
    token of a prompt on. Prompts are windows up to the first token on which the latent fires, of ``shortest`` tokens at least.
    Those of ``tune`` say how strongly a latent must be pushed for a mean divergence KL(clean || pushed) of the next token's
    distribution of each of ``kl``, in nats. In those of ``show`` it is seen which tokens become likelier, the ``rising`` first
    of each prompt: what explanations are made of. Those of ``score`` are gone on with, clean and pushed, for at most ``tokens``
    tokens drawn at ``temperature``: what scores are made of. The three are of different splits, so that no prompt serves two.
    """

    tune: SelectSample
    score: ScoreSample
    show: ExplainSampleOrNone = None
    kl: Annotated[tuple[Annotated[float, Field(gt=0)], ...], Field(min_length=1)] = (0.1, 0.33, 1.0, 3.0)
    shortest: Positive = 8
    rising: Positive = 5
    tokens: Annotated[int, Field(ge=1, le=64)] = 8
    temperature: Annotated[float, Field(ge=0)] = 1.0

    @property
    def needs_negatives(self) -> bool:
        """Prompts are windows in which the latent fires."""
        return False

    @field_validator("kl")
    @classmethod
    def _each_once(cls, targets: tuple[float, ...]) -> tuple[float, ...]:
        if len(set(targets)) < len(targets):
            raise ValueError(f"a target is named twice in {list(targets)}; leave one of them out")
        return tuple(sorted(targets))
