"""How near the latents of two dictionaries are."""

from __future__ import annotations

from typing import TYPE_CHECKING

import polars as pl

from latentlake.charts.drawing import chart_of, on_white

if TYPE_CHECKING:
    import altair as alt

_COSINE_BIN = 0.05


def picture(rows: pl.DataFrame) -> alt.LayerChart:
    """Rows of `alignments` of two dictionaries: how near latents are to their partners, by each way of aligning them."""
    import altair as alt

    ways = {"decoder_cosine": "decoder", "encoder_cosine": "encoder", "jaccard": "activations"}
    long = rows.select(*ways).rename(ways).unpivot(variable_name="by", value_name="similarity").drop_nulls()
    place = (pl.col("similarity") / _COSINE_BIN).floor() * _COSINE_BIN
    binned = long.group_by("by", low=place.round(3)).agg(latents=pl.len()).sort("by", "low")
    chart = chart_of(binned.with_columns(high=(pl.col("low") + _COSINE_BIN).round(3)))
    bars = chart.mark_bar(opacity=0.6).encode(
        alt.X("low:Q", bin="binned", title="cosine with the partner, or share of tokens"),
        alt.X2("high"),
        alt.Y("latents:Q", stack=None, axis=alt.Axis(tickMinStep=1)),
        alt.Color("by:N"),
    )
    return on_white(alt.LayerChart(layer=[bars]))
