"""The lake as its readers see it: the published partitions of the present study, as lazy Polars frames."""

import json
from pathlib import Path
from typing import Any

import polars as pl

from latentlake.catalog import Catalog, Publication
from latentlake.errors import LakeError, nearest
from latentlake.lake import Lake
from latentlake.tables import TABLES


class View:
    """One study of a lake. Each table is an attribute, a lazy frame: ``view.scores``, ``view.examples``, …

    What was published under an earlier version of the study and is no longer in it (a scorer or dictionary that was
    removed) is hidden, and so is a partition that is being built.
    """

    def __init__(self, lake: Lake) -> None:
        self._lake = lake
        self._catalog = Catalog(lake)

    def __getattr__(self, table: str) -> pl.LazyFrame:
        if table.startswith("_") or table not in TABLES:
            raise AttributeError(f"there is no table {table!r}{nearest(table, TABLES)}")
        frame = self._lake.scan(table)
        if table in ("calls", "prompts"):
            if table == "calls":  # an answer counts before a failure that came to nothing
                frame = frame.sort("is_retryable", "created_at")
            return frame.unique("key" if table == "calls" else "prompt", keep="first")
        columns = TABLES[table].partition_by
        return frame.join(self._published(table).lazy(), on=list(columns), how="semi") if columns else frame

    def __dir__(self) -> list[str]:
        return [*super().__dir__(), *TABLES]

    def _published(self, table: str) -> pl.DataFrame:
        """Partition columns of the partitions of a table that readers see."""
        declared = TABLES[table]
        schema = {c.name: pl.Int32 if c.name == "block" else pl.String for c in declared.columns}
        rows = [each.where for each in self._publications() if table in (each.table_versions or {})]
        typed = [{**row, "block": int(row["block"])} if "block" in row else row for row in rows]
        return pl.DataFrame(typed, schema={name: schema[name] for name in declared.partition_by})

    def _publications(self) -> list[Publication]:
        """What is published now; read after the table is opened, so that no row is seen before its publication."""
        present = self._catalog.present_study()
        if present is None:
            return []
        choices, assets, shards = json.loads(present["choices"]), set(present["assets"]), set(present["shards"])
        return [
            each
            for each in self._catalog.publications().values()
            if each.is_published
            and each.asset in assets
            and ("shard" not in each.where or each.where["shard"] in shards)
            and _is_in(each, choices)
        ]


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


def _is_in(publication: Publication, choices: dict[str, Any]) -> bool:
    """Whether a study still has a partition's dictionary, model and block."""
    where = publication.where
    return (
        where.get("dictionary", next(iter(choices["dictionaries"]))) in choices["dictionaries"]
        and ("llm" not in where or where["llm"] in choices["llms"])
        and int(where.get("block", 0)) < choices["blocks"]
    )
