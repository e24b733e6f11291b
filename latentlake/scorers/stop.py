"""Judging in waves, until the score of a latent is decided; the mathematics is of `latentlake.measures.stopping`.

Whether to go on follows from the judgements of a latent's own explanation alone: how many there are of each class, and how many
of them are right. So it depends on no other latent, nor on the order of calls, and a run that was killed comes the same way.
"""

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Annotated

import numpy as np
import polars as pl
from pydantic import Field, model_validator

from latentlake.choices import Choices, Positive

if TYPE_CHECKING:
    from latentlake.measures.stopping import Rule

DECIDED = ("balanced_accuracy", "sensitivity", "specificity")  # scores that allow for the looks


class Stop(Choices):
    """When a latent's score is decided: where the interval of its balanced accuracy lies on one side of ``threshold``, or is
    narrower than ``width``. ``wave``: windows of each class that are judged between two looks.
    """

    threshold: Annotated[float, Field(gt=0, lt=1)] | None = None
    width: Annotated[float, Field(gt=0, lt=1)] | None = None
    wave: Positive = 10

    @model_validator(mode="after")
    def _stops(self) -> "Stop":
        if self.threshold is None and self.width is None:
            raise ValueError("nothing says when to stop: give a threshold, a width, or both")
        return self

    @property
    def rule(self) -> "Rule":
        """What is asked at each look."""
        from latentlake.measures.stopping import Rule  # scipy: a second that reading a study need not wait

        return Rule(self.threshold, self.width)

    def sizes(self, windows: int) -> list[int]:
        """Windows of each class in each wave."""
        return [min(self.wave, windows - start) for start in range(0, windows, self.wave)]


def planned(rows: pl.DataFrame) -> pl.DataFrame:
    """Of the windows of latents, in their waves, what looks need: latent, wave, ``level`` of the interval after it, ``n_shown``,
    the latent's windows in all.

    ``rows``: latent, wave, is_activating. What is planned to be known is the inverse of the balanced accuracy's variance, but for
    a factor: that of two shares' mean.
    """
    from latentlake.measures.stopping import levels

    own = pl.col("is_activating")
    sizes = rows.group_by("latent", "wave").agg(positives=own.sum(), negatives=(~own).sum()).sort("latent", "wave")
    sizes = sizes.with_columns(pl.col("positives", "negatives").cum_sum().over("latent").cast(pl.Float64))
    m, n = pl.col("positives"), pl.col("negatives")
    sizes = sizes.with_columns(information=m * n / (m + n), n_shown=(m + n).last().over("latent").cast(pl.Int64))
    by_latent = sizes.group_by("latent", maintain_order=True).agg("wave", "information", "n_shown")
    found = [list(levels(tuple(each))) for each in by_latent["information"]]
    kept = by_latent.select("latent", "wave", pl.Series("level", found, dtype=pl.List(pl.Float64)), "n_shown")
    return kept.explode("wave", "level", "n_shown")


def in_waves(rows: pl.DataFrame, stop: Stop, judged: Callable[[pl.DataFrame], pl.DataFrame]) -> pl.DataFrame:
    """Rows that were judged, of all latents at once, wave by wave.

    ``rows``: what is to be judged, with its ``wave``; ``judged``: puts judgements beside such rows. The controls of a latent are
    judged on the same windows as its own explanation and stop with it: they are there to be compared with it, window by window,
    and what is still to be learnt of them alone is worth no call.
    """
    rows = rows.join(
        planned(rows.filter(pl.col("control").is_null())), on=["latent", "wave"], how="left", maintain_order="left"
    )
    waves, left = [judged(rows.clear())], rows
    for wave in rows["wave"].unique().sort():
        waves.append(judged(left.filter(wave=wave)))
        decided = _decided(pl.concat(waves), wave, stop)
        left = left.filter(~pl.col("latent").is_in(decided))
    return pl.concat(waves)


def _decided(judged: pl.DataFrame, wave: int, stop: Stop) -> list[int]:
    """Latents whose judging stops after this wave."""
    own = judged.filter(pl.col("control").is_null())
    levels = own.filter(wave=wave).select("latent", "level").unique()
    rule, found = stop.rule, list[int]()
    for level, each in _by_level(_counts(own, "latent").join(levels, on="latent")):
        found += each.filter(rule.is_decided(*_arrays(each), level=level))["latent"].to_list()
    return found


_COUNTED = ("hits", "positives", "rejections", "negatives")


def _counts(judged: pl.DataFrame, *by: str) -> pl.DataFrame:
    """Judgements that did not fail, by class, and how many of them are right."""
    fires, tells = pl.col("is_activating"), pl.col("prediction")
    counted = {"hits": fires & tells, "positives": fires, "rejections": ~fires & ~tells, "negatives": ~fires}
    return judged.filter(pl.col("error").is_null()).group_by(by).agg(**{name: it.sum() for name, it in counted.items()})


