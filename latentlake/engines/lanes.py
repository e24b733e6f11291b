"""How many requests each of several endpoints is given at once: more while it answers, fewer when it has had too many."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

_FIRST = 8  # requests under way at the beginning


@dataclass
class Lane:
    """The requests under way to one endpoint.

    The limit grows with every answer until the endpoint refuses or fails for the first time, and from then on by one for as
    many answers as it is large; a refusal takes three tenths of it. What was sent before the last refusal says nothing new.
    """

    client: Any
    url: str
    most: int
    patience: float = 60.0
    limit: float = field(init=False)
    active: int = 0
    is_probing: bool = True
    reopens: float = 0.0
    _refused: float = 0.0
    _in_vain: int = 0

    def __post_init__(self) -> None:
        self.limit = float(min(_FIRST, self.most))

    def room(self, now: float) -> int:
        """How many more requests it may be given."""
        return int(self.limit) - self.active if now >= self.reopens else 0

    def answered(self) -> None:
        """A request was answered."""
        self._in_vain = 0
        self.limit = min(float(self.most), self.limit + (1 if self.is_probing else 1 / self.limit))

    def failed(self) -> None:
        """A request came to nothing. The endpoint is left alone for a while, longer each time: since it has room at once, it
        would draw what others would answer.
        """
        self._in_vain += 1
        self.reopens = max(self.reopens, time.monotonic() + min(self.patience, 0.05 * 2**self._in_vain))

    def refused(self, sent: float, wait: float) -> None:
        """A request that was sent at a time was too much; the endpoint asks to be left alone for so many seconds."""
        now = time.monotonic()
        self.is_probing = False
        self.reopens = max(self.reopens, now + wait)
        if sent >= self._refused:
            self.limit, self._refused = max(1.0, 0.7 * self.limit), now


class Lanes:
    """Several endpoints that serve one model."""

    def __init__(self, lanes: Sequence[Lane]) -> None:
        self._lanes = lanes
        self._changed = asyncio.Condition()

    async def enter(self) -> Lane:
        """The endpoint with most room, once one has any."""
        while True:
            now = time.monotonic()
            lane = max(self._lanes, key=lambda each: each.room(now))
            if lane.room(now) > 0:
                lane.active += 1
                return lane
            closed = [each.reopens - now for each in self._lanes if each.reopens > now]
            async with self._changed:
                with suppress(TimeoutError):
                    await asyncio.wait_for(self._changed.wait(), min(closed, default=None))

    async def leave(self, lane: Lane) -> None:
        """A request to an endpoint is over."""
        lane.active -= 1
        async with self._changed:
            self._changed.notify(max(1, lane.room(time.monotonic())))
