"""Digests of values and rows, and hash ranks: the only randomness that latentlake knows."""

import hashlib
import json
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

_HEX = 32  # 128 bits: no collision among any number of recipes that a lake will ever hold


def digest(value: Any) -> str:
    """Digest of a value made of dicts, sequences, strings, numbers, booleans and None; 32 hex digits.

    Raises:
        TypeError: the value holds something without a canonical form (a set, an object, a NaN).
    """
    try:
        text = json.dumps(value, sort_keys=True, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    except ValueError as error:
        raise TypeError(f"{value!r} has no digest: {error}") from error
    return hashlib.sha256(text.encode()).hexdigest()[:_HEX]


def text_digest(*texts: str) -> str:
    """Digest of texts in their order, which must not hold the character U+001F; some five times faster than `digest`."""
    return hashlib.sha256("\x1f".join(texts).encode()).hexdigest()[:_HEX]


def rows_digest(rows: pa.Table, columns: Sequence[str], keys: Sequence[str]) -> str:
    """Digest of some columns of a table, whatever the order of its rows; ``keys`` give the canonical order."""
    if rows.num_rows and keys:
        rows = rows.sort_by([(key, "ascending") for key in keys])
    hasher = hashlib.sha256()
    for name in sorted(columns):
        hasher.update(f"{name}:{rows.num_rows};".encode())
        _feed(hasher, rows[name].combine_chunks())
    return hasher.hexdigest()[:_HEX]


def _feed(hasher: Any, values: pa.Array) -> None:
    """Put the values of one column, nested ones included, into a hash, independent of Arrow's memory layout."""
    if isinstance(values, pa.ChunkedArray):
        values = pa.concat_arrays(values.chunks) if values.num_chunks else pa.array([], values.type)
    hasher.update(f"{len(values)},{values.null_count};".encode())
    if values.null_count:
        hasher.update(pc.is_null(values).to_numpy(zero_copy_only=False).tobytes())
        values = values.drop_null()
    if pa.types.is_list(values.type) or pa.types.is_large_list(values.type):
        hasher.update(pc.list_value_length(values).to_numpy(zero_copy_only=False).astype("<i8").tobytes())
        _feed(hasher, pc.list_flatten(values))
    elif pa.types.is_struct(values.type):
        for field in values.type:
            _feed(hasher, pc.struct_field(values, field.name))
    elif pa.types.is_string(values.type) or pa.types.is_large_string(values.type):
        encoded = [text.encode() for text in values.to_pylist()]
        hasher.update(np.array([len(text) for text in encoded], dtype="<i8").tobytes())
        hasher.update(b"".join(encoded))
    else:
        hasher.update(values.to_numpy(zero_copy_only=False).tobytes())


def seed_of(*parts: str | int) -> np.uint64:
    """A 64-bit seed out of names and numbers."""
    text = "\x1f".join(str(part) for part in parts)
    return np.uint64(int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "little"))


def mix(values: np.ndarray, seed: np.uint64 | np.ndarray) -> np.ndarray:
    """Hash of each value under a seed, or each under its own, uint64 of the same shape (the finalizer of splitmix64)."""
    with np.errstate(over="ignore"):
        mixed: np.ndarray = values.astype(np.uint64) ^ seed
        mixed = mixed + np.uint64(0x9E3779B97F4A7C15)
        mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    mixed ^= mixed >> np.uint64(31)
    return mixed


def token_hash(tokens: np.ndarray) -> np.ndarray:
    """Hash of each row of token ids, uint64 [rows]; -1 stands for a token that is left out.

    tokens: int [rows, width]. Rows that hold the same tokens in the same order after leaving out get the same hash.
    """
    hashes = np.zeros(len(tokens), dtype=np.uint64)
    for column in tokens.T:
        hashes = np.where(column < 0, hashes, mix(hashes, np.uint64(0x51)) ^ mix(column, np.uint64(0xA7)))
    return hashes
