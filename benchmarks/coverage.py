"""How often 95 % intervals of metrics hold what is true: ``python -m benchmarks.coverage [--draws N]``.

Of rates, balanced accuracy and F1 the probabilities are summed over all outcomes; of AUROC, windows are drawn. The sizes of
the classes are fixed, as a sample's are.
"""

import argparse
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import product

import numpy as np
from scipy.optimize import brentq
from scipy.stats import binom, norm, rankdata

from latentlake.measures.correlation import jackknife, pearson, pearson_interval
from latentlake.measures.metrics import (
    Interval,
    auroc_interval,
    balanced_accuracy_interval,
    f1_interval,
    newcombe_interval,
    wilson_interval,
)

SIZES = ((25, 25), (50, 50), (100, 100), (30, 70))
RATES = AUROCS = (0.5, 0.6, 0.75, 0.9)
_CUTS = np.array([-1.0, -0.3, 0.3, 1.0])  # between five values, about the middle between two means
_AT_ONCE = 2000  # draws
_ROUNDING = 1e-9
_TOKENS = 32  # of a window
_TRUE = 40_000  # windows that stand for all, of r


@dataclass(frozen=True)
class Coverage:
    """``coverage``: the probability that the interval holds what is true; ``width``: its mean width; ``others``: the
    coverage of intervals that could stand in its place."""

    metric: str
    positives: int
    negatives: int
    truth: str
    coverage: float
    width: float
    others: tuple[tuple[str, float], ...] = ()


def rate_coverages() -> list[Coverage]:
    """Of sensitivity (of at least 50 windows), balanced accuracy and F1, summed over all outcomes."""
    rows = [_rate(n, rate) for n, rate in product((50, 100), RATES)]
    for (positives, negatives), sensitivity, specificity in product(SIZES, RATES, RATES):
        rows += _labels(positives, negatives, sensitivity, specificity)
    return rows


def _rate(n: int, rate: float) -> Coverage:
    hits = np.arange(n + 1.0)
    found = _held(wilson_interval(hits, np.full(n + 1, float(n))), rate, binom.pmf(hits, n, rate))
    return Coverage("sensitivity", n, 0, str(rate), *found)


def _labels(positives: int, negatives: int, sensitivity: float, specificity: float) -> Iterator[Coverage]:
    hits, rejections = (each.ravel() for each in np.meshgrid(np.arange(positives + 1.0), np.arange(negatives + 1.0)))
    sizes = [np.full(len(hits), float(n)) for n in (positives, negatives)]
    chances = binom.pmf(hits, positives, sensitivity) * binom.pmf(rejections, negatives, specificity)
    where, alarms = (positives, negatives, f"{sensitivity}, {specificity}"), negatives - rejections
    balanced = balanced_accuracy_interval(hits, sizes[0], rejections, sizes[1])
    yield Coverage("balanced_accuracy", *where, *_held(balanced, (sensitivity + specificity) / 2, chances))
    told, wrong = positives * sensitivity, negatives * (1 - specificity)
    f1 = 2 * told / (positives + told + wrong)
    indirect = [2 * end / (1 + end) for end in wilson_interval(hits, positives + alarms)]
    other = _held((indirect[0], indirect[1]), f1, chances)[0]
    found = _held(f1_interval(hits, sizes[0], alarms, sizes[1]), f1, chances)
    yield Coverage("f1", *where, *found, (("Wilson indirect", other),))


def _held(interval: Interval, truth: float, chances: np.ndarray) -> tuple[float, float]:
    """Probability that an interval holds what is true, and its mean width."""
    is_held = (interval[0] <= truth + _ROUNDING) & (truth - _ROUNDING <= interval[1])
    return float((chances * is_held).sum()), float((chances * (interval[1] - interval[0])).sum())


def auroc_coverages(draws: int, seed: int = 0, aurocs: tuple[float, ...] = AUROCS) -> list[Coverage]:
    """Of AUROC, by how measures are spread, what is true, and class sizes."""
    settings = product(DRAWN, aurocs, SIZES)
    return [_auroc(*each, draws, np.random.default_rng([seed, n])) for n, each in enumerate(settings)]


