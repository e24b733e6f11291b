"""What says more as a picture than as numbers: frames in, charts out, and charts as Markdown.

Altair and what renders it take most of a second to start: they are imported where a chart is made.
"""

from __future__ import annotations

import re
from base64 import b64encode
from collections.abc import Callable, Sequence
from math import ceil, floor
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl

from latentlake.aggregates import OWN, whose
from latentlake.agreement import cells
from latentlake.comparing import cells as pairs_as_cells
from latentlake.comparing import ordered
from latentlake.metrics import mean_interval
from latentlake.scorers import NONE

if TYPE_CHECKING:
    import altair as alt

_WIDTH, _HEIGHT = 250, 150
_PLACES = ("d", "transform", "x", "y", "x1", "x2", "y1", "y2")
_ATTRIBUTE = re.compile(r' (d|transform|x|y|x1|x2|y1|y2|role|aria-[a-z]+)="[^"]*"')
_FRACTION = re.compile(r"(\.\d\d)\d+")
_SMALL = (150, 36)  # of a picture beside a text
_AROUND = "currentColor"
_CELL = 80  # width of a scorer in a matrix, twice its height
_CORRELATIONS = ["#f58518", "#ffffff", "#4c78a8"]  # -1, 0, 1
_INK, _GREY = "#222222", "#8a8a8a"  # on cells of these colours; on white and on black
_DENSITY_BIN = 0.25
_SCORE_BINS = 20
_COSINE_BIN = 0.05
_READABLE = 28  # pixels of a cell that take a figure
_MOST_STEPS = 500  # of a loss curve, which is no wider in pixels
_TRIAGE = {
    "ok": "#4c78a8",
    "single_token": "#72b7b2",
    "position_bound": "#b279a2",
    "dense": "#f58518",
    "rare": "#bab0ac",
    "dead": "#79706e",
}
WHOSE = {
    OWN: "#4c78a8",
    "another latent": "#f58518",
    "nothing": "#bab0ac",
    "the latent, random push": "#72b7b2",
}
_BESIDE = {"its partner's": "#4c78a8", "another's": "#f58518"}


def image(chart: Callable[..., alt.TopLevelMixin], *frames: pl.DataFrame) -> str:
    """A chart of some frames as an image in Markdown."""
    return f"![](data:image/svg+xml;base64,{b64encode(svg(chart(*frames)).encode()).decode()})"


def svg(chart: alt.TopLevelMixin) -> str:
    """A chart as SVG: a third of what the same PNG weighs, and sharp at any size."""
    import vl_convert

    return vl_convert.vegalite_to_svg(_spec(chart))


def _spec(chart: alt.TopLevelMixin) -> dict[str, Any]:
    """What is drawn; not held against the schema, which takes most of the time that a small chart takes."""
    return chart.to_dict(validate=False)


def inline(chart: alt.TopLevelMixin) -> str:
    """A chart as SVG that stands in HTML: without a ground, lines and letters in the colour of the text around it."""
    spec = _spec(chart)
    line = dict.fromkeys(("labelColor", "titleColor", "domainColor", "tickColor"), _AROUND)
    own = {
        "background": None,
        "aria": False,
        "axis": {**line, "gridOpacity": 0.2},
        "legend": line,
        "title": {"color": _AROUND},
    }
    spec["config"] = {**spec.get("config", {}), **own, "view": {"stroke": None}}
    import vl_convert

    return _slim(vl_convert.vegalite_to_svg(spec))


def _slim(svg: str) -> str:
    """A picture without what its parts are called, and places to a hundredth of a pixel: half of what it weighs."""
    return _ATTRIBUTE.sub(lambda found: _FRACTION.sub(r"\1", found[0]) if found[1] in _PLACES else "", svg)


def histogram(counts: Sequence[int]) -> alt.Chart:
    """How often a latent fires, by activation as a share of its largest, in equal bins: bars without axes."""
    import altair as alt

    rows = pl.DataFrame({"bin": range(len(counts)), "firings": counts})
    # some bins hold thousands of times as much as others
    height = alt.Y("firings:Q", axis=None, scale=alt.Scale(type="sqrt"))
    chart: alt.Chart = alt.Chart(rows, width=_SMALL[0], height=_SMALL[1]).mark_bar(color=_AROUND)
    return chart.encode(alt.X("bin:O", axis=None), height)


