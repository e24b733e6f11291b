"""The lake as its readers see it: the published partitions of the present study, as lazy Polars frames."""

import json
from datetime import datetime
from pathlib import Path
from typing import Any

import polars as pl

from latentlake.catalog import PUBLISHED, Catalog
from latentlake.errors import LakeError, nearest
from latentlake.lake import Lake
from latentlake.tables import TABLES


class View:
    """One study of a lake. Each table is an attribute, a lazy frame: ``view.scores``, ``view.examples``, …

    What was published under an earlier version of the study and is no longer in it (a scorer or dictionary that was
    removed) is hidden, and so is a partition that is being built.
    """

    def __init__(self, lake: Lake, at: datetime | None = None) -> None:
        self.lake = lake
        self._at = at
        self.catalog = Catalog(lake, at)

    def __getattr__(self, table: str) -> pl.LazyFrame:
        if table.startswith("_") or table not in TABLES:
            raise AttributeError(f"there is no table {table!r}{nearest(table, TABLES)}")
        if table == "calls":  # an answer counts before a failure that came to nothing
            return self._before("calls", "created_at").sort("is_retryable", "created_at").unique("key", keep="first")
        if table == "prompts":
            return self.lake.scan(table).unique("prompt", keep="first")
        if table in ("partitions", "studies"):
            return self._before(table, "at")
        columns = list(TABLES[table].partition_by)
        frame = self.lake.scan(table)  # opened before it is asked what is published, lest unpublished rows be seen
        published = self._published(table)
        if self._at is not None:
            frame = self.lake.scan(table, version=_version(published, table))
        return frame.join(_where(published, columns).lazy(), on=columns, how="semi") if columns else frame

    def __dir__(self) -> list[str]:
        return [*super().__dir__(), *TABLES]

    def _before(self, table: str, column: str) -> pl.LazyFrame:
        """Rows of a table that only grows, up to the moment of the view."""
        frame = self.lake.scan(table)
        return frame if self._at is None else frame.filter(pl.col(column) <= self._at)

    def _published(self, table: str) -> pl.DataFrame:
        """Rows of ``partitions`` of what is published of a table and part of the present study."""
        present = self.catalog.present_study()
        assets = present["assets"] if present else []
        rows = self.catalog.latest(lists=["where", "table_versions"])
        latest = rows.filter(pl.col("asset").is_in(assets), state=PUBLISHED).collect()
        if present is None or latest.is_empty():
            return latest
        tables = pl.col("table_versions").list.eval(pl.element().struct.field("table"))
        latest = latest.filter(tables.list.contains(table))
        choices = json.loads(present["choices"])
        return latest.filter([_is_in(each, choices, present["shards"]) for each in latest["where"].to_list()])


def open_lake(lake: str = "lake", study: str | None = None, storage_options: dict[str, str] | None = None) -> View:
    """The tables of a study, as lazy Polars frames named like the tables.

    ``lake``: a folder or an object-store address. ``study``: its name; None takes the only one there is.

    Raises:
        LakeError: there is no such study, or several and none was named.
    """
    if "://" not in lake:
        there = sorted(path.parent.name for path in Path(lake).glob("*/partitions") if path.is_dir())
        if study is None and len(there) == 1:
            study = there[0]
        if study not in there:
            raise LakeError(
                f"{lake!r} holds the studies {there}; name one of them" if there else f"{lake!r} holds no study"
            )
    if study is None:
        raise LakeError(f"name the study to be read from {lake}")
    return View(Lake(lake, study, storage_options or {}))


def _version(published: pl.DataFrame, table: str) -> int | None:
    """Version of a table that holds every partition published at the moment of a view."""
    versions = published.select(pl.col("table_versions").explode()).unnest("table_versions")
    newest: int | None = versions.filter(table=table)["version"].max()  # type: ignore[assignment]
    return newest


def _where(published: pl.DataFrame, columns: list[str]) -> pl.DataFrame:
    """Partition columns of published partitions."""
    rows = [{each["column"]: each["value"] for each in where} for where in published["where"].to_list()]
    frame = pl.DataFrame(rows, schema=dict.fromkeys(columns, pl.String))
    return frame.with_columns(pl.col("block").cast(pl.Int32)) if "block" in columns else frame


def _is_in(where: list[dict[str, str]], choices: dict[str, Any], shards: list[str]) -> bool:
    """Whether a study still has a partition's shard, dictionary, model and block."""
    values = {each["column"]: each["value"] for each in where}
    return (
        values.get("dictionary", next(iter(choices["dictionaries"]))) in choices["dictionaries"]
        and ("shard" not in values or values["shard"] in shards)
        and ("llm" not in values or values["llm"] in choices["llms"])
        and int(values.get("block", 0)) < choices["blocks"]
    )
