"""Frames as text tables for a terminal."""

from typing import Any

import polars as pl

_PLAIN: dict[str, Any] = {
    "tbl_rows": -1,
    "tbl_cols": -1,
    "tbl_width_chars": 160,
    "fmt_str_lengths": 50,
    "tbl_hide_dataframe_shape": True,
    "tbl_hide_column_data_types": True,
    "tbl_formatting": "UTF8_BORDERS_ONLY",
}


def as_text(frame: pl.DataFrame, digits: int = 2) -> str:
    """All rows and columns, long strings cut at 50 characters, numbers rounded to ``digits``."""
    with pl.Config(**{**_PLAIN, "float_precision": digits}):
        return str(frame)


def two_digits(column: str) -> pl.Expr:
    """A number with two digits, as text; null stays null."""
    return pl.col(column).cast(pl.Decimal(10, 2)).cast(pl.String)


def with_interval(value: str, low: str, high: str) -> pl.Expr:
    """A value and its interval in one column: ``0.62 [0.56, 0.67]``; the value alone where it has none."""
    both = pl.format("{} [{}, {}]", *map(two_digits, (value, low, high)))
    return pl.coalesce(both, two_digits(value)).alias(value)
