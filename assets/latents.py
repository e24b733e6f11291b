"""Statistics, triage and choice of latents."""

import dagster as dg
import polars as pl

from assets.preview import Frame, table_of
from assets.stage import stage_asset
from latentlake.charts.latents import picture
from latentlake.charts.svg import image
from latentlake.flow import Flow, Stage
from latentlake.stages import latents as core
from latentlake.work import each


def latents(flow: Flow, stage: Stage) -> dg.AssetsDefinition:
    """Every latent of a block."""
    return stage_asset(
        flow,
        stage,
        each(core.compute),
        group="latents",
        kinds={"polars"},
        description="Every latent: counts, density, maximum, histogram, top tokens, triage, and whether it is chosen or "
        "why not.",
        preview=_preview,
    )


def _preview(frame: Frame) -> str:
    rows = frame("latents").select("density", "triage", "is_chosen").collect()
    counts = rows.group_by("triage").agg(latents=pl.len(), chosen=pl.col("is_chosen").sum()).sort("triage")
    return f"{image(picture, rows)}\n\n{table_of(counts)}"
