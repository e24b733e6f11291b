"""Metrics, their intervals, and their bounds over failed judgements."""

from itertools import product
from math import isnan, sqrt
from typing import Any

import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st

from latentlake.metrics import Metric, auroc, auroc_interval, label_metrics, mean_interval, rank_metric

SIZES = st.integers(2, 60)


def pairs_won(truth: np.ndarray, measure: np.ndarray) -> float | None:
    """AUROC by its meaning: the share of (positive, negative) pairs in the right order, ties counting half."""
    pairs = [(p > n) + (p == n) / 2 for p, n in product(measure[truth], measure[~truth])]
    return sum(pairs) / len(pairs) if pairs else None


def arrays(rows: list[tuple[bool, Any, bool]]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    truth, values, failed = zip(*rows, strict=True)
    return np.array(truth, dtype=bool), np.array(values), np.array(failed, dtype=bool)


MEASURED = st.lists(st.tuples(st.booleans(), st.integers(-3, 3).map(float), st.booleans()), min_size=1, max_size=9)
LABELLED = st.lists(st.tuples(st.booleans(), st.booleans(), st.booleans()), min_size=1, max_size=9)


# AUROC


@settings(deadline=None, max_examples=50)
@given(MEASURED)
def test_auroc_is_the_share_of_pairs_in_the_right_order(rows: list[tuple[bool, float, bool]]) -> None:
    truth, measure, _ = arrays(rows)
    wanted = pairs_won(truth, measure)
    assert auroc(truth, measure) == (None if wanted is None else pytest.approx(wanted))


@pytest.mark.parametrize("truth", [[], [True], [True, True], [False, False]])
def test_one_class_has_no_metric(truth: list[bool]) -> None:
    is_activating, n = np.array(truth, dtype=bool), len(truth)
    assert auroc(is_activating, np.arange(n, dtype=float)) is None
    nothing = (None, None, None, None, None)
    found = rank_metric(is_activating, np.zeros(n), np.zeros(n, dtype=bool))
    assert (found.value, found.low, found.high, found.worst, found.best) == nothing
    for each in label_metrics(is_activating, np.zeros(n, dtype=bool), np.zeros(n, dtype=bool)):
        assert (each.value, each.low, each.high, each.worst, each.best) == nothing


@settings(deadline=None, max_examples=50)
@given(st.floats(0, 1), SIZES, SIZES)
def test_the_interval_holds_the_value_and_stays_in_bounds(value: float, positives: int, negatives: int) -> None:
    low, high = auroc_interval(value, positives, negatives)
    assert 0 <= low <= value <= high <= 1


@pytest.mark.parametrize(("positives", "negatives"), [(2, 2), (10, 10), (50, 50), (4, 40)])
def test_the_interval_is_not_degenerate_at_the_ends(positives: int, negatives: int) -> None:
    low, high = auroc_interval(1.0, positives, negatives)
    assert 0 < low < 1
    assert high == 1
    assert auroc_interval(0.0, positives, negatives) == (0, pytest.approx(1 - low))
    # It is where the intervals of values next to it lie.
    assert low == pytest.approx(auroc_interval(1 - 1e-9, positives, negatives)[0], abs=1e-3)


@settings(deadline=None, max_examples=40)
@given(st.floats(0.01, 0.99), SIZES, SIZES)
def test_the_interval_is_symmetric(value: float, positives: int, negatives: int) -> None:
    low, high = auroc_interval(value, positives, negatives)
    assert auroc_interval(1 - value, positives, negatives) == (pytest.approx(1 - high), pytest.approx(1 - low))
    assert auroc_interval(value, negatives, positives) == (pytest.approx(low), pytest.approx(high))


@settings(deadline=None, max_examples=40)
@given(st.floats(0.01, 0.99), SIZES, SIZES)
def test_its_ends_are_z_standard_errors_of_hanley_and_mcneil_away(value: float, positives: int, negatives: int) -> None:
    for end in auroc_interval(value, positives, negatives):
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
    low, high = auroc_interval(value, n, n)
    for narrow in (auroc_interval(value, factor * n, factor * n), auroc_interval(value, n, n, level=0.8)):
        assert narrow[1] - narrow[0] < high - low


@pytest.mark.parametrize(("separation", "n"), [(0.0, 25), (1.0, 25), (1.5, 50), (3.0, 10)])
def test_the_interval_covers_about_95_percent(separation: float, n: int) -> None:
    chance, true_value = np.random.default_rng(1), scipy.stats.norm.cdf(separation / sqrt(2))
    values = (chance.normal(separation, 1, (400, n, 1)) > chance.normal(0, 1, (400, 1, n))).mean(axis=(1, 2))
    share = np.mean([low <= true_value <= high for low, high in (auroc_interval(value, n, n) for value in values)])
    assert 0.90 <= share <= 0.995


# failed judgements


def all_outcomes(failed: np.ndarray, values: list[Any]) -> list[tuple[Any, ...]]:
    return list(product(values, repeat=int(failed.sum())))


def replaced(values: np.ndarray, failed: np.ndarray, outcome: tuple[Any, ...]) -> np.ndarray:
    found = values.copy()
    found[failed] = outcome
    return found


@settings(deadline=None, max_examples=40)
@given(MEASURED.filter(lambda rows: sum(row[2] for row in rows) <= 4))
def test_the_bounds_of_auroc_are_those_of_all_outcomes(rows: list[tuple[bool, float, bool]]) -> None:
    truth, measure, failed = arrays(rows)
    # Anything a failed judgement could have measured is below, among, or above what the others did.
    outcomes = [pairs_won(truth, replaced(measure, failed, each)) for each in all_outcomes(failed, [-9.0, 0.0, 9.0])]
    found = rank_metric(truth, measure, failed)
    assert found.name == "auroc"
    assert found.value == (
        None if (value := pairs_won(truth[~failed], measure[~failed])) is None else pytest.approx(value)
    )
    if truth.all() or not truth.any():
        assert (found.worst, found.best) == (None, None)
    else:
        defined = [each for each in outcomes if each is not None]
        assert (found.worst, found.best) == (pytest.approx(min(defined)), pytest.approx(max(defined)))


@settings(deadline=None, max_examples=40)
@given(LABELLED.filter(lambda rows: sum(row[2] for row in rows) <= 4))
def test_the_bounds_of_labels_are_those_of_all_outcomes(rows: list[tuple[bool, bool, bool]]) -> None:
    truth, prediction, failed = arrays(rows)
    by_name = {each.name: each for each in label_metrics(truth, prediction, failed)}
    assert by_name.keys() == {"balanced_accuracy", "f1"}
    for name, score in (("balanced_accuracy", accuracy_of_classes), ("f1", harmonic_mean)):
        found, seen = by_name[name], ~failed
        if truth[seen].all() or not truth[seen].any():
            assert found.value is None
        else:
            assert found.value == pytest.approx(score(truth[seen], prediction[seen]))
        if not truth.all() and truth.any():
            outcomes = [
                score(truth, replaced(prediction, failed, each)) for each in all_outcomes(failed, [True, False])
            ]
            assert (found.worst, found.best) == (pytest.approx(min(outcomes)), pytest.approx(max(outcomes)))


def accuracy_of_classes(truth: np.ndarray, prediction: np.ndarray) -> float:
    return float((prediction[truth].mean() + (~prediction[~truth]).mean()) / 2)


def harmonic_mean(truth: np.ndarray, prediction: np.ndarray) -> float:
    hits = (truth & prediction).sum()
    if not hits:
        return 0.0
    precision, recall = hits / prediction.sum(), hits / truth.sum()
    return float(2 * precision * recall / (precision + recall))


def bounds_hold(metric: Metric) -> bool:
    if metric.value is None or metric.worst is None or metric.best is None:
        return metric.value is None
    return metric.worst - 1e-12 <= metric.value <= metric.best + 1e-12


@settings(deadline=None, max_examples=40)
@given(MEASURED, LABELLED)
def test_worst_value_and_best_are_in_order(
    measured: list[tuple[bool, float, bool]], labelled: list[tuple[bool, bool, bool]]
) -> None:
    assert bounds_hold(rank_metric(*arrays(measured)))
    assert all(bounds_hold(each) for each in label_metrics(*arrays(labelled)))


def test_without_failures_the_bounds_are_the_value() -> None:
    truth, nothing = np.array([True, True, False, False]), np.zeros(4, dtype=bool)
    found = rank_metric(truth, np.array([0.9, 0.2, 0.4, 0.1]), nothing)
    assert found.worst == found.value == found.best == 0.75
    for each in label_metrics(truth, np.array([True, False, False, False]), nothing):
        assert each.worst == each.value == each.best


def test_the_interval_of_a_metric_counts_what_was_judged() -> None:
    truth = np.repeat([True, False], [6, 8])
    measure, failed = np.arange(14.0)[::-1] % 5, np.arange(14) % 4 == 0
    found = rank_metric(truth, measure, failed)
    assert found.value is not None
    positives, negatives = int((truth & ~failed).sum()), int((~truth & ~failed).sum())
    assert (found.low, found.high) == auroc_interval(found.value, positives, negatives)


def test_with_all_judgements_failed_only_the_bounds_are_known() -> None:
    truth, failed = np.array([True, False, False]), np.ones(3, dtype=bool)
    found = rank_metric(truth, np.zeros(3), failed)
    assert (found.value, found.low, found.high, found.worst, found.best) == (None, None, None, 0.0, 1.0)


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
