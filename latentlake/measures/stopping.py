"""When enough windows of a latent are judged, and what its scores are then. docs/decisions/017-stop-when-decided.md says why so.

Windows are judged in waves, and after each one looks. Who looks often and stops at what he likes errs more often than the level
says, so that each look has an interval of its own, wider than 95 %: all of them together hold what is true with 95 % (repeated
confidence intervals: C. Jennison, B. W. Turnbull, JRSS B 51, 1989), whatever makes one stop. And shares are pushed away from the
middle by stopping early where they are extreme; the estimates here are exactly unbiased.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np
from scipy.optimize import brentq
from scipy.special import ndtr
from scipy.stats import hypergeom

from latentlake.measures.metrics import LEVEL, Interval, balanced_accuracy_interval, wilson_interval

_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(256)
_FARTHEST = 38.0  # standard errors: beyond, no float holds what is left
_ROUNDING = 1e-9


# Looks: the intervals' levels


def pocock_like(fraction: np.ndarray) -> np.ndarray:
    """How much of the 5 % may be spent up to this fraction of the information, so that about as much is asked of each look.

    The spending function of K. K. G. Lan and D. L. DeMets (Biometrika 70, 1983) that is like S. J. Pocock's boundary.
    """
    return np.asarray((1 - LEVEL) * np.log1p(np.expm1(1) * fraction))


Spending = Callable[[np.ndarray], np.ndarray]


@lru_cache(maxsize=4096)
def levels(information: tuple[float, ...], spending: Spending = pocock_like) -> tuple[float, ...]:
    """Level of the interval at each look, such that all hold together with 95 %.

    ``information``: what is planned to be known up to each look, in any unit. A look that brings none has the level of the one
    before it; one at which nothing is known has level 1.
    """
    known = np.array(sorted({each for each in information if each > 0}))
    if not len(known):
        return tuple(1.0 for _ in information)
    fractions = known / known[-1]
    found = 2 * ndtr(boundaries(spending(fractions), fractions)) - 1
    by_information = dict(zip(known.tolist(), found.tolist(), strict=True))
    return tuple(by_information.get(each, 1.0) for each in information)


def boundaries(spent: np.ndarray, fractions: np.ndarray) -> np.ndarray:
    """Standard errors from the truth which an estimate goes beyond first at look k with probability spent[k] - spent[k-1].

    Recursive integration over what has stayed inside (P. Armitage, C. K. McPherson, B. C. Rowe, JRSS A 132, 1969), at Legendre's
    nodes; estimates of looks are those of a Brownian motion at the ``fractions`` of information.
    """
    inside, found = _Inside(np.zeros(1), np.ones(1), 0.0), []
    for more, fraction in zip(np.diff(spent, prepend=0.0), fractions, strict=True):
        found.append(float(brentq(_excess(inside, fraction, more), 0.0, _FARTHEST, xtol=1e-12)))
        inside = inside.within(found[-1], fraction)
    return np.array(found)


@dataclass(frozen=True)
class _Inside:
    """Paths that have not gone beyond: their probability by place, at the nodes of an integral, and the time."""

    places: np.ndarray
    probability: np.ndarray
    time: float

    def beyond(self, bound: float, time: float) -> float:
        """Probability that a path goes beyond the boundary, in standard errors, at the next look."""
        end, step = bound * np.sqrt(time), np.sqrt(time - self.time)
        tails = ndtr((-end - self.places) / step) + ndtr((self.places - end) / step)
        return float(self.probability @ tails)

    def within(self, bound: float, time: float) -> "_Inside":
        """Those of them that do not."""
        end, step = bound * np.sqrt(time), np.sqrt(time - self.time)
        places = _NODES * end
        density = np.exp(-0.5 * ((places[:, None] - self.places) / step) ** 2) / (step * np.sqrt(2 * np.pi))
        return _Inside(places, (density @ self.probability) * _WEIGHTS * end, time)


def _excess(inside: _Inside, time: float, wanted: float) -> Callable[[float], float]:
    return lambda bound: inside.beyond(bound, time) - wanted


def interval(
    hits: np.ndarray, positives: np.ndarray, rejections: np.ndarray, negatives: np.ndarray, level: float
) -> Interval:
    """Interval of the balanced accuracy at a look of this level, within 0 and 1.

    It is wider than `balanced_accuracy_interval` by half a step of what is counted, as where normal theory stands for counts:
    without this the looks together hold what is true with as little as 92 % at accuracies of .8 and above.
    """
    low, high = balanced_accuracy_interval(hits, positives, rejections, negatives, level)
    half_step = 1 / (2 * (positives + negatives))
    return np.clip(low - half_step, 0, 1), np.clip(high + half_step, 0, 1)


def share_interval(hits: np.ndarray, n: np.ndarray, level: float) -> Interval:
    """Interval of sensitivity or specificity at a look of this level, within 0 and 1; wider by half a step too."""
    low, high = wilson_interval(hits, n, level)
    return np.clip(low - 1 / (2 * n), 0, 1), np.clip(high + 1 / (2 * n), 0, 1)


# Stopping


@dataclass(frozen=True)
class Rule:
    """Judging stops where the interval of balanced accuracy lies on one side of ``threshold`` or is narrower than ``width``."""

    threshold: float | None = None
    width: float | None = None

    def is_decided(
        self, hits: np.ndarray, positives: np.ndarray, rejections: np.ndarray, negatives: np.ndarray, level: float
    ) -> np.ndarray:
        """Whether it stops at a look of this level, booleans of the shape of the counts; never while a class has no judgement."""
        with np.errstate(divide="ignore", invalid="ignore"):
            low, high = interval(hits, positives, rejections, negatives, level)
            found = np.zeros(np.shape(low), dtype=bool)
            if self.threshold is not None:
                found |= (low > self.threshold + _ROUNDING) | (high < self.threshold - _ROUNDING)
            if self.width is not None:
                found |= high - low < self.width - _ROUNDING
        return np.asarray(found & (positives > 0) & (negatives > 0) & (level < 1))


@dataclass(frozen=True)
class Look:
    """What was judged up to the end of a wave and did not fail, by class, and the level of the interval there."""

    positives: int
    negatives: int
    level: float

    @cached_property
    def outcomes(self) -> tuple[np.ndarray, np.ndarray]:
        """Hits and rejections of all that may have come out, each an array [hits, rejections]."""
        hits, rejections = np.meshgrid(np.arange(self.positives + 1.0), np.arange(self.negatives + 1.0), indexing="ij")
        return hits, rejections


# Estimates


def estimates(
    rule: Rule, looks: tuple[Look, ...], hits: np.ndarray, rejections: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Sensitivity and specificity of latents whose judging ended at the last of these looks, without bias.

    ``hits``, ``rejections``: integers [latents], right answers of either class up to there. NaN is what a class without a
    judgement has, and what no judging could have come to.

    What is expected of the first look, given where judging ended (M. A. Girshick, F. Mosteller, L. J. Savage, Annals of
    Mathematical Statistics 17, 1946; of several stages S.-H. Jung, K. M. Kim, Statistics in Medicine 23, 2004): the first look's
    share has no bias, and no more is known than where it ended.
    """
    last = looks[-1]
    if not last.positives or not last.negatives:  # no look could stop it
        with np.errstate(invalid="ignore"):
            return hits / np.float64(last.positives), rejections / np.float64(last.negatives)
    reached = _reached(rule, looks)
    came = reached.came[hits, rejections]
    came = np.where(came > 0, came, np.nan)
    return reached.sensitivity[hits, rejections] / came, reached.specificity[hits, rejections] / came


