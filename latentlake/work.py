"""What a stage is given: its place in the study, its inputs as frames, the doors to models, and a way to ask them.

Stages are functions from a `Work` to tables. They know nothing of the lake, of Dagster, or of one another.
"""

from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from threading import RLock
from typing import Any, Protocol, TypeVar

import polars as pl
import pyarrow as pa

from latentlake.flow import Stage
from latentlake.origins import Origins
from latentlake.protocols import Answer, Asked, Handles
from latentlake.steering.pushes import Push
from latentlake.study import Study

T = TypeVar("T")
Ask = Callable[[str, Sequence[Asked]], list[Answer]]
Steering = Callable[[Mapping[str, Push], Sequence[Asked]], list[Answer]]
Keep = Callable[[Path], list[dict[str, Any]]]
Put = Callable[[str, bytes], None]
Tables = Mapping[str, pa.Table | pl.DataFrame]


class Progress(Protocol):
    """Who wants to know how far a stage is."""

    def begin(self, stage: str, partitions: int) -> None:
        """A stage starts on so many partitions."""
        ...

    def share(self, share: float) -> None:
        """The partition under way is done to this share (0 to 1)."""
        ...

    def done(self, partition: str, is_computed: bool) -> None:
        """A partition is published, or was found up to date."""
        ...

    def calls(self, made: int, remembered: int) -> None:
        """So many model calls were just made, so many were answered by the ledger."""
        ...

    def failed(self, check: str) -> None:
        """A check failed: its stage, name and figures on one line."""
        ...

    def end(self) -> None:
        """The stage is over, done or failed."""
        ...


class Silent:
    """A progress that nobody wants to know of."""

    def begin(self, stage: str, partitions: int) -> None: ...
    def share(self, share: float) -> None: ...
    def done(self, partition: str, is_computed: bool) -> None: ...
    def calls(self, made: int, remembered: int) -> None: ...
    def failed(self, check: str) -> None: ...
    def end(self) -> None: ...


class Shared:
    """What the partitions that one run computes of a stage have in common: made by the first that needs it, and let go of at
    the end of the run."""

    def __init__(self) -> None:
        self._made: dict[Hashable, Any] = {}
        self._lock = RLock()

    def __call__(self, name: Hashable, make: Callable[[], T]) -> T:
        """What goes by a name; ``make`` must give the same in every partition."""
        with self._lock:
            if name not in self._made:
                self._made[name] = make()
            made: T = self._made[name]
            return made


@dataclass(frozen=True)
class Work:
    """One partition to compute.

    ``values``: the partition's value in each dimension. ``read(stage, table)``: rows of an input, restricted to the
    partitions that this one depends on. ``ask(llm, calls)``: answers in the order of the calls, through the ledger.
    ``steer(pushes, calls)``: what the subject says under pushes, by their names, likewise. ``keep(folder)``: puts the files of a
    folder beside the lake's tables; returns name, SHA-256 and size of each. ``put(name, content)``: puts one file beside the
    study's tables, in the place of one of that name. ``shared(name, make)``: what is made once for all
    partitions of the run.
    """

    study: Study
    stage: Stage
    values: Mapping[str, str]
    shards: tuple[str, ...]
    origins: Origins
    handles: Handles
    progress: Progress
    read: Callable[[str, str | None], pl.LazyFrame]
    ask: Ask
    steer: Steering
    keep: Keep
    put: Put
    shared: Shared = field(default_factory=Shared)

    @property
    def dictionary(self) -> str:
        """The dictionary of the partition."""
        return self.values["dictionary"]

    @property
    def block(self) -> int:
        """The block of the partition."""
        return int(self.values["block"])

    def frame(self, stage: str, table: str | None = None) -> pl.LazyFrame:
        """Rows of an input; ``table`` names one of the stage's tables other than the first."""
        return self.read(stage, table)

    def columns(self, n: int) -> dict[str, pl.Series]:
        """The partition columns, n times each."""
        return {
            name: pl.Series(name, [value] * n, dtype=pl.Int32 if isinstance(value, int) else pl.String)
            for name, value in self.stage.columns(self.values).items()
        }


def block_range(block: int, blocks: int, width: int) -> range:
    """The latents of a block: those with ``latent * blocks // width == block``."""
    return range(-(-block * width // blocks), -(-(block + 1) * width // blocks))


Compute = Callable[[Sequence[Work]], Iterable[Tables]]


def each(compute: Callable[[Work], Tables]) -> Compute:
    """A stage that computes every partition by itself."""
    return lambda works: map(compute, works)
