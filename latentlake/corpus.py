"""The corpus on disk: which files there are, which shards they make, and the documents of a shard."""

import gzip
import json
import re
import zlib
from collections.abc import Generator, Iterator
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from glob import glob
from itertools import islice
from pathlib import Path
from typing import Any

from latentlake.digest import digest
from latentlake.errors import InputError
from latentlake.files import FileFacts, file_sha256
from latentlake.study import Corpus, Source


@dataclass(frozen=True)
class Shard:
    """A range of documents of one file. ``key``: unique and stable, ``<source>-<file>-0000``."""

    key: str
    source: str
    path: Path
    first: int
    documents: int
    file_digest: str
    choices: Source

    @property
    def digest(self) -> str:
        """Digest of what decides the shard's documents."""
        return digest([self.file_digest, self.first, self.documents, self.choices.text, self.choices.id])


@dataclass(frozen=True)
class Document:
    """A document: its name (a field of the record, or file and line) and its text."""

    name: str
    text: str


def list_shards(corpus: Corpus, home: Path, facts: FileFacts) -> list[Shard]:
    """All shards of the corpus, in the order of the study, then of file names.

    Every file is read once from end to end, so that a bad line is found before any work; later calls remember it.

    Raises:
        InputError: no file matches, a file is empty or not JSON lines, a document has no text.
    """
    shards: list[Shard] = []
    for name, source in corpus.sources.items():
        for path in _paths(name, source, home):
            known = facts.get(path, f"documents:{source.text}:{source.id}", partial(_survey, source))
            shards += _cut(name, source, path, known, corpus.documents_per_shard)
    _require_unique(shards)
    return shards


def files(corpus: Corpus, home: Path) -> list[Path]:
    """The files of the corpus as they are now; nothing is read.

    Raises:
        InputError: no file matches.
    """
    return [path for name, source in corpus.sources.items() for path in _paths(name, source, home)]


def read_documents(shard: Shard) -> list[Document]:
    """The documents of a shard, in the order of the file."""
    with closing(_documents(shard.path, shard.choices)) as documents:
        return list(islice(documents, shard.first, shard.first + shard.documents))


def _paths(name: str, source: Source, home: Path) -> list[Path]:
    found = (home / path for path in glob(source.path, root_dir=home, recursive=True))
    paths = sorted(path for path in found if path.is_file())
    if not paths:
        raise InputError(f"corpus.sources.{name}: no file matches {home / source.path}; correct `path` in the study")
    return paths


def _survey(source: Source, path: Path) -> dict[str, Any]:
    count = sum(1 for _ in _documents(path, source))
    if not count:
        raise InputError(f"{path} holds no documents; remove it from the corpus or fill it")
    return {"documents": count, "sha256": file_sha256(path)}


def _cut(name: str, source: Source, path: Path, known: dict[str, Any], size: int) -> Iterator[Shard]:
    stem = re.sub(r"[^a-z0-9_]+", "_", path.name.split(".")[0].lower())
    for index, first in enumerate(range(0, known["documents"], size)):
        count = min(size, known["documents"] - first)
        yield Shard(f"{name}-{stem}-{index:04d}", name, path, first, count, known["sha256"], source)


def _require_unique(shards: list[Shard]) -> None:
    seen: dict[str, Path] = {}
    for shard in shards:
        if shard.key in seen:
            raise InputError(
                f"{seen[shard.key]} and {shard.path} both make the shard {shard.key}; rename one of the files, or give "
                "them to two sources"
            )
        seen[shard.key] = shard.path


def _documents(path: Path, source: Source) -> Generator[Document, None, None]:
    with closing(_lines(path)) as lines:
        for number, line in lines:
            yield _document(path, number, _record(path, number, line), source)


def _record(path: Path, number: int, line: str) -> Any:
    try:
        return json.loads(line)
    except json.JSONDecodeError as error:
        raise InputError(
            f"{path}, line {number}: not JSON ({error}); the file must hold one JSON object a line"
        ) from error


def _document(path: Path, number: int, record: Any, source: Source) -> Document:
    text = record.get(source.text) if isinstance(record, dict) else None
    if not isinstance(text, str) or not text.strip():
        raise InputError(f"{path}, line {number}: no text in the field {source.text!r}; remove the line or fill it")
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise InputError(
            f"{path}, line {number}: half a character in the text ({error.reason}); mend the text"
        ) from error
    return Document(str(record[source.id]) if source.id and source.id in record else f"{path.name}:{number}", text)


def _lines(path: Path) -> Generator[tuple[int, str], None, None]:
    """Lines that are not blank, with their numbers from 1."""
    opened = gzip.open if path.suffix == ".gz" else open
    try:
        with opened(path, "rt", encoding="utf-8") as file:
            for number, line in enumerate(file, start=1):
                if line.strip():
                    yield number, line
    except (OSError, EOFError, UnicodeDecodeError, zlib.error) as error:
        raise InputError(f"{path} cannot be read: {error}; write the file anew") from error
