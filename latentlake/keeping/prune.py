"""Deletes partitions that the present study does not have."""

from collections.abc import Sequence

import polars as pl

from latentlake.catalog import Catalog, Key
from latentlake.lake import Lake


def prune(lake: Lake, orphans: Sequence[Key]) -> None:
    """Delete the rows of partitions, having first said in ``partitions`` that nobody sees them any more.

    The history of a partition stays in ``partitions``, its model calls in the ledger.
    """
    catalog = Catalog(lake)
    publications = catalog.publications()
    wanted = pl.LazyFrame(list(orphans), schema={"asset": pl.String, "partition": pl.String}, orient="row")
    latest = catalog.latest(lists=["where", "table_versions"]).join(wanted, on=["asset", "partition"], how="semi")
    for row in latest.collect().iter_rows(named=True):
        catalog.forget(publications[row["asset"], row["partition"]])
        where = {
            each["column"]: int(each["value"]) if each["column"] == "block" else each["value"] for each in row["where"]
        }
        for written in row["table_versions"]:
            lake.delete(written["table"], where)
