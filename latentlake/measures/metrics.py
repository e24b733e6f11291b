"""Metrics of judgements, with 95 % intervals, and with bounds for the judgements that failed.

All of many groups of judgements at once: arrays in, arrays out, NaN where something is not defined. Intervals are closed
forms where there are any, since a million latents have tens of millions of metrics; docs/decisions/015-intervals.md says
how often they hold what is true.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from scipy.special import expit, logit
from scipy.stats import norm, rankdata, t

LEVEL = 0.95
_NO_SPREAD = 1e-15  # of a variance that is nought but for rounding; the least that is not is 1 / (4 m² n²)
_NEAR_THE_END = 0.02  # of 0 or 1, where too few windows are out of order to say how much the AUROC varies


@dataclass(frozen=True)
class Metric:
    """A metric of groups. ``low``, ``high``: 95 % interval; ``worst``, ``best``: bounds over failed judgements."""

    value: np.ndarray
    low: np.ndarray
    high: np.ndarray
    worst: np.ndarray
    best: np.ndarray


@dataclass(frozen=True)
class Judged:
    """What is counted of groups of judgements, each an array of floats [groups].

    ``positives``, ``negatives``: activating windows and others, without the failed ones, which are ``failed_positives`` and
    ``failed_negatives``. ``hits``, ``alarms``: of positives and of negatives those that are said to fire. ``wins``: pairs of
    a positive and a negative of which the positive has the larger measure, ties counting half. ``variance``: of the
    AUROC, by DeLong; NaN where a class has a single window.
    """

    positives: np.ndarray
    negatives: np.ndarray
    failed_positives: np.ndarray
    failed_negatives: np.ndarray
    hits: np.ndarray
    alarms: np.ndarray
    wins: np.ndarray
    variance: np.ndarray


Interval = tuple[np.ndarray, np.ndarray]


def auroc(is_activating: np.ndarray, measure: np.ndarray) -> float | None:
    """Area under the ROC curve of one group, arrays [windows]; None where one of the classes is empty."""
    positives, negatives = is_activating.sum(), (~is_activating).sum()
    if not positives or not negatives:
        return None
    wins = rankdata(measure)[is_activating].sum() - positives * (positives + 1) / 2
    return float(wins / (positives * negatives))


def wilson_interval(hits: np.ndarray, n: np.ndarray, level: float = LEVEL) -> Interval:
    """Wilson's score interval of a share (E. B. Wilson, JASA 22, 1927), as `scipy.stats.binomtest` has it for one."""
    square = _z(level) ** 2
    middle = (hits + square / 2) / (n + square)
    half = _z(level) * np.sqrt(hits * (n - hits) / n + square / 4) / (n + square)
    return middle - half, middle + half


def balanced_accuracy_interval(
    hits: np.ndarray, positives: np.ndarray, rejections: np.ndarray, negatives: np.ndarray, level: float = LEVEL
) -> Interval:
    """Interval of the mean of two independent shares: the ways to their Wilson limits, squared and added.

    Method 10 of R. G. Newcombe (Statistics in Medicine 17, 1998) for differences, of sums by the same argument.
    """
    one, (one_low, one_high) = hits / positives, wilson_interval(hits, positives, level)
    other, (other_low, other_high) = rejections / negatives, wilson_interval(rejections, negatives, level)
    mean = (one + other) / 2
    return (
        mean - np.hypot(one - one_low, other - other_low) / 2,
        mean + np.hypot(one_high - one, other_high - other) / 2,
    )


def f1_interval(
    hits: np.ndarray, positives: np.ndarray, alarms: np.ndarray, negatives: np.ndarray, level: float = LEVEL
) -> Interval:
    """Interval of F1 with so many windows of each class drawn.

    F* = F1 / (2 - F1) = hits / (positives + alarms) is a ratio of two independent quantities, the sensitivity and
    1 + alarms / positives. Their Wilson limits give its own by MOVER-R (A. Donner, G. Y. Zou, Statistical Methods in Medical
    Research 21, 2012; R. G. Newcombe, ibid. 25, 2016): the limit R at which ``above - R * below`` has 0 as its limit.
    """
    above, (above_low, above_high) = hits / positives, wilson_interval(hits, positives, level)
    shares = alarms / negatives, *wilson_interval(alarms, negatives, level)
    below, below_low, below_high = (1 + share * negatives / positives for share in shares)
    low = _ratio_limit(above, above - above_low, below, below_high - below, -1)
    high = _ratio_limit(above, above_high - above, below, below - below_low, 1)
    return 2 * low / (1 + low), 2 * high / (1 + high)


