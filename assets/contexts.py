"""Shards of the corpus as contexts of tokens."""

import dagster as dg
import polars as pl

from assets.preview import Frame, rows_preview, table_of
from assets.stage import stage_asset
from latentlake.flow import Flow, Stage
from latentlake.stages import contexts as core
from latentlake.work import each


def contexts(flow: Flow, stage: Stage) -> dg.AssetsDefinition:
    """What the subject reads."""
    return stage_asset(
        flow,
        stage,
        each(core.compute),
        group="corpus",
        kinds={"polars"},
        description="Documents, tokenized and packed into contexts; each context belongs to one split by a hash of its "
        "tokens.",
        preview=_preview,
    )


def _preview(frame: Frame) -> str:
    lengths = frame("contexts").select("split", length=pl.col("tokens").list.len())
    splits = lengths.group_by("split").agg(contexts=pl.len(), tokens=pl.col("length").sum()).sort("split")
    return f"{table_of(splits.collect())}\n\n{rows_preview('contexts', ['context', 'split', 'documents'])(frame)}"
