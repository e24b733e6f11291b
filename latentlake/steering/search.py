"""The search for the strength at which a push moves the subject as far as is asked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from math import inf, isnan

from latentlake.protocols import Prompted
from latentlake.steering.pushes import Push

OUT_OF_REACH = "kl_out_of_reach"

_TOLERANCE = 0.1  # of a target, by which a divergence may miss it
# Strengths are whole powers of 2 ** (1 / 32), so that no last digit of a divergence changes one. Divergence grows about with the
# square of the strength: the nearest of them is within 3 % of any target.
_STEPS = 32
_STRIDE = 2 * _STEPS  # of a search that has not yet passed its target
_LEAST, _MOST = -20 * _STEPS, 24 * _STEPS


def strength_of(step: int) -> float:
    """The strength that a step of the search stands for."""
    return float(f"{2.0 ** (step / _STEPS):.6g}")


@dataclass
class Search:
    """The search for the strength at which a push reaches a divergence. ``known``: divergences that were measured, by step."""

    known: dict[int, float] = field(default_factory=dict)

    def add(self, step: int, kl: float) -> None:
        """Note a divergence; one that is no number is beyond any target."""
        self.known[step] = inf if isnan(kl) else kl

    def next(self, target: float) -> int | None:
        """The step to be measured next; None where the target is found, or out of reach."""
        low, high = self._around(target)
        if high is None:
            step = 0 if low is None else low + _STRIDE
            return step if step <= _MOST else None
        if low is None:
            step = high - _STRIDE
            return step if step >= _LEAST else None
        return None if high - low == 1 else (low + high) // 2

    def wanted(self, targets: Sequence[float]) -> list[int]:
        """The steps to be measured next for several targets, each once."""
        found = (self.next(target) for target in targets)
        return sorted({step for step in found if step is not None})

    def best(self, target: float) -> tuple[int, float]:
        """The step whose divergence is nearest to the target, and that divergence."""
        near = [each for each in self._around(target) if each is not None and self.known[each] < inf]
        step = min(near, key=lambda each: abs(self.known[each] - target), default=min(self.known))
        return step, self.known[step]

    def found(self, target: float) -> tuple[float, float | None, str | None]:
        """The strength that was found, the divergence there if it is a number, and the error where that is not the target's."""
        step, kl = self.best(target)
        is_reached = abs(kl - target) <= _TOLERANCE * target
        return strength_of(step), kl if kl < inf else None, None if is_reached else OUT_OF_REACH

    def _around(self, target: float) -> tuple[int | None, int | None]:
        """The first step that is known to reach the target, and before it the last one: divergence need not grow all the way."""
        high = min((step for step, kl in self.known.items() if kl >= target), default=None)
        low = max(
            (step for step, kl in self.known.items() if kl < target and (high is None or step < high)), default=None
        )
        return low, high


def divergences(prompted: Prompted, asked: Sequence[tuple[Sequence[int], Push, float]]) -> list[float]:
    """Mean KL(clean || pushed) of the next token's distribution over the prompts of each item, in nats, to 6 digits.

    ``asked``: prompts by their places, what they are pushed by, and how strongly.
    """
    import torch

    if not asked:
        return []
    of = [place for places, _, _ in asked for place in places]
    vectors = [push.direction * strength for places, push, strength in asked for _ in places]
    values = torch.zeros(len(of), dtype=torch.float64)
    for rows, clean, pushed in prompted.next_tokens(of, asked[0][1].hookpoint, torch.stack(vectors)):
        clean, pushed = clean.double(), pushed.double()
        values[rows] = (clean.exp() * (clean - pushed)).sum(-1).cpu()
    lengths = [len(places) for places, _, _ in asked]
    return [float(f"{float(own.mean()):.6g}") for own in torch.split(values, lengths)]
