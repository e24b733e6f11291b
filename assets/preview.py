"""Markdown previews on materialization pages: the first rows, and windows with their active tokens in bold."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import polars as pl

from latentlake.marking import mark, pieces_of

Frame = Callable[[str], pl.LazyFrame]
_ROWS = 8
_LONG = 60


def rows_preview(table: str, columns: Sequence[str]) -> Callable[[Frame], str]:
    """The first rows of some columns of a table."""
    return lambda frame: table_of(frame(table).select(columns).head(_ROWS).collect())


def table_of(rows: pl.DataFrame) -> str:
    """A frame as a Markdown table."""
    lines = ["| " + " | ".join(rows.columns) + " |", "|" + "---|" * rows.width]
    return "\n".join(lines + ["| " + " | ".join(map(_cell, row)) + " |" for row in rows.iter_rows()])


def highlighted(rows: Iterable[dict[str, Any]]) -> str:
    """Windows (text, offsets and activations) as a list, active tokens in bold."""
    marked = (
        mark(pieces_of(row["text"], row["offsets"]), row["activations"], _threshold(row), "**", "**") for row in rows
    )
    return "\n".join(f"- {_cell(each, 400)}" for each in marked)


def _threshold(row: dict[str, Any]) -> float:
    return 0.3 * max(row["activations"], default=0.0)


def _cell(value: Any, longest: int = _LONG) -> str:
    text = f"{value:.3f}" if isinstance(value, float) else "" if value is None else str(value)
    text = " ".join(text.split()).replace("|", "\\|")
    return text if len(text) <= longest else text[: longest - 1] + "…"
