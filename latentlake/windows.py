"""The windows of the shards in use: where they lie, which split they belong to, and which of them count.

A window is ``length`` tokens of a context, starting at a multiple of ``length``. It counts if it is whole and if no
earlier window (in order of registration of shards, then of contexts) holds the same tokens: so a text has one place,
in one split, and can never be shown to an explainer and judge it too.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import polars as pl

from latentlake.digest import mix, seed_of, token_hash
from latentlake.errors import LakeError
from latentlake.study_corpus import SPLITS


@dataclass(frozen=True)
class Windows:
    """All windows, numbered in order. Positions are counted over all shards (``offsets``: where each shard begins).

    ``tokens``: int32 [positions]. ``is_excluded``: bool [positions], BOS and separators. ``context_start``: int64
    [contexts + 1]. ``context_split``: int8 [contexts], index into `SPLITS`. ``context_shard``, ``context_index``: int32
    [contexts], where a context lies. ``first``: int64 [contexts + 1], a context's first window. ``context``: int32
    [windows]. ``is_whole``, ``counts``: bool [windows]. ``hash``: uint64 [windows], of the window's place.
    """

    length: int
    shards: tuple[str, ...]
    offsets: np.ndarray
    tokens: np.ndarray
    is_excluded: np.ndarray
    context_start: np.ndarray
    context_split: np.ndarray
    context_shard: np.ndarray
    context_index: np.ndarray
    first: np.ndarray
    context: np.ndarray
    is_whole: np.ndarray
    counts: np.ndarray
    hash: np.ndarray

    @property
    def start(self) -> np.ndarray:
        """Position of each window's first token, int64 [windows]."""
        start: np.ndarray = self.context_start[self.context] + self.start_in_context
        return start

    @property
    def start_in_context(self) -> np.ndarray:
        """Position of each window's first token in its context, int64 [windows]."""
        start: np.ndarray = (np.arange(len(self.context)) - self.first[self.context]) * self.length
        return start

    @property
    def split(self) -> np.ndarray:
        """Split of each window, int8 [windows], index into `SPLITS`."""
        split: np.ndarray = self.context_split[self.context]
        return split

    def contexts_of(self, positions: np.ndarray) -> np.ndarray:
        """Context of each position, int64."""
        return np.searchsorted(self.context_start, positions, side="right") - 1

    def of(self, positions: np.ndarray) -> np.ndarray:
        """Window of each position, int64."""
        context = self.contexts_of(positions)
        window: np.ndarray = self.first[context] + (positions - self.context_start[context]) // self.length
        return window


def find_windows(contexts: pl.LazyFrame, shards: Sequence[str], length: int) -> Windows:
    """The windows of some shards. ``contexts``: rows of the table ``contexts``."""
    columns = ["shard", "context", "tokens", "excluded", "split"]
    order = pl.LazyFrame(
        {"shard": list(shards), "ordinal": range(len(shards))}, schema={"shard": pl.String, "ordinal": pl.Int32}
    )
    rows = contexts.select(columns).join(order, on="shard").sort("ordinal", "context").collect()
    lengths = rows["tokens"].list.len().to_numpy().astype(np.int64)
    context_start = np.concatenate([[0], np.cumsum(lengths)])
    tokens = rows["tokens"].explode(empty_as_null=False).to_numpy()
    shard = rows["ordinal"].to_numpy()
    first = np.concatenate([[0], np.cumsum(-(-lengths // length))])
    context = np.repeat(np.arange(len(lengths)), np.diff(first))
    is_excluded = _excluded(rows, context_start)
    start = (np.arange(len(context)) - first[context]) * length
    is_whole = start + length <= lengths[context]
    places = context_start[context] + start
    is_first = _is_first(tokens, is_excluded, np.where(is_whole, places, 0), length, is_whole)
    shard_seeds = np.array([seed_of("shard", name) for name in shards], dtype=np.uint64)
    index = rows["context"].to_numpy()
    return Windows(
        length=length,
        shards=tuple(shards),
        offsets=context_start[np.searchsorted(shard, np.arange(len(shards) + 1))],
        tokens=tokens,
        is_excluded=is_excluded,
        context_start=context_start,
        context_split=np.array([SPLITS.index(name) for name in rows["split"]], dtype=np.int8),
        context_shard=shard,
        context_index=index,
        first=first,
        context=context,
        is_whole=is_whole,
        counts=is_first,
        hash=mix(index[context].astype(np.uint64) << np.uint64(32) | start.astype(np.uint64), np.uint64(1))
        ^ shard_seeds[shard[context]],
    )


@dataclass(frozen=True)
class Firings:
    """Where latents fire, sorted by latent, then position (over all shards).

    ``latent``: int64, ``position``: int64, ``activation``: float32; all [firings].
    """

    latent: np.ndarray
    position: np.ndarray
    activation: np.ndarray


def read_firings(activations: pl.LazyFrame, windows: Windows, only: pl.Expr) -> Firings:
    """The rows of ``activations`` that ``only`` selects, in the shards of the windows."""
    parts = []
    for shard, (offset, end) in zip(windows.shards, pairwise(windows.offsets), strict=True):
        rows = (
            activations.filter((pl.col("shard") == shard) & only).select("latent", "position", "activation").collect()
        )
        place = rows["position"].to_numpy() + offset
        if place.max(initial=-1) >= end:
            raise LakeError(f"activations of shard {shard} lie beyond its contexts; materialize both anew")
        parts.append((rows["latent"].to_numpy(), place, rows["activation"].to_numpy()))
    latent, position, activation = (np.concatenate(each) for each in zip(*parts, strict=True))
    order = np.lexsort((position, latent))
    return Firings(latent[order].astype(np.int64), position[order].astype(np.int64), activation[order])


def _excluded(rows: pl.DataFrame, context_start: np.ndarray) -> np.ndarray:
    is_excluded = np.zeros(context_start[-1], dtype=bool)
    counts = rows["excluded"].list.len().to_numpy()
    positions = rows["excluded"].explode(empty_as_null=False).to_numpy()
    is_excluded[np.repeat(context_start[:-1], counts) + positions] = True
    return is_excluded


def _is_first(
    tokens: np.ndarray, is_excluded: np.ndarray, places: np.ndarray, length: int, is_whole: np.ndarray
) -> np.ndarray:
    """Whole windows that no earlier one equals. Excluded tokens have no text and do not make a difference."""
    within = places[:, None] + np.arange(length)
    within[~is_whole] = 0
    hashes = token_hash(np.where(is_excluded[within], -1, tokens[within]))
    counts = np.zeros(len(places), dtype=bool)
    whole = np.flatnonzero(is_whole)
    counts[whole[np.unique(hashes[whole], return_index=True)[1]]] = True
    return counts
