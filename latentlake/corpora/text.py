"""Plain text: a file is a document, or several with a delimiter between them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from latentlake.corpora import Record
from latentlake.corpora.opening import open_bytes
from latentlake.errors import InputError
from latentlake.registry import FORMATS

if TYPE_CHECKING:
    from latentlake.study_corpus import Source


@FORMATS.register("text")
class Text:
    """Text in UTF-8. Blank pieces between delimiters are no documents."""

    suffixes = (".txt", ".text", ".md")

    def records(self, path: Path, source: Source, first: int) -> Iterator[Record]:
        """The pieces. A file is read whole: a document of that size is one in memory anyway."""
        with open_bytes(path) as file:
            content = file.read()
        try:
            text = content.decode("utf-8")
        except UnicodeDecodeError as error:
            raise InputError(
                f"{path}: not UTF-8 at byte {error.start:,} ({error.reason}); write the file anew in UTF-8"
            ) from error
        pieces = [text] if source.delimiter is None else [each for each in text.split(source.delimiter) if each.strip()]
        for number, piece in enumerate(pieces[first:], start=first):
            yield f"document {number}", {source.text: piece}
