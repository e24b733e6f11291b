"""Dictionaries held against one another."""

from __future__ import annotations

from typing import TYPE_CHECKING

import polars as pl

from latentlake.charts.drawing import CELL, CORRELATIONS, INK, chart_of, on_white, scale, tooltip
from latentlake.comparing import cells, ordered
from latentlake.console import two_digits

if TYPE_CHECKING:
    import altair as alt

_READABLE = 28  # pixels of a cell that take a figure
_BESIDE = {"its partner's": "#4c78a8", "another's": "#f58518"}


def picture(sums: pl.DataFrame, alike: pl.DataFrame) -> alt.VConcatChart:
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
    return on_white(chart)


def heat_map(rows: pl.DataFrame, value: str, title: str) -> alt.LayerChart:
    """A figure of each two dictionaries, in the order of their names."""
    import altair as alt

    shown = cells(rows, value).drop_nulls("value")
    names = ordered(shown["row"])
    step = max(18, min(CELL // 2, 320 // len(names)))
    base = alt.Chart(
        shown.with_columns(said=two_digits("value")), width=alt.Step(step), height=alt.Step(step), title=title
    ).encode(
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

    several = alike["explainer"].n_unique() > 1
    who = pl.format("{} · {}", "pair", "explainer") if several else pl.col("pair")
    one, another = _BESIDE
    own = alike.select(who.alias("pair"), "mean", "low", "high", of=pl.lit(one))
    others = alike.select(who.alias("pair"), mean="shuffled", of=pl.lit(another))
    shown = pl.concat([own, others], how="diagonal").drop_nulls("mean")
    base = chart_of(shown, height=alt.Step(18)).encode(
        alt.Y("pair:N", title=None, axis=alt.Axis(labelLimit=220)),
        alt.Color("of:N", title="explanation beside", scale=scale(_BESIDE)),
        tooltip=tooltip(shown),
    )
    x = alt.X("mean:Q", title="mean cosine of explanations, 95 % interval", scale=alt.Scale(zero=False))
    ends = base.mark_rule(strokeWidth=1.5).encode(alt.X("low:Q"), alt.X2("high"))
    return alt.LayerChart(layer=[ends, base.mark_point(filled=True, size=35, opacity=1).encode(x)])
