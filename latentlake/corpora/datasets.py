"""Hugging Face data sets, streamed: from the hub by repository id, or from a folder. Needs the extra ``datasets``."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from latentlake.corpora import Record
from latentlake.digest import digest
from latentlake.errors import InputError
from latentlake.files import FileFacts
from latentlake.hub import dataset_commit

if TYPE_CHECKING:
    from latentlake.sections.corpus import Source


def folder_of(source: Source, home: Path) -> Path | None:
    """The folder of a local data set; None for one on the hub."""
    assert source.dataset is not None
    path = home / source.dataset
    return path if path.is_dir() else None


def revision_of(source: Source, home: Path, facts: FileFacts) -> str:
    """What the contents follow from: of a folder the digest of its files, of the hub the commit that the revision names.

    Raises:
        InputError: the hub cannot be asked, or has no such data set.
    """
    folder = folder_of(source, home)
    if folder is not None:
        files = sorted(each for each in folder.rglob("*") if each.is_file() and _is_content(each.relative_to(folder)))
        return digest([[each.relative_to(folder).as_posix(), facts.sha256(each)] for each in files])
    if source.revision and re.fullmatch(r"[0-9a-f]{40}", source.revision):
        return source.revision
    return dataset_commit(str(source.dataset), source.revision)


def _is_content(inside: Path) -> bool:
    """Whether a file is of the data set, and not what its library left there."""
    return not inside.name.startswith("cache-") and not any(part.startswith(".") for part in inside.parts)


def records(source: Source, home: Path, revision: str, first: int) -> Iterator[Record]:
    """Place and fields of each record from the first-th on.

    Raises:
        InputError: the library is not installed, or the data set cannot be opened.
    """
    rows = _opened(source, home, revision)
    wanted = [source.tokens or source.text, *([source.id] if source.id else [])]
    if rows.column_names is not None:
        rows = rows.select_columns([name for name in wanted if name in rows.column_names])
    yield from zip((f"record {number}" for number in itertools.count(first)), rows.skip(first), strict=False)


def length(source: Source, home: Path, revision: str) -> int | None:
    """Number of records, where the data set says so."""
    opened = _opened(source, home, revision)
    split = (opened.info.splits or {}).get(source.split)
    return None if split is None else int(split.num_examples)


def _opened(source: Source, home: Path, revision: str) -> Any:
    try:
        import datasets
    except ImportError as error:
        raise InputError(
            f"the data set {source.dataset!r} is read by a library that is not installed: pip install 'latentlake[datasets]'"
        ) from error
    folder = folder_of(source, home)
    try:
        if folder is None:
            return datasets.load_dataset(
                source.dataset, source.subset, split=source.split, revision=revision, streaming=True
            )
        if (folder / "state.json").is_file() or (folder / "dataset_dict.json").is_file():
            saved = datasets.load_from_disk(str(folder))
            return (saved[source.split] if isinstance(saved, datasets.DatasetDict) else saved).to_iterable_dataset()
        return datasets.load_dataset(str(folder), source.subset, split=source.split, streaming=True)
    except (OSError, ValueError, KeyError) as error:
        raise InputError(
            f"the data set {source.dataset!r} cannot be opened: {error}; correct `dataset`, `subset` and `split` in the study"
        ) from error
