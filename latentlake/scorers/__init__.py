"""Scorers: one file each, with one registered class that holds its settings and judges explanations, or latents without.

What belongs here: how an explanation is held against a window, or windows against one another. What does not: choosing windows
(``stages/examples.py``), controls (``stages/scores.py``), metrics (``measures/``), the texts shown to a model (``prompts/``),
running it (``engines/``).

To add one: a file with a subclass of `Scorer`, registered in `latentlake.registry.SCORERS`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, ClassVar

import numpy as np
import polars as pl
from pydantic import Field

from latentlake.choices import Choices, ExplainerNames, ScoreSample
from latentlake.digest import mix, seed_of
from latentlake.sources import Source

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


# the controls: what stands in the place of a latent's own explanation, or of its direction
SHUFFLED, EMPTY, RANDOM_DIRECTION = "shuffled", "empty", "random_direction"
NONE = "none"  # in the place of an explainer, where no explanation is judged
SHOWN = ("latent", "shard", "context", "start", "source", "decile", "is_activating", "rank", "text")
EXPLANATIONS = 3  # that a latent's windows are held against: its own, another latent's, an empty one


class Scorer(Choices):
    """The settings of a scorer, and what it does.

    ``version``: raised by hand whenever the same settings would give other judgements. ``source``: what it is taken from.
    ``controls``: what is judged beside the latents' own explanations. ``metrics``: what scores are in; the first is the one by
    which latents are compared, and its value is ``chance`` where the judge knows nothing, if there is such a value.
    """

    version: ClassVar[str]
    source: ClassVar[Source | None] = None
    controls: ClassVar[tuple[str, ...]] = ()
    metrics: ClassVar[tuple[str, ...]]
    chance: ClassVar[float | None] = None
    method: str

    @property
    def judged(self) -> tuple[str, ...]:
        """The explainers whose explanations it judges."""
        return (NONE,)

    @property
    def most_calls(self) -> int:
        """Model calls for one latent, at most, the controls' included."""
        return 0

    @property
    def may_stop(self) -> bool:
        """Whether fewer may be made: it follows from the answers."""
        return False

    def known(self, work: "Work", given: pl.DataFrame) -> pl.DataFrame:
        """``given`` with what is known of latents beforehand, in more columns, and as ``error`` why nothing is to be judged."""
        return given

    def judgements(self, work: "Work", given: pl.DataFrame) -> pl.DataFrame:
        """Rows of the table ``judgements``, of its columns those that there is something for, each key once; what else `score`
        needs of each may stand in more columns.

        ``given``: what is held against each latent, own explanations and controls: latent, control, explanation_latent,
        explanation, and as ``error`` why there is none; of scorers that judge no explanation a row a latent.
        """
        raise NotImplementedError

    def score(self, given: pl.DataFrame, judgements: pl.DataFrame) -> tuple[pl.DataFrame, pl.DataFrame]:
        """Rows of ``scores`` and ``slices`` without the columns of the partition, out of rows of ``judgements``, which have all
        columns of the table and the scorer's own.
        """
        raise NotImplementedError


class WindowScorer(Scorer):
    """A scorer that says of windows how well explanations fit them; scores are AUROC, by whether the latent fires in them.

    ``explainers``: whose explanations are judged. ``sample``: the windows to judge, the first ``windows`` by rank of
    the activating ones and of the others.
    """

    controls: ClassVar[tuple[str, ...]] = (SHUFFLED, EMPTY)
    metrics: ClassVar[tuple[str, ...]] = ("auroc",)
    chance: ClassVar[float | None] = 0.5
    is_labelling: ClassVar[bool] = False  # whether judgements have predictions, and so rates, balanced accuracy and F1
    explainers: ExplainerNames
    sample: ScoreSample
    windows: Annotated[int, Field(ge=1)]

    @property
    def judged(self) -> tuple[str, ...]:
        """Those that are named."""
        return self.explainers

    @property
    def needs(self) -> int:
        """Activating windows of a latent that the sample must draw."""
        return self.windows

    @property
    def needs_negatives(self) -> bool:
        """Whether the sample must draw windows in which the latent does not fire."""
        return True

    @property
    def is_by_token(self) -> bool:
        """Whether each of `most_calls` is one for each token of a window, of which the later follow from the answers before."""
        return False

    def shown(self, windows: pl.LazyFrame) -> pl.DataFrame:
        """Which windows of the sample are judged, with the ``text`` that the judge reads of each, and ``is_activating``: whether
        yes is the right answer.
        """
        return windows.filter(pl.col("rank") < self.windows).select(SHOWN).collect()

    def judge(self, work: "Work", cases: Sequence[Case]) -> Sequence[Judgement]:
        """A judgement for each case, in their order. Cases of one latent and explanation stand together."""
        raise NotImplementedError

    def judgements(self, work: "Work", given: pl.DataFrame) -> pl.DataFrame:
        """A row for each explanation and window, in the order of latents, controls and ranks."""
        return self._judged(work, self._cases(work, given))

    def _cases(self, work: "Work", given: pl.DataFrame) -> pl.DataFrame:
        """What is to be judged: each explanation beside each window."""
        windows = self.shown(work.frame(f"examples/{self.sample}"))
        windows = windows.with_columns(order=_order(windows, work.study.seed))
        rows = given.filter(pl.col("explanation").is_not_null()).drop("error").join(windows, on="latent")
        return rows.sort("latent", "control", "is_activating", "source", "rank", nulls_last=False)

    def _judged(self, work: "Work", rows: pl.DataFrame) -> pl.DataFrame:
        """The same with the judgements, in their order."""
        cases = [Case(*each) for each in rows.select("latent", "explanation", "text", "control", "order").iter_rows()]
        answers = answered(self.judge(work, cases) if cases else [])
        return pl.concat([rows.drop("explanation", "rank", "text", "order"), answers], how="horizontal")

    def score(self, given: pl.DataFrame, judgements: pl.DataFrame) -> tuple[pl.DataFrame, pl.DataFrame]:
        """AUROC, and of labels their rates."""
        from latentlake.measures.scoring import score  # scipy: a second that reading a study need not wait

        return score(given, judgements, self.is_labelling)


def answered(judgements: Sequence[Judgement]) -> pl.DataFrame:
    """Judgements as columns, in their order."""
    schema = {"prediction": pl.Boolean, "probability": pl.Float64, "measure": pl.Float64, "error": pl.String}
    return pl.DataFrame([vars(each) for each in judgements], schema={**schema, "call": pl.String})


def without_few(given: pl.DataFrame) -> pl.DataFrame:
    """``given``, with the reason for latents of which nothing is judged: they have too few windows."""
    return given.with_columns(error=pl.coalesce("error", pl.lit("few_windows")))


def _order(windows: pl.DataFrame, seed: int) -> pl.Series:
    """Numbers that put windows in an order which tells nothing of them: hashes of their places in the sample, so that a window
    that is replaced leaves the others in the prompts in which they are.
    """
    latents = mix(windows["latent"].to_numpy().astype(np.uint64), seed_of("order", seed))
    places = 2 * windows["rank"].to_numpy().astype(np.uint64) + windows["is_activating"].to_numpy()
    return pl.Series(mix(places, latents))
