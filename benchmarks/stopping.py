"""What stopping when decided saves, and what it does to scores: ``python -m benchmarks.stopping [--draws N]``.

Judges are simulated, of 100 and 100 windows of a latent: each has a sensitivity and a specificity, .55 to .95. What is said of
stopping is compared with what is said of the same judgements when all are made, by their fixed 95 % interval. Of the worst
judge are: wrong decisions, how often the interval holds the truth, and biases. The last lines are of a judge whose sensitivity
goes from .5 to .95 with the decile, as no theory here has it.
"""

import argparse
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields
from itertools import product

import numpy as np
from scipy.stats import norm

from latentlake.measures.metrics import balanced_accuracy_interval
from latentlake.measures.stopping import Look, Rule, Spending, estimates, interval, levels, pocock_like

WINDOWS, WAVE = 100, 10
ACCURACIES = (0.55, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95)
EQUAL = tuple((each, each) for each in ACCURACIES)
UNEQUAL = tuple(pair for pair in product(ACCURACIES, ACCURACIES) if pair[0] < pair[1])
RULES = [*(Rule(threshold, width) for width in (None, 0.2, 0.15) for threshold in (0.6, 0.7, 0.8)), Rule(None, 0.2)]
SPENDINGS: dict[str, Spending] = {
    "like Pocock's": pocock_like,
    "like O'Brien and Fleming's": lambda t: np.asarray(4 * norm.sf(norm.isf(0.05 / 4) / np.sqrt(t))),
    **{f"power {power}": lambda t, power=power: np.asarray(0.05 * t**power) for power in (0.5, 1, 2, 3)},  # type: ignore[misc]
}
Judge = Callable[[np.random.Generator, int, int], np.ndarray]


@dataclass(frozen=True)
class Outcome:
    """What came out for latents of one judge, arrays [latents].

    ``n``: windows of each class judged; ``value``: the balanced accuracy as reported, ``plain`` as the share of right answers;
    ``low``, ``high``: the interval as reported; ``side``: where that lies, -1, 0 or 1; ``whole``: where all windows' lies.
    """

    n: np.ndarray
    value: np.ndarray
    plain: np.ndarray
    low: np.ndarray
    high: np.ndarray
    side: np.ndarray
    whole: np.ndarray


def judge(rate: float) -> Judge:
    """Right with this probability, whatever the window."""
    return lambda chance, draws, windows: chance.random((draws, windows)) < rate


def judge_by_decile(rates: Sequence[float]) -> Judge:
    """Right with another probability in each decile, which windows go round."""
    return lambda chance, draws, windows: chance.random((draws, windows)) < np.resize(rates, windows)


def simulate(
    rule: Rule,
    firing: Judge,
    silent: Judge,
    draws: int,
    chance: np.random.Generator,
    windows: int = WINDOWS,
    wave: int = WAVE,
    spending: Spending = pocock_like,
) -> Outcome:
    """Latents judged in waves until they are decided."""
    sizes = [min(start + wave, windows) for start in range(0, windows, wave)]
    looks = tuple(Look(n, n, level) for n, level in zip(sizes, levels(tuple(map(float, sizes)), spending), strict=True))
    ends = np.array(sizes) - 1
    hits, rejections = (np.cumsum(each(chance, draws, windows), axis=1)[:, ends] for each in (firing, silent))
    found = {name: np.empty(draws) for name in ("n", "value", "plain", "low", "high")}
    is_open = np.ones(draws, dtype=bool)
    for place, look in enumerate(looks):
        one, other = hits[:, place], rejections[:, place]
        counts = (
            one.astype(float),
            np.array(float(look.positives)),
            other.astype(float),
            np.array(float(look.negatives)),
        )
        ends_here = is_open & (rule.is_decided(*counts, level=look.level) | (place == len(looks) - 1))
        shares = estimates(rule, looks[: place + 1], one[ends_here], other[ends_here])
        low, high = interval(*counts, level=look.level)
        value = (shares[0] + shares[1]) / 2
        found["n"][ends_here] = look.positives
        found["value"][ends_here] = value
        found["plain"][ends_here] = (one[ends_here] + other[ends_here]) / (2 * look.positives)
        found["low"][ends_here] = np.minimum(low[ends_here], value)
        found["high"][ends_here] = np.maximum(high[ends_here], value)
        is_open &= ~ends_here
    n = np.array(float(windows))
    last = balanced_accuracy_interval(hits[:, -1].astype(float), n, rejections[:, -1].astype(float), n)
    return Outcome(**found, side=_side(rule, found["low"], found["high"]), whole=_side(rule, *last))


