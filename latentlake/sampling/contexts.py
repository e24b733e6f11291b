"""The contexts of the shards in use, end to end; windows of them; and which windows count.

A text has one place. Of two places that hold the same ``run`` tokens, the one in the context of smaller hash has them; a window
counts if it is whole and all its runs are at their place. So what counts in one split shares no run with what counts in
another, whatever the lengths of windows and wherever they begin, and nothing depends on the order of shards.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

import numpy as np
import polars as pl

from latentlake.digest import mix, seed_of
from latentlake.sections.corpus import SPLITS


@dataclass(frozen=True)
class Contexts:
    """All contexts. A position is the number of a token in all shards together (``offsets``: where each shard begins).

    ``run``: tokens of a run. ``tokens``: int32 [positions]. ``is_excluded``: bool [positions], BOS and separators. ``start``:
    int64 [contexts + 1]. ``split``: int8 [contexts], index into `SPLITS`. ``shard``, ``index``: int32 [contexts], shard and
    number in it. ``repeats``: int32 [positions + 1], how many runs that begin before a position have their place elsewhere.
    """

    run: int
    shards: tuple[str, ...]
    offsets: np.ndarray
    tokens: np.ndarray
    is_excluded: np.ndarray
    start: np.ndarray
    split: np.ndarray
    shard: np.ndarray
    index: np.ndarray
    repeats: np.ndarray

    @property
    def size(self) -> int:
        """Number of positions."""
        return len(self.tokens)

    @cached_property
    def of(self) -> np.ndarray:
        """Context of each position, int32 [positions]."""
        return _owners(self.start)

    def place_hash(self, positions: np.ndarray) -> np.ndarray:
        """Hash of where positions lie (shard, context and place in it), uint64: the same whatever other shards there are."""
        context = self.of[positions]
        place = self.index[context].astype(np.uint64) << np.uint64(32)
        place |= (positions - self.start[context]).astype(np.uint64)
        hashes: np.ndarray = mix(place, np.uint64(1)) ^ self._seeds[self.shard[context]]
        return hashes

    def counts(self, starts: np.ndarray, length: int) -> np.ndarray:
        """Whether whole windows of so many tokens, at least a run, count; bool, like ``starts``."""
        counts: np.ndarray = self.repeats[starts + (length - self.run + 1)] == self.repeats[starts]
        return counts

    def within(self, values: np.ndarray, starts: np.ndarray, length: int) -> np.ndarray:
        """What windows hold of values of positions: [windows, length], like ``values``."""
        if not len(starts):
            return np.zeros((0, length), dtype=values.dtype)
        within: np.ndarray = np.lib.stride_tricks.sliding_window_view(values, length)[starts]
        return within

    def is_repeated(self, positions: np.ndarray) -> np.ndarray:
        """Whether positions are within a run that has its place elsewhere; bool."""
        earliest = np.maximum(positions - (self.run - 1), 0)
        is_repeated: np.ndarray = self.repeats[positions + 1] > self.repeats[earliest]
        return is_repeated

    @cached_property
    def _seeds(self) -> np.ndarray:
        return np.array([seed_of("shard", name) for name in self.shards], dtype=np.uint64)


@dataclass(frozen=True)
class Grid:
    """The windows of ``length`` tokens that begin at multiples of ``stride`` in their contexts and count, of one split or of all.

    ``starts``: int64 [windows], ascending, position of the first token.
    """

    contexts: Contexts
    length: int
    stride: int
    starts: np.ndarray

    @cached_property
    def places(self) -> np.ndarray:
        """Hash of where each window begins, uint64."""
        return self.contexts.place_hash(self.starts)

    @cached_property
    def of(self) -> list[np.ndarray]:
        """Of each position the window that it lies in, int32 [positions], -1 for none; several such where windows overlap."""
        window = np.full(self.contexts.size, -1, dtype=np.int32)
        window[self.starts] = np.arange(len(self.starts))
        first = min(self.length, self.stride)
        return [
            _spread(window, range(begin, min(begin + first, self.length))) for begin in range(0, self.length, first)
        ]


def grid_of(contexts: Contexts, length: int, stride: int, split: int | None = None) -> Grid:
    """The windows of one split (index into `SPLITS`), or of all."""
    sizes = np.diff(contexts.start)
    number = np.maximum(0, (sizes - length) // stride + 1)
    if split is not None:
        number[contexts.split != split] = 0
    first = np.concatenate([[0], np.cumsum(number)])
    context = _owners(first)
    starts = contexts.start[context] + (np.arange(len(context)) - first[context]) * stride
    return Grid(contexts, length, stride, starts[contexts.counts(starts, length)])


def read_contexts(rows: pl.LazyFrame, shards: Sequence[str], run: int) -> Contexts:
    """The contexts of some shards. ``rows``: of the table ``contexts``. ``run``: tokens of which a text has one place."""
    columns = ["shard", "context", "tokens", "excluded", "split"]
    order = pl.LazyFrame(
        {"shard": list(shards), "ordinal": range(len(shards))}, schema={"shard": pl.String, "ordinal": pl.Int32}
    )
    found = rows.select(columns).join(order, on="shard").sort("ordinal", "context").collect()
    start = np.concatenate([[0], np.cumsum(found["tokens"].list.len().to_numpy(), dtype=np.int64)])
    tokens = found["tokens"].explode(empty_as_null=False).to_numpy()
    shard, index = found["ordinal"].to_numpy(), found["context"].to_numpy()
    seeds = np.array([seed_of("context", name) for name in shards], dtype=np.uint64)
    priority = mix(index.astype(np.uint64), np.uint64(1)) ^ seeds[shard]
    return Contexts(
        run=run,
        shards=tuple(shards),
        offsets=start[np.searchsorted(shard, np.arange(len(shards) + 1))],
        tokens=tokens,
        is_excluded=_excluded(found, start),
        start=start,
        split=found["split"].replace_strict(dict(zip(SPLITS, range(3), strict=True)), return_dtype=pl.Int8).to_numpy(),
        shard=shard,
        index=index,
        repeats=_repeats(tokens, start, priority, run),
    )


def _owners(bounds: np.ndarray) -> np.ndarray:
    """Of ranges that follow on each other, the range of each member, int32."""
    return np.repeat(np.arange(len(bounds) - 1, dtype=np.int32), np.diff(bounds))


def _excluded(rows: pl.DataFrame, start: np.ndarray) -> np.ndarray:
    is_excluded = np.zeros(start[-1], dtype=bool)
    counts = rows["excluded"].list.len().to_numpy()
    is_excluded[np.repeat(start[:-1], counts) + rows["excluded"].explode(empty_as_null=False).to_numpy()] = True
    return is_excluded


def _repeats(tokens: np.ndarray, start: np.ndarray, priority: np.ndarray, run: int) -> np.ndarray:
    """Number of runs before each position that have their place elsewhere, int32 [positions + 1].

    ``priority``: uint64 [contexts]; of the contexts that hold a run, the one of lowest priority has it, there at its first place.
    """
    hashes = _run_hashes(tokens, run)
    order = np.argsort(priority, kind="stable")
    ranges = [np.arange(begin, max(begin, end - run + 1)) for begin, end in pairwise(start)]
    positions = np.concatenate([np.zeros(0, np.int64), *(ranges[context] for context in order)])
    _, first = np.unique(hashes[positions], return_index=True)
    is_elsewhere = np.zeros(len(tokens) + 1, dtype=np.int32)
    is_elsewhere[1 + positions] = 1
    is_elsewhere[1 + positions[first]] = 0
    return np.cumsum(is_elsewhere, dtype=np.int32)


def _run_hashes(tokens: np.ndarray, run: int) -> np.ndarray:
    """Hash of the ``run`` tokens from each position on, uint64 [positions - run + 1]; by doubling."""
    hashes, width = mix(tokens, np.uint64(0xA7)), 1
    while width < run:
        step = min(width, run - width)  # the two halves overlap where the run is no power of two
        hashes = mix(hashes[: max(0, len(hashes) - step)], np.uint64(0x51 + step)) + hashes[step:]
        width += step
    return hashes


def _spread(window: np.ndarray, ahead: range) -> np.ndarray:
    """The numbers of ``window`` (-1 for none) moved on by each of ``ahead`` places, which must not meet."""
    begins = np.flatnonzero(window >= 0)
    spread = np.full(len(window), -1, dtype=np.int32)
    for step in ahead:
        spread[begins + step] = window[begins]
    return spread
