"""What a table is: its columns, keys, identity, layout; rows held against them before they are written."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import polars as pl
import pyarrow as pa
import pyarrow.types

from latentlake.errors import LakeError


@dataclass(frozen=True)
class Column:
    """A column: name, Arrow type, what it holds (with units), and whether it may be null."""

    name: str
    type: pa.DataType
    doc: str
    nullable: bool = False


@dataclass(frozen=True)
class Layout:
    """How Parquet files are written: rows a group, encodings by column (plain where absent), compression level."""

    row_group: int
    encodings: Mapping[str, str]
    zstd_level: int = 3


@dataclass(frozen=True)
class Table:
    """A table. ``identity``: the columns whose rows make a data version. ``partition_by``: the unit of replacement.

    ``is_shared``: one for all studies of a lake.
    """

    name: str
    doc: str
    columns: tuple[Column, ...]
    keys: tuple[str, ...]
    identity: tuple[str, ...] = ()
    partition_by: tuple[str, ...] = ()
    layout: Layout | None = None
    is_shared: bool = False

    @cached_property
    def schema(self) -> pa.Schema:
        """Arrow schema, with the documentation in the fields' metadata."""
        return pa.schema([pa.field(c.name, c.type, c.nullable, {"comment": c.doc}) for c in self.columns])

    def empty(self) -> pl.DataFrame:
        """A frame without rows."""
        return self._empty.clone()

    @cached_property
    def _empty(self) -> pl.DataFrame:
        frame = pl.from_arrow(self.schema.empty_table())
        assert isinstance(frame, pl.DataFrame)
        return frame

    def conform(self, rows: pa.Table | pl.DataFrame) -> pa.Table:
        """Rows as the table declares them: its columns in order and type.

        Raises:
            LakeError: a column is missing or of another type, a value is null where none may be, a key occurs twice.
        """
        arrow = rows.to_arrow(compat_level=pl.CompatLevel.oldest()) if isinstance(rows, pl.DataFrame) else rows
        missing = [c.name for c in self.columns if c.name not in arrow.column_names]
        if missing:
            raise LakeError(
                f"table {self.name}: the column(s) {', '.join(missing)} are missing from the rows to be written"
            )
        arrow = arrow.select([c.name for c in self.columns])
        for column, field in zip(self.columns, arrow.schema, strict=True):
            if not _is_kind(field.type, column.type):
                raise LakeError(f"table {self.name}: column {column.name} is {field.type}, it must be {column.type}")
        try:
            arrow = arrow.cast(self.schema)
        except (pa.ArrowInvalid, ValueError) as error:
            raise LakeError(f"table {self.name}: the rows to be written do not fit its columns: {error}") from error
        self._check_values(arrow)
        return arrow

    def _check_values(self, rows: pa.Table) -> None:
        for column in self.columns:
            if not column.nullable and rows[column.name].null_count:
                raise LakeError(f"table {self.name}: {rows[column.name].null_count} null(s) in column {column.name}")
        if self.keys:
            keys = pl.from_arrow(rows.select(list(self.keys)))
            assert isinstance(keys, pl.DataFrame)
            repeated = 0 if _ascend(keys) else keys.height - keys.n_unique()
            if repeated:
                raise LakeError(f"table {self.name}: {repeated} row(s) repeat the key ({', '.join(self.keys)})")


def _ascend(keys: pl.DataFrame) -> bool:
    """Whether each row comes after the one before it, so that none is there twice: a tenth of the cost of counting them."""
    is_after = pl.lit(False)
    for name in reversed(keys.columns):
        own, before = pl.col(name), pl.col(name).shift(1)
        is_after = (own > before) | ((own == before) & is_after)
    return bool(keys.select(is_after.slice(1).fill_null(False).all()).item())


def _is_kind(found: pa.DataType, declared: pa.DataType) -> bool:
    """Whether a type differs from the declared one in width alone: a cast then changes no value or fails."""
    if pa.types.is_nested(declared):
        if pa.types.is_struct(declared):
            return pa.types.is_struct(found) and all(_is_kind(found.field(f.name).type, f.type) for f in declared)
        is_list = pa.types.is_list(found) or pa.types.is_large_list(found)
        return is_list and _is_kind(found.value_type, declared.value_type)
    kinds = (pa.types.is_integer, pa.types.is_floating, pa.types.is_boolean, pa.types.is_temporal, _is_text)
    return pa.types.is_null(found) or any(is_kind(found) and is_kind(declared) for is_kind in kinds)


def _is_text(type_: pa.DataType) -> bool:
    is_text: bool = pa.types.is_string(type_) or pa.types.is_large_string(type_) or pa.types.is_string_view(type_)
    return is_text
