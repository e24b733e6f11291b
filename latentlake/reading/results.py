"""What pages and figures read results through: a lake as readers see it, or what a stage is given."""

import json
from collections.abc import Sequence
from typing import Any, Protocol

import polars as pl

from latentlake.errors import LakeError


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

    def answers(self, keys: Sequence[str], latents: Sequence[int]) -> pl.DataFrame:
        """Rows of ``calls`` with some keys, one each, of which most were first made for some latents."""
        ...

    def __getattr__(self, table: str) -> pl.LazyFrame: ...


def choices_of(results: Results) -> dict[str, Any]:
    """What the present study chose, as it was written down.

    Raises:
        LakeError: no study was ever run.
    """
    if results.study is None:
        raise LakeError(f"no study was ever run in {results.uri}; materialize one, or name another lake")
    choices: dict[str, Any] = json.loads(results.study["choices"])
    return choices
