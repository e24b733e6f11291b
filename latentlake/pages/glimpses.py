"""Latents at a glance, as one picture in Markdown: for previews in a UI that shows pictures, and no HTML of others."""

from base64 import b64encode
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from latentlake.pages import style
from latentlake.pages.rendering import render, shown
from latentlake.pages.windows import highlighted

_WIDTH = 1000  # pixels, as are the others
_LINE, _GAP = 24, 12


@dataclass(frozen=True)
class Glimpse:
    """A latent at a glance. ``title``: which it is; ``said``: of it, if anything; ``note``: beneath, if anything.

    ``windows``: rows of `examples`, with what is said of each, as its ``verdict``, where it was judged, and whether that
    ``is_wrong``, None where that cannot be said. ``peak``: the largest activation, or None for that of the windows.
    """

    title: str
    said: str = ""
    windows: Sequence[Mapping[str, Any]] = ()
    note: str = ""
    peak: float | None = None

    @property
    def lines(self) -> int:
        """Lines that it takes, one each."""
        return 1 + bool(self.said) + len(self.windows) + bool(self.note)


def glimpses(latents: Sequence[Glimpse]) -> str:
    """Latents as a picture, a line each for title, words, windows and note: what is longer is cut. Empty without latents.

    The picture is an SVG that holds the HTML, on white also in a dark theme; what it says is its alternative text.
    """
    if not latents:
        return ""
    height = sum(each.lines * _LINE + _GAP for each in latents)
    body = [
        {"glimpse": each, "windows": [{**row, "html": highlighted(in_view(row), _peak(each))} for row in each.windows]}
        for each in latents
    ]
    svg = render("glimpses.svg", width=_WIDTH, height=height, line=_LINE, gap=_GAP, style=Markup(style()), latents=body)
    said = "; ".join(": ".join(filter(None, (each.title, each.said))) for each in latents)
    return f"![{_plain(said)}](data:image/svg+xml;base64,{b64encode(svg.encode()).decode()})"


def in_view(window: Mapping[str, Any], most: int = 60) -> dict[str, Any]:
    """A window without so much of its beginning that what the latent fires on most stands within ``most`` characters."""
    offsets, activations = window["offsets"], window["activations"]
    strongest = max(range(len(offsets)), key=lambda token: activations[token], default=0)
    first = next((token for token in range(strongest) if offsets[strongest] - offsets[token] <= most), strongest)
    cut = offsets[first] if first else 0
    return {
        **window,
        "text": ("…" if first else "") + window["text"][cut:],
        "offsets": [max(0, each - cut + bool(first)) if place else 0 for place, each in enumerate(offsets[first:])],
        "activations": activations[first:],
    }


def _peak(glimpse: Glimpse) -> float:
    if glimpse.peak is not None:
        return glimpse.peak
    return max((max(row["activations"], default=0.0) for row in glimpse.windows), default=0.0)


def _plain(text: str) -> str:
    """A text that Markdown takes as it is."""
    cleaned = " ".join(str(shown(text)).split())
    return "".join(f"\\{letter}" if letter in r"\`*_{}[]<>()#+-.!|&" else letter for letter in cleaned)
