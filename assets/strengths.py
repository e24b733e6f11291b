"""How strongly latents are pushed, by intervention."""

import dagster as dg
import polars as pl

from assets.preview import Frame, table_of
from assets.stage import stage_asset
from latentlake.flow import Flow, Stage
from latentlake.stages import strengths as core
from latentlake.work import each


def strengths(flow: Flow, stage: Stage) -> dg.AssetsDefinition:
    """The strengths at which latents move the subject as far as an intervention asks."""
    name = stage.constants["intervention"]
    targets = ", ".join(f"{target:g}" for target in flow.study.interventions[name].kl)
    return stage_asset(
        flow,
        stage,
        each(core.compute),
        group="interventions",
        kinds={"pytorch"},
        description=f"How many times a latent's decoder direction, and one drawn at random in its place, must be added in "
        f"`{name}` for a mean divergence of {targets} nats of the next token's distribution, over the prompts of the sample "
        f"`{flow.study.interventions[name].tune}`.",
        preview=_preview,
    )


def _preview(frame: Frame) -> str:
    rows = (
        frame("strengths")
        .group_by("target", "control")
        .agg(
            latents=pl.len(),
            reached=pl.col("error").is_null().sum(),
            kl=pl.col("kl").filter(pl.col("error").is_null()).mean(),
            strength=pl.col("strength").filter(pl.col("error").is_null()).median(),
        )
    )
    errors = frame("strengths").drop_nulls("error").group_by("error").agg(latents=pl.col("latent").n_unique())
    tables = [rows.sort("target", "control", nulls_last=False), errors.sort("error")]
    return "\n\n".join(table_of(table.collect()) for table in tables)
