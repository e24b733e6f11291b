"""Where some latents fire, and the windows in which they do."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

import numpy as np
import polars as pl

from latentlake.errors import LakeError
from latentlake.sampling import kernels
from latentlake.sampling.contexts import Contexts, Grid


@dataclass(frozen=True)
class Firings:
    """Where some latents fire, sorted by latent, then position.

    ``latents``: int64 [n], ascending; a latent's place in them is its row. ``bounds``: int64 [n + 1], a row's first firing.
    ``positions``: int64 [firings]. ``activations``: float32 [firings].
    """

    latents: np.ndarray
    bounds: np.ndarray
    positions: np.ndarray
    activations: np.ndarray

    @cached_property
    def rows(self) -> np.ndarray:
        """Row of each firing, int32."""
        return np.repeat(np.arange(len(self.latents), dtype=np.int32), np.diff(self.bounds))

    def fire(self, rows: np.ndarray, starts: np.ndarray, length: int) -> np.ndarray:
        """Whether rows fire anywhere in windows of so many tokens, bool."""
        at = kernels.find(self.bounds, self.positions, rows, starts)
        is_own: np.ndarray = at < self.bounds[rows + 1]
        is_own[is_own] = self.positions[at[is_own]] < (starts + length)[is_own]
        return is_own

    def within(self, rows: np.ndarray, starts: np.ndarray, length: int) -> np.ndarray:
        """Activation of rows on each token of windows, float32 [windows, length]; 0 where they do not fire."""
        found: np.ndarray = kernels.within(self.bounds, self.positions, self.activations, rows, starts, length)
        return found


def read_firings(
    activations: pl.LazyFrame, contexts: Contexts, latents: np.ndarray, kept: np.ndarray | None = None
) -> Firings:
    """Where some latents fire. ``activations``: rows of the table. ``kept``: bool [positions], the ones to read; None: all.

    Raises:
        LakeError: activations lie beyond the contexts of their shard.
    """
    parts = pl.collect_all(
        [
            activations.filter(pl.col("shard") == shard, _is_among(latents)).select("latent", "position", "activation")
            for shard in contexts.shards
        ]
    )
    found = []
    spans = pairwise(contexts.offsets)
    for shard, (offset, end), rows in zip(contexts.shards, spans, parts, strict=True):
        latent, position = rows["latent"].to_numpy(), rows["position"].to_numpy() + offset
        if position.max(initial=-1) >= end:
            raise LakeError(f"activations of shard {shard} lie beyond its contexts; materialize both anew")
        part = (latent, position, rows["activation"].to_numpy())
        if not _ascends(latent, position):  # a table that was compacted keeps no order
            order = np.lexsort((position, latent))
            part = tuple(each[order] for each in part)  # type: ignore[assignment]
        if kept is not None:
            here = np.flatnonzero(kept[part[1]])
            part = tuple(each[here] for each in part)  # type: ignore[assignment]
        found.append(part)
    return _merged(found, latents)


@dataclass(frozen=True)
class Activating:
    """Windows in which latents fire, sorted by row, then start.

    ``rows``: int32, as in `Firings`. ``starts``: int64. ``strength``: float32, the largest activation in the window. ``places``:
    uint64, hash of where the window begins. All [windows]. ``bounds``: int64 [latents + 1], a row's first window.
    """

    rows: np.ndarray
    starts: np.ndarray
    strength: np.ndarray
    places: np.ndarray
    bounds: np.ndarray

    def only(self, kept: np.ndarray) -> "Activating":
        """Some of the windows, in their order: by index, or by a mask."""
        rows = self.rows[kept]
        bounds = _bounds(rows, len(self.bounds) - 1)
        return Activating(rows, self.starts[kept], self.strength[kept], self.places[kept], bounds)


def on_grid(firings: Firings, grid: Grid) -> Activating:
    """The windows of a grid in which latents fire."""
    parts = []
    for of in grid.of:
        bounds, window, strength = kernels.merged(firings.bounds, of[firings.positions], firings.activations)
        rows = np.repeat(np.arange(len(firings.latents), dtype=np.int32), np.diff(bounds))
        parts.append((rows, window, strength))
    rows, window, strength = parts[0]
    if len(parts) > 1:  # windows that overlap: each comes once for every stride in which it fires
        rows, window, strength = (np.concatenate(each) for each in zip(*parts, strict=True))
        order = np.lexsort((window, rows))
        bounds, window, strength = kernels.merged(
            _bounds(rows[order], len(firings.latents)), window[order], strength[order]
        )
        rows = np.repeat(np.arange(len(firings.latents), dtype=np.int32), np.diff(bounds))
    return Activating(rows, grid.starts[window], strength, grid.places[window], bounds)


def _bounds(rows: np.ndarray, n: int) -> np.ndarray:
    """Of entries sorted by row, each row's first, int64 [n + 1]."""
    return np.concatenate([[0], np.cumsum(np.bincount(rows, minlength=n))]).astype(np.int64)


