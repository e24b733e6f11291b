"""Metrics' intervals: what they are known to be, how often they hold what is true, and that none leaves its bounds."""

from itertools import product
from math import isnan, sqrt

import numpy as np
import pytest
import scipy.stats
from hypothesis import example, given, settings
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from benchmarks.coverage import auroc_coverages, rate_coverages
from latentlake.measures.metrics import (
    auroc,
    auroc_interval,
    balanced_accuracy_interval,
    f1_interval,
    mean_interval,
    newcombe_interval,
    wilson_interval,
)

SIZES = st.integers(2, 60)
SHARES = st.tuples(st.integers(0, 60), st.integers(1, 60)).filter(lambda share: share[0] <= share[1])
MEASURED = st.lists(st.tuples(st.booleans(), st.integers(-3, 3).map(float)), max_size=12)


def arrays(*values: float) -> list[np.ndarray]:
    """One group, as metrics take it."""
    return [np.array([float(value)]) for value in values]


def ends(interval: tuple[np.ndarray, np.ndarray]) -> tuple[float, float]:
    return float(interval[0][0]), float(interval[1][0])


# AUROC


@settings(deadline=None, max_examples=50)
@given(MEASURED)
def test_auroc_is_the_share_of_pairs_in_the_right_order(rows: list[tuple[bool, float]]) -> None:
    truth, measure = np.array([row[0] for row in rows], dtype=bool), np.array([row[1] for row in rows])
    pairs = [(p > n) + (p == n) / 2 for p, n in product(measure[truth], measure[~truth])]
    assert auroc(truth, measure) == (pytest.approx(sum(pairs) / len(pairs)) if pairs else None)
    if pairs:
        assert auroc(truth, measure) == pytest.approx(roc_auc_score(truth, measure), abs=1e-12)


def newcombe(value: float, positives: int, negatives: int, level: float = 0.95) -> tuple[float, float]:
    return ends(newcombe_interval(*arrays(value, positives, negatives), level))


def delong(value: float, positives: int, negatives: int, variance: float) -> tuple[float, float]:
    return ends(auroc_interval(*arrays(value, positives, negatives, variance)))


@settings(deadline=None, max_examples=50)
@given(st.floats(0, 1), st.integers(1, 60), st.integers(1, 60), st.one_of(st.just(float("nan")), st.floats(0, 0.3)))
@example(1e-313, 1, 1, 0.25)  # so near to 0 that the logit's spread is no number any more
def test_the_interval_holds_the_value_and_stays_in_bounds(
    value: float, positives: int, negatives: int, variance: float
) -> None:
    for low, high in (newcombe(value, positives, negatives), delong(value, positives, negatives, variance)):
        assert -1e-9 <= low <= value + 1e-9
        assert value - 1e-9 <= high <= 1 + 1e-9


@pytest.mark.parametrize(("positives", "negatives"), [(1, 1), (2, 2), (10, 10), (50, 50), (4, 40)])
def test_the_interval_is_not_degenerate_at_the_ends(positives: int, negatives: int) -> None:
    low, high = newcombe(1.0, positives, negatives)
    assert 0 < low < 1
    assert high == 1
    assert newcombe(0.0, positives, negatives) == (0, pytest.approx(1 - low))
    # It is where the intervals of values next to it lie; and where DeLong's variance is nought, it stands in for it.
    assert low == pytest.approx(newcombe(1 - 1e-9, positives, negatives)[0], abs=1e-3)
    assert delong(1.0, positives, negatives, 0.0) == (low, high)
    assert delong(0.5, positives, negatives, 0.0) == newcombe(0.5, positives, negatives)


@settings(deadline=None, max_examples=40)
@given(st.floats(0.01, 0.99), SIZES, SIZES, st.floats(1e-4, 0.05))
def test_the_interval_is_symmetric(value: float, positives: int, negatives: int, variance: float) -> None:
    for interval in (newcombe, lambda *given: delong(*given, variance)):
        low, high = interval(value, positives, negatives)
        assert interval(1 - value, positives, negatives) == (pytest.approx(1 - high), pytest.approx(1 - low))
        assert interval(value, negatives, positives) == (pytest.approx(low), pytest.approx(high))


@settings(deadline=None, max_examples=40)
@given(st.floats(0.01, 0.99), SIZES, SIZES)
def test_newcombe_s_ends_are_z_standard_errors_of_hanley_and_mcneil_away(
    value: float, positives: int, negatives: int
) -> None:
    for end in newcombe(value, positives, negatives):
        mean = (positives + negatives) / 2
        q1, q2 = end / (2 - end), 2 * end**2 / (1 + end)
        # With the mean of the sample sizes in the place of each, as Newcombe's method 5 has it.
        variance = end * (1 - end) + (mean - 1) * (q1 - end**2) + (mean - 1) * (q2 - end**2)
        assert abs(end - value) == pytest.approx(
            1.959964 * sqrt(variance / (positives * negatives)), rel=1e-4, abs=1e-6
        )


