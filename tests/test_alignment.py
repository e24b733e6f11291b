"""Latents aligned one to one, against every assignment there is and against scipy's exact solution."""

from itertools import permutations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linear_sum_assignment

from latentlake.measures import alignment
from latentlake.measures.alignment import aligned, aligned_candidates

SHAPES = st.tuples(st.integers(0, 7), st.integers(0, 7))


def gain(matrix: np.ndarray, partner: np.ndarray, least: float = 0.0) -> float:
    """What an alignment brings; one to one, or refused."""
    rows = np.flatnonzero(partner >= 0)
    assert len(set(partner[rows].tolist())) == len(rows)
    return float((matrix[rows, partner[rows]] - least).sum())


def every(matrix: np.ndarray) -> float:
    """The most that any one-to-one alignment brings, by trying them all."""
    tall = matrix if len(matrix) <= matrix.shape[1] else matrix.T
    ways = permutations(range(tall.shape[1]), len(tall))
    return max(sum(tall[row, column] for row, column in enumerate(way)) for way in ways)


def drawn(shape: tuple[int, int], seed: int) -> np.ndarray:
    """Cosines to one digit, so that many are equal."""
    cosines: np.ndarray = np.random.default_rng(seed).uniform(-1, 1, shape).round(1)
    return cosines


def candidates(matrix: np.ndarray, is_there: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    row, column = np.nonzero(is_there)
    return row, column, matrix[row, column]


@settings(max_examples=60, deadline=None)
@given(SHAPES.filter(lambda shape: min(shape) <= 5), st.integers(0, 2**32 - 1))
def test_no_other_alignment_brings_more(shape: tuple[int, int], seed: int) -> None:
    matrix = drawn(shape, seed)
    partner = aligned(matrix)
    assert partner.shape == (shape[0],)
    assert (partner >= 0).sum() == min(shape)
    assert gain(matrix, partner) == pytest.approx(every(matrix))


@settings(max_examples=150, deadline=None)
@given(
    st.tuples(st.integers(0, 25), st.integers(0, 25)),
    st.floats(0, 1),
    st.sampled_from([0.0, 0.3, 0.5]),
    st.sampled_from([4_000_000, 0]),
    st.integers(0, 2**32 - 1),
)
def test_candidates_bring_what_scipy_finds_in_the_whole_matrix(
    shape: tuple[int, int], share: float, least: float, dense: int, seed: int
) -> None:
    matrix, is_there = drawn(shape, seed), np.random.default_rng(seed + 1).random(shape) < share
    counts = is_there & (matrix > least)
    with pytest.MonkeyPatch.context() as patch:  # groups solved as graphs as well
        patch.setattr(alignment, "_DENSE", dense)
        partner = aligned_candidates(*candidates(matrix, is_there), *shape, least)
    rows = np.flatnonzero(partner >= 0)
    assert counts[rows, partner[rows]].all()  # none that is no candidate, or not above the least
    whole = np.where(counts, matrix - least, 0.0)
    best = whole[linear_sum_assignment(whole, maximize=True)].sum()
    assert gain(matrix, partner, least) == pytest.approx(best)


@pytest.mark.parametrize("dense", [4_000_000, 0])
def test_the_order_of_candidates_changes_nothing(dense: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(alignment, "_DENSE", dense)
    matrix = drawn((30, 40), 5)
    row, column, cosine = candidates(matrix, matrix > 0)  # ties in plenty
    first = aligned_candidates(row, column, cosine, 30, 40, 0.2)
    again = aligned_candidates(row, column, cosine, 30, 40, 0.2)
    assert first.tolist() == again.tolist()
    other = np.random.default_rng(0).permutation(len(row))
    shuffled = aligned_candidates(row[other], column[other], cosine[other], 30, 40, 0.2)
    assert gain(matrix, shuffled, 0.2) == pytest.approx(gain(matrix, first, 0.2))


def test_a_permuted_copy_is_found() -> None:
    rng = np.random.default_rng(3)
    unit = rng.standard_normal((300, 16))
    unit /= np.linalg.norm(unit, axis=1, keepdims=True)
    order = rng.permutation(300)
    cosines = unit[order] @ unit.T
    assert aligned(cosines).tolist() == order.tolist()
    row, column, cosine = candidates(cosines, cosines > 0.4)
    assert aligned_candidates(row, column, cosine, 300, 300, 0.5).tolist() == order.tolist()


def test_without_candidates_nobody_has_a_partner() -> None:
    none = np.zeros(0, dtype=np.int64)
    assert aligned_candidates(none, none, np.zeros(0), 3, 2, 0.5).tolist() == [-1, -1, -1]
    assert aligned_candidates(np.array([0]), np.array([1]), np.array([0.5]), 2, 2, 0.5).tolist() == [-1, -1]


def test_the_nearest_is_given_up_where_two_want_it() -> None:
    # .9 + .5 is less than .8 + .7: greed would give latent 0 its nearest
    row, column = np.array([0, 0, 1, 1]), np.array([0, 1, 0, 1])
    cosine = np.array([0.9, 0.8, 0.7, 0.5])
    assert aligned_candidates(row, column, cosine, 2, 2, 0.0).tolist() == [1, 0]
