"""The texts of windows: as they stand in the documents; where a corpus gives tokens, as these are decoded.

A character belongs to the first of the tokens that it is made of. So the texts of a context's tokens, put together, are the
context's text, and that of a window is a piece of it. BOS has no text; between documents stands `SEPARATOR`.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

import numpy as np
import polars as pl
import pyarrow as pa

from latentlake.protocols import Subject
from latentlake.sampling.contexts import Contexts

# Unicode's paragraph separator: a line break would make windows of different tokens one text.
SEPARATOR = "\u2029"
_BROKEN = "\ufffd"  # what a tokenizer gives for a part of a character
_MOST_PARTS = 8  # tokens in which a character is looked for; it has four bytes at most


@dataclass(frozen=True)
class Texts:
    """The text of all contexts.

    ``contexts``: UTF-8, binary [contexts]. ``byte``, ``character``: int32 [positions], where in its context's text that of each
    position begins. ``end``: int32 [positions], byte at which it ends.
    """

    of: Contexts
    contexts: pl.Series
    byte: np.ndarray
    character: np.ndarray
    end: np.ndarray

    def windows(self, starts: np.ndarray, length: int) -> pl.Series:
        """Texts of whole windows of so many tokens."""
        begins = self.byte[starts]
        size = self.end[starts + (length - 1)] - begins
        frame = pl.DataFrame({"context": self.of.of[starts], "begin": begins, "size": size})
        gathered = pl.lit(self.contexts).gather(pl.col("context"))
        return frame.select(gathered.bin.slice("begin", "size").cast(pl.String)).to_series().alias("text")

    def offsets(self, starts: np.ndarray, length: int) -> np.ndarray:
        """Character of its window's text at which the text of each token begins, int32 [windows, length]."""
        offsets = self.of.within(self.character, starts, length)
        offsets -= offsets[:, :1].copy()
        return offsets


def read_texts(
    contexts: Contexts, rows: pl.LazyFrame, documents: pl.LazyFrame, subject: Callable[[], Subject], has_bos: bool
) -> Texts:
    """The texts of contexts. ``rows``, ``documents``: of the tables ``contexts`` and ``documents``. ``subject``: opened to decode
    where there are no documents. ``has_bos``: whether contexts open with BOS.
    """
    is_bos = np.zeros(contexts.size, dtype=bool)
    is_bos[contexts.start[:-1]] = has_bos
    pieces = np.where(is_bos, 0, np.where(contexts.is_excluded, 1, -1))
    parts = []
    for number, shard in enumerate(contexts.shards):
        here = slice(contexts.offsets[number], contexts.offsets[number + 1])
        held = rows.filter(shard=shard).select("context", "offsets", "documents").sort("context").collect()
        if held["offsets"].null_count() == 0:
            own = documents.filter(shard=shard).select("number", "text").sort("number").collect()
            parts.append(_of_documents(held, own, pieces[here]))
        else:
            parts.append(_of_tokens(contexts.tokens[here], pieces[here], contexts.of[here], subject()))
    return _joined(contexts, parts)


def tokens_of(held: pl.DataFrame) -> pl.DataFrame:
    """The tokens of a shard that stand in documents, in order: ``number`` of the document, the characters of it from ``begin`` to
    ``end`` that are the token's own, and ``position`` in the shard. ``held``: offsets and documents of its contexts, in order.
    """
    offsets = held["offsets"].explode(empty_as_null=False).to_numpy().astype(np.int64)
    segments, segment = _segments(held, len(offsets))
    is_text = offsets >= 0
    goes_on = np.append(is_text[1:] & (segment[1:] == segment[:-1]), False)
    ends = np.where(goes_on, np.append(offsets[1:], 0), segments["end_offset"].to_numpy()[segment])
    number = segments["number"].to_numpy()[segment]
    tokens = {"number": number, "begin": offsets, "end": ends, "position": np.arange(len(offsets))}
    return pl.DataFrame(tokens).filter(is_text)


def _segments(held: pl.DataFrame, positions: int) -> tuple[pl.DataFrame, np.ndarray]:
    """What contexts hold of documents, a row a piece, and the piece of each position."""
    starts = np.concatenate([[0], np.cumsum(held["offsets"].list.len().to_numpy(), dtype=np.int64)])
    segments = held.select(pl.int_range(pl.len()).alias("at"), "documents").explode("documents", empty_as_null=False)
    segments = segments.unnest("documents")
    begin = starts[segments["at"].to_numpy()] + segments["start"].to_numpy()
    return segments, np.searchsorted(begin, np.arange(positions), side="right") - 1


def token_texts(subject: Subject, tokens: Sequence[int]) -> dict[int, str]:
    """Text of each token as it is after another one: some tokenizers leave out the space of the first."""
    ordered = sorted(set(tokens))
    anchor = next((token for token in ordered if subject.detokenize([[token]])[0].isalnum()), None)
    if anchor is None:
        return dict(zip(ordered, subject.detokenize([[token] for token in ordered]), strict=True))
    before = subject.detokenize([[anchor]])[0]
    together = subject.detokenize([[anchor, token] for token in ordered])
    return {token: text.removeprefix(before) for token, text in zip(ordered, together, strict=True)}


@dataclass(frozen=True)
class _Part:
    """The text of a shard, UTF-8, and for each position how many bytes and characters of it are its own; int64."""

    text: bytes
    bytes: np.ndarray
    characters: np.ndarray


