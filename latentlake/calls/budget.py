"""What a launch may spend on model calls, and what it has spent.

A launch is one execution of a plan, of however many runs; its calls carry its name in the ledger, so that what was spent
outlives a kill.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import polars as pl

from latentlake.errors import BudgetError
from latentlake.lake import Lake
from latentlake.protocols import Asked, Generate, Reply
from latentlake.sections.models import Budget, Price

_PER_MESSAGE = 64  # tokens that a chat's template puts around what is said, at most


class Spent(NamedTuple):
    """Calls, tokens in and out, and money in the currency of the study's prices."""

    calls: int = 0
    tokens: int = 0
    money: float = 0.0

    def plus(self, other: "Spent") -> "Spent":
        """The sum."""
        return Spent(self.calls + other.calls, self.tokens + other.tokens, self.money + other.money)


@dataclass
class Bill:
    """What calls made so far cost together."""

    total: Spent = field(default_factory=Spent)

    def add(self, spent: Spent) -> None:
        """Some more."""
        self.total = self.total.plus(spent)


def price_of(reply: Reply, price: Price | None) -> float | None:
    """What a reply cost; None where the study gives no price."""
    if price is None:
        return None
    fresh = reply.tokens_in - reply.tokens_cached
    cached = price.input if price.cached is None else price.cached
    return (fresh * price.input + reply.tokens_cached * cached + reply.tokens_out * price.output) / 1e6


def spent_on(replies: Iterable[Reply], price: Price | None) -> Spent:
    """What some replies cost together."""
    total = Spent()
    for reply in replies:
        total = total.plus(Spent(1, reply.tokens_in + reply.tokens_out, price_of(reply, price) or 0.0))
    return total


@dataclass(frozen=True)
class Meter:
    """Holds the calls of one launch against a budget."""

    lake: Lake
    budget: Budget
    launch: str | None

    def portions(self, calls: Sequence[Asked], price: Price | None) -> Iterator[list[Asked]]:
        """The calls in order, cut such that not even the dearest replies to a portion exceed the budget. Each portion is to
        be made, and in the ledger, before the next is asked for.

        Raises:
            BudgetError: the next call might exceed it.
        """
        left = list(calls)
        while left:
            bounds, total = [_bound(each, price) for each in left], Spent()
            spent, fitting = self.spent() if self._is_bounded else Spent(), 0
            for bound in bounds:
                total = total.plus(bound)
                if not self._allows(spent.plus(total)):
                    break
                fitting += 1
            if not fitting:
                raise BudgetError(self._refusal(spent, len(left)))
            yield left[:fitting]
            left = left[fitting:]

    def spent(self) -> Spent:
        """What the launch has spent."""
        calls = self.lake.scan("calls").filter(pl.col("launch") == self.launch)
        sums = [pl.len(), pl.sum("tokens_in") + pl.sum("tokens_out"), pl.sum("price")]
        return Spent(*calls.select(*(each.alias(str(n)) for n, each in enumerate(sums))).collect().row(0))

    @property
    def _is_bounded(self) -> bool:
        return any(bound is not None for bound in self._bounds())

    def _bounds(self) -> Iterable[float | None]:
        return self.budget.calls, self.budget.tokens, self.budget.money

    def _allows(self, spent: Spent) -> bool:
        return all(bound is None or used <= bound for used, bound in zip(spent, self._bounds(), strict=True))

    def _refusal(self, spent: Spent, left: int) -> str:
        limits = {name: value for name, value in self.budget.model_dump().items() if value is not None}
        return (
            f"the budget of the study ({limits}) does not allow the next call: this launch has made {spent.calls} calls of "
            f"{spent.tokens} tokens ({spent.money:g} in money), {left} more are wanted here. What was answered is kept; raise "
            "`budget` in the study or start again, which is a new launch"
        )


def _bound(asked: Asked, price: Price | None) -> Spent:
    """The most that a call can cost: no token is shorter than a byte, nothing is cached, the reply is as long as allowed."""
    call = asked.call
    said = sum(len(each.text.encode()) + _PER_MESSAGE for each in call.chat or ())
    read = len(call.prefix.encode()) + len(call.suffix.encode()) + 2 + said + (0 if call.chat is None else _PER_MESSAGE)
    written = call.sampling.max_tokens if isinstance(call.sampling, Generate) else 0
    money = 0.0 if price is None else (read * price.input + written * price.output) / 1e6
    return Spent(1, read + written, money)
