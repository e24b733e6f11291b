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
