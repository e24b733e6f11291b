"""Metrics of judgements, with intervals, and with bounds for the judgements that failed."""

from collections.abc import Callable
from dataclasses import dataclass
from math import sqrt

import numpy as np
from scipy.optimize import brentq
from scipy.stats import norm, t
from sklearn.metrics import balanced_accuracy_score, f1_score, roc_auc_score

LEVEL = 0.95
_EDGE = 1e-9


@dataclass(frozen=True)
class Metric:
    """A metric of one latent. ``low``, ``high``: 95 % interval; ``worst``, ``best``: bounds over failed judgements."""

    name: str
    value: float | None
    low: float | None
    high: float | None
    worst: float | None
    best: float | None


def auroc(is_activating: np.ndarray, measure: np.ndarray) -> float | None:
    """Area under the ROC curve; None where one of the classes is empty."""
    if is_activating.all() or not is_activating.any():
        return None
    return float(roc_auc_score(is_activating, measure))


def auroc_interval(value: float, positives: int, negatives: int, level: float = LEVEL) -> tuple[float, float]:
    """Score interval of an AUROC, in bounds and not degenerate at 0 and 1, as small samples need.

    Method 5 of R. G. Newcombe, "Confidence intervals for an effect size measure based on the Mann-Whitney statistic,
    part 2" (Statistics in Medicine 25, 2006): the values whose distance from the one found is z standard errors, with
    the variance of Hanley and McNeil and the mean of the two sample sizes in it.
    """
    z, larger = norm.ppf((1 + level) / 2), (positives + negatives) / 2 - 1

    def excess(theta: float) -> float:
        spread = 1 + larger * ((1 - theta) / (2 - theta) + theta / (1 + theta))
        return float(abs(theta - value) - z * sqrt(theta * (1 - theta) * spread / (positives * negatives)))

    # At 0 and at 1 the variance is nought, and so is the distance of the value itself: roots, but not the ends.
    low = 0.0 if value <= _EDGE else brentq(excess, 0.0, min(value, 1 - _EDGE))
    high = 1.0 if value >= 1 - _EDGE else brentq(excess, max(value, _EDGE), 1.0)
    return float(low), float(high)


def rank_metric(is_activating: np.ndarray, measure: np.ndarray, failed: np.ndarray) -> Metric:
    """AUROC of a measure (float; anything where ``failed``), all arrays [windows]."""
    seen = ~failed
    value = auroc(is_activating[seen], measure[seen])
    low = high = None
    if value is not None:
        positives = int(is_activating[seen].sum())
        low, high = auroc_interval(value, positives, int(seen.sum()) - positives)
    lowest, highest = (measure[seen].min() - 1, measure[seen].max() + 1) if seen.any() else (0.0, 1.0)
    right = np.where(is_activating, highest, lowest)
    wrong = np.where(is_activating, lowest, highest)
    worst = auroc(is_activating, np.where(failed, wrong, measure))
    best = auroc(is_activating, np.where(failed, right, measure))
    return Metric("auroc", value, low, high, worst, best)


def label_metrics(is_activating: np.ndarray, prediction: np.ndarray, failed: np.ndarray) -> list[Metric]:
    """Balanced accuracy and F1 of labels (bool; anything where ``failed``), all arrays [windows]."""
    seen = ~failed
    wrong, right = np.where(failed, ~is_activating, prediction), np.where(failed, is_activating, prediction)
    return [
        Metric(
            name,
            _labelled(score, is_activating[seen], prediction[seen]),
            None,
            None,
            _labelled(score, is_activating, wrong),
            _labelled(score, is_activating, right),
        )
        for name, score in LABEL_METRICS.items()
    ]


def mean_interval(values: np.ndarray, level: float = LEVEL) -> tuple[float, float, float]:
    """Mean over latents and its interval by Student's t; NaN ends for fewer than two values."""
    mean = float(values.mean()) if len(values) else float("nan")
    if len(values) < 2:
        return mean, float("nan"), float("nan")
    half = t.ppf((1 + level) / 2, len(values) - 1) * values.std(ddof=1) / sqrt(len(values))
    return mean, float(mean - half), float(mean + half)


def _labelled(score: Callable[..., float], truth: np.ndarray, prediction: np.ndarray) -> float | None:
    return None if truth.all() or not truth.any() else float(score(truth, prediction))


def _f1(truth: np.ndarray, prediction: np.ndarray) -> float:
    return float(f1_score(truth, prediction, zero_division=0.0))


LABEL_METRICS: dict[str, Callable[..., float]] = {"balanced_accuracy": balanced_accuracy_score, "f1": _f1}
