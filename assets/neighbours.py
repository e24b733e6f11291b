"""Which latents of a dictionary are near to one another."""

import dagster as dg
import polars as pl

from assets.preview import Frame, table_of
from assets.stage import stage_asset
from latentlake.flow import Flow, Stage
from latentlake.stages import neighbours as core
from latentlake.work import each

_PAIRS = 12


def neighbours(flow: Flow, stage: Stage) -> dg.AssetsDefinition:
    """The nearest latents of each latent of a block."""
    return stage_asset(
        flow,
        stage,
        each(core.compute),
        group="latents",
        kinds={"pytorch"},
        description="The nearest latents of each: by decoder direction, by encoder direction, and those that fire on the same "
        "tokens most; with the figures of each pair. Shown are the nearest of all.",
        preview=_preview,
    )


def _preview(frame: Frame) -> str:
    rows = frame("neighbours").drop("dictionary", "block")
    nearest = pl.min_horizontal("decoder_cosine", "encoder_cosine", "jaccard")
    return table_of(rows.sort(nearest, descending=True, nulls_last=True).head(_PAIRS).collect())
