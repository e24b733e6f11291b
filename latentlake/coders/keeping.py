"""A trained coder's files as rows of the table ``coders``, and back: so the lake holds them, on whatever storage it lies."""

import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import polars as pl

from latentlake.digest import digest

_PART = 2**26  # bytes


def parts(folder: Path) -> Iterator[dict[str, Any]]:
    """The files of a folder, cut into parts: name, number, SHA-256 and bytes."""
    for file in sorted(folder.iterdir()):
        with file.open("rb") as opened:
            numbered = enumerate(iter(lambda opened=opened: opened.read(_PART), b""))  # type: ignore[misc]
            for number, data in numbered:
                yield {
                    "file": file.name,
                    "part": number,
                    "sha256": hashlib.sha256(data).hexdigest(),
                    "data": data,
                }


def weights_digest(rows: pl.LazyFrame) -> str:
    """Digest of the files that rows hold."""
    return digest(
        [list(row) for row in rows.select("file", "part", "sha256").sort("file", "part").collect().iter_rows()]
    )


def unpacked(rows: pl.LazyFrame, cache: Path) -> Path:
    """A folder with the files that rows hold: made once, and found again in the cache."""
    target = cache / "coders" / weights_digest(rows)[:16]
    if target.is_dir():
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".unpacking-", dir=target.parent) as scratch:
        made = Path(scratch) / "coder"
        made.mkdir()
        for file, data in rows.sort("file", "part").select("file", "data").collect().iter_rows():
            with (made / file).open("ab") as opened:
                opened.write(data)
        _publish(made, target)
    return target


def _publish(made: Path, target: Path) -> None:
    """Move a finished folder into place; where another process was faster, its equal work stays."""
    try:
        os.replace(made, target)
    except OSError:
        if not target.is_dir():
            raise
        shutil.rmtree(made)
