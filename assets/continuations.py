"""What the subject says, clean and pushed, by intervention."""

import dagster as dg
import polars as pl

from assets.preview import Frame, table_of
from assets.stage import stage_asset
from latentlake.flow import Flow, Stage
from latentlake.stages import continuations as core
from latentlake.work import each

_LATENTS, _CHARACTERS = 6, 60


def continuations(flow: Flow, stage: Stage) -> dg.AssetsDefinition:
    """Continuations of prompts."""
    choice = flow.study.interventions[stage.constants["intervention"]]
    return stage_asset(
        flow,
        stage,
        each(core.compute),
        group="interventions",
        kinds={"pytorch"},
        description=f"What the subject says in at most {choice.tokens} tokens after the prompts of the sample `{choice.score}`: "
        "clean, pushed by the latent's decoder direction, and by one drawn at random that moves it as far.",
        preview=_preview,
    )


def _preview(frame: Frame) -> str:
    """The first prompt of the first latents, the clean text beside the pushed ones at the largest target."""
    rows = frame("continuations")
    first = rows.select("latent").unique().sort("latent").head(_LATENTS)
    largest = pl.col("target").is_null() | (pl.col("target") == pl.col("target").max())
    shown = rows.filter(largest, pl.col("rank") == pl.col("rank").min().over("latent")).join(
        first, on="latent", how="semi"
    )
    side = pl.when(pl.col("target").is_null()).then(pl.lit("clean")).otherwise(pl.coalesce("control", pl.lit("pushed")))
    wide = shown.select("latent", pl.col("prompt").str.tail(_CHARACTERS), "text", side=side).collect()
    return table_of(wide.pivot("side", index=["latent", "prompt"], values="text").sort("latent"))