def auroc_interval(
    value: np.ndarray, positives: np.ndarray, negatives: np.ndarray, variance: np.ndarray, level: float = LEVEL
) -> Interval:
    """DeLong's interval on the logit scale; where this is not defined, at 0 and 1 above all, Newcombe's.

    Within .02 of 0 and 1 the wider of both ends counts: there DeLong's falls short.
    """
    small = newcombe_interval(value, positives, negatives, level)
    is_defined = (variance > _NO_SPREAD) & (value > 0) & (value < 1)
    is_near = np.minimum(value, 1 - value) < _NEAR_THE_END
    with np.errstate(divide="ignore", over="ignore", invalid="ignore"):
        half = _z(level) * np.sqrt(variance) / (value * (1 - value))
        low, high = (np.where(is_defined, expit(logit(value) + side * half), np.nan) for side in (-1, 1))
    takes_wider = is_near | ~is_defined
    return np.where(takes_wider, np.fmin(small[0], low), low), np.where(takes_wider, np.fmax(small[1], high), high)


def newcombe_interval(
    value: np.ndarray, positives: np.ndarray, negatives: np.ndarray, level: float = LEVEL
) -> Interval:
    """Score interval of an AUROC, in bounds and not degenerate at 0 and 1, as small samples need.

    Method 5 of R. G. Newcombe, "Confidence intervals for an effect size measure based on the Mann-Whitney statistic,
    part 2" (Statistics in Medicine 25, 2006): the values whose distance from the one found is z standard errors, with
    the variance of Hanley and McNeil and the mean of the two sample sizes in it.
    """
    square, larger = _z(level) ** 2, (positives + negatives) / 2 - 1

    def is_outside(theta: np.ndarray) -> np.ndarray:
        spread = 1 + larger * ((1 - theta) / (2 - theta) + theta / (1 + theta))
        variance = theta * (1 - theta) * spread / (positives * negatives)
        return np.asarray((theta - value) ** 2 > square * variance)

    # At 0 and at 1 the variance is nought, and so is the distance of the value itself: roots, but not the ends.
    low = np.where(value > 0, _last_outside(is_outside, np.zeros_like(value), np.minimum(value, 1 - 1e-9)), value)
    high = np.where(value < 1, _last_outside(is_outside, np.ones_like(value), np.maximum(value, 1e-9)), value)
    return low, high


def _last_outside(
    is_outside: Callable[[np.ndarray], np.ndarray], outside: np.ndarray, inside: np.ndarray
) -> np.ndarray:
    """Where an interval ends between two points, by halving: to the last digits, and for all at once."""
    for _ in range(52):
        middle = (outside + inside) / 2
        goes_on = is_outside(middle)
        outside, inside = np.where(goes_on, middle, outside), np.where(goes_on, inside, middle)
    return outside


def _ratio_limit(
    above: np.ndarray, above_way: np.ndarray, below: np.ndarray, below_way: np.ndarray, side: int
) -> np.ndarray:
    """The smaller or larger root R of (above - R below)² = above_way² + R² below_way², with the ways to the limits."""
    a, b, c = below**2 - below_way**2, above * below, above**2 - above_way**2
    root = np.sqrt(np.maximum(b * b - a * c, 0.0))
    if side > 0:
        return np.asarray((b + root) / a)
    return np.asarray(np.divide(c, b + root, out=np.zeros_like(b), where=b > 0))


def _z(level: float) -> float:
    return float(norm.ppf((1 + level) / 2))