def centred(firings: Firings, contexts: Contexts, length: int, stride: int, split: int) -> Activating:
    """Windows around the strongest firings: of each ``stride`` tokens of a context the strongest one, a quarter of the window
    after it, moved as far as it takes to stay in the context.

    A window is left out where it holds a stronger token, or an equal one before its own, so that none is there twice.
    """
    size = np.diff(contexts.start)
    is_usable = ((size >= length) & (contexts.split == split))[contexts.of[firings.positions]]
    kept = np.flatnonzero(is_usable)
    rows, positions, activations = firings.rows[kept], firings.positions[kept], firings.activations[kept]
    context = contexts.of[positions]
    cell = contexts.start[context] + (positions - contexts.start[context]) // stride * stride
    rows, peaks, strength = _peaks(rows, cell, positions, activations)
    context = contexts.of[peaks]
    starts = np.clip(peaks - (length - 1 - length // 4), contexts.start[context], contexts.start[context + 1] - length)
    inside = firings.within(rows, starts, length)
    is_peak = inside.argmax(1) == peaks - starts
    found = Activating(rows, starts, strength, contexts.place_hash(starts), _bounds(rows, len(firings.latents)))
    return found.only(is_peak & contexts.counts(starts, length))


def _is_among(latents: np.ndarray) -> pl.Expr:
    """Rows of some latents: a range where that is what they are, which whole groups of rows are skipped by."""
    if not len(latents):
        return pl.lit(False)
    within = pl.col("latent").is_between(int(latents[0]), int(latents[-1]))
    is_range = len(latents) == latents[-1] - latents[0] + 1
    return within if is_range else within & pl.col("latent").is_in(latents.tolist())


def _ascends(latent: np.ndarray, position: np.ndarray) -> bool:
    later = latent[1:] > latent[:-1]
    return bool((later | ((latent[1:] == latent[:-1]) & (position[1:] > position[:-1]))).all())


def _merged(parts: Sequence[tuple[np.ndarray, ...]], latents: np.ndarray) -> Firings:
    """Sorted parts, whose positions ascend from one to the next, as one: what a part has of a latent is copied in one piece."""
    begins = [np.searchsorted(latent, np.append(latents, np.iinfo(np.int64).max)) for latent, _, _ in parts]
    counts = np.array([np.diff(each) for each in begins]).reshape(len(parts), len(latents))
    bounds = np.concatenate([[0], np.cumsum(counts.sum(0))]).astype(np.int64)
    positions, activations = np.empty(bounds[-1], np.int64), np.empty(bounds[-1], np.float32)
    before = np.cumsum(counts, axis=0) - counts
    for (_, position, activation), own, begin, ahead in zip(parts, counts, begins, before, strict=True):
        place = np.arange(len(position)) + np.repeat(bounds[:-1] + ahead - begin[:-1], own)
        positions[place], activations[place] = position, activation
    return Firings(latents.astype(np.int64), bounds, positions, activations)


def _peaks(
    rows: np.ndarray, cell: np.ndarray, positions: np.ndarray, activations: np.ndarray
) -> tuple[np.ndarray, ...]:
    """The first strongest firing of each (row, cell): rows, positions, activations."""
    starts = _run_starts(rows, cell)
    if not len(starts):
        return rows, positions, activations
    largest = np.repeat(np.maximum.reduceat(activations, starts), np.diff(np.append(starts, len(rows))))
    at = np.flatnonzero(activations == largest)
    first = at[_run_starts(rows[at], cell[at])]
    return rows[first], positions[first], activations[first]


def _run_starts(rows: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Where runs of equal (row, other) begin."""
    is_new = np.ones(len(rows), dtype=bool)
    is_new[1:] = (rows[1:] != rows[:-1]) | (other[1:] != other[:-1])
    return np.flatnonzero(is_new)
