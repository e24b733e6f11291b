"""Shards of the corpus as contexts of tokens."""

import dagster as dg

from assets.preview import rows_preview
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
        preview=rows_preview("contexts", ["context", "split", "documents"]),
    )