def latents(rows: pl.DataFrame) -> alt.HConcatChart:
    """Rows of `latents`: how often latents fire, by triage, and how many fall to each triage."""
    return _beside(density(rows), triage(rows))


def density(rows: pl.DataFrame | pl.LazyFrame) -> alt.Chart:
    """Rows of `latents`: how often latents fire, by triage."""
    import altair as alt

    histogram: alt.Chart = _chart(densities(rows)).mark_bar()
    return histogram.encode(
        alt.X("low:Q", bin="binned", title="log10 of the share of tokens on which a latent fires"),
        alt.X2("high"),
        alt.Y("latents:Q"),
        alt.Color("triage:N", scale=_scale(_TRIAGE), legend=None),
    )


def triage(rows: pl.DataFrame | pl.LazyFrame) -> alt.LayerChart:
    """Rows of `latents`: how many fall to each triage."""
    import altair as alt

    shares = _chart(triage_shares(rows)).encode(alt.X("latents:Q"), alt.Y("triage:N", sort=list(_TRIAGE), title=None))
    bars = shares.mark_bar().encode(alt.Color("triage:N", scale=_scale(_TRIAGE), legend=None))
    return alt.LayerChart(layer=[bars, shares.mark_text(align="left", dx=3, color=_GREY).encode(text="label:N")])


def scores(
    rows: pl.DataFrame, judgements: pl.DataFrame, metric: str = "auroc", chance: float | None = 0.5
) -> alt.HConcatChart:
    """Rows of `scores` and of `judgements`: one metric of latents, and judgements by decile of activation, each of the latent's
    own explanation and of the controls.

    Dashed: chance, and the judgements of windows in which the latent does not fire.
    """
    import altair as alt

    legend = alt.Legend(orient="right", title="explanation of") if rows["control"].count() else None
    color = alt.Color("explanation of:N", scale=_scale(WHOSE), legend=legend)
    return _beside(distribution(rows, metric, chance, color), _by_decile(judgements, color))


def distribution(
    rows: pl.DataFrame | pl.LazyFrame, metric: str, chance: float | None, color: alt.Color | None = None
) -> alt.LayerChart:
    """Rows of `scores`: one metric of latents, of their own explanations and of the controls; dashed: chance."""
    import altair as alt

    color = color or alt.Color("explanation of:N", scale=_scale(WHOSE), legend=None)
    title = {"auroc": "AUROC"}.get(metric, metric)
    histogram = (
        _chart(histogram_of(rows, metric))
        .mark_bar(opacity=0.6)
        .encode(
            alt.X("low:Q", bin="binned", title=title, scale=alt.Scale(domain=ends_of(rows, metric))),
            alt.X2("high"),
            alt.Y("latents:Q", stack=None, axis=alt.Axis(tickMinStep=1)),
            color,
        )
    )
    at_chance = [] if chance is None else [chance]
    line = _chart(pl.DataFrame({metric: at_chance})).mark_rule(strokeDash=[4, 3], color=_GREY).encode(x=f"{metric}:Q")
    return alt.LayerChart(layer=[histogram, line])


def means(rows: pl.DataFrame) -> alt.LayerChart:
    """Rows of `aggregates` of one dictionary in main metrics: mean score over latents with its 95 % interval, a line an explainer
    and scorer, of the latents' own explanations beside the controls."""
    import altair as alt

    who = pl.when(explainer=NONE).then(pl.col("scorer")).otherwise(pl.format("{} · {}", "scorer", "explainer"))
    shown = rows.select(who.alias("scorer"), whose(), "mean", "low", "high", "latents")
    base = _chart(shown, height=alt.Step(9)).encode(
        alt.Y("scorer:N", title=None, axis=alt.Axis(labelLimit=220)),
        alt.YOffset("explanation of:N", sort=list(WHOSE)),
        alt.Color("explanation of:N", scale=_scale(WHOSE), legend=None),
        tooltip=_tooltip(shown),
    )
    x = alt.X("mean:Q", title="mean over latents, 95 % interval", scale=alt.Scale(zero=False))
    ends = base.mark_rule(strokeWidth=1.5).encode(alt.X("low:Q"), alt.X2("high"))
    return alt.LayerChart(layer=[ends, base.mark_point(filled=True, size=35, opacity=1).encode(x)])


