"""Weights of coders that were trained, as files beside the tables of a lake, named by their content.

They are gigabytes, which rows of a table are not made for. What they are called is in the table ``coders``: a file is put there
before its row is published, and one of which no row speaks is deleted by maintenance.
"""

import shutil
import tempfile
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from functools import cached_property
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
from deltalake.fs import DeltaStorageHandler
from pyarrow.fs import FileSelector, FileSystem, LocalFileSystem, PyFileSystem, SubTreeFileSystem

from latentlake.digest import digest
from latentlake.errors import LakeError
from latentlake.files import file_sha256, publish
from latentlake.lake import Lake

_PIECE = 2**24  # bytes held at once


class _Store(DeltaStorageHandler):
    """delta-rs' way to object stores, which takes bytes where pyarrow hands over buffers."""

    def open_output_stream(self, path: str, metadata: dict[str, str] | None = None) -> pa.PythonFile:
        """A stream to write to."""
        return pa.PythonFile(_Bytes(self._handler.open_output_stream(path, metadata)), mode="w")


class _Bytes:
    """A stream that is given buffers and passes on bytes."""

    closed = False

    def __init__(self, stream: Any) -> None:
        self._stream = stream

    def write(self, data: Any) -> None:
        self._stream.write(bytes(data))

    def flush(self) -> None:
        self._stream.flush()

    def close(self) -> None:
        self.closed = True
        self._stream.close()


class Weights:
    """The files of one study's trained coders in a lake."""

    def __init__(self, lake: Lake) -> None:
        self._lake = lake

    @cached_property
    def _storage(self) -> FileSystem:
        """The folder of the files, wherever the lake lies."""
        address = self._lake.beside("weights")
        if self._lake.is_local:
            Path(address).mkdir(parents=True, exist_ok=True)
            return SubTreeFileSystem(str(Path(address).resolve()), LocalFileSystem())
        return PyFileSystem(_Store(address, dict(self._lake.storage_options) or None))

    def keep(self, folder: Path) -> list[dict[str, Any]]:
        """Put the files of a folder into the lake, those that are not there; returns name, SHA-256 and size of each."""
        rows = []
        for file in sorted(folder.iterdir()):
            name, size = file_sha256(file), file.stat().st_size
            if self._size(name) != size:
                with file.open("rb") as source, self._storage.open_output_stream(name) as target:
                    shutil.copyfileobj(source, target, _PIECE)
            rows.append({"file": file.name, "sha256": name, "bytes": size})
        return rows

    def unpacked(self, rows: pl.DataFrame, cache: Path) -> Path:
        """A folder with the files of which rows of ``coders`` speak: fetched once, and found again in the cache.

        Raises:
            LakeError: the lake does not have them as they were.
        """
        target = cache / "coders" / weights_digest(rows)[:16]
        if target.is_dir():
            return target
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".unpacking-", dir=target.parent) as scratch:
            made = Path(scratch) / "coder"
            made.mkdir()
            for file, name in rows.select("file", "sha256").iter_rows():
                self._fetch(name, made / file)
            publish(made, target)
        return target

    def sweep(self, hours: int) -> int:
        """Delete files of which no row speaks, older than so many hours; returns how many."""
        spoken_of = set(self._lake.scan("coders").select("sha256").collect()["sha256"])
        before = datetime.now(UTC) - timedelta(hours=hours)
        old = [name for name, changed in self._there() if name not in spoken_of and changed < before]
        for name in old:
            self._storage.delete_file(name)
        return len(old)

    def _there(self) -> Iterator[tuple[str, datetime]]:
        """Names of the files that there are, and when each was written."""
        if self._lake.version("coders") is None:
            return
        for info in self._storage.get_file_info(FileSelector("", recursive=True)):
            if info.is_file and info.mtime is not None:
                yield info.base_name, info.mtime.replace(tzinfo=info.mtime.tzinfo or UTC)

    def _size(self, name: str) -> int | None:
        info = self._storage.get_file_info(name)
        return info.size if info.is_file else None

    def _fetch(self, name: str, target: Path) -> None:
        try:
            with self._storage.open_input_stream(name) as source, target.open("wb") as opened:
                shutil.copyfileobj(source, opened, _PIECE)
        except OSError as error:
            raise LakeError(_lost(self._lake, name, str(error))) from error
        if file_sha256(target) != name:
            raise LakeError(_lost(self._lake, name, "its bytes are others"))


def weights_digest(rows: pl.DataFrame) -> str:
    """Digest of the files of which rows of ``coders`` speak."""
    return digest([list(row) for row in rows.select("file", "sha256").sort("file").iter_rows()])


def _lost(lake: Lake, name: str, why: str) -> str:
    return (
        f"{lake.beside('weights')}/{name}, a file of a trained coder, cannot be read: {why}. Put it back, or delete the coder's "
        "rows of the table `coders`, and it is trained again"
    )
