"""Where documents come from: one module a kind of source, each giving records one after the other.

Here belongs what knows a file format or a library of data sets: how records are found, counted and skipped. What a record
must hold to be a document, and which shards there are, belongs to `latentlake.corpus`. A new file format is one new file
with one registered class.

Every class has ``suffixes`` (of the files it reads, without compression) and ``records(path, source, first)``, which yields
each record from the first-th on with its place in the file, for messages; records before ``first`` are passed over as
cheaply as the format allows. Memory does not grow with the file.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from latentlake.registry import FORMATS

if TYPE_CHECKING:
    from latentlake.sections.corpus import Source

Record = tuple[str, Mapping[str, Any]]
COMPRESSIONS = (".gz", ".zst")


class Format(Protocol):
    """A file format."""

    suffixes: tuple[str, ...]

    def records(self, path: Path, source: Source, first: int) -> Iterator[Record]:
        """Place and fields of each record from the first-th on, counted from 0."""
        ...


def format_of(path: Path, source: Source) -> Format | None:
    """The format of a file: the one that the source names, or the one with its suffix; None where no format has it."""
    known = FORMATS.classes()
    if source.format is not None:
        named: Format = FORMATS[source.format]()
        return named
    suffixes = [suffix.lower() for suffix in path.suffixes if suffix.lower() not in COMPRESSIONS]
    found = [cls for cls in known.values() if suffixes and suffixes[-1] in cls.suffixes]
    return found[0]() if found else None


def suffixes() -> list[str]:
    """The suffixes that some format has."""
    return sorted(suffix for cls in FORMATS.classes().values() for suffix in cls.suffixes)
