"""The settings at the head of a GGUF file, read without the libraries that read all of it.

`AutoConfig` takes 5 s for a file of 100 MB since it decodes the vocabulary first, after 3 s of imports; a study is
checked before any work, so that its check should cost milliseconds.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from latentlake.errors import InputError

Value = int | float | bool | str | None

_SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
_STRING, _ARRAY = 8, 9


def settings(path: Path) -> Iterator[tuple[str, Value]]:
    """Names and values of the header, in the order of the file; None for an array, which is skipped.

    Raises:
        InputError: the file is no GGUF file, or ends within its header.
    """
    with path.open("rb") as file:
        if file.read(4) != b"GGUF":
            raise InputError(f"{path} is not a GGUF file: it does not begin with 'GGUF'. Fetch it again.")
        try:
            _, _, count = _unpack(file, "IQQ")
            for _ in range(count):
                name = _string(file)
                yield name, _value(file, _unpack(file, "I")[0])
        except (struct.error, KeyError, UnicodeDecodeError) as error:
            raise InputError(f"{path}: the GGUF header is damaged or cut short. Fetch the file again.") from error


def _unpack(file: BinaryIO, layout: str) -> tuple[int, ...]:
    size = struct.calcsize("<" + layout)
    return struct.unpack("<" + layout, file.read(size))


def _string(file: BinaryIO) -> str:
    return file.read(_unpack(file, "Q")[0]).decode()


def _value(file: BinaryIO, kind: int) -> Value:
    if kind == _STRING:
        return _string(file)
    if kind == _ARRAY:
        _skip_array(file)
        return None
    return _unpack(file, _SCALARS[kind])[0]


def _skip_array(file: BinaryIO) -> None:
    kind, count = _unpack(file, "IQ")
    if kind in (_STRING, _ARRAY):
        for _ in range(count):
            _value(file, kind)
    else:
        file.seek(count * struct.calcsize(_SCALARS[kind]), 1)
