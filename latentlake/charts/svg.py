"""Charts as SVG, as a file, in Markdown or within HTML."""

from __future__ import annotations

import re
from base64 import b64encode
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import polars as pl

from latentlake.charts.drawing import AROUND

if TYPE_CHECKING:
    import altair as alt

_PLACES = ("d", "transform", "x", "y", "x1", "x2", "y1", "y2")
_ATTRIBUTE = re.compile(r' (d|transform|x|y|x1|x2|y1|y2|role|aria-[a-z]+)="[^"]*"')
_FRACTION = re.compile(r"(\.\d\d)\d+")


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
    line = dict.fromkeys(("labelColor", "titleColor", "domainColor", "tickColor"), AROUND)
    own = {
        "background": None,
        "aria": False,
        "axis": {**line, "gridOpacity": 0.2},
        "legend": line,
        "title": {"color": AROUND},
    }
    spec["config"] = {**spec.get("config", {}), **own, "view": {"stroke": None}}
    import vl_convert

    return _slim(vl_convert.vegalite_to_svg(spec))


def _slim(svg: str) -> str:
    """A picture without what its parts are called, and places to a hundredth of a pixel: half of what it weighs."""
    return _ATTRIBUTE.sub(lambda found: _FRACTION.sub(r"\1", found[0]) if found[1] in _PLACES else "", svg)
