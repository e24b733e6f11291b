"""What pages are made of, as HTML: templates with every text escaped."""

from __future__ import annotations

from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from latentlake.explorer.address import link
from latentlake.pages.figures import judge
from latentlake.pages.rendering import number, shown


def render(template: str, **what: Any) -> str:
    """A template filled in."""
    return _templates.get_template(f"{template}.html").render(link=link, judge=judge, **what)


def _count(value: int | None) -> str:
    return "–" if value is None else f"{value:,}"


def _share(value: float) -> str:
    return f"{100 * value:.2g} %"


def _figure(value: Any) -> str:
    """A cell of a table."""
    if value is None:
        return "–"
    if isinstance(value, float):
        return number(value, 0 if abs(value) >= 100 else 2)
    return f"{value:,}" if isinstance(value, int) else str(value)


_templates = Environment(
    loader=PackageLoader("latentlake.explorer"),
    autoescape=True,
    undefined=StrictUndefined,
    finalize=shown,
    trim_blocks=True,
)
_templates.filters |= {"count": _count, "number": number, "share": _share, "figure": _figure}
