"""How often latents fire, and of which kind they are."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import polars as pl

from latentlake.charts.drawing import AROUND, GREY, beside, chart_of, scale

if TYPE_CHECKING:
    import altair as alt

_SMALL = (150, 36)  # of a picture beside a text
_DENSITY_BIN = 0.25
_TRIAGE = {
    "ok": "#4c78a8",
    "single_token": "#72b7b2",
    "position_bound": "#b279a2",
    "dense": "#f58518",
    "rare": "#bab0ac",
    "dead": "#79706e",
}


def picture(rows: pl.DataFrame) -> alt.HConcatChart:
    """Rows of `latents`: how often latents fire, by triage, and how many fall to each triage."""
    return beside(density(rows), triage(rows))


def density(rows: pl.DataFrame | pl.LazyFrame) -> alt.Chart:
    """Rows of `latents`: how often latents fire, by triage."""
    import altair as alt

    histogram: alt.Chart = chart_of(densities(rows)).mark_bar()
    return histogram.encode(
        alt.X("low:Q", bin="binned", title="log10 of the share of tokens on which a latent fires"),
        alt.X2("high"),
        alt.Y("latents:Q"),
        alt.Color("triage:N", scale=scale(_TRIAGE), legend=None),
    )


def triage(rows: pl.DataFrame | pl.LazyFrame) -> alt.LayerChart:
    """Rows of `latents`: how many fall to each triage."""
    import altair as alt

    shares = chart_of(triage_shares(rows)).encode(alt.X("latents:Q"), alt.Y("triage:N", sort=list(_TRIAGE), title=None))
    bars = shares.mark_bar().encode(alt.Color("triage:N", scale=scale(_TRIAGE), legend=None))
    return alt.LayerChart(layer=[bars, shares.mark_text(align="left", dx=3, color=GREY).encode(text="label:N")])


def histogram(counts: Sequence[int]) -> alt.Chart:
    """How often a latent fires, by activation as a share of its largest, in equal bins: bars without axes."""
    import altair as alt

    rows = pl.DataFrame({"bin": range(len(counts)), "firings": counts})
    # some bins hold thousands of times as much as others
    height = alt.Y("firings:Q", axis=None, scale=alt.Scale(type="sqrt"))
    chart: alt.Chart = alt.Chart(rows, width=_SMALL[0], height=_SMALL[1]).mark_bar(color=AROUND)
    return chart.encode(alt.X("bin:O", axis=None), height)


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