@dataclass(frozen=True)
class _Reached:
    """By outcome at a look, arrays [hits, rejections]: over all orders in which these answers may have come, equally likely, the
    share ``came`` of orders in which no look before stopped, and the first look's sensitivity and specificity summed over these.
    """

    came: np.ndarray
    sensitivity: np.ndarray
    specificity: np.ndarray


@lru_cache(maxsize=256)
def _reached(rule: Rule, looks: tuple[Look, ...]) -> _Reached:
    """One look after the other: an order that comes to an outcome came to fewer hits and rejections at the look before.

    Shares of orders, not numbers of them, which no float would hold.
    """
    *before, last = looks
    hits, rejections = last.outcomes
    if not before or not before[-1].positives or not before[-1].negatives:  # the first that could stop it
        return _Reached(np.ones_like(hits), hits / last.positives, rejections / last.negatives)
    earlier, look = _reached(rule, tuple(before)), before[-1]
    sizes = np.array(float(look.positives)), np.array(float(look.negatives))
    goes_on = ~rule.is_decided(look.outcomes[0], sizes[0], look.outcomes[1], sizes[1], look.level)
    of_hits, of_rejections = _drawn(look.positives, last.positives), _drawn(look.negatives, last.negatives)
    return _Reached(*(of_hits.T @ (each * goes_on) @ of_rejections for each in vars(earlier).values()))


@lru_cache(maxsize=4096)
def _drawn(few: int, many: int) -> np.ndarray:
    """Probability that of ``many`` answers, of which so many are right, so many are among the first ``few``: [few, many]."""
    right_of_few, right = np.meshgrid(np.arange(few + 1), np.arange(many + 1), indexing="ij")
    return np.asarray(hypergeom.pmf(right_of_few, many, right, few))