def _side(rule: Rule, low: np.ndarray, high: np.ndarray) -> np.ndarray:
    if rule.threshold is None:
        return np.zeros(len(low))
    return (low > rule.threshold + 1e-9).astype(float) - (high < rule.threshold - 1e-9)


Mean = tuple[float, float]  # with its standard error


@dataclass(frozen=True)
class Figures:
    """Of latents of one judge, or over judges (`summary`): shares of windows ``saved``; of latents that are decided the ``same``
    way as by all windows, and the ``opposite`` way; that are ``undecided``, and by all windows (``whole``); decided ``wrong``;
    whose interval holds the truth (``held``); and the biases of what is reported and of plain shares.
    """

    saved: Mean
    same: Mean
    opposite: Mean
    undecided: Mean
    whole: Mean
    wrong: Mean
    held: Mean
    bias: Mean
    plain_bias: Mean


def figures(rule: Rule, truth: float, found: Outcome) -> Figures:
    """Means over latents."""
    is_held = (found.low <= truth + 1e-9) & (truth - 1e-9 <= found.high)
    right = 0.0 if rule.threshold is None or abs(truth - rule.threshold) < 1e-9 else np.sign(truth - rule.threshold)
    each = [
        1 - found.n / WINDOWS, found.side == found.whole, found.side * found.whole < 0, found.side == 0, found.whole == 0,
        (found.side != 0) & (found.side != right), is_held, found.value - truth, found.plain - truth,
    ]  # fmt: skip
    return Figures(*((float(np.mean(values)), float(np.std(values) / np.sqrt(len(values)))) for values in each))


def summary(
    rule: Rule, judges: Sequence[tuple[float, float]], draws: int, seed: int = 0, spending: Spending = pocock_like
) -> Figures:
    """Over judges, by sensitivity and specificity: means; of ``wrong``, ``held`` and the biases those of the worst judge."""
    rows = []
    for number, (one, other) in enumerate(judges):
        chance = np.random.default_rng([seed, number])
        rows.append(
            figures(rule, (one + other) / 2, simulate(rule, judge(one), judge(other), draws, chance, spending=spending))
        )
    found: dict[str, Mean] = {}
    for field in fields(Figures):
        means = [getattr(row, field.name) for row in rows]
        together = (
            float(np.mean([mean for mean, _ in means])),
            float(np.hypot.reduce([e for _, e in means]) / len(rows)),
        )
        farthest = max(means, key=lambda each: -each[0] if field.name == "held" else abs(each[0]))
        found[field.name] = farthest if field.name in ("wrong", "held", "bias", "plain_bias") else together
    return Figures(**found)


def table(draws: int) -> Iterator[str]:
    """Lines to print."""
    for name, spending in SPENDINGS.items():
        saved = [summary(Rule(threshold), EQUAL, draws, spending=spending).saved[0] for threshold in (0.6, 0.7, 0.8)]
        yield f"spending {name:27} saves {np.mean(saved):.3f} of windows, of judges with equal rates"
    names = [field.name for field in fields(Figures)]
    yield f"{'threshold':>9} {'width':>5} {'judges':>8} " + " ".join(f"{name:>13}" for name in names)
    for rule, (name, judges) in product(RULES, (("equal", EQUAL), ("unequal", UNEQUAL))):
        yield _line(rule, name, summary(rule, judges, draws))
    rates = [float(rate) for rate in np.linspace(0.5, 0.95, 10)]
    for threshold in (0.6, 0.7, 0.8):
        rule, truth = Rule(threshold), (float(np.mean(rates)) + 0.8) / 2
        found = simulate(rule, judge_by_decile(rates), judge(0.8), draws, np.random.default_rng(1))
        yield _line(rule, "decile", figures(rule, truth, found))


def _line(rule: Rule, name: str, found: Figures) -> str:
    cells = [f"{mean: .4f}±{error:.4f}" for mean, error in vars(found).values()]
    return f"{rule.threshold or '':>9} {rule.width or '':>5} {name:>8} " + " ".join(f"{cell:>13}" for cell in cells)


def main() -> None:
    """Simulate and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--draws", type=int, default=10_000, help="latents of each judge")
    for line in table(parser.parse_args().draws):
        print(line, flush=True)


if __name__ == "__main__":
    main()
