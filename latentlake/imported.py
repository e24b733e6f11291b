"""Explanations from files: one file a dictionary, as others release them.

``.json`` is one object of latents and their explanations, ``{"12": "…"}``; ``.jsonl``, ``.csv`` and ``.parquet`` have the
columns ``latent`` and ``explanation``. Any but Parquet may be compressed (``.gz``, ``.zst`` after the suffix).
"""

import hashlib
import io
import json
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import polars as pl

from latentlake.corpora import COMPRESSIONS
from latentlake.corpora.opening import open_bytes
from latentlake.errors import InputError, nearest
from latentlake.files import FileFacts

COLUMNS = ("latent", "explanation")


@dataclass(frozen=True)
class File:
    """A file that was looked at. ``sha256``: of what it holds, decompressed. ``last``: the largest latent in it."""

    path: Path
    sha256: str
    last: int

    def read(self) -> pl.DataFrame:
        """Latents and explanations, text or null, each latent once, by latent.

        Raises:
            InputError: the file is no longer the one that was looked at.
        """
        data = _bytes(self.path)
        if hashlib.sha256(data).hexdigest() != self.sha256:
            raise InputError(f"{self.path} changed while it was being read. Start again once it is complete")
        return parse(self.path, data)


def look(path: Path, facts: FileFacts) -> File:
    """A file, read from end to end once: later calls remember it.

    Raises:
        InputError: it cannot be read, has another form, or a latent in it is no number or is there twice.
    """
    if not path.is_file():
        raise InputError(f"there is no file {path}; it must hold explanations by latent")
    return File(path, **facts.get(path, "explanations", _survey))


def _survey(path: Path) -> dict[str, Any]:
    data = _bytes(path)
    rows = parse(path, data)
    if rows.is_empty():
        raise InputError(f"{path} holds no explanation; remove it from the study or fill it")
    return {"sha256": hashlib.sha256(data).hexdigest(), "last": int(rows["latent"][-1])}


def _bytes(path: Path) -> bytes:
    try:
        with open_bytes(path) as file:
            return file.read()
    except (OSError, EOFError, zlib.error) as error:
        raise InputError(f"{path} cannot be read: {error}; write the file anew") from error


def parse(path: Path, data: bytes) -> pl.DataFrame:
    """Latents (int32) and explanations of a file, by latent; refused where a latent is no number or is there twice."""
    suffixes = [suffix.lower() for suffix in path.suffixes if suffix.lower() not in COMPRESSIONS]
    form = _FORMS.get(suffixes[-1] if suffixes else "")
    if form is None:
        raise InputError(f"{path} has none of the suffixes {', '.join(_FORMS)}; give it the one of its form")
    try:
        rows = form.read(data)
    except _BadEntryError as error:
        raise InputError(f"{path}, {form.place} {error.number}: {error.why}") from error
    except (ValueError, pl.exceptions.PolarsError) as error:
        raise InputError(f"{path} is not of the form that its suffix says: {error}; write the file anew") from error
    return _typed(rows, lambda at: f"{path}, {form.place} {rows['number'][at]}")


def _typed(rows: pl.DataFrame, place: Callable[[int], str]) -> pl.DataFrame:
    """Numbers and texts out of what a file says. ``rows``: number of the entry, latent as text, explanation."""
    latent = rows["latent"]
    wrong = ~latent.str.contains(r"^[0-9]{1,9}$").fill_null(False)
    if wrong.any():
        at = int(wrong.arg_max() or 0)
        raise InputError(f"{place(at)}: the latent must be the number of one, from 0, and is {latent[at]!r}")
    typed = rows.select(pl.col("latent").cast(pl.Int32), pl.col("explanation").str.strip_chars())
    again = ~typed["latent"].is_first_distinct()
    if again.any():
        at = int(again.arg_max() or 0)
        raise InputError(
            f"{place(at)}: the latent {typed['latent'][at]} is there a second time; leave one explanation of it"
        )
    return typed.sort("latent")


class _BadEntryError(Exception):
    """An entry of a file that is none."""

    def __init__(self, number: int, why: str) -> None:
        super().__init__(why)
        self.number, self.why = number, why


class _Pairs(list[tuple[str, Any]]):
    """The pairs of a JSON object, repeated keys among them."""


def _object(data: bytes) -> pl.DataFrame:
    """One object, as arXiv 2410.13928 releases them."""
    pairs = json.loads(data.decode("utf-8"), object_pairs_hook=_Pairs)
    if not isinstance(pairs, _Pairs):
        raise ValueError('it must be one object, {"latent": "explanation", …}')
    return _frame([(number, latent, text) for number, (latent, text) in enumerate(pairs, start=1)])


def _lines(data: bytes) -> pl.DataFrame:
    """One object a line."""
    entries = []
    for number, line in enumerate(io.BytesIO(data), start=1):
        if not line.strip():
            continue
        try:
            entry = json.loads(line.decode("utf-8"))
        except (ValueError, RecursionError) as error:
            raise _BadEntryError(number, f"not JSON: {error}") from error
        if not isinstance(entry, dict) or any(name not in entry for name in COLUMNS):
            raise _BadEntryError(number, 'it must be like {"latent": 0, "explanation": "…"}')
        entries.append((number, entry["latent"], entry["explanation"]))
    return _frame(entries)


def _frame(entries: list[tuple[int, Any, Any]]) -> pl.DataFrame:
    for number, _, text in entries:
        if text is not None and not isinstance(text, str):
            raise _BadEntryError(number, f"an explanation must be a text, and is {text!r:.50}")
    named = [(number, str(latent), text) for number, latent, text in entries]
    return pl.DataFrame(named, schema={"number": pl.Int64, "latent": pl.String, "explanation": pl.String}, orient="row")


def _csv(data: bytes) -> pl.DataFrame:
    return _columns(pl.read_csv(data, infer_schema=False))


def _parquet(data: bytes) -> pl.DataFrame:
    return _columns(pl.read_parquet(data))


def _columns(frame: pl.DataFrame) -> pl.DataFrame:
    missing = [name for name in COLUMNS if name not in frame.columns]
    if missing:
        raise ValueError(f"there is no column {missing[0]!r}{nearest(missing[0], frame.columns)}")
    if frame["explanation"].dtype not in (pl.String, pl.Null):
        raise ValueError(f"the column 'explanation' must be text, and is {frame['explanation'].dtype}")
    return frame.select(*(pl.col(name).cast(pl.String) for name in COLUMNS)).with_row_index("number", offset=1)


class _Form(NamedTuple):
    """A form of files. ``place``: what an entry is called in messages. ``read``: number of each entry, latent, explanation."""

    place: str
    read: Callable[[bytes], pl.DataFrame]


_FORMS = {
    ".json": _Form("entry", _object),
    ".jsonl": _Form("line", _lines),
    ".ndjson": _Form("line", _lines),
    ".csv": _Form("row", _csv),
    ".parquet": _Form("row", _parquet),
}
