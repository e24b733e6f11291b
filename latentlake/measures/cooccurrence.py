"""On how many tokens latents fire together: of one dictionary, or of two."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import polars as pl
from scipy import sparse


class Fires(NamedTuple):
    """Where the latents of a dictionary fire: rows of `activations`, and its width."""

    rows: pl.LazyFrame
    width: int


class Together(NamedTuple):
    """On how many tokens some latents fire together with any of another dictionary, or of their own.

    ``both``: int32 [some, width of the other]. ``own``, ``other``: on how many each fires at all, int64 [some], [width].
    """

    both: sparse.csr_matrix
    own: np.ndarray
    other: np.ndarray

    def jaccard(self, row: np.ndarray, column: np.ndarray) -> np.ndarray:
        """Of some pairs, tokens on which both fire as a share of those on which either does: float64, NaN if none."""
        both = self.both_of(row, column)
        either = self.own[row] + self.other[column] - both
        jaccard: np.ndarray = np.divide(both, either, out=np.full(len(row), np.nan), where=either > 0)
        return jaccard

    def both_of(self, row: np.ndarray, column: np.ndarray) -> np.ndarray:
        """Of some pairs, the tokens on which both fire: int64."""
        return np.asarray(self.both[row, column]).ravel().astype(np.int64) if len(row) else np.zeros(0, np.int64)

    def most(self, k: int, itself: int | None = None) -> np.ndarray:
        """The k latents with which each fires together most, by `jaccard`: int64 [some, k], -1 for none.

        ``itself``: where latents are of one dictionary, the number of the first, none of which is its own.
        """
        pairs, bounds = self.both.tocoo(), self.both.indptr
        jaccard = pairs.data / (self.own[pairs.row] + self.other[pairs.col] - pairs.data)
        if itself is not None:
            jaccard[pairs.col == pairs.row + itself] = -1.0
        least = np.zeros(len(self.own))
        for row in range(len(self.own)):  # few of all pairs are near enough to be put in order
            shares = jaccard[bounds[row] : bounds[row + 1]]
            if len(shares) > k:
                least[row] = max(0.0, np.partition(shares, -k)[-k])
        kept = jaccard >= least[pairs.row]
        row, col, jaccard = pairs.row[kept], pairs.col[kept], jaccard[kept]
        order = np.lexsort((col, -jaccard, row))
        row, col = row[order], col[order]
        rank = np.arange(len(row)) - np.searchsorted(row, row)
        found = np.full((len(self.own), k), -1, dtype=np.int64)
        found[row[rank < k], rank[rank < k]] = col[rank < k]
        return found


def together(shards: Sequence[str], latents: range, one: Fires, other: Fires | None = None) -> Together:
    """How some latents of a dictionary fire together with those of another; None: of their own.

    One shard at a time: what is held grows with the pairs that occur, not with tokens.
    """
    width = (other or one).width
    both = sparse.csr_matrix((len(latents), width), dtype=np.int32)
    own, others = np.zeros(len(latents), dtype=np.int64), np.zeros(width, dtype=np.int64)
    for shard in shards:
        fires = _matrix(one.rows if other is None else _among(one.rows, latents), shard, one.width)
        beside = fires if other is None else _matrix(other.rows, shard, width)
        tokens = max(fires.shape[0], beside.shape[0])
        fires.resize(tokens, one.width)
        beside.resize(tokens, width)
        part = fires[:, latents.start : latents.stop]
        both = both + part.T @ beside.tocsr()
        own += np.diff(part.indptr)
        others += np.diff(beside.indptr)
    return Together(both, own, others)


def _among(rows: pl.LazyFrame, latents: range) -> pl.LazyFrame:
    return rows.filter(pl.col("latent").is_between(latents.start, latents.stop - 1))


def _matrix(rows: pl.LazyFrame, shard: str, width: int) -> sparse.csc_matrix:
    """Ones where latents fire in a shard: int32 [tokens up to the last on which one does, width]."""
    own = rows.filter(shard=shard).select("latent", "position").sort("latent").collect()
    latent, position = own["latent"].to_numpy(), own["position"].to_numpy()
    bounds = np.searchsorted(latent, np.arange(width + 1))
    ones = np.ones(len(latent), dtype=np.int32)
    return sparse.csc_matrix((ones, position, bounds), shape=(int(position.max(initial=0)) + 1, width))
