"""Scorers: one file each, with one registered class that holds its settings and judges explanations.

What belongs here: how an explanation is held against a window. What does not: choosing windows (``stages/examples.py``),
controls (``stages/scores.py``), metrics (``scoring.py``), the texts shown to a model (``prompts/``), running it (``engines/``).

To add one: a file with a subclass of `Scorer`, registered in `latentlake.registry.SCORERS`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, ClassVar

import polars as pl
from pydantic import Field

from latentlake.choices import Choices, ExplainerNames, ScoreSample

if TYPE_CHECKING:
    from latentlake.work import Work


@dataclass(frozen=True)
class Case:
    """An explanation to be held against a window of a latent.

    ``text``: the window as the judge reads it. ``control``: what the explanation is, None for the latent's own; no judge is told.
    ``order``: where windows are shown together, they are in the order of these numbers, which tell nothing of them.
    """

    latent: int
    explanation: str
    text: str
    control: str | None = None
    order: int = 0


@dataclass(frozen=True)
class Judgement:
    """What a scorer says of a case.

    ``prediction``, ``probability``: whether, and how surely, the latent is said to fire in the window. ``measure``: what
    else was measured, larger meaning more likely to fire. ``error``: class of the failure; then the rest is None.
    """

    prediction: bool | None = None
    probability: float | None = None
    measure: float | None = None
    error: str | None = None
    call: str | None = None


SHOWN = ("latent", "shard", "context", "start", "source", "decile", "is_activating", "rank", "text")
EXPLANATIONS = 3  # that a latent's windows are held against: its own, another latent's, an empty one


class Scorer(Choices):
    """The settings of a scorer, and what it does.

    ``explainers``: whose explanations are judged. ``sample``: the windows to judge, the first ``windows`` by rank of
    the activating ones and of the others. ``version``: raised by hand whenever the same settings would give other
    judgements. ``is_labelling``: whether judgements have predictions, and so rates, balanced accuracy and F1.
    """

    version: ClassVar[str]
    is_labelling: ClassVar[bool] = False
    method: str
    explainers: ExplainerNames
    sample: ScoreSample
    windows: Annotated[int, Field(ge=1)]

    @property
    def most_calls(self) -> int:
        """Model calls for one latent, at most, the controls' included."""
        return 0

    @property
    def needs(self) -> int:
        """Activating windows of a latent that the sample must draw."""
        return self.windows

    @property
    def needs_negatives(self) -> bool:
        """Whether the sample must draw windows in which the latent does not fire."""
        return True

    def shown(self, windows: pl.LazyFrame) -> pl.DataFrame:
        """Which windows of the sample are judged, with the ``text`` that the judge reads of each, and ``is_activating``: whether
        yes is the right answer.
        """
        return windows.filter(pl.col("rank") < self.windows).select(SHOWN).collect()

    def judge(self, work: "Work", cases: Sequence[Case]) -> Sequence[Judgement]:
        """A judgement for each case, in their order. Cases of one latent and explanation stand together."""
        raise NotImplementedError
