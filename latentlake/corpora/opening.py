"""Files as bytes, plain or compressed by their suffix."""

import gzip
from pathlib import Path
from typing import IO, cast

import pyarrow as pa


def open_bytes(path: Path) -> IO[bytes]:
    """A file's bytes, decompressed where its name ends in ``.gz`` or ``.zst``."""
    if path.suffix.lower() == ".gz":
        return cast(IO[bytes], gzip.open(path, "rb"))
    if path.suffix.lower() == ".zst":
        return cast(IO[bytes], pa.input_stream(str(path), compression="zstd"))
    return path.open("rb")
