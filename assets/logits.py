"""What latents promote."""

import dagster as dg
import polars as pl

from assets.preview import Frame, table_of
from assets.stage import stage_asset
from latentlake.flow import Flow, Stage
from latentlake.stages import logits as core
from latentlake.work import each

_LATENTS, _TOKENS = 12, 8


def logits(flow: Flow, stage: Stage) -> dg.AssetsDefinition:
    """The tokens that the chosen latents of a block promote and suppress."""
    return stage_asset(
        flow,
        stage,
        each(core.compute),
        group="latents",
        kinds={"pytorch"},
        description="The tokens whose logits the decoder direction of each chosen latent raises most, and lowers most, through "
        "the final norm and the unembedding.",
        preview=_preview,
    )


def _preview(frame: Frame) -> str:
    lists = (
        pl.col(name).list.head(_TOKENS).list.eval(pl.element().struct.field("text")).list.join(" · ").alias(name)
        for name in ("promoted", "suppressed")
    )
    return table_of(frame("logits").select("latent", *lists, "error").sort("latent").head(_LATENTS).collect())
