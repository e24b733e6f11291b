"""Stopping when decided: boundaries as published, estimates without bias, intervals that hold, and judges that stop."""

from functools import cache
from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binom, multivariate_normal, norm

from benchmarks.stopping import ACCURACIES, figures, judge, simulate
from latentlake.measures.stopping import (
    Look,
    Rule,
    boundaries,
    estimates,
    interval,
    levels,
    pocock_like,
    share_interval,
)

FIVE = np.arange(1, 6) / 5


# boundaries


def o_brien_fleming_like(fractions: np.ndarray, error: float = 0.05) -> np.ndarray:
    return np.asarray(4 * norm.sf(norm.isf(error / 4) / np.sqrt(fractions)))


@pytest.mark.parametrize(
    ("spending", "published"),
    [  # of five looks, two sides, 5 %: Reboussin, DeMets, Kim and Lan, Controlled Clinical Trials 21, 2000, and LD98
        (o_brien_fleming_like, [4.8769, 3.3569, 2.6803, 2.2898, 2.0310]),
        (pocock_like, [2.4380, 2.4268, 2.4101, 2.3966, 2.3859]),
    ],
)
def test_boundaries_of_spending_functions_are_as_published(spending: object, published: list[float]) -> None:
    assert callable(spending)
    assert boundaries(spending(FIVE), FIVE) == pytest.approx(published, abs=2e-4)


@pytest.mark.parametrize("bounds", [[2.413] * 5, list(2.040 / np.sqrt(FIVE))], ids=["Pocock", "O'Brien-Fleming"])
def test_what_published_boundaries_spend_gives_them_back(bounds: list[float]) -> None:
    """What is spent up to each look is counted another way, as a probability of several normal variables."""
    spent = []
    for n in range(1, 6):
        times = FIVE[:n]
        covariance = np.sqrt(np.minimum.outer(times, times) / np.maximum.outer(times, times))
        upper = np.array(bounds[:n])
        inside = multivariate_normal(np.zeros(n), covariance).cdf(upper, lower_limit=-upper)
        spent.append(1 - float(inside))
    assert spent[-1] == pytest.approx(0.05, abs=2e-4)
    assert boundaries(np.array(spent), FIVE) == pytest.approx(bounds, abs=0.03)


def test_one_look_has_the_level_that_was_asked_for_and_looks_that_bring_nothing_have_none_of_their_own() -> None:
    assert levels((50.0,)) == (pytest.approx(0.95),)
    assert levels((0.0, 10.0, 10.0, 20.0)) == (1.0, levels((10.0, 20.0))[0], *levels((10.0, 20.0)))
    assert levels((0.0, 0.0)) == (1.0, 1.0)


@settings(deadline=None, max_examples=25)
@given(st.lists(st.integers(1, 40), min_size=1, max_size=12))
def test_every_look_s_interval_is_wider_than_a_single_one_s_and_all_hold_together(steps: list[int]) -> None:
    information = tuple(map(float, np.cumsum(steps)))
    found = levels(information)
    assert all(0.95 - 1e-9 <= level < 1 for level in found)
    assert 1 - sum(1 - level for level in found) <= 0.95 + 1e-9  # Bonferroni's bound is no closer than what is exact
    chance = np.random.default_rng(len(steps))
    walk = np.cumsum(chance.normal(size=(20_000, len(steps))) * np.sqrt(steps), axis=1) / np.sqrt(np.cumsum(steps))
    held = (abs(walk) < norm.ppf((1 + np.array(found)) / 2)).all(1).mean()
    assert held == pytest.approx(0.95, abs=5 * np.sqrt(0.05 * 0.95 / 20_000))


# what comes of a design: all of its outcomes with their probabilities


Ends = tuple[int, np.ndarray, np.ndarray, np.ndarray]


@cache
def steps(was: int, now: int, rate: float) -> np.ndarray:
    """Chances of so many right answers in all, by how many there were: [was, now]."""
    right = binom.pmf(np.arange(now - was + 1), now - was, rate)
    return np.array([np.pad(right, (had, was - had)) for had in range(was + 1)])


@cache
def design(sizes: tuple[tuple[int, int], ...]) -> tuple[Look, ...]:
    """Looks after so many windows of each class."""
    return tuple(
        Look(m, n, level) for (m, n), level in zip(sizes, levels(tuple(m * n / (m + n) for m, n in sizes)), strict=True)
    )


def even(windows: int, wave: int) -> tuple[Look, ...]:
    return design(tuple((n, n) for n in range(wave, windows + 1, wave)))


