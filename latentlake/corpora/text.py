"""Plain text: a file is a document, or several with a delimiter between them."""

from __future__ import annotations

import codecs
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import IO, TYPE_CHECKING

from latentlake.corpora import Record
from latentlake.corpora.opening import open_bytes
from latentlake.errors import InputError
from latentlake.registry import FORMATS

if TYPE_CHECKING:
    from latentlake.sections.corpus import Source

_CHUNK = 1 << 20


@FORMATS.register("text")
class Text:
    """Text in UTF-8. Blank pieces between delimiters are no documents."""

    suffixes = (".txt", ".text", ".md")

    def records(self, path: Path, source: Source, first: int) -> Iterator[Record]:
        """The pieces, of which no more than one is held."""
        with open_bytes(path) as file:
            chunks = _decoded(path, file)
            pieces = iter(["".join(chunks)]) if source.delimiter is None else _split(chunks, source.delimiter)
            for number, piece in enumerate(islice(pieces, first, None), start=first):
                yield f"document {number}", {source.text: piece}


def _decoded(path: Path, file: IO[bytes]) -> Iterator[str]:
    decoder, done = codecs.getincrementaldecoder("utf-8")(), 0
    try:
        while chunk := file.read(_CHUNK):
            yield decoder.decode(chunk)
            done += len(chunk)
        yield decoder.decode(b"", final=True)
    except UnicodeDecodeError as error:
        raise InputError(
            f"{path}: not UTF-8 near byte {done + error.start:,} ({error.reason}); write the file anew in UTF-8"
        ) from error


def _split(chunks: Iterator[str], delimiter: str) -> Iterator[str]:
    """What stands between delimiters, blank pieces left out."""
    rest = ""
    for chunk in chunks:
        *whole, rest = (rest + chunk).split(delimiter)
        yield from (piece for piece in whole if piece.strip())
    if rest.strip():
        yield rest
