"""Weights of coders that were trained, as files beside the tables of a lake, named by their content.

They are gigabytes, which rows of a table are not made for. What they are called is in the table ``coders``: a file is put there
before its row is published, and one of which no row speaks is deleted by maintenance.
"""

import shutil
import tempfile
from pathlib import Path
from typing import Any

import polars as pl

from latentlake.digest import digest
from latentlake.errors import LakeError
from latentlake.files import file_sha256, publish
from latentlake.keeping.beside import Beside
from latentlake.lake import Lake

_PIECE = 2**24  # bytes held at once


class Weights:
    """The files of one study's trained coders in a lake."""

    def __init__(self, lake: Lake) -> None:
        self._lake = lake
        self._files = Beside(lake, "weights")

    def keep(self, folder: Path) -> list[dict[str, Any]]:
        """Put the files of a folder into the lake, those that are not there; returns name, SHA-256 and size of each."""
        rows = []
        for file in sorted(folder.iterdir()):
            name, size = file_sha256(file), file.stat().st_size
            if self._files.size(name) != size:
                with file.open("rb") as source:
                    self._files.put(name, source)
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
        if self._lake.version("coders") is None:
            return 0
        spoken_of = set(self._lake.scan("coders").select("sha256").collect()["sha256"])
        return self._files.sweep(spoken_of.__contains__, hours)

    def _fetch(self, name: str, target: Path) -> None:
        try:
            with self._files.open(name) as source, target.open("wb") as opened:
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
