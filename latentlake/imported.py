"""What files say of latents: explanations as others release them, ratings by people. One file a dictionary.

``.json`` is one object of latents and what is said of them, ``{"12": "…"}``; ``.jsonl``, ``.csv`` and ``.parquet`` have the
columns ``latent`` and ``explanation`` or ``rating``. Any but Parquet may be compressed (``.gz``, ``.zst`` after the suffix).
"""

import hashlib
import io
import json
import sys
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import polars as pl

from latentlake.corpora import COMPRESSIONS
from latentlake.corpora.opening import open_bytes
from latentlake.errors import InputError, nearest
from latentlake.files import FileFacts


class Saying(NamedTuple):
    """What a file says of latents. ``column``: its name. ``one``, ``does``: the same in messages, as noun and verb. ``kind``: a
    text, which may be missing, or a number. ``is_repeated``: whether tables may say several of one latent.
    ``beside``: texts that may stand beside each, of files that are lines. ``may_be_empty``: whether a file may say nothing.
    """

    column: str
    one: str
    does: str
    kind: type[pl.String | pl.Float64]
    is_repeated: bool = False
    beside: tuple[str, ...] = ()
    may_be_empty: bool = False

    @property
    def must_be(self) -> str:
        """What an entry is refused with that is of another kind."""
        return f"{self.one} must be {'a text' if self.kind is pl.String else 'a number'}"


EXPLANATION = Saying("explanation", "an explanation", "explains", pl.String)
PIN = EXPLANATION._replace(beside=("by", "at"), may_be_empty=True)
RATING = Saying("rating", "a rating", "rates", pl.Float64, is_repeated=True)


@dataclass(frozen=True)
class File:
    """A file that was looked at. ``sha256``: of what it holds, decompressed. ``last``: the largest latent in it, -1 for none."""

    path: Path
    saying: Saying
    sha256: str
    last: int

    def read(self) -> pl.DataFrame:
        """Latents and what is said of them, in the order of latents and of the file.

        Raises:
            InputError: the file is no longer the one that was looked at.
        """
        data = _bytes(self.path)
        if hashlib.sha256(data).hexdigest() != self.sha256:
            raise InputError(f"{self.path} changed while it was being read. Start again once it is complete")
        return parse(self.path, self.saying, data)


def look(path: Path, saying: Saying, facts: FileFacts) -> File:
    """A file, read from end to end once: later calls remember it.

    Raises:
        InputError: it cannot be read, has another form, or what it says of a latent is of another kind or there twice.
    """
    if not path.is_file():
        raise InputError(f"there is no file {path}; it must hold {saying.column}s by latent")
    kind = "pins" if saying is PIN else f"{saying.column}s"
    return File(path, saying, **facts.get(path, kind, partial(_survey, saying)))


def _survey(saying: Saying, path: Path) -> dict[str, Any]:
    data = _bytes(path)
    rows = parse(path, saying, data)
    if rows.is_empty() and not saying.may_be_empty:
        raise InputError(f"{path} holds no {saying.column}; remove it from the study or fill it")
    return {"sha256": hashlib.sha256(data).hexdigest(), "last": int(rows["latent"][-1]) if len(rows) else -1}


def _bytes(path: Path) -> bytes:
    try:
        with open_bytes(path) as file:
            return file.read()
    except (OSError, EOFError, zlib.error) as error:
        raise InputError(f"{path} cannot be read: {error}; write the file anew") from error


def parse(path: Path, saying: Saying, data: bytes) -> pl.DataFrame:
    """Latents (int32) and what a file says of them, by latent; refused where a latent is no number, or what is said of it is of
    another kind or there twice."""
    suffixes = [suffix.lower() for suffix in path.suffixes if suffix.lower() not in COMPRESSIONS]
    form = _FORMS.get(suffixes[-1] if suffixes else "")
    if form is None:
        raise InputError(f"{path} has none of the suffixes {', '.join(_FORMS)}; give it the one of its form")
    if saying.beside and form.read is not _lines:
        raise InputError(f"{path}: pins are JSON lines; let the file end with .jsonl")
    try:
        rows = form.read(data, saying)
    except _BadEntryError as error:
        raise InputError(f"{path}, {form.place} {error.number}: {error.why}") from error
    except (ValueError, pl.exceptions.PolarsError) as error:
        raise InputError(f"{path} is not of the form that its suffix says: {error}; write the file anew") from error
    is_once = form.read is _object or not saying.is_repeated
    return _typed(rows, saying, is_once, lambda at: f"{path}, {form.place} {rows['number'][at]}")