def outcomes(rule: Rule, looks: tuple[Look, ...], one: float, other: float) -> list[Ends]:
    """(look, hits, rejections, probability) of everything that judging may end with, summed forward: nothing of ours but the rule
    is in it."""
    alive, before, found = np.ones((1, 1)), (0, 0), []
    for place, look in enumerate(looks):
        alive = steps(before[0], look.positives, one).T @ alive @ steps(before[1], look.negatives, other)
        hits, rejections = look.outcomes
        m, n = np.array(float(look.positives)), np.array(float(look.negatives))
        ends = rule.is_decided(hits, m, rejections, n, look.level) | (place == len(looks) - 1)
        ends &= alive > 0
        found.append((place, hits[ends], rejections[ends], alive[ends]))
        alive, before = alive * ~ends, (look.positives, look.negatives)
    return found


DESIGNS = {
    "threshold": (Rule(0.7), even(40, 10)),
    "width": (Rule(None, 0.4), even(40, 5)),
    "both": (Rule(0.6, 0.35), even(40, 10)),
    "unequal": (Rule(0.7), design(((10, 10), (20, 20), (20, 30), (20, 40)))),
    "failures": (Rule(0.65), design(((3, 5), (9, 9), (17, 12), (24, 20)))),
    "a late class": (Rule(0.65), (Look(0, 5, 1.0), Look(7, 9, 0.98), Look(12, 12, 0.97), Look(20, 20, 0.96))),
}
RATES = [(0.5, 0.5), (0.7, 0.7), (0.95, 0.6), (0.3, 0.99), (0.85, 0.8)]


@pytest.mark.parametrize(("one", "other"), RATES)
@pytest.mark.parametrize("name", DESIGNS)
def test_estimates_have_no_bias_at_all_while_shares_have(name: str, one: float, other: float) -> None:
    rule, looks = DESIGNS[name]
    total, unbiased, shares = 0.0, np.zeros(2), np.zeros(2)
    for place, hits, rejections, chances in outcomes(rule, looks, one, other):
        found = estimates(rule, looks[: place + 1], hits.astype(int), rejections.astype(int))
        total += chances.sum()
        if looks[place].positives and looks[place].negatives:
            shares += [chances @ hits / looks[place].positives, chances @ rejections / looks[place].negatives]
        unbiased += [chances @ each for each in found]
    assert total == pytest.approx(1, abs=1e-12)
    assert unbiased == pytest.approx([one, other], abs=1e-12)
    if one != other or rule.threshold:  # a rule that stops on both sides alike leaves the middle where it is
        assert abs(shares - [one, other]).max() > 1e-5


def test_estimates_are_what_the_first_wave_is_over_all_orders() -> None:
    """Every order of answers of a small design by itself: no sum of ours is in it."""
    rule, looks = Rule(0.6), (Look(2, 2, 0.3), Look(4, 4, 0.3), Look(5, 5, 0.3))
    first: dict[tuple[int, int, int], list[tuple[float, float]]] = {}
    for one, other in product(product((0, 1), repeat=5), repeat=2):
        for place, look in enumerate(looks):
            hits, rejections = sum(one[: look.positives]), sum(other[: look.negatives])
            counts = [np.array(float(each)) for each in (hits, look.positives, rejections, look.negatives)]
            if place == 2 or rule.is_decided(*counts, level=look.level):
                # an order cut short stands for all that could have followed, so that each counts as often as it is likely
                first.setdefault((place, hits, rejections), []).append((sum(one[:2]) / 2, sum(other[:2]) / 2))
                break
    assert {place for place, *_ in first} == {0, 1, 2}
    for (place, hits, rejections), shares in first.items():
        found = estimates(rule, looks[: place + 1], np.array([hits]), np.array([rejections]))
        assert [float(each[0]) for each in found] == pytest.approx(np.mean(shares, axis=0).tolist(), abs=1e-12)


def test_ending_at_the_first_look_estimates_are_shares_and_what_cannot_come_out_has_none() -> None:
    rule, looks = DESIGNS["threshold"]
    one, other = estimates(rule, looks[:1], np.array([3, 10]), np.array([0, 9]))
    assert (one.tolist(), other.tolist()) == ([0.3, 1.0], [0.0, 0.9])
    assert np.isnan(estimates(rule, looks, np.array([40]), np.array([40]))).all()
    alone = estimates(rule, (Look(4, 0, 1.0),), np.array([3]), np.array([0]))
    assert alone[0][0] == 0.75
    assert np.isnan(alone[1][0])


