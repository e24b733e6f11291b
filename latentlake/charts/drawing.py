"""What charts have in common: their size, ground and colours, and how some stand beside one another."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

import polars as pl

if TYPE_CHECKING:
    import altair as alt

Chart = TypeVar("Chart", "alt.LayerChart", "alt.HConcatChart", "alt.VConcatChart")

AROUND = "currentColor"
CELL = 80  # width of a scorer in a matrix, twice its height
CORRELATIONS = ["#f58518", "#ffffff", "#4c78a8"]  # -1, 0, 1
INK, GREY = "#222222", "#8a8a8a"  # on cells of these colours; on white and on black
_WIDTH, _HEIGHT = 250, 150


def chart_of(rows: pl.DataFrame, height: int | alt.Step = _HEIGHT) -> alt.Chart:
    """A chart of some rows, of the size that charts have."""
    import altair as alt

    return alt.Chart(rows, width=_WIDTH, height=height)


def beside(*charts: Any) -> alt.HConcatChart:
    """Charts as one picture, on white in the dark theme too."""
    import altair as alt

    return on_white(alt.HConcatChart(hconcat=list(charts)))


def on_white(chart: Chart) -> Chart:
    """A chart as a picture that stands by itself."""
    import altair as alt

    chart.config = alt.Config(background="white", aria=False, axis=alt.AxisConfig(grid=False))
    return chart


def bare(chart: alt.Chart | alt.LayerChart, width: int | None = None) -> alt.Chart | alt.LayerChart:
    """A chart as it stands in a page, on the page's own ground. ``width``: of all of it, with axes, in pixels."""
    import altair as alt

    shown = chart.copy(deep=False)
    axis = alt.AxisConfig(grid=False, titleFontWeight="normal", domainColor=GREY, tickColor=GREY, labelOverlap=True)
    view = alt.ViewConfig(stroke=None)
    shown.config = alt.Config(background="transparent", aria=False, axis=axis, view=view)
    shown.usermeta = {"embedOptions": {"actions": False}}
    if width is not None:
        shown.padding = {"left": 0, "top": 5, "bottom": 5, "right": 24}  # of labels that stand beside the last bar
        shown.width, shown.autosize = width, alt.AutoSizeParams(type="fit-x", contains="padding")
    return shown


def tooltip(rows: pl.DataFrame) -> list[alt.Tooltip]:
    """All columns of some rows, to be told of each."""
    import altair as alt

    return [
        alt.Tooltip(name, format=".3~g") if kind.is_float() else alt.Tooltip(name) for name, kind in rows.schema.items()
    ]


def scale(colors: dict[str, str]) -> alt.Scale:
    """A colour for each name."""
    import altair as alt

    return alt.Scale(domain=list(colors), range=list(colors.values()))