def along(rows: pl.DataFrame, place: str, title: str) -> alt.LayerChart:
    """Means with intervals along some ``place``, a line a scorer. Columns: scorer, the place, mean, low, high, latents."""
    import altair as alt

    base = _chart(rows).encode(
        alt.X(f"{place}:Q", title=title, axis=alt.Axis(tickMinStep=1)),
        alt.Color(
            "scorer:N", legend=alt.Legend(orient="bottom", title=None, columns=3, labelLimit=110, symbolOpacity=1)
        ),
        tooltip=_tooltip(rows),
    )
    y = alt.Y("mean:Q", title="mean score, 95 % interval", scale=alt.Scale(zero=False))
    band = base.mark_area(opacity=0.12).encode(alt.Y("low:Q"), alt.Y2("high"))
    return alt.LayerChart(layer=[band, base.mark_line(point=True).encode(y)])


def bare(chart: alt.Chart | alt.LayerChart, width: int | None = None) -> alt.Chart | alt.LayerChart:
    """A chart as it stands in a page, on the page's own ground. ``width``: of all of it, with axes, in pixels."""
    import altair as alt

    shown = chart.copy(deep=False)
    axis = alt.AxisConfig(grid=False, titleFontWeight="normal", domainColor=_GREY, tickColor=_GREY, labelOverlap=True)
    view = alt.ViewConfig(stroke=None)
    shown.config = alt.Config(background="transparent", aria=False, axis=axis, view=view)
    shown.usermeta = {"embedOptions": {"actions": False}}
    if width is not None:
        shown.padding = {"left": 0, "top": 5, "bottom": 5, "right": 24}  # of labels that stand beside the last bar
        shown.width, shown.autosize = width, alt.AutoSizeParams(type="fit-x", contains="padding")
    return shown


