"""Dictionaries held against one another."""

from __future__ import annotations

from typing import TYPE_CHECKING

import polars as pl

from latentlake.charts.drawing import CELL, CORRELATIONS, INK, chart_of, on_white, scale, tooltip
from latentlake.console import two_digits
from latentlake.measures.comparing import cells, ordered, told

if TYPE_CHECKING:
    import altair as alt

_READABLE = 28  # pixels of a cell that take a figure
_BESIDE = {"its partner's": "#4c78a8", "another's": "#f58518"}


def picture(sums: pl.DataFrame, alike: pl.DataFrame) -> alt.VConcatChart:
    """Rows of `comparisons` and of `similarities`: maps of all pairs of dictionaries, by way of aligning and by explainer, and
    explanations of aligned latents beside those with partners exchanged."""
    import altair as alt

    said = explanation_maps(alike)
    lines = (_titled(nearness_maps(sums)), [*_titled(said), *([likeness(alike)] if said else [])])
    chart = alt.VConcatChart(vconcat=[alt.HConcatChart(hconcat=line) for line in lines if line])
    chart.resolve = alt.Resolve(scale=alt.ScaleResolveMap(color="independent"))
    return on_white(chart)


def nearness_maps(sums: pl.DataFrame) -> dict[str, alt.LayerChart]:
    """Rows of `comparisons`: maps of all pairs of dictionaries, by what they show."""
    shares = sums.filter(pl.col("by").is_in(["both", "activations"])).drop_nulls("share_firing")
    maps = {"share of latents that fire: similar": heat_map(shares, "share_firing")} if shares.height else {}
    ways = sums.filter(pl.col("by") != "both").drop_nulls("mean").partition_by("by", as_dict=True, maintain_order=True)
    return maps | {f"mean similarity by {by}": heat_map(own, "mean") for (by,), own in ways.items()}


def explanation_maps(alike: pl.DataFrame) -> dict[str, alt.LayerChart]:
    """Rows of `similarities`: maps of all pairs of dictionaries, by whose explanations they are of."""
    groups = told(alike).drop_nulls("mean").partition_by("explainer", as_dict=True, maintain_order=True)
    return {f"explanations of {explainer}: cosine": heat_map(own, "mean") for (explainer,), own in groups.items()}


def _titled(charts: dict[str, alt.LayerChart]) -> list[alt.LayerChart]:
    return [chart.properties(title=title) for title, chart in charts.items()]


def heat_map(rows: pl.DataFrame, value: str) -> alt.LayerChart:
    """A figure of each two dictionaries, in the order of their names."""
    import altair as alt

    shown = cells(rows, value).drop_nulls("value")
    names = ordered(shown["row"])
    step = max(18, min(CELL // 2, 320 // len(names)))
    base = alt.Chart(shown.with_columns(said=two_digits("value")), width=alt.Step(step), height=alt.Step(step)).encode(
        alt.X("column:N", title=None, sort=names),
        alt.Y("row:N", title=None, sort=names),
        tooltip=["row", "column", alt.Tooltip("value", format=".3f")],
    )
    color = alt.Color("value:Q", scale=alt.Scale(domain=[0, 1], range=CORRELATIONS[1:], interpolate="rgb"), legend=None)
    layers = [base.mark_rect().encode(color)]
    if step >= _READABLE:
        layers.append(base.mark_text(color=INK, fontSize=9).encode(text="said:N"))
    return alt.LayerChart(layer=layers)


def likeness(alike: pl.DataFrame) -> alt.LayerChart:
    """Rows of `similarities`: mean cosine of the explanations of aligned latents with its interval, and with partners
    exchanged."""
    import altair as alt

    rows = told(alike).drop_nulls("mean")
    several = rows["explainer"].n_unique() > 1
    who = pl.format("{} · {}", "pair", "explainer") if several else pl.col("pair")
    one, another = _BESIDE
    own = rows.select(who.alias("pair"), "mean", "low", "high", of=pl.lit(one))
    others = rows.select(who.alias("pair"), mean="shuffled", of=pl.lit(another))
    shown = pl.concat([own, others], how="diagonal").drop_nulls("mean")
    base = chart_of(shown, height=alt.Step(18)).encode(
        alt.Y("pair:N", title=None, axis=alt.Axis(labelLimit=220)),
        alt.Color("of:N", scale=scale(_BESIDE), legend=alt.Legend(orient="bottom", title="explanation beside")),
        tooltip=tooltip(shown),
    )
    x = alt.X("mean:Q", title="mean cosine of explanations, 95 % interval", scale=alt.Scale(zero=False))
    ends = base.mark_rule(strokeWidth=1.5).encode(alt.X("low:Q"), alt.X2("high"))
    return alt.LayerChart(layer=[ends, base.mark_point(filled=True, size=35, opacity=1).encode(x)])
