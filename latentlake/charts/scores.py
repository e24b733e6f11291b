"""Scores of latents and judgements of windows, of the latents' own explanations beside the controls."""

from __future__ import annotations

from math import ceil, floor
from typing import TYPE_CHECKING

import numpy as np
import polars as pl

from latentlake.charts.drawing import GREY, beside, chart_of, scale, tooltip
from latentlake.measures.aggregates import OWN, whose
from latentlake.measures.metrics import mean_interval
from latentlake.scorers import NONE

if TYPE_CHECKING:
    import altair as alt

_SCORE_BINS = 20
WHOSE = {
    OWN: "#4c78a8",
    "another latent": "#f58518",
    "nothing": "#bab0ac",
    "the latent, random push": "#72b7b2",
}


def picture(
    rows: pl.DataFrame, judgements: pl.DataFrame, metric: str = "auroc", chance: float | None = 0.5
) -> alt.HConcatChart:
    """Rows of `scores` and of `judgements`: one metric of latents, and judgements by decile of activation, each of the latent's
    own explanation and of the controls.

    Dashed: chance, and the judgements of windows in which the latent does not fire.
    """
    import altair as alt

    legend = alt.Legend(orient="right", title="explanation of") if rows["control"].count() else None
    color = alt.Color("explanation of:N", scale=scale(WHOSE), legend=legend)
    return beside(distribution(rows, metric, chance, color), _by_decile(judgements, color))


def distribution(
    rows: pl.DataFrame | pl.LazyFrame, metric: str, chance: float | None, color: alt.Color | None = None
) -> alt.LayerChart:
    """Rows of `scores`: one metric of latents, of their own explanations and of the controls; dashed: chance."""
    import altair as alt

    color = color or alt.Color("explanation of:N", scale=scale(WHOSE), legend=None)
    title = {"auroc": "AUROC"}.get(metric, metric)
    histogram = (
        chart_of(histogram_of(rows, metric))
        .mark_bar(opacity=0.6)
        .encode(
            alt.X("low:Q", bin="binned", title=title, scale=alt.Scale(domain=ends_of(rows, metric))),
            alt.X2("high"),
            alt.Y("latents:Q", stack=None, axis=alt.Axis(tickMinStep=1)),
            color,
        )
    )
    at_chance = [] if chance is None else [chance]
    line = chart_of(pl.DataFrame({metric: at_chance})).mark_rule(strokeDash=[4, 3], color=GREY).encode(x=f"{metric}:Q")
    return alt.LayerChart(layer=[histogram, line])


def means(rows: pl.DataFrame) -> alt.LayerChart:
    """Rows of `aggregates` of one dictionary in main metrics: mean score over latents with its 95 % interval, a line an explainer
    and scorer, of the latents' own explanations beside the controls."""
    import altair as alt

    who = pl.when(explainer=NONE).then(pl.col("scorer")).otherwise(pl.format("{} · {}", "scorer", "explainer"))
    shown = rows.select(who.alias("scorer"), whose(), "mean", "low", "high", "latents")
    base = chart_of(shown, height=alt.Step(9)).encode(
        alt.Y("scorer:N", title=None, axis=alt.Axis(labelLimit=220)),
        alt.YOffset("explanation of:N", sort=list(WHOSE)),
        alt.Color("explanation of:N", scale=scale(WHOSE), legend=None),
        tooltip=tooltip(shown),
    )
    x = alt.X("mean:Q", title="mean over latents, 95 % interval", scale=alt.Scale(zero=False))
    ends = base.mark_rule(strokeWidth=1.5).encode(alt.X("low:Q"), alt.X2("high"))
    return alt.LayerChart(layer=[ends, base.mark_point(filled=True, size=35, opacity=1).encode(x)])


