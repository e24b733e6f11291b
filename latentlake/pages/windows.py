"""Windows as HTML: their tokens, marked by how strongly a latent fires on each."""

from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from math import ceil
from typing import Any

from markupsafe import Markup, escape

from latentlake.marking import pieces_of
from latentlake.pages.rendering import shown
from latentlake.sampling.texts import SEPARATOR

LEVELS = 10  # of marks


def highlighted(window: Mapping[str, Any], peak: float, values: Sequence[float] | None = None) -> Markup:
    """A window's text (``text``, ``offsets``) with a mark around each run of tokens of one strength.

    ``values``: of each token what is shown, from 0 to ``peak``; by default the window's ``activations``. Strengths are in ten
    equal steps, and of what is above 0 none is lost. Ends of lines and of documents are shown as signs.
    """
    given = window["activations"] if values is None else values
    pieces = pieces_of(window["text"], window["offsets"])
    whole = Markup("").join(_runs(zip(pieces, given, strict=True), peak))
    return Markup(whole.lstrip(" "))


def _runs(tokens: Iterator[tuple[str, float]], peak: float) -> Iterator[Markup]:
    for level, run in groupby(tokens, key=lambda token: level_of(token[1], peak)):
        text = "".join(piece for piece, _ in run)
        lead = text[: len(text) - len(text.lstrip(" "))] if level else ""
        rest = escape(in_signs(text[len(lead) :]))
        yield escape(lead) + (Markup('<mark class="ll-{}">{}</mark>').format(level, rest) if level else rest)


def level_of(value: float, peak: float) -> int:
    """The strength of a mark, 0 for none to 10 for the peak and beyond."""
    return min(LEVELS, ceil(LEVELS * value / peak)) if value > 0 and peak > 0 else 0


def token_in_signs(text: str) -> str:
    """A token by itself, spaces shown too."""
    return in_signs(text).rstrip(" ").replace(" ", "␣") if text.strip(" ") else "␣" * len(text)


def in_signs(text: str) -> str:
    """A text in one line: ends of lines and of documents as signs."""
    lines = str(shown(text.replace("\r\n", "\n").replace("\r", "\n")))
    return lines.replace(SEPARATOR, " ¶ ").replace("\n", "↵ ").replace("\t", "⇥ ")