def _typed(rows: pl.DataFrame, saying: Saying, is_once: bool, place: Callable[[int], str]) -> pl.DataFrame:
    """Latents as numbers, and texts or numbers, out of what a file says. ``rows``: number of the entry, latent as text, and what
    is said of it, numbers perhaps as text."""
    latent, said = rows["latent"], rows[saying.column]
    if (at := _first(~latent.str.contains(r"^[0-9]{1,9}$").fill_null(False))) is not None:
        raise InputError(f"{place(at)}: the latent must be the number of one, from 0, and is {latent[at]!r}")
    if saying.kind is pl.String:
        value = said.str.strip_chars()
    else:
        value = said.cast(pl.Float64, strict=False)
        if (at := _first(~value.is_finite().fill_null(False))) is not None:
            raise InputError(f"{place(at)}: {saying.must_be}, and is {said[at]!r:.50}")
    typed = pl.DataFrame({"latent": latent.cast(pl.Int32), saying.column: value, **{n: rows[n] for n in saying.beside}})
    if is_once and (at := _first(~typed["latent"].is_first_distinct())) is not None:
        raise InputError(
            f"{place(at)}: the latent {typed['latent'][at]} is there a second time; leave one {saying.column} of it"
        )
    return typed.sort("latent", maintain_order=True)


def _first(is_wrong: pl.Series) -> int | None:
    """Where the first entry is that is wrong."""
    return int(is_wrong.arg_max() or 0) if is_wrong.any() else None


class _BadEntryError(Exception):
    """An entry of a file that is none."""

    def __init__(self, number: int, why: str) -> None:
        super().__init__(why)
        self.number, self.why = number, why


class _Pairs(list[tuple[str, Any]]):
    """The pairs of a JSON object, repeated keys among them."""


def _object(data: bytes, saying: Saying) -> pl.DataFrame:
    """One object, as arXiv 2410.13928 releases them."""
    pairs = json.loads(data.decode("utf-8"), object_pairs_hook=_Pairs)
    if not isinstance(pairs, _Pairs):
        raise ValueError(f'it must be one object, {{"latent": {_like(saying)}, …}}')
    return _frame([(number, latent, said) for number, (latent, said) in enumerate(pairs, start=1)], saying)


def _lines(data: bytes, saying: Saying) -> pl.DataFrame:
    """One object a line."""
    entries = []
    for number, line in enumerate(io.BytesIO(data), start=1):
        if not line.strip():
            continue
        try:
            entry = json.loads(line.decode("utf-8"))
        except (ValueError, RecursionError) as error:
            raise _BadEntryError(number, f"not JSON: {error}") from error
        if not isinstance(entry, dict) or any(name not in entry for name in ("latent", saying.column)):
            raise _BadEntryError(number, f'it must be like {{"latent": 0, "{saying.column}": {_like(saying)}}}')
        entries.append((number, entry["latent"], entry[saying.column], *map(entry.get, saying.beside)))
    return _frame(entries, saying)


def _like(saying: Saying) -> str:
    return f'"{saying.column}"' if saying.kind is pl.String else "0.5"


def _frame(entries: list[tuple[Any, ...]], saying: Saying) -> pl.DataFrame:
    """``entries``: number, latent, what is said of it, and what stands beside."""
    for number, _, said, *beside in entries:
        if not _is_of_kind(said, saying):
            raise _BadEntryError(number, f"{saying.must_be}, and is {said!r:.50}")
        for name, text in zip(saying.beside, beside, strict=False):
            if not isinstance(text, str | None):
                raise _BadEntryError(number, f"{name!r} must be a text, and is {text!r:.50}")
    named = [(number, str(latent), *said) for number, latent, *said in entries]
    schema = {
        "number": pl.Int64,
        "latent": pl.String,
        saying.column: saying.kind,
        **dict.fromkeys(saying.beside, pl.String),
    }
    return pl.DataFrame(named, schema=schema, orient="row")


def _is_of_kind(said: Any, saying: Saying) -> bool:
    if saying.kind is pl.String:
        return said is None or isinstance(said, str)
    return isinstance(said, int | float) and not isinstance(said, bool) and abs(said) <= sys.float_info.max


def _csv(data: bytes, saying: Saying) -> pl.DataFrame:
    return _columns(pl.read_csv(data, infer_schema=False), saying)


def _parquet(data: bytes, saying: Saying) -> pl.DataFrame:
    frame = _columns(pl.read_parquet(data), saying)
    kind = frame[saying.column].dtype
    if kind != pl.Null and not (kind == pl.String if saying.kind is pl.String else kind.is_numeric()):
        raise ValueError(f"the column {saying.column!r}: {saying.must_be}, and is {kind}")
    return frame.cast({saying.column: saying.kind})


def _columns(frame: pl.DataFrame, saying: Saying) -> pl.DataFrame:
    names = ("latent", saying.column)
    missing = [name for name in names if name not in frame.columns]
    if missing:
        raise ValueError(f"there is no column {missing[0]!r}{nearest(missing[0], frame.columns)}")
    return frame.select(pl.col("latent").cast(pl.String), saying.column).with_row_index("number", offset=1)


class _Form(NamedTuple):
    """A form of files. ``place``: what an entry is called in messages. ``read``: number of each entry, latent, what is said."""

    place: str
    read: Callable[[bytes, Saying], pl.DataFrame]


_FORMS = {
    ".json": _Form("entry", _object),
    ".jsonl": _Form("line", _lines),
    ".ndjson": _Form("line", _lines),
    ".csv": _Form("row", _csv),
    ".parquet": _Form("row", _parquet),
}