@settings(deadline=None, max_examples=40)
@given(st.floats(0, 1), SIZES, st.integers(2, 5))
def test_the_interval_narrows_with_more_windows_and_less_confidence(value: float, n: int, factor: int) -> None:
    low, high = newcombe(value, n, n)
    for narrow in (newcombe(value, factor * n, factor * n), newcombe(value, n, n, level=0.8)):
        assert narrow[1] - narrow[0] < high - low


def test_delong_s_interval_by_hand() -> None:
    # logit(.8) = 1.3863, and z * .05 / (.8 * .2) = .61249: expit of .7738 and of 1.9988.
    assert delong(0.8, 50, 50, 0.05**2) == (pytest.approx(0.6843, abs=1e-4), pytest.approx(0.8807, abs=1e-4))
    # Near the ends the wider of both counts.
    small = newcombe(0.99, 50, 50)
    assert delong(0.99, 50, 50, 1e-8) == small
    wide = delong(0.99, 50, 50, 0.05)
    assert wide[0] < small[0]


# rates


@settings(deadline=None, max_examples=100)
@given(SHARES)
def test_the_interval_of_a_rate_is_wilson_s(share: tuple[int, int]) -> None:
    known = scipy.stats.binomtest(*share).proportion_ci(method="wilson")
    assert ends(wilson_interval(*arrays(*share))) == (
        pytest.approx(known.low, abs=1e-12),
        pytest.approx(known.high, abs=1e-12),
    )


def test_balanced_accuracy_by_hand() -> None:
    # 8 of 10 (Wilson .4902 to .9433) and 15 of 20 (.5313 to .8881), mean .775: ways of .3098 and .2187, .1433 and .1381.
    found = ends(balanced_accuracy_interval(*arrays(8, 10, 15, 20)))
    ways = np.hypot(0.8 - 0.4902, 0.75 - 0.5313) / 2, np.hypot(0.9433 - 0.8, 0.8881 - 0.75) / 2
    assert found == (pytest.approx(0.775 - ways[0], abs=1e-4), pytest.approx(0.775 + ways[1], abs=1e-4))


@settings(deadline=None, max_examples=100)
@given(SHARES, SHARES)
def test_the_ends_of_f1_are_where_the_difference_that_its_ratio_is_of_ends_at_0(
    hits: tuple[int, int], alarms: tuple[int, int]
) -> None:
    (told, positives), (wrong, negatives) = hits, alarms
    low, high = ends(f1_interval(*arrays(told, positives, wrong, negatives)))
    own, others = (scipy.stats.binomtest(*each).proportion_ci(method="wilson") for each in (hits, alarms))
    above, below = told / positives, 1 + wrong / positives
    ratio_low, ratio_high = (end / (2 - end) for end in (low, high))
    way = np.hypot(above - own.low, ratio_low * (others.high * negatives / positives + 1 - below))
    assert above - ratio_low * below - way == pytest.approx(0, abs=1e-6)
    way = np.hypot(own.high - above, ratio_high * (below - 1 - others.low * negatives / positives))
    assert above - ratio_high * below + way == pytest.approx(0, abs=1e-6)
    assert 0 <= low <= 2 * told / (positives + told + wrong) <= high + 1e-9


# how often an interval holds what is true


def test_intervals_of_rates_hold_what_is_true_93_to_97_times_in_100() -> None:
    outside = [each for each in rate_coverages() if not 0.93 <= each.coverage <= 0.97]
    # Coverage of a share goes up and down with what is true, as hits are whole numbers: of 50 windows at .9, it is .9703.
    assert [(each.metric, each.positives, each.truth) for each in outside] == [("sensitivity", 50, "0.9")]
    assert outside[0].coverage < 0.971


def test_intervals_of_auroc_hold_what_is_true_93_to_97_times_in_100() -> None:
    coverages = auroc_coverages(draws=3000, seed=1)
    assert len(coverages) == 80
    outside = [each for each in coverages if not 0.93 <= each.coverage <= 0.97]
    # Of labels alone the AUROC is their balanced accuracy, which goes by steps: with 25 windows a class at .9, to .970 or so.
    assert {(each.metric, each.positives, each.truth) for each in outside} <= {("auroc, labels", 25, "0.9")}
    assert all(each.coverage < 0.98 for each in outside)


def test_next_to_1_the_interval_of_auroc_does_not_fall_short() -> None:
    assert min(each.coverage for each in auroc_coverages(draws=2000, seed=2, aurocs=(0.98,))) > 0.92


# means


@settings(deadline=None, max_examples=40)
@given(
    st.lists(st.floats(-10, 10), min_size=2, max_size=20).filter(lambda values: len({round(v, 3) for v in values}) > 1)
)
def test_the_interval_of_a_mean_is_student_s(values: list[float]) -> None:
    mean, low, high = mean_interval(np.array(values))
    known = scipy.stats.ttest_1samp(values, 0.0).confidence_interval(0.95)
    assert mean == pytest.approx(np.mean(values), abs=1e-9)
    assert (low, high) == (pytest.approx(known.low), pytest.approx(known.high))


def test_a_mean_of_fewer_than_two_has_no_interval() -> None:
    assert all(map(isnan, mean_interval(np.array([]))))
    mean, low, high = mean_interval(np.array([0.5]))
    assert mean == 0.5
    assert isnan(low)
    assert isnan(high)