def _auroc(judged: Judged) -> Metric:
    pairs = judged.positives * judged.negatives
    all_pairs = (judged.positives + judged.failed_positives) * (judged.negatives + judged.failed_negatives)
    value = judged.wins / pairs
    ends = auroc_interval(value, judged.positives, judged.negatives, judged.variance)
    return Metric(value, *ends, judged.wins / all_pairs, 1 - (pairs - judged.wins) / all_pairs)


def _rate(hits: np.ndarray, n: np.ndarray, failed: np.ndarray) -> Metric:
    return Metric(hits / n, *wilson_interval(hits, n), hits / (n + failed), (hits + failed) / (n + failed))


def _sensitivity(judged: Judged) -> Metric:
    return _rate(judged.hits, judged.positives, judged.failed_positives)


def _specificity(judged: Judged) -> Metric:
    return _rate(judged.negatives - judged.alarms, judged.negatives, judged.failed_negatives)


def _balanced_accuracy(judged: Judged) -> Metric:
    one, other = _sensitivity(judged), _specificity(judged)
    rejections = judged.negatives - judged.alarms
    ends = balanced_accuracy_interval(judged.hits, judged.positives, rejections, judged.negatives)
    return Metric((one.value + other.value) / 2, *ends, (one.worst + other.worst) / 2, (one.best + other.best) / 2)


def _f1(judged: Judged) -> Metric:
    hits, alarms, positives, negatives = judged.hits, judged.alarms, judged.positives, judged.negatives
    all_positives, all_negatives = positives + judged.failed_positives, negatives + judged.failed_negatives
    return Metric(
        _f1_of(hits, positives, alarms, negatives),
        *f1_interval(hits, positives, alarms, negatives),
        _f1_of(hits, all_positives, alarms + judged.failed_negatives, all_negatives),
        _f1_of(hits + judged.failed_positives, all_positives, alarms, all_negatives),
    )


def _f1_of(hits: np.ndarray, positives: np.ndarray, alarms: np.ndarray, negatives: np.ndarray) -> np.ndarray:
    """F1, where there are windows of both classes."""
    return np.where((positives > 0) & (negatives > 0), 2 * hits / (positives + hits + alarms), np.nan)


LABEL_METRICS: dict[str, Callable[[Judged], Metric]] = {
    "balanced_accuracy": _balanced_accuracy,
    "f1": _f1,
    "sensitivity": _sensitivity,
    "specificity": _specificity,
}
METRICS: dict[str, Callable[[Judged], Metric]] = {"auroc": _auroc, **LABEL_METRICS}


def measure(name: str, judged: Judged) -> Metric:
    """A metric of groups by its name, its interval within 0 and 1 and around the value."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return _bounded(METRICS[name](judged))


def share(hits: np.ndarray, n: np.ndarray, failed: np.ndarray) -> Metric:
    """The share of ``n`` judgements that are ``hits``, beside so many that failed; arrays of floats [groups]."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return _bounded(_rate(hits, n, failed))


def _bounded(found: Metric) -> Metric:
    """Intervals within 0 and 1 and around the value, and none where there is no value."""
    is_there = ~np.isnan(found.value)
    return replace(
        found,
        low=np.where(is_there, np.clip(found.low, 0, found.value), np.nan),
        high=np.where(is_there, np.clip(found.high, found.value, 1), np.nan),
    )


def mean_interval(values: np.ndarray, level: float = LEVEL) -> tuple[float, float, float]:
    """Mean over latents and its interval by Student's t; NaN ends for fewer than two values."""
    mean = float(values.mean()) if len(values) else float("nan")
    if len(values) < 2:
        return mean, float("nan"), float("nan")
    half = float(mean_half_width(values.std(ddof=1), np.array(len(values)), level))
    return mean, mean - half, mean + half


def mean_half_width(deviation: np.ndarray, n: np.ndarray, level: float = LEVEL) -> np.ndarray:
    """Half the width of the interval of a mean by Student's t; NaN for fewer than two values."""
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(t.ppf((1 + level) / 2, n - 1) * deviation / np.sqrt(n))