def along(rows: pl.DataFrame, place: str, title: str) -> alt.LayerChart:
    """Means with intervals along some ``place``, a line a scorer. Columns: scorer, the place, mean, low, high, latents."""
    import altair as alt

    base = chart_of(rows).encode(
        alt.X(f"{place}:Q", title=title, axis=alt.Axis(tickMinStep=1)),
        alt.Color(
            "scorer:N", legend=alt.Legend(orient="bottom", title=None, columns=3, labelLimit=110, symbolOpacity=1)
        ),
        tooltip=tooltip(rows),
    )
    y = alt.Y("mean:Q", title="mean score, 95 % interval", scale=alt.Scale(zero=False))
    band = base.mark_area(opacity=0.12).encode(alt.Y("low:Q"), alt.Y2("high"))
    return alt.LayerChart(layer=[band, base.mark_line(point=True).encode(y)])


def _by_decile(judgements: pl.DataFrame, color: alt.Color) -> alt.LayerChart:
    import altair as alt

    means = judgement_means(judgements)
    without = means.filter(pl.col("decile").is_null())
    dashed = "" if without.is_empty() else " (dashed: the latent does not fire)"
    y = alt.Y("mean:Q", title="mean judgement, 95 % interval", scale=alt.Scale(zero=False))
    firing = chart_of(means.drop_nulls("decile")).encode(
        alt.X("decile:O", title=f"decile of activation{dashed}", axis=alt.Axis(labelAngle=0)),
        color=color,
    )
    silent = chart_of(without).encode(y, color=color)
    band = firing.mark_area(opacity=0.2).encode(alt.Y("low:Q"), alt.Y2("high"))
    return alt.LayerChart(layer=[band, firing.mark_line().encode(y), silent.mark_rule(strokeDash=[4, 3])])


def ends_of(rows: pl.DataFrame | pl.LazyFrame, metric: str) -> list[int]:
    """The ends of a metric's axis, from 0 to 1 if no value lies beyond."""
    value = pl.col("value")
    ends = rows.lazy().filter(metric=metric).select(low=value.min(), high=value.max()).collect(engine="streaming")
    low, high = ends.row(0)
    return [0, 1] if low is None else [min(0, floor(low)), max(1, ceil(high))]


def histogram_of(rows: pl.DataFrame | pl.LazyFrame, metric: str) -> pl.DataFrame:
    """Numbers of latents by bin of a metric, for their own explanations and for another's."""
    first, last = ends_of(rows, metric)
    width = (last - first) / _SCORE_BINS
    place = ((pl.col("value") - first) / width + 1e-9).floor().clip(0, _SCORE_BINS - 1)
    valued = rows.lazy().filter(pl.col("value").is_not_null(), metric=metric)
    binned = valued.group_by(whose(), place=place).agg(latents=pl.len())
    edges = (
        (first + (pl.col("place") + step) * width).round(6).alias(name) for step, name in enumerate(("low", "high"))
    )
    return binned.select("explanation of", "latents", *edges).sort("explanation of", "low").collect(engine="streaming")


def judgement_means(judgements: pl.DataFrame) -> pl.DataFrame:
    """Mean judgement over latents with its 95 % interval, by decile (from 1, the weakest) of the windows' activation; the
    decile is null for windows in which the latent does not fire."""
    judgement = pl.coalesce("probability", "measure")
    each = judgements.filter(judgement.is_not_null()).group_by(whose(), pl.col("decile") + 1, "latent")
    groups = each.agg(judgement.mean().alias("mean")).partition_by("explanation of", "decile", as_dict=True)
    rows = [
        {"explanation of": whose, "decile": decile, **_interval(own["mean"].to_numpy())}
        for (whose, decile), own in groups.items()
    ]
    schema = {
        "explanation of": pl.String,
        "decile": pl.Int32,
        "mean": pl.Float64,
        "low": pl.Float64,
        "high": pl.Float64,
    }
    return pl.DataFrame(rows, schema=schema).sort("explanation of", "decile")


def _interval(values: np.ndarray) -> dict[str, float]:
    return dict(zip(("mean", "low", "high"), map(_four_digits, mean_interval(values)), strict=True))


def _four_digits(value: float) -> float:
    return float(f"{value:.4g}")
