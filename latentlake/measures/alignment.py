"""Which latent of one dictionary is which of another: one-to-one, by the cosines of their directions.

Up to some thousand latents the assignment is exact (the Hungarian method, as in arXiv 2410.13928). Beyond that, all cosines would
not fit into memory, nor the method into a day: only the nearest of each latent are candidates, those with a cosine that means
something, and these fall apart into many small groups, each of which is assigned exactly.
"""

from collections.abc import Iterator

import numpy as np
from scipy.optimize import linear_sum_assignment
from scipy.sparse import coo_matrix, csr_matrix
from scipy.sparse.csgraph import connected_components, min_weight_full_bipartite_matching

_DENSE = 4_000_000  # cosines of a group, up to which it is solved as a whole matrix


def aligned(cosines: np.ndarray) -> np.ndarray:
    """The partner of each row that makes the sum of cosines largest: int64 [rows], -1 for rows that have none.

    Args:
        cosines: float [rows, columns]. Of fewer columns than rows some rows have no partner.
    """
    rows, columns = linear_sum_assignment(cosines, maximize=True)
    partner = np.full(len(cosines), -1, dtype=np.int64)
    partner[rows] = columns
    return partner


def aligned_candidates(
    row: np.ndarray, column: np.ndarray, cosine: np.ndarray, rows: int, columns: int, least: float
) -> np.ndarray:
    """The same of candidates alone: the partners that make the sum of what cosines are above ``least`` largest.

    Rows whose candidates have all gone to others have none. Memory grows with the candidates; so does time, as long as these fall
    apart into groups of some thousand latents.

    Args:
        row, column: int [candidates], each pair once.
        cosine: float [candidates].
        least: cosine above which a pair counts.
    """
    counts = cosine > least
    row, column, gain = row[counts], column[counts], cosine[counts].astype(np.float64) - least
    partner = np.full(rows, -1, dtype=np.int64)
    for group in _groups(row, column, rows, columns):
        for one, other in _assigned(row[group], column[group], gain[group]):
            partner[one] = other
    return partner


def _groups(row: np.ndarray, column: np.ndarray, rows: int, columns: int) -> Iterator[np.ndarray]:
    """Candidates that have rows or columns in common, together: their numbers, group by group."""
    ones = np.ones(len(row), dtype=np.int8)
    graph = coo_matrix((ones, (row, rows + column.astype(np.int64))), shape=(rows + columns, rows + columns))
    label = connected_components(graph, directed=False)[1][row]
    order = np.argsort(label, kind="stable")
    yield from np.split(order, np.flatnonzero(np.diff(label[order])) + 1) if len(order) else ()


def _assigned(row: np.ndarray, column: np.ndarray, gain: np.ndarray) -> Iterator[tuple[int, int]]:
    """The pairs of a group that make its gain largest."""
    if len(row) == 1:
        yield int(row[0]), int(column[0])
        return
    (ones, at), (others, to) = np.unique(row, return_inverse=True), np.unique(column, return_inverse=True)
    solve = _as_matrix if len(ones) * len(others) <= _DENSE else _as_graph
    for one, other in zip(*solve(at, to, gain, len(ones), len(others)), strict=True):
        yield int(ones[one]), int(others[other])


def _as_matrix(
    at: np.ndarray, to: np.ndarray, gain: np.ndarray, rows: int, columns: int
) -> tuple[np.ndarray, np.ndarray]:
    gains = np.zeros((rows, columns))
    gains[at, to] = gain
    one, other = linear_sum_assignment(gains, maximize=True)
    is_pair = gains[one, other] > 0
    return one[is_pair], other[is_pair]


def _as_graph(
    at: np.ndarray, to: np.ndarray, gain: np.ndarray, rows: int, columns: int
) -> tuple[np.ndarray, np.ndarray]:
    """With a column of its own for each row, which stands for no partner: a full matching must exist, and no cost be 0."""
    alone = np.arange(rows)
    cost = np.concatenate([1 + gain.max() - gain, np.full(rows, 1 + gain.max())])
    graph = csr_matrix(
        (cost, (np.concatenate([at, alone]), np.concatenate([to, columns + alone]))), shape=(rows, columns + rows)
    )
    one, other = min_weight_full_bipartite_matching(graph)
    is_pair = other < columns
    return one[is_pair], other[is_pair]
