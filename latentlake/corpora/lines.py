"""JSON lines: one object a line; blank lines are none."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from latentlake.corpora import Record
from latentlake.corpora.opening import open_bytes
from latentlake.errors import InputError
from latentlake.registry import FORMATS

if TYPE_CHECKING:
    from latentlake.sections.corpus import Source


@FORMATS.register("lines")
class Lines:
    """JSON lines, plain, gzipped or in Zstandard's format."""

    suffixes = (".jsonl", ".json", ".ndjson")

    def records(self, path: Path, source: Source, first: int) -> Iterator[Record]:
        """The objects; lines before the first wanted are not parsed."""
        index = -1
        with open_bytes(path) as opened, io.BufferedReader(opened) as file:  # type: ignore[type-var]
            for number, line in enumerate(file, start=1):
                if not line.strip():
                    continue
                index += 1
                if index >= first:
                    yield f"line {number}", _parsed(path, number, line)


def _parsed(path: Path, number: int, line: bytes) -> Any:
    try:
        return json.loads(line.decode("utf-8"))
    except UnicodeDecodeError as error:
        raise InputError(f"{path}, line {number}: not UTF-8 ({error.reason}); mend the line") from error
    except json.JSONDecodeError as error:
        raise InputError(
            f"{path}, line {number}: not JSON ({error}); the file must hold one JSON object a line"
        ) from error
