"""Frames as text tables for a terminal."""

from typing import Any

import polars as pl

_PLAIN: dict[str, Any] = {
    "tbl_rows": -1,
    "tbl_cols": -1,
    "tbl_width_chars": 160,
    "fmt_str_lengths": 50,
    "float_precision": 2,
    "tbl_hide_dataframe_shape": True,
    "tbl_hide_column_data_types": True,
    "tbl_formatting": "UTF8_BORDERS_ONLY",
}


def as_text(frame: pl.DataFrame) -> str:
    """All rows and columns, long strings cut at 50 characters."""
    with pl.Config(**_PLAIN):
        return str(frame)