def training(steps: pl.DataFrame) -> alt.HConcatChart:
    """Rows of `trainings`: share of variance that each step left unexplained, and latents that counted as dead; of many steps,
    means over neighbours."""
    import altair as alt

    size = -(-steps.height // _MOST_STEPS)
    together = (pl.int_range(pl.len()) // max(1, size)).alias("group")
    thinned = steps.sort("step").group_by(together, maintain_order=True).agg(pl.all().exclude("dictionary").mean())
    lines = _chart(thinned).mark_line(strokeWidth=1)
    x = alt.X("tokens:Q", title="tokens seen")
    unexplained = alt.Y("variance_unexplained:Q", title="share of variance unexplained", scale=alt.Scale(domainMin=0))
    return _beside(lines.encode(x, unexplained), lines.encode(x, alt.Y("dead:Q", title="dead latents")))


def agreements(rows: pl.DataFrame) -> alt.HConcatChart:
    """Rows of `agreements` of one dictionary: a matrix of scorers for each explainer, Spearman's correlations below the diagonal
    and Pearson's above, with their intervals."""
    return _beside(*matrices(rows))


def matrices(rows: pl.DataFrame) -> list[alt.LayerChart]:
    """The same, a chart each."""
    return list(map(_matrix, cells(rows).partition_by("explainer", maintain_order=True)))


def _matrix(own: pl.DataFrame) -> alt.LayerChart:
    import altair as alt

    said = pl.coalesce(_figure("value"), "error")
    ends = pl.format("[{}, {}]", _figure("low"), _figure("high")).fill_null("")
    title = f"{own['explainer'][0]} (below: Spearman's, above: Pearson's)"
    size = _CELL * own["row"].n_unique()
    base = alt.Chart(own.with_columns(said=said, ends=ends), width=size, height=size / 2, title=title).encode(
        alt.X("column:N", title=None, axis=alt.Axis(labelAngle=0)), alt.Y("row:N", title=None)
    )
    color = alt.Color(
        "value:Q", scale=alt.Scale(domain=[-1, 0, 1], range=_CORRELATIONS, interpolate="rgb"), legend=None
    )
    rects = base.mark_rect().encode(color)
    return alt.LayerChart(
        layer=[
            rects,
            base.mark_text(dy=-5, color=_INK).encode(text="said:N"),
            base.mark_text(dy=8, fontSize=9, color=_INK).encode(text="ends:N"),
        ]
    )


def alignments(rows: pl.DataFrame) -> alt.LayerChart:
    """Rows of `alignments` of two dictionaries: how near latents are to their partners, by each way of aligning them."""
    import altair as alt

    ways = {"decoder_cosine": "decoder", "encoder_cosine": "encoder", "jaccard": "activations"}
    long = rows.select(*ways).rename(ways).unpivot(variable_name="by", value_name="similarity").drop_nulls()
    place = (pl.col("similarity") / _COSINE_BIN).floor() * _COSINE_BIN
    binned = long.group_by("by", low=place.round(3)).agg(latents=pl.len()).sort("by", "low")
    chart = _chart(binned.with_columns(high=(pl.col("low") + _COSINE_BIN).round(3)))
    bars = chart.mark_bar(opacity=0.6).encode(
        alt.X("low:Q", bin="binned", title="cosine with the partner, or share of tokens"),
        alt.X2("high"),
        alt.Y("latents:Q", stack=None, axis=alt.Axis(tickMinStep=1)),
        alt.Color("by:N"),
    )
    picture = alt.LayerChart(layer=[bars])
    picture.config = alt.Config(background="white", aria=False, axis=alt.AxisConfig(grid=False))
    return picture


def comparisons(sums: pl.DataFrame, alike: pl.DataFrame) -> alt.VConcatChart:
    """Rows of `comparisons` and of `similarities`: maps of all pairs of dictionaries, by way of aligning and by explainer, and
    explanations of aligned latents beside those with partners exchanged."""
    import altair as alt

    shares = sums.filter(pl.col("by").is_in(["both", "activations"]), pl.col("error").is_null())
    cosines = sums.filter(pl.col("by") != "both")
    maps = [*([heat_map(shares, "share_firing", "share of latents that fire: similar")] if shares.height else [])]
    maps += [
        heat_map(own, "mean", f"mean similarity by {by}")
        for (by,), own in cosines.drop_nulls("mean").partition_by("by", as_dict=True, maintain_order=True).items()
    ]
    best = alike.filter(pl.col("by").is_in(["decoder", "activations"])).drop_nulls("mean")
    groups = best.partition_by("explainer", as_dict=True, maintain_order=True).items()
    said = [heat_map(own, "mean", f"explanations of {explainer}: cosine") for (explainer,), own in groups]
    lines = [[chart for chart in line if chart] for line in (maps, [*said, *([likeness(best)] if said else [])])]
    chart = alt.VConcatChart(vconcat=[alt.HConcatChart(hconcat=line) for line in lines if line])
    chart.resolve = alt.Resolve(scale=alt.ScaleResolveMap(color="independent"))
    chart.config = alt.Config(background="white", aria=False, axis=alt.AxisConfig(grid=False))
    return chart


def heat_map(rows: pl.DataFrame, value: str, title: str) -> alt.LayerChart:
    """A figure of each two dictionaries, in the order of their names."""
    import altair as alt

    shown = pairs_as_cells(rows, value).drop_nulls("value")
    names = ordered(shown["row"])
    step = max(18, min(_CELL // 2, 320 // len(names)))
    base = alt.Chart(
        shown.with_columns(said=_figure("value")), width=alt.Step(step), height=alt.Step(step), title=title
    ).encode(
        alt.X("column:N", title=None, sort=names),
        alt.Y("row:N", title=None, sort=names),
        tooltip=["row", "column", alt.Tooltip("value", format=".3f")],
    )
    color = alt.Color(
        "value:Q", scale=alt.Scale(domain=[0, 1], range=_CORRELATIONS[1:], interpolate="rgb"), legend=None
    )
    layers = [base.mark_rect().encode(color)]
    if step >= _READABLE:
        layers.append(base.mark_text(color=_INK, fontSize=9).encode(text="said:N"))
    return alt.LayerChart(layer=layers)


def likeness(alike: pl.DataFrame) -> alt.LayerChart:
    """Rows of `similarities`: mean cosine of the explanations of aligned latents with its interval, and with partners
    exchanged."""
    import altair as alt

    several = alike["explainer"].n_unique() > 1
    who = pl.format("{} · {}", "pair", "explainer") if several else pl.col("pair")
    one, another = _BESIDE
    own = alike.select(who.alias("pair"), "mean", "low", "high", of=pl.lit(one))
    others = alike.select(who.alias("pair"), mean="shuffled", of=pl.lit(another))
    shown = pl.concat([own, others], how="diagonal").drop_nulls("mean")
    base = _chart(shown, height=alt.Step(18)).encode(
        alt.Y("pair:N", title=None, axis=alt.Axis(labelLimit=220)),
        alt.Color("of:N", title="explanation beside", scale=_scale(_BESIDE)),
        tooltip=_tooltip(shown),
    )
    x = alt.X("mean:Q", title="mean cosine of explanations, 95 % interval", scale=alt.Scale(zero=False))
    ends = base.mark_rule(strokeWidth=1.5).encode(alt.X("low:Q"), alt.X2("high"))
    return alt.LayerChart(layer=[ends, base.mark_point(filled=True, size=35, opacity=1).encode(x)])


def _figure(name: str) -> pl.Expr:
    return pl.col(name).cast(pl.Decimal(10, 2)).cast(pl.String)


def _by_decile(judgements: pl.DataFrame, color: alt.Color) -> alt.LayerChart:
    import altair as alt

    means = judgement_means(judgements)
    without = means.filter(pl.col("decile").is_null())
    dashed = "" if without.is_empty() else " (dashed: the latent does not fire)"
    y = alt.Y("mean:Q", title="mean judgement, 95 % interval", scale=alt.Scale(zero=False))
    firing = _chart(means.drop_nulls("decile")).encode(
        alt.X("decile:O", title=f"decile of activation{dashed}", axis=alt.Axis(labelAngle=0)),
        color=color,
    )
    silent = _chart(without).encode(y, color=color)
    band = firing.mark_area(opacity=0.2).encode(alt.Y("low:Q"), alt.Y2("high"))
    return alt.LayerChart(layer=[band, firing.mark_line().encode(y), silent.mark_rule(strokeDash=[4, 3])])


def densities(rows: pl.DataFrame | pl.LazyFrame) -> pl.DataFrame:
    """Numbers of latents that fire, by triage and bin of log10 density."""
    low = (pl.col("density").log10() / _DENSITY_BIN).floor() * _DENSITY_BIN
    binned = rows.lazy().filter(pl.col("density") > 0).group_by("triage", low=low).agg(latents=pl.len())
    return binned.with_columns(high=pl.col("low") + _DENSITY_BIN).sort("low", "triage").collect(engine="streaming")


def triage_shares(rows: pl.DataFrame | pl.LazyFrame) -> pl.DataFrame:
    """Numbers of latents by triage, with the share of all as a label."""
    share = (100 * pl.col("latents") / pl.col("latents").sum()).round(1)
    counted = rows.lazy().group_by("triage").agg(latents=pl.len()).collect(engine="streaming")
    return counted.with_columns(label=pl.format("{} %", share)).sort("triage")


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


def _chart(rows: pl.DataFrame, height: int | alt.Step = _HEIGHT) -> alt.Chart:
    import altair as alt

    return alt.Chart(rows, width=_WIDTH, height=height)


def _tooltip(rows: pl.DataFrame) -> list[alt.Tooltip]:
    import altair as alt

    return [
        alt.Tooltip(name, format=".3~g") if kind.is_float() else alt.Tooltip(name) for name, kind in rows.schema.items()
    ]


def _scale(colors: dict[str, str]) -> alt.Scale:
    import altair as alt

    return alt.Scale(domain=list(colors), range=list(colors.values()))


def _beside(*charts: Any) -> alt.HConcatChart:
    """Charts as one picture, on white in the dark theme too."""
    import altair as alt

    chart = alt.HConcatChart(hconcat=list(charts))
    chart.config = alt.Config(background="white", aria=False, axis=alt.AxisConfig(grid=False))
    return chart
