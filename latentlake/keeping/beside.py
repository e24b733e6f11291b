"""Files beside the tables of a study, in a folder or an object store: what rows of a table are not made for."""

import shutil
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from functools import cached_property
from pathlib import Path
from typing import IO, Any
from uuid import uuid4

from deltalake.fs import DeltaStorageHandler
from pyarrow.fs import FileSelector, FileSystem, LocalFileSystem, PyFileSystem, SubTreeFileSystem

from latentlake.lake import Lake

_PIECE = 2**24  # bytes held at once
_UNFINISHED = ".unfinished-"  # how names of files begin that are being written, or whose writer was killed


class _Store(DeltaStorageHandler):
    """delta-rs' way to object stores."""

    def put(self, path: str, source: IO[bytes]) -> None:
        """Write a file. What is not written to its end is not there: the stream is not closed then."""
        stream: Any = self._handler.open_output_stream(path, None)
        while piece := source.read(_PIECE):
            stream.write(piece)
        stream.close()


class Beside:
    """The files of one folder beside a study's tables; ``folder``: its name, or nothing for where the tables are."""

    def __init__(self, lake: Lake, folder: str = "") -> None:
        self._lake = lake
        self._address = lake.beside(folder).rstrip("/")

    @cached_property
    def _store(self) -> _Store:
        return _Store(self._address, dict(self._lake.storage_options) or None)

    @cached_property
    def _storage(self) -> FileSystem:
        """The folder, wherever the lake lies."""
        if self._lake.is_local:
            return SubTreeFileSystem(str(Path(self._address).resolve()), LocalFileSystem())
        return PyFileSystem(self._store)

    def put(self, name: str, source: IO[bytes]) -> None:
        """Write a file, in the place of one of that name: readers see the one or the other, whole. Object stores do so by
        themselves; in a folder it is written aside and moved into place.
        """
        if not self._lake.is_local:
            self._store.put(name, source)
            return
        Path(self._address).mkdir(parents=True, exist_ok=True)
        aside = f"{_UNFINISHED}{uuid4().hex}"
        with self._storage.open_output_stream(aside) as target:
            shutil.copyfileobj(source, target, _PIECE)
        self._storage.move(aside, name)

    def open(self, name: str) -> Any:
        """A file to read.

        Raises:
            OSError: there is none.
        """
        return self._storage.open_input_stream(name)

    def size(self, name: str) -> int | None:
        """Bytes of a file; None where there is none."""
        info = self._storage.get_file_info(name)
        return info.size if info.is_file else None

    def sweep(self, is_wanted: Callable[[str], bool], hours: int) -> int:
        """Delete files that are not wanted, or were never finished, older than so many hours; returns how many."""
        before = datetime.now(UTC) - timedelta(hours=hours)
        old = [
            name
            for name, changed in self._there()
            if changed < before and (name.startswith(_UNFINISHED) or not is_wanted(name))
        ]
        for name in old:
            with suppress(FileNotFoundError):  # its writer has just finished it
                self._storage.delete_file(name)
        return len(old)

    def _there(self) -> Iterator[tuple[str, datetime]]:
        """Names of the files of the folder, not of those under it, and when each was written."""
        for info in self._storage.get_file_info(FileSelector("", allow_not_found=True)):
            if info.is_file and info.mtime is not None:
                yield info.base_name, info.mtime.replace(tzinfo=info.mtime.tzinfo or UTC)
