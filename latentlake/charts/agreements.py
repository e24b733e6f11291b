"""How far scorers agree."""

from __future__ import annotations

from typing import TYPE_CHECKING

import polars as pl

from latentlake.charts.drawing import CELL, CORRELATIONS, INK, beside
from latentlake.console import two_digits
from latentlake.measures.agreement import cells

if TYPE_CHECKING:
    import altair as alt


def picture(rows: pl.DataFrame) -> alt.HConcatChart:
    """Rows of `agreements` of one dictionary: a matrix of scorers for each explainer, Spearman's correlations below the diagonal
    and Pearson's above, with their intervals."""
    return beside(*matrices(rows))


def matrices(rows: pl.DataFrame) -> list[alt.LayerChart]:
    """The same, a chart each."""
    return list(map(_matrix, cells(rows).partition_by("explainer", maintain_order=True)))


def _matrix(own: pl.DataFrame) -> alt.LayerChart:
    import altair as alt

    said = pl.coalesce(two_digits("value"), "error")
    ends = pl.format("[{}, {}]", two_digits("low"), two_digits("high")).fill_null("")
    title = f"{own['explainer'][0]} (below: Spearman's, above: Pearson's)"
    size = CELL * own["row"].n_unique()
    base = alt.Chart(own.with_columns(said=said, ends=ends), width=size, height=size / 2, title=title).encode(
        alt.X("column:N", title=None, axis=alt.Axis(labelAngle=0)), alt.Y("row:N", title=None)
    )
    color = alt.Color("value:Q", scale=alt.Scale(domain=[-1, 0, 1], range=CORRELATIONS, interpolate="rgb"), legend=None)
    rects = base.mark_rect().encode(color)
    return alt.LayerChart(
        layer=[
            rects,
            base.mark_text(dy=-5, color=INK).encode(text="said:N"),
            base.mark_text(dy=8, fontSize=9, color=INK).encode(text="ends:N"),
        ]
    )