@settings(deadline=None, max_examples=20)
@given(
    st.lists(st.tuples(st.integers(0, 12), st.integers(0, 12)), min_size=1, max_size=5),
    st.floats(0.3, 0.9),
    st.one_of(st.none(), st.floats(0.1, 0.6)),
    st.floats(0.05, 0.95),
    st.floats(0.05, 0.95),
)
def test_whatever_the_waves_estimates_have_no_bias(
    waves: list[tuple[int, int]], threshold: float, width: float | None, one: float, other: float
) -> None:
    sizes = np.cumsum(waves, axis=0)
    if not sizes[-1].all():
        return
    found = levels(tuple(float(m * n / (m + n)) if m + n else 0.0 for m, n in sizes))
    looks = tuple(Look(int(m), int(n), level) for (m, n), level in zip(sizes, found, strict=True))
    rule, unbiased = Rule(threshold, width), np.zeros(2)
    for place, hits, rejections, chances in outcomes(rule, looks, one, other):
        if len(hits):
            shares = estimates(rule, looks[: place + 1], hits.astype(int), rejections.astype(int))
            unbiased += [chances @ each for each in shares]
    assert unbiased == pytest.approx([one, other], abs=1e-10)


def test_hundreds_of_windows_overflow_nothing() -> None:
    rule, looks = Rule(0.7), even(600, 300)  # as many orders as no float holds
    hits, rejections = np.array([420]), np.array([420])
    found = estimates(rule, looks, hits, rejections)
    assert found[0][0] == pytest.approx(0.7, abs=0.01)


# intervals and decisions


MIXED = [(0.55, 0.95), (0.6, 0.9), (0.7, 0.98), (0.9, 0.98)]


@pytest.mark.parametrize("windows", [30, 50, 100])
@pytest.mark.parametrize("threshold", [0.6, 0.7, 0.8])
def test_reported_intervals_hold_and_wrong_decisions_are_few_for_every_judge(threshold: float, windows: int) -> None:
    """Exactly, over all outcomes: at least 95 %, at most 5 %. A judge as good as the threshold is the worst case."""
    rule, looks = Rule(threshold), even(windows, 10)
    apart = [(threshold - each, threshold + each) for each in (0.0, 0.05, 0.1, 0.15)]  # as good as the threshold
    for one, other in [*((each, each) for each in (*ACCURACIES, 0.98)), *apart, *MIXED]:
        truth, held, wrong = (one + other) / 2, 0.0, 0.0
        for place, hits, rejections, chances in outcomes(rule, looks, one, other):
            m, n = np.array(float(looks[place].positives)), np.array(float(looks[place].negatives))
            low, high = interval(hits, m, rejections, n, looks[place].level)
            held += chances @ ((low <= truth + 1e-9) & (truth - 1e-9 <= high))
            is_above, is_below = low > threshold + 1e-9, high < threshold - 1e-9
            wrong += chances @ ((is_above & (truth <= threshold + 1e-9)) | (is_below & (truth >= threshold - 1e-9)))
        assert held >= 0.95, (one, other)
        assert wrong <= 0.05, (one, other)


def test_shares_intervals_hold_too() -> None:
    rule, looks = Rule(0.7), even(100, 10)
    for one, other in [(0.6, 0.8), (0.7, 0.7), (0.9, 0.9), (0.95, 0.95)]:
        held = 0.0
        for place, hits, _, chances in outcomes(rule, looks, one, other):
            low, high = share_interval(hits, np.array(float(looks[place].positives)), looks[place].level)
            held += chances @ ((low <= one + 1e-9) & (one - 1e-9 <= high))
        assert held >= 0.95, (one, other)


def test_a_simulation_that_would_see_a_bias_of_a_hundredth_sees_none() -> None:
    """40,000 latents of a judge: of a bias of .01 one would see more than four standard errors with a probability above .999, and
    of a right estimate with one of 6e-5. What the share is off by is seen."""
    found = figures(Rule(0.7), 0.8, simulate(Rule(0.7), judge(0.8), judge(0.8), 40_000, np.random.default_rng(3)))
    (bias, error), (plain, plain_error) = found.bias, found.plain_bias
    assert norm.sf(4 - 0.01 / error) > 0.999
    assert abs(bias) < 4 * error
    assert plain > 4 * plain_error


def test_a_rule_stops_on_either_side_and_where_narrow_and_never_without_a_class() -> None:
    def stops(rule: Rule, hits: float, m: float, rejections: float, n: float, level: float = 0.99) -> bool:
        return bool(rule.is_decided(*(np.array(each) for each in (hits, m, rejections, n)), level=level))

    assert stops(Rule(0.7), 20, 20, 20, 20)
    assert stops(Rule(0.7), 5, 20, 5, 20)
    assert not stops(Rule(0.7), 14, 20, 14, 20)
    assert stops(Rule(None, 0.5), 14, 20, 14, 20)
    assert not stops(Rule(None, 0.2), 14, 20, 14, 20)
    assert not stops(Rule(0.01, 0.99), 20, 20, 0, 0)
    assert not stops(Rule(0.01, 0.99), 20, 20, 20, 20, level=1.0)
