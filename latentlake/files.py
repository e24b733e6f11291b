"""Facts about files that a study names (digest, number of documents), remembered by path, size and time of change."""

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from latentlake.errors import InputError, LakeError

Stamp = tuple[int, int]


class FileFacts:
    """A small memory of facts computed from files, kept as one JSON file in the cache folder.

    A fact is computed again when the file's size or time of change is another. The memory can be deleted at any time.
    """

    def __init__(self, folder: Path) -> None:
        self._path = folder / "files.json"
        self._facts: dict[str, Any] = json.loads(self._path.read_text()) if self._path.is_file() else {}

    def get(self, path: Path, kind: str, compute: Callable[[Path], Any]) -> Any:
        """The fact of this kind about a file; ``compute`` gives it as JSON values where it is not remembered.

        Raises:
            InputError: the file changed meanwhile.
        """
        stamp = stamp_of(path)
        key = f"{kind}:{path.resolve()}:{stamp[0]}:{stamp[1]}"
        if key not in self._facts:
            fact = compute(path)
            if stamp_of(path) != stamp:
                raise InputError(f"{path} changed while it was being read. Start again once it is complete")
            self._facts[key] = fact
            self._save()
        return self._facts[key]

    def of_content(self, digest: str, compute: Callable[[], Any]) -> Any:
        """The fact that follows from a digest alone, wherever the files lie that it is of."""
        if digest not in self._facts:
            self._facts[digest] = compute()
            self._save()
        return self._facts[digest]

    def sha256(self, path: Path) -> str:
        """SHA-256 of a file's bytes, in hex."""
        fact = self.get(path, "sha256", file_sha256)
        assert isinstance(fact, str)
        return fact

    def _save(self) -> None:
        """Write aside and move into place: a reader never sees half a file, and the last of two writers wins."""
        self._path.parent.mkdir(parents=True, exist_ok=True)
        aside = self._path.with_suffix(f".{os.getpid()}")
        aside.write_text(json.dumps(self._facts))
        aside.replace(self._path)


def stamp_of(path: Path) -> Stamp:
    """Size and time of change of a file."""
    stat = path.stat()
    return stat.st_size, stat.st_mtime_ns


def file_sha256(path: Path) -> str:
    """SHA-256 of a file's bytes, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def publish(made: Path, target: Path) -> None:
    """Move a finished folder into place; where another process was faster, its equal work stays."""
    try:
        os.replace(made, target)
    except OSError:
        if not target.is_dir():
            raise
        shutil.rmtree(made)


def require_room(folder: Path, overwrite: bool, mark: str) -> None:
    """A folder must not be there, or be empty, or with ``overwrite`` be one that `whole` made: it holds the file ``mark``.

    Raises:
        LakeError: it holds something.
    """
    if not folder.exists() or (folder.is_dir() and not _holds(folder)):
        return
    if not folder.is_dir():
        raise LakeError(f"{folder} is a file; name a folder to write into")
    if not overwrite:
        raise LakeError(
            f"the folder {folder} is not empty; name another, or replace what was written there by --overwrite"
        )
    if not (folder / mark).is_file():
        raise LakeError(f"the folder {folder} was not written by this command: it holds no {mark}; name another folder")


def _holds(folder: Path) -> bool:
    return folder.is_dir() and any(folder.iterdir())


@contextmanager
def whole(folder: Path) -> Iterator[Path]:
    """A new folder beside the one that is wanted, moved into its place at the end; after a failure nothing is left of it, and
    what was there before stands. A link to a folder stays one.

    Raises:
        LakeError: it cannot be written, or somebody else wrote it meanwhile.
    """
    folder = folder.resolve()
    held = _holds(folder)
    made, old = (folder.with_name(f".{folder.name}.{what}.{os.getpid()}") for what in ("new", "old"))
    try:
        made.mkdir(parents=True)
        yield made
        if not held and _holds(folder):
            raise LakeError(f"somebody else wrote into {folder} meanwhile; look at that, or name another folder")
        if folder.exists():
            folder.rename(old)
        made.rename(folder)
    except BaseException as error:
        shutil.rmtree(made, ignore_errors=True)
        if old.exists() and not folder.exists():
            old.rename(folder)
        if isinstance(error, OSError):
            raise LakeError(f"cannot write into {folder}: {error}; see to the room and the rights there") from error
        raise
    shutil.rmtree(old, ignore_errors=True)
