"""What pages and figures read results through: a lake as readers see it, or what a stage is given."""

from typing import Any, Protocol

import polars as pl


class Results(Protocol):
    """The results of one study. Each table is an attribute, a lazy frame, empty where nothing is there yet."""

    @property
    def study(self) -> dict[str, Any] | None:
        """The study as the table ``studies`` has it; None before there was one."""
        ...

    @property
    def uri(self) -> str:
        """Where the results lie, for messages."""
        ...

    def latest(self) -> pl.DataFrame:
        """The latest row of each partition, as the table ``partitions`` has it."""
        ...

    def __getattr__(self, table: str) -> pl.LazyFrame: ...
