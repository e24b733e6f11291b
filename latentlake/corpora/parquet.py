"""Parquet files: one document a row; only the columns that are asked for are read."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.parquet as pq

from latentlake.corpora import Record
from latentlake.errors import InputError, nearest
from latentlake.registry import FORMATS

if TYPE_CHECKING:
    from latentlake.sections.corpus import Source

_ROWS = 1024  # read at once: whole row groups of long texts may be gigabytes


@FORMATS.register("parquet")
class Parquet:
    """Parquet; row groups before the first row wanted are not read."""

    suffixes = (".parquet", ".pq")

    def records(self, path: Path, source: Source, first: int) -> Iterator[Record]:
        """The rows."""
        try:
            with pq.ParquetFile(path) as file:
                yield from self._rows(path, file, source, first)
        except pa.ArrowException as error:
            raise InputError(f"{path} is no Parquet file that can be read: {error}; write the file anew") from error

    def _rows(self, path: Path, file: pq.ParquetFile, source: Source, first: int) -> Iterator[Record]:
        columns = _columns(path, file, source)
        groups, row = _groups_from(file, first)
        for batch in file.iter_batches(_ROWS, row_groups=groups, columns=columns) if groups else ():
            for record in batch.to_pylist():
                if row >= first:
                    yield f"row {row}", record
                row += 1


def _columns(path: Path, file: pq.ParquetFile, source: Source) -> list[str]:
    there = file.schema_arrow.names
    wanted = source.tokens or source.text
    if wanted not in there:
        raise InputError(f"{path} has no column {wanted!r}{nearest(wanted, there)}; name the right one in the study")
    return [wanted, *([source.id] if source.id is not None and source.id in there else [])]


def _groups_from(file: pq.ParquetFile, first: int) -> tuple[list[int], int]:
    """The row groups from the one that holds a row on, and the number of the first row in them."""
    row = 0
    for group in range(file.num_row_groups):
        rows = file.metadata.row_group(group).num_rows
        if row + rows > first:
            return list(range(group, file.num_row_groups)), row
        row += rows
    return [], row