def _auroc(kind: str, truth: float, sizes: tuple[int, int], draws: int, chance: np.random.Generator) -> Coverage:
    many = [_drawn(kind, truth, sizes, min(_AT_ONCE, draws - n), chance) for n in range(0, draws, _AT_ONCE)]
    value, variance = (np.concatenate(each) for each in zip(*many, strict=True))
    m, n = (np.full(draws, float(size)) for size in sizes)
    even = np.full(draws, 1 / draws)
    wald = np.clip(value - norm.ppf(0.975) * np.sqrt(variance), 0, 1), value + norm.ppf(0.975) * np.sqrt(variance)
    others = {"Newcombe 5": newcombe_interval(value, m, n), "DeLong": wald}
    return Coverage(
        f"auroc, {kind}", *sizes, str(truth), *_held(auroc_interval(value, m, n, variance), truth, even),
        tuple((name, _held(interval, truth, even)[0]) for name, interval in others.items()),
    )  # fmt: skip


def _drawn(
    kind: str, truth: float, sizes: tuple[int, int], draws: int, chance: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """AUROCs of so many draws of windows, and DeLong's variances."""
    positives, negatives = DRAWN[kind](truth, (draws, sizes[0]), (draws, sizes[1]), chance)
    among_all = rankdata(np.hstack([positives, negatives]), axis=1)
    above = among_all[:, : sizes[0]] - rankdata(positives, axis=1)
    below = among_all[:, sizes[0] :] - rankdata(negatives, axis=1)
    pairs = sizes[0] * sizes[1]
    variance = above.var(1, ddof=1) / sizes[0] / sizes[1] ** 2 + below.var(1, ddof=1) / sizes[1] / sizes[0] ** 2
    return above.sum(1) / pairs, variance


def pearson_coverages(draws: int, seed: int = 0) -> list[Coverage]:
    """Of Pearson's r over the tokens of windows, by how activations and predictions are spread, and class sizes."""
    settings = product(SIMULATED, ((5, 5), (10, 10), (10, 0), (25, 25), (50, 0), (50, 50)))
    return [_pearson(kind, sizes, draws, np.random.default_rng([seed, n])) for n, (kind, sizes) in enumerate(settings)]


def _pearson(kind: str, sizes: tuple[int, int], draws: int, chance: np.random.Generator) -> Coverage:
    windows = sum(sizes)
    many = [SIMULATED[kind](_TRUE // windows // 20, sizes, chance) for _ in range(20)]
    truth = float(pearson(np.sum([each.sum((0, 1)) for each in many], axis=0)))
    sums = SIMULATED[kind](draws, sizes, chance)
    of_windows = sums.reshape(-1, sums.shape[-1]), np.repeat(np.arange(draws), windows)
    found, value = pearson_interval(*of_windows), np.arctanh(pearson(sums.sum(1)))
    halves = {
        "jackknife": jackknife(*of_windows),
        "Fisher, windows": norm.ppf(0.975) / np.sqrt(windows - 3),
        "Fisher, tokens": norm.ppf(0.975) / np.sqrt(windows * _TOKENS - 3),
    }
    others = {
        name: _held((np.tanh(value - half), np.tanh(value + half)), truth, np.full(draws, 1 / draws))[0]
        for name, half in halves.items()
    }
    return Coverage(
        f"pearson, {kind}",
        *sizes,
        f"{truth:.2f}",
        *_held(found, truth, np.full(draws, 1 / draws)),
        tuple(others.items()),
    )


def _everywhere(draws: int, sizes: tuple[int, int], chance: np.random.Generator) -> np.ndarray:
    """Each firing window has a level, and each window a prediction of its own for all of its tokens."""
    shape = (draws, sum(sizes), _TOKENS)
    true = chance.exponential(1, (*shape[:2], 1)) * _firing(sizes) * chance.random(shape)
    own = chance.normal(0, 0.6, (*shape[:2], 1)) + chance.normal(0, 0.3, shape)
    return _sums(np.clip(true / 2 + own + 1, 0, 9), true)


def _on_few(share: float) -> Callable[[int, tuple[int, int], np.random.Generator], np.ndarray]:
    """One to three tokens of a firing window are active; a share of these windows the judge finds, and in a fifth of all it is
    sure of another token."""

    def drawn(draws: int, sizes: tuple[int, int], chance: np.random.Generator) -> np.ndarray:
        shape = (draws, sum(sizes), _TOKENS)
        order = chance.random(shape).argsort(2).argsort(2)
        is_active = (order < chance.integers(1, 4, (*shape[:2], 1))) & (_firing(sizes) > 0)
        true = is_active * chance.gamma(2, 1, (*shape[:2], 1)) * chance.uniform(0.5, 1, shape)
        is_said = is_active & (chance.random((*shape[:2], 1)) < share)
        is_said |= (order == 5) & (chance.random((*shape[:2], 1)) < 0.2)
        return _sums(np.where(is_said, chance.uniform(3, 9, shape), chance.exponential(0.3, shape)), true)

    return drawn


def _firing(sizes: tuple[int, int]) -> np.ndarray:
    return np.repeat([1.0, 0.0], sizes)[None, :, None]


def _sums(said: np.ndarray, true: np.ndarray) -> np.ndarray:
    n = np.full(said.shape[:2], float(said.shape[2]))
    rest = (said, true, said * said, true * true, said * true)
    return np.stack([n, *(each.sum(2) for each in rest)], axis=-1)


SIMULATED = {"everywhere": _everywhere, ".9 found": _on_few(0.9), ".5 found": _on_few(0.5), ".15 found": _on_few(0.15)}


Shape = tuple[int, int]
Pair = tuple[np.ndarray, np.ndarray]


def _binormal(truth: float, m: Shape, n: Shape, chance: np.random.Generator, spread: float = 1.0) -> Pair:
    apart = norm.ppf(truth) * np.hypot(spread, 1)
    return chance.normal(apart, spread, m), chance.normal(0, 1, n)


def _unlike(truth: float, m: Shape, n: Shape, chance: np.random.Generator) -> Pair:
    return _binormal(truth, m, n, chance, spread=2.0)


def _exponential(truth: float, m: Shape, n: Shape, chance: np.random.Generator) -> Pair:
    return chance.exponential(truth / (1 - truth), m), chance.exponential(1, n)


def _levels(truth: float, m: Shape, n: Shape, chance: np.random.Generator) -> Pair:
    """Normal measures in five levels, so far apart that with ties counting half the AUROC is what it should be."""
    apart = brentq(lambda distance: _of_levels(distance) - truth, -1, 8)
    firing, silent = (np.digitize(chance.normal(side * apart / 2, 1, size), _CUTS) for side, size in ((1, m), (-1, n)))
    return firing, silent


def _of_levels(distance: float) -> float:
    firing, silent = (np.diff(norm.cdf(_CUTS - side * distance / 2), prepend=0, append=1) for side in (1, -1))
    return float(firing @ (np.cumsum(silent) - silent / 2))


def _binary(truth: float, m: Shape, n: Shape, chance: np.random.Generator) -> Pair:
    return (chance.random(m) < truth).astype(float), (chance.random(n) >= truth).astype(float)


DRAWN: dict[str, Callable[[float, Shape, Shape, np.random.Generator], Pair]] = {
    "binormal": _binormal,
    "unlike spreads": _unlike,
    "exponential": _exponential,
    "five levels": _levels,
    "labels": _binary,
}


def main() -> None:
    """Compute and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--draws", type=int, default=10_000)
    draws = parser.parse_args().draws
    print("of 95 % intervals, the share that holds what is true; * outside .93 to .97")
    print(f"{'metric':24} {'windows':>9} {'true':>10} {'held':>7} {'width':>7}   others")
    rows = [*rate_coverages(), *auroc_coverages(draws), *auroc_coverages(draws, aurocs=(0.95, 0.98))]
    for each in [*rows, *pearson_coverages(min(draws, _AT_ONCE))]:
        others = ", ".join(f"{name} {coverage:.3f}" for name, coverage in each.others)
        mark = " " if 0.93 <= each.coverage <= 0.97 else "*"
        sizes = f"{each.positives}+{each.negatives}"
        print(f"{each.metric:24} {sizes:>9} {each.truth:>10} {each.coverage:7.4f}{mark} {each.width:.3f}   {others}")


if __name__ == "__main__":
    main()
