"""JSON and compressed lines as forms write and read them: the same bytes each time, errors that name their place."""

import gzip
import json
import math
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import IO, Any, cast

from latentlake.corpora.opening import open_bytes
from latentlake.errors import InputError

_MOST = 2**31  # a latent's number is below


def as_json(value: Any) -> str:
    """A value as JSON, in one line; never NaN."""
    return json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))


def without_nul(value: Any) -> Any:
    """A value whose texts, wherever they are in it, lack the character NUL, which databases refuse."""
    if isinstance(value, str):
        return value.replace("\0", "")
    if isinstance(value, list):
        return [without_nul(each) for each in value]
    return {name: without_nul(each) for name, each in value.items()} if isinstance(value, dict) else value


class Batches:
    """Rows as lines of JSON in gzip files ``batch-0.jsonl.gz``, ``batch-1.jsonl.gz``, …; no file without rows."""

    def __init__(self, folder: Path, most: int) -> None:
        self._folder, self._most = folder, most
        self._n, self._counted = 0, 0
        self._file: IO[bytes] | None = None
        self._raw: IO[bytes] | None = None

    def add(self, rows: list[dict[str, Any]]) -> None:
        """Rows that stay together in a file, and count as one towards the most that a file holds."""
        if not rows:
            return
        if self._counted == self._most:
            self.close()
        if self._file is None:
            self._folder.mkdir(parents=True, exist_ok=True)
            self._raw = (self._folder / f"batch-{self._n}.jsonl.gz").open("wb")
            self._file = cast(
                IO[bytes], gzip.GzipFile(filename="", mode="wb", compresslevel=6, fileobj=self._raw, mtime=0)
            )
        self._file.write("".join(f"{as_json(row)}\n" for row in rows).encode())
        self._counted += 1

    def close(self) -> None:
        """The file under way is complete."""
        if self._file is not None and self._raw is not None:
            self._file.close()
            self._raw.close()
            self._file, self._counted, self._n = None, 0, self._n + 1

    def __enter__(self) -> "Batches":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def read_json(path: Path) -> Any:
    """A file of one JSON value.

    Raises:
        InputError: it is none, or says a key of an object twice.
    """
    try:
        return json.loads(path.read_bytes(), object_pairs_hook=_once)
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{path} is not JSON: {error}; write the file anew") from error


def read_lines(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """File and line, and the object, of each line of a file, compressed or not.

    Raises:
        InputError: a line is no object, or says a key twice; or the file is empty or broken.
    """
    number = 0
    try:
        with open_bytes(path) as file:
            for number, line in enumerate(file, start=1):
                if not line.strip():
                    continue
                place, row = f"{path}, line {number}", json.loads(line, object_pairs_hook=_once)
                if not isinstance(row, dict):
                    raise InputError(f"{place}: it must be an object, and is {row!r:.50}")
                yield place, row
    except (OSError, EOFError, zlib.error) as error:
        raise InputError(f"{path} cannot be read on after line {number}: {error}; write the file anew") from error
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}, line {number}: {error}; write the file anew") from error
    if number == 0:  # gzip takes a file of no bytes for one of no lines
        raise InputError(f"{path} is empty; write the file anew, or remove it")


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object each of whose keys is there once: of one that is there twice, JSON readers keep the last in silence."""
    found: dict[str, Any] = {}
    for name, value in pairs:
        if name in found:
            raise ValueError(f"the key {name!r:.50} is there twice")
        found[name] = value
    return found


def text_of(row: Mapping[str, Any], name: str, place: str, may_lack: bool = False) -> str | None:
    """A field that must be a text.

    Raises:
        InputError: it is something else, or not there.
    """
    value = row.get(name)
    if isinstance(value, str) or (value is None and may_lack):
        return value
    raise InputError(f"{place}, field {name!r}: it must be a text, and {_is(row, name)}")


def latent_of(row: Mapping[str, Any], name: str, place: str) -> int:
    """A field that must be the number of a latent, as a number or as a text.

    Raises:
        InputError: it is something else.
    """
    value = row.get(name)
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) < 11:
        value = int(value)
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < _MOST:
        return value
    raise InputError(f"{place}, field {name!r}: it must be the number of a latent, and {_is(row, name)}")


def number_of(row: Mapping[str, Any], name: str, place: str) -> float | None:
    """A field that must be a number, or null.

    Raises:
        InputError: it is something else.
    """
    value = row.get(name)
    if value is None:
        return None
    if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value):
        return float(value)
    raise InputError(f"{place}, field {name!r}: it must be a number, and {_is(row, name)}")


def rest_of(row: Mapping[str, Any], *known: str) -> dict[str, Any]:
    """What else a row says; what is null says nothing."""
    return {name: value for name, value in row.items() if name not in known and value not in (None, [], "")}


def _is(row: Mapping[str, Any], name: str) -> str:
    return f"is {row[name]!r:.50}" if name in row else "is not there"