def _joined(contexts: Contexts, parts: Sequence[_Part]) -> Texts:
    text = b"".join(part.text for part in parts)
    counts = [
        np.concatenate([[], *each]).astype(np.int64)
        for each in zip(*((p.bytes, p.characters) for p in parts), strict=True)
    ]
    ends = [np.concatenate([[0], np.cumsum(each)]) for each in counts]
    begins = ends[0][contexts.start]
    binary = pa.LargeBinaryArray.from_buffers(
        pa.large_binary(), len(begins) - 1, [None, pa.py_buffer(begins.astype(np.int64).tobytes()), pa.py_buffer(text)]
    )
    byte, character = ((each[:-1] - each[contexts.start][contexts.of]).astype(np.int32) for each in ends)
    return Texts(contexts, pl.Series("text", binary), byte, character, byte + counts[0].astype(np.int32))


def _of_documents(held: pl.DataFrame, documents: pl.DataFrame, kinds: np.ndarray) -> _Part:
    """A shard's text out of its documents. ``kinds``: of each position, 0 for BOS, 1 for a separator, -1 for a token."""
    encoded = [text.encode() for text in documents["text"]]
    raw = np.frombuffer(b"".join(encoded), dtype=np.uint8)
    lead = np.append(np.flatnonzero(raw & 0xC0 != 0x80), len(raw))  # byte at which each character begins
    sizes = np.array([len(text) for text in encoded], dtype=np.int64)
    first = np.searchsorted(lead, np.cumsum(sizes) - sizes)  # character at which each document begins
    offsets = held["offsets"].explode(empty_as_null=False).to_numpy().astype(np.int64)
    segments, segment = _segments(held, len(offsets))
    of_document = first[np.searchsorted(documents["number"].to_numpy(), segments["number"].to_numpy())]
    is_text = kinds < 0
    goes_on = np.append(is_text[1:] & (segment[1:] == segment[:-1]), False)
    last = segments["end_offset"].to_numpy()[segment]
    ends = np.where(is_text, np.where(goes_on, np.append(offsets[1:], 0), last) + of_document[segment], 0)
    begins = np.where(is_text, offsets + of_document[segment], 0)
    characters = ends - begins + (kinds == 1)
    begins, ends = lead[begins], lead[ends]
    bytes_ = ends - begins + len(SEPARATOR.encode()) * (kinds == 1)
    return _Part(_assembled(raw.tobytes(), begins, ends, kinds, goes_on), bytes_, characters)


def _assembled(raw: bytes, begins: np.ndarray, ends: np.ndarray, kinds: np.ndarray, goes_on: np.ndarray) -> bytes:
    """What a shard holds of its documents, with separators between."""
    firsts = np.flatnonzero((kinds != 0) & ~np.append(False, goes_on[:-1] & (kinds[:-1] < 0)))
    lasts = np.flatnonzero((kinds != 0) & ~(goes_on & (kinds < 0)))
    return b"".join(
        SEPARATOR.encode() if kinds[first] == 1 else raw[begins[first] : ends[last]]
        for first, last in zip(firsts, lasts, strict=True)
    )


def _of_tokens(tokens: np.ndarray, kinds: np.ndarray, contexts: np.ndarray, subject: Subject) -> _Part:
    """A shard's text out of its tokens, each kind of which is decoded once, and each kind of row of broken ones."""
    texts = token_texts(subject, np.unique(tokens[kinds < 0]).tolist())
    pieces: list[str] = []
    # what breaks off at an excluded token or at the end of a context is not made whole by what follows
    groups = groupby(zip(contexts.tolist(), kinds.tolist(), tokens.tolist(), strict=True), lambda each: each[:2])
    known: dict[tuple[int, ...], list[str]] = {}
    for (_, kind), group in groups:
        if kind >= 0:
            pieces += ["" if kind == 0 else SEPARATOR] * len(list(group))
        else:
            pieces += _pieces([token for _, _, token in group], texts, subject, known)
    encoded = [piece.encode() for piece in pieces]
    counts = [np.array([len(each) for each in own], dtype=np.int64) for own in (encoded, pieces)]
    return _Part(b"".join(encoded), *counts)


def _pieces(
    tokens: list[int], texts: dict[int, str], subject: Subject, known: dict[tuple[int, ...], list[str]]
) -> Iterator[str]:
    """Text of each token; of a row of parts of characters, of those that begin one. ``known``: rows that were decoded."""
    for is_broken, group in groupby(tokens, key=lambda token: _BROKEN in texts[token]):
        row = tuple(group)
        if is_broken and row not in known:
            known[row] = list(_mended(row, subject))
        yield from known[row] if is_broken else [texts[token] for token in row]


def _mended(row: tuple[int, ...], subject: Subject) -> Iterator[str]:
    """Parts of characters put together from as few tokens as give a whole one: the text for the first of them, none for the
    others. A part that nothing makes whole stands for itself, so that what comes after it keeps its place."""
    at = 0
    while at < len(row):
        texts = subject.detokenize([row[at : at + n] for n in range(1, min(_MOST_PARTS, len(row) - at) + 1)])
        n = next((n for n, text in enumerate(texts, start=1) if _BROKEN not in text), 1)
        yield from (texts[n - 1], *[""] * (n - 1))
        at += n