def _by_level(counts: pl.DataFrame) -> Iterator[tuple[float, pl.DataFrame]]:
    yield from ((each["level"][0], each) for each in counts.partition_by("level"))


def _arrays(counts: pl.DataFrame) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """The counts as floats, in their order."""
    hits, positives, rejections, negatives = (counts[name].cast(pl.Float64).to_numpy() for name in _COUNTED)
    return hits, positives, rejections, negatives


def with_stops(scores: pl.DataFrame, judgements: pl.DataFrame, stop: Stop) -> pl.DataFrame:
    """Scores that allow for the looks, and how many windows were ``n_left``.

    ``scores``: rows as in the table; ``judgements``: those that `in_waves` gives. Of a latent's own explanation the values have
    no bias; ``worst`` and ``best`` are as far from them as from the shares. Controls' are shares: when they end is decided by
    others' judgements. All intervals are those of the look at which judging ended, which hold whatever it was that ended it.
    """
    if judgements.is_empty():
        return scores
    shown = judgements.group_by("latent", "control").agg(pl.col("n_shown").max())
    scores = scores.join(shown, on=["latent", "control"], how="left", nulls_equal=True)
    scores = scores.join(_estimated(judgements, stop), on=["latent", "metric"], how="left")
    found = scores.join(_ends(judgements), on=["latent", "control", "metric"], how="left", nulls_equal=True)
    value = pl.when(pl.col("control").is_null()).then(pl.coalesce("estimate", "value")).otherwise("value")
    moved = (value - pl.col("value")).fill_null(0)  # bounds hold where there is no value
    found = found.with_columns(
        (pl.col("worst", "best") + moved).clip(0, 1),
        n_left=(pl.col("n_shown") - pl.col("n")).cast(pl.Int64),
        value=value,
    )
    ends = pl.min_horizontal("look_low", "value"), pl.max_horizontal("look_high", "value")
    return found.with_columns(
        low=pl.when(pl.col("look_low").is_not_null()).then(ends[0]).otherwise("low"),
        high=pl.when(pl.col("look_high").is_not_null()).then(ends[1]).otherwise("high"),
    ).select(scores.drop("n_shown", "estimate").columns)


def _estimated(judgements: pl.DataFrame, stop: Stop) -> pl.DataFrame:
    """Unbiased values of latents' own explanations: latent, metric, ``estimate``. Latents with as many judgements in each wave
    are looked up together.
    """
    from latentlake.measures.stopping import Look, estimates

    own = judgements.filter(pl.col("control").is_null())
    levels = own.select("latent", "wave", "level").unique()
    by_wave = levels.join(_counts(own, "latent", "wave"), on=["latent", "wave"], how="left").fill_null(0)
    by_wave = by_wave.sort("latent", "wave").with_columns(pl.col(_COUNTED).cum_sum().over("latent"))
    latents = by_wave.group_by("latent", maintain_order=True).agg(
        "positives", "negatives", "level", pl.col("hits", "rejections").last()
    )
    found = []
    for (m, n, level), each in latents.group_by("positives", "negatives", "level", maintain_order=True):
        looks = tuple(map(Look, m, n, level))
        one, other = estimates(stop.rule, looks, *(each[name].to_numpy() for name in ("hits", "rejections")))
        values = {"sensitivity": one, "specificity": other, "balanced_accuracy": (one + other) / 2}
        found.append(pl.DataFrame({"latent": each["latent"], **values}))
    return (
        pl.concat(found).fill_nan(None).unpivot(DECIDED, index="latent", variable_name="metric", value_name="estimate")
    )


def _ends(judgements: pl.DataFrame) -> pl.DataFrame:
    """Intervals at the looks at which judging ended: latent, control, metric, ``look_low``, ``look_high``."""
    from latentlake.measures.stopping import interval, share_interval

    last = judgements.group_by("latent").agg(pl.col("level").sort_by("wave").last())
    schema = {name: judgements.schema[name] for name in ("latent", "control")} | {"metric": pl.String}
    found = [pl.DataFrame(schema={**schema, "look_low": pl.Float64, "look_high": pl.Float64})]
    for level, each in _by_level(_counts(judgements, "latent", "control").join(last, on="latent")):
        hits, m, rejections, n = _arrays(each)
        with np.errstate(divide="ignore", invalid="ignore"):  # of a class without judgements, or at level 1
            ends = (
                interval(hits, m, rejections, n, level),
                share_interval(hits, m, level),
                share_interval(rejections, n, level),
            )
        who = each.select("latent", "control")
        found += [
            who.with_columns(metric=pl.lit(metric), look_low=pl.Series(low), look_high=pl.Series(high))
            for metric, (low, high) in zip(DECIDED, ends, strict=True)
        ]
    return pl.concat(found).fill_nan(None)
