"""Windows in which latents do not fire, drawn from several sources.

Places go round the sources, in proportion to how many each is asked for. Where a source runs dry for a place, a window is drawn
at random in its stead, and the row says so. No window is drawn twice for a latent.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from latentlake.digest import mix, seed_of
from latentlake.sampling.contexts import Grid
from latentlake.sampling.firings import Activating, Firings
from latentlake.sampling.rings import Refuse, Rings, points
from latentlake.sections.samples import SOURCES

RANDOM = "random"


class Source(Protocol):
    """Where non-activating windows come from."""

    def draw(self, turn: int, refuse: Refuse) -> np.ndarray:
        """A window for each row, by the start of its first token, int64; -1 where there is none left.

        ``turn``: how often it was asked before. ``refuse(rows, starts)``: whether rows fire there, or have the window already.
        """
        ...


@dataclass(frozen=True)
class Negatives:
    """Non-activating windows, sorted by row, then rank.

    ``rows``, ``ranks``: int32. ``starts``: int64. ``source``, ``wanted``: int8, index into `SOURCES`, the source that gave the
    window and the one that should have.
    """

    rows: np.ndarray
    ranks: np.ndarray
    starts: np.ndarray
    source: np.ndarray
    wanted: np.ndarray


def draw(sources: Mapping[str, Source], counts: Mapping[str, int], firings: Firings, length: int) -> Negatives:
    """So many windows of each source for each row. ``sources``: also has `RANDOM`, whether it is asked for or not."""
    n, order = len(firings.latents), turns(counts)
    starts = np.full((n, len(order)), -1, dtype=np.int64)
    source = np.zeros((n, len(order)), dtype=np.int8)

    def refuse(rows: np.ndarray, found: np.ndarray) -> np.ndarray:
        is_refused: np.ndarray = firings.fire(rows, found, length) | (starts[rows] == found[:, None]).any(1)
        return is_refused

    for rank, (name, turn) in enumerate(order):
        found = sources[name].draw(turn, refuse)
        source[:, rank] = np.where(found >= 0, SOURCES.index(name), SOURCES.index(RANDOM))
        if name != RANDOM and (found < 0).any():
            # the number of the place, so that what is drawn in one place does not depend on what ran dry in others
            found = np.where(found >= 0, found, sources[RANDOM].draw(-1 - rank, refuse))
        starts[:, rank] = found
    rows, places = np.nonzero(starts >= 0)
    ranks = np.arange(len(rows)) - np.searchsorted(rows, rows)
    wanted = np.array([SOURCES.index(name) for name, _ in order], dtype=np.int8)
    return Negatives(
        rows.astype(np.int32), ranks.astype(np.int32), starts[rows, places], source[rows, places], wanted[places]
    )


def turns(counts: Mapping[str, int]) -> list[tuple[str, int]]:
    """The sources in the order in which places go round them, and how often each was asked before."""
    due = [
        ((turn + 0.5) / count, SOURCES.index(name), name, turn)
        for name, count in counts.items()
        for turn in range(count)
    ]
    return [(name, turn) for _, _, name, turn in sorted(due)]


class Random:
    """Windows of a grid by hash, on one ring for all rows, on which each row has points of its own."""

    def __init__(self, grid: Grid, firings: Firings, seeds: np.ndarray, seed: int) -> None:
        """
        Args:
            grid: the windows.
            firings: of the rows. One that fires more often than there are windows has its silent windows on a ring of its own,
                where it comes upon the same ones in the same order, and need not refuse most.
            seeds: uint64 [rows].
            seed: of the order of windows.
        """
        self._seeds = seeds
        hashes = mix(grid.places, seed_of("random", seed))
        every = np.arange(len(hashes))
        window, ring = [every], [np.zeros(len(every), dtype=np.int64)]
        self._ring = np.zeros(len(seeds), dtype=np.int64)
        for row in np.flatnonzero(np.diff(firings.bounds) > len(hashes)):
            silent = every[~firings.fire(np.full(len(every), row), grid.starts, grid.length)]
            self._ring[row] = len(window)
            ring.append(np.full(len(silent), len(window)))
            window.append(silent)
        self._starts = np.append(grid.starts[np.concatenate(window)], -1)
        self._rings = Rings(np.concatenate(ring), hashes[np.concatenate(window)], len(window))

    def draw(self, turn: int, refuse: Refuse) -> np.ndarray:
        """The next silent window from a point on."""

        def refuse_candidate(rows: np.ndarray, candidates: np.ndarray) -> np.ndarray:
            return refuse(rows, self._starts[candidates])

        found = self._rings.draw(self._ring, points(self._seeds, turn), refuse_candidate, patience=None)
        starts: np.ndarray = self._starts[found]
        return starts


class InTurn:
    """Windows on rings, of which each row has some that it goes round, those first that matter most."""

    def __init__(
        self, starts: np.ndarray, ring: np.ndarray, hashes: np.ndarray, lists: np.ndarray, seeds: np.ndarray
    ) -> None:
        """
        Args:
            starts: int64 [candidates], where windows begin.
            ring: int [candidates], the ring that each is on.
            hashes: uint64 [candidates], where on it.
            lists: int [rows, k], the rings of each row, -1 for none.
            seeds: uint64 [rows].
        """
        self._rings = Rings(ring, hashes, int(max(ring.max(initial=0), lists.max(initial=0))) + 1)
        self._starts, self._seeds = np.append(starts, -1), seeds
        self._lists = np.take_along_axis(lists, np.argsort(lists < 0, axis=1, kind="stable"), axis=1)
        self._counts = (lists >= 0).sum(axis=1)

    def draw(self, turn: int, refuse: Refuse) -> np.ndarray:
        """From the ring whose turn it is, or the next that has a window left."""

        def refuse_candidate(rows: np.ndarray, candidates: np.ndarray) -> np.ndarray:
            return refuse(pending[rows], self._starts[candidates])

        found = np.full(len(self._lists), -1, dtype=np.int64)
        point = points(self._seeds, turn)
        for step in range(self._lists.shape[1]):
            pending = np.flatnonzero((found < 0) & (self._counts > step))
            place = (turn + step) % self._counts[pending]
            found[pending] = self._rings.draw(self._lists[pending, place], point[pending], refuse_candidate)
            is_dry = found[pending] < 0
            self._lists[pending[is_dry], place[is_dry]] = -1  # what is refused now is refused for good
        return self._starts[found]


def of_neighbours(windows: Activating, neighbours: np.ndarray, seeds: np.ndarray, seed: int) -> InTurn:
    """Windows in which the latents nearest to a row's fire.

    Args:
        windows: in which neighbours fire; their rows are those of the neighbours.
        neighbours: int64 [rows, k], the row of each neighbour among ``windows``, nearest first, -1 for none.
        seeds: uint64 [rows].
        seed: of the order of windows.
    """
    return InTurn(windows.starts, windows.rows, mix(windows.places, seed_of("neighbours", seed)), neighbours, seeds)


def with_tokens(grid: Grid, tokens: np.ndarray, seeds: np.ndarray, seed: int) -> InTurn:
    """Windows that hold one of the tokens that a row is given.

    Args:
        grid: the windows.
        tokens: int64 [rows, m], tokens to match, -1 for none; a token that a row was given before is passed over.
        seeds: uint64 [rows].
        seed: of the order of windows.
    """
    kinds = np.unique(tokens[tokens >= 0])
    contexts, pairs = grid.contexts, np.zeros(0, dtype=np.int64)
    is_near = np.isin(contexts.tokens, kinds) & ~contexts.is_excluded
    for of in grid.of:
        here = np.flatnonzero(is_near & (of >= 0))
        pairs = np.append(pairs, np.searchsorted(kinds, contexts.tokens[here]) * np.int64(len(grid.starts)) + of[here])
    ring, window = np.divmod(np.unique(pairs), max(1, len(grid.starts)))
    hashes = mix(grid.places[window], seed_of("token", seed))
    lists = np.where(_is_first(tokens), np.searchsorted(kinds, tokens), -1)
    return InTurn(grid.starts[window], ring, hashes, lists, seeds)


class Nearest:
    """Windows nearest to those of a row, in an order of their own."""

    def __init__(self, starts: np.ndarray) -> None:
        """
        Args:
            starts: int64 [rows, m, near], for each of m windows of a row the ones nearest to it, nearest first; -1 for none.
        """
        self._starts = starts
        self._counts = (starts[:, :, 0] >= 0).sum(axis=1)

    def draw(self, turn: int, refuse: Refuse) -> np.ndarray:
        """The nearest one left to the window whose turn it is, or to the next."""
        n, m, near = self._starts.shape
        found = np.full(n, -1, dtype=np.int64)
        for step in range(m * near):
            pending = np.flatnonzero((found < 0) & (self._counts > step // near))
            own = self._starts[pending, (turn + step // near) % self._counts[pending], step % near]
            pending, own = pending[own >= 0], own[own >= 0]
            is_free = ~refuse(pending, own)
            found[pending[is_free]] = own[is_free]
        return found


def _is_first(tokens: np.ndarray) -> np.ndarray:
    """Whether each entry, -1 excepted, is the first of its kind in its row; bool, like ``tokens``."""
    order = np.argsort(tokens, axis=1, kind="stable")
    own = np.take_along_axis(tokens, order, axis=1)
    is_first = np.ones_like(own, dtype=bool)
    is_first[:, 1:] = own[:, 1:] != own[:, :-1]
    placed = np.empty_like(is_first)
    np.put_along_axis(placed, order, is_first, axis=1)
    return placed & (tokens >= 0)
