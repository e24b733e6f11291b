"""Markdown previews on materialization pages: the first rows of tables."""

from collections.abc import Callable, Sequence
from typing import Any

import polars as pl

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


def _cell(value: Any, longest: int = _LONG) -> str:
    text = f"{value:.3f}" if isinstance(value, float) else "" if value is None else str(value)
    text = " ".join(text.split()).replace("|", "\\|")
    return text if len(text) <= longest else text[: longest - 1] + "…"
