"""The corpus: which files and data sets there are, which shards they make, and the documents of a shard."""

import re
import zlib
from collections.abc import Generator, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from functools import partial
from glob import glob, has_magic
from itertools import islice, takewhile
from pathlib import Path
from typing import Any

from latentlake.corpora import COMPRESSIONS, Record, datasets, format_of, suffixes
from latentlake.digest import digest
from latentlake.errors import InputError
from latentlake.files import FileFacts, Stamp, file_sha256, stamp_of
from latentlake.sections.corpus import Corpus, Source


@dataclass(frozen=True)
class Shard:
    """A range of records of one file or data set. ``key``: unique and stable, ``<source>-<file>-0000``.

    ``name``: of the file, or of the data set and its split. ``content``: digest of all its records. ``path``: the file, with
    size and time of change as they were when its records were counted (``stamp``); of a data set the folder where relative
    names start, and no stamp.
    """

    key: str
    source: str
    name: str
    path: Path
    stamp: Stamp | None
    first: int
    documents: int
    content: str
    choices: Source

    @property
    def digest(self) -> str:
        """Digest of what decides the shard's documents."""
        return digest([self.content, self.first, self.documents, self.choices.reading])


@dataclass(frozen=True)
class Document:
    """A document: its name (a field of the record, or file and place), and its text, or the token ids that stand for it."""

    name: str
    text: str | None
    tokens: tuple[int, ...] | None = field(default=None)


def list_shards(corpus: Corpus, home: Path, facts: FileFacts) -> list[Shard]:
    """All shards of the corpus, in the order of the study, then of file names.

    Every file is read once from end to end, so that a bad record is found before any work; later calls remember it. Data sets
    are streamed, and their records are looked at when they are read.

    Raises:
        InputError: no file matches, a file is empty or not in its format, a document has no text.
    """
    shards: list[Shard] = []
    for name, source in corpus.sources.items():
        if source.dataset is not None:
            shards += _cut_dataset(name, source, home, facts, corpus.documents_per_shard)
            continue
        for path in _paths(name, source, home):
            known = facts.get(path, f"documents:{digest(source.reading)}", partial(_survey, source))
            shards += _cut_file(name, source, path, _stem_of(path, source, home), known, corpus.documents_per_shard)
    _require_unique(shards)
    return shards


def files(corpus: Corpus, home: Path) -> list[Path]:
    """The files of the corpus as they are now; nothing is read. Data sets are none.

    Raises:
        InputError: no file matches.
    """
    found = ((name, source) for name, source in corpus.sources.items() if source.dataset is None)
    return [path for name, source in found for path in _paths(name, source, home)]


def read_documents(shard: Shard) -> list[Document]:
    """The documents of a shard, in the order of the file.

    Raises:
        InputError: the file is not the one that was looked at when the shards were listed, or a record is no document.
    """
    _require_same(shard)
    with closing(_records_of(shard)) as records:
        part = list(islice(records, shard.documents))
    _require_same(shard)
    if len(part) < shard.documents:
        raise InputError(
            f"{shard.name} ends after {shard.first + len(part):,} records; lower corpus.sources.{shard.source}.documents"
        )
    documents = [_document(shard.path, shard.name, place, record, shard.choices) for place, record in part]
    return [document for document in documents if document is not None]


def files_of(pattern: str, home: Path) -> list[Path]:
    """The files that a glob means, in order.

    Raises:
        InputError: there are none.
    """
    found = (home / path for path in glob(pattern, root_dir=home, recursive=True))
    paths = sorted(path for path in found if path.is_file())
    if not paths:
        raise InputError(f"no file matches {home / pattern}; correct `path` in the study")
    return paths


def _paths(name: str, source: Source, home: Path) -> list[Path]:
    assert source.path is not None
    try:
        return files_of(source.path, home)
    except InputError as error:
        raise InputError(f"corpus.sources.{name}: {error}") from error


def _survey(source: Source, path: Path) -> dict[str, Any]:
    """Count a file's records, each of which must be a document, and digest its bytes."""
    count = 0
    with closing(_records(path, source, 0)) as records:
        documents = 0
        for place, record in records:
            count += 1
            documents += _document(path, path.name, place, record, source) is not None
    if not documents:
        raise InputError(f"{path} holds no documents; remove it from the corpus or fill it")
    return {"documents": count, "sha256": file_sha256(path)}


def _stem_of(path: Path, source: Source, home: Path) -> str:
    """A file's name in the keys of its shards: with the folders in which the glob found it."""
    assert source.path is not None
    fixed = takewhile(lambda part: not has_magic(part), Path(source.path).parts[:-1])
    inside = path.relative_to(home.joinpath(*fixed))
    return _stem("_".join([*inside.parts[:-1], path.name.split(".")[0]]))


