"""Keeps a lake fast and small: many small files put into few, files that nothing reads deleted, logs cut short.

The memory of what was made from what is in the rows of ``partitions``, not in Delta's logs: it outlives all of this.
"""

from collections.abc import Callable
from typing import NamedTuple

import polars as pl

from latentlake.calls.ledger import one_a_key
from latentlake.keeping.reported import sweep
from latentlake.keeping.weights import Weights
from latentlake.lake import Lake
from latentlake.tables import TABLES

# Tables that get a file a commit, and whose readers sort for themselves: compaction does not keep the order of rows.
APPENDED = ("partitions", "shards", "studies", "calls", "prompts")
_MANY_FILES = 64
_KEYS = {"calls": "key", "prompts": "prompt"}


class Upkeep(NamedTuple):
    """What was done to a table: live files before and after, and files deleted that only older versions needed."""

    table: str
    files_before: int
    files_after: int
    vacuumed: int


def tidy(lake: Lake, many: int = _MANY_FILES) -> list[str]:
    """Compact the appended tables that have more small files than ``many``; returns which these were."""
    crowded = [table for table in APPENDED if lake.small_files(table) > many]
    for table in crowded:
        lake.compact(table, _only_once(lake, table))
    return crowded


def _only_once(lake: Lake, table: str) -> Callable[[pl.LazyFrame], pl.LazyFrame] | None:
    """What makes of a table's rows one a key, where keys repeat: calls that failed before they were answered, and what two runs
    wrote that raced.
    """
    key = _KEYS.get(table)
    if key is None or not lake.scan(table).select(pl.col(key).is_duplicated().any()).collect().item():
        return None
    return one_a_key if table == "calls" else lambda rows: rows.unique(key, keep="first")


def maintain(lake: Lake, vacuum_hours: int) -> list[Upkeep]:
    """Compact the appended tables of a study and the shared ones; vacuum all of them, and cut their logs short. Weights of
    trained coders and reports that no row speaks of are deleted.

    ``vacuum_hours``: what versions of the last hours need is kept; more than the longest read or write takes.
    """
    before = {table: lake.files(table) for table in TABLES}
    tidy(lake, many=1)
    done = []
    for table in TABLES:
        vacuumed = lake.vacuum(table, vacuum_hours)
        lake.checkpoint(table)
        done.append(Upkeep(table, before[table], lake.files(table), vacuumed))
    done.append(Upkeep("weights", 0, 0, Weights(lake).sweep(vacuum_hours)))
    done.append(Upkeep("reports", 0, 0, sweep(lake, vacuum_hours)))
    return [each for each in done if any(each[1:])]