def _cut_file(name: str, source: Source, path: Path, stem: str, known: dict[str, Any], size: int) -> Iterator[Shard]:
    stamp = stamp_of(path)
    for index, first, count in _ranges(known["documents"], size):
        yield Shard(f"{name}-{stem}-{index:04d}", name, path.name, path, stamp, first, count, known["sha256"], source)


def _cut_dataset(name: str, source: Source, home: Path, facts: FileFacts, size: int) -> Iterator[Shard]:
    assert source.documents is not None
    revision = datasets.revision_of(source, home, facts)
    there = datasets.length(source, home, revision)
    if there is not None and there < source.documents:
        raise InputError(
            f"corpus.sources.{name}: {source.dataset} has {there:,} records in {source.split!r}; `documents` asks for "
            f"{source.documents:,}"
        )
    label = f"{source.dataset}:{source.split}"
    for index, first, count in _ranges(source.documents, size):
        key = f"{name}-{_stem(source.split)}-{index:04d}"
        yield Shard(key, name, label, home, None, first, count, revision, source)


def _ranges(records: int, size: int) -> Iterator[tuple[int, int, int]]:
    """Number, first record and length of each shard."""
    for index, first in enumerate(range(0, records, size)):
        yield index, first, min(size, records - first)


def _stem(text: str) -> str:
    return re.sub(r"[^a-z0-9_]+", "_", text.lower())


def _require_unique(shards: list[Shard]) -> None:
    seen: dict[str, Shard] = {}
    for shard in shards:
        if shard.key in seen:
            raise InputError(
                f"{seen[shard.key].path} and {shard.path} both make the shard {shard.key}; rename one of the files, or give "
                "them to two sources"
            )
        seen[shard.key] = shard


def _require_same(shard: Shard) -> None:
    if shard.stamp is not None and (not shard.path.is_file() or stamp_of(shard.path) != shard.stamp):
        raise InputError(
            f"{shard.path} changed while it was being read; nothing of it was written. Start again once it is complete"
        )


def _records_of(shard: Shard) -> Generator[Record, None, None]:
    """A shard's records, and those after it."""
    if shard.choices.dataset is None:
        yield from _records(shard.path, shard.choices, shard.first)
    else:
        yield from datasets.records(shard.choices, shard.path, shard.content, shard.first)


def _records(path: Path, source: Source, first: int) -> Generator[Record, None, None]:
    format_ = format_of(path, source)
    if format_ is None:
        raise InputError(
            f"{path} has none of the suffixes {', '.join(suffixes())} (and {' or '.join(COMPRESSIONS)} after them); name its "
            "`format` in the study, or leave the file out of `path`"
        )
    with _readable(path):
        yield from format_.records(path, source, first)


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, EOFError, zlib.error) as error:
        raise InputError(f"{path} cannot be read: {error}; write the file anew") from error


def _document(path: Path, name: str, place: str, record: Any, source: Source) -> Document | None:
    """The document of a record; None where it is empty and empty ones are passed over."""
    where = f"{path}, {place}" if source.dataset is None else f"{name}, {place}"
    fields: Mapping[str, Any] = record if isinstance(record, dict) else {}
    own = (
        f"{name}:{place.rpartition(' ')[2]}" if source.id is None or source.id not in fields else str(fields[source.id])
    )
    if source.tokens is not None:
        tokens = fields.get(source.tokens)
        if tokens and not _are_ids(tokens):
            raise InputError(f"{where}: {source.tokens!r} must be a list of token ids; correct `tokens` in the study")
        document = Document(own, None, tuple(tokens)) if tokens else None
    else:
        text = fields.get(source.text)
        document = Document(own, text) if isinstance(text, str) and text.strip() else None
        if document is not None:
            _require_whole(where, str(text))
    if document is None and (source.empty == "refuse" or not _is_blank(fields, source)):
        raise InputError(
            f"{where}: no text in the field {(source.tokens or source.text)!r}; remove the record or fill it"
            + ("" if source.empty == "skip" else ", or pass over empty ones with `empty: skip`")
        )
    return document


def _is_blank(fields: Mapping[str, Any], source: Source) -> bool:
    """Whether a record has the field, with nothing in it: one that lacks it is another mistake."""
    wanted = source.tokens or source.text
    return wanted in fields and (fields[wanted] is None or not str(fields[wanted]).strip("[]").strip())


def _are_ids(tokens: Any) -> bool:
    return isinstance(tokens, list) and all(type(token) is int and token >= 0 for token in tokens)


def _require_whole(where: str, text: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise InputError(f"{where}: half a character in the text ({error.reason}); mend the text") from error
