"""Coders that are trained here, where the study names none."""

import dagster as dg
import polars as pl

from assets.preview import Frame, table_of
from assets.stage import stage_asset
from latentlake.charts.svg import image
from latentlake.charts.training import picture
from latentlake.flow import Flow, Stage
from latentlake.stages import coder as core
from latentlake.work import each


def coder(flow: Flow, stage: Stage) -> dg.AssetsDefinition:
    """A coder of the study's own."""
    return stage_asset(
        flow,
        stage,
        each(core.compute),
        group="models",
        kinds={"pytorch"},
        description="Sparse coders trained with sparsify on the study's corpus, for dictionaries that name none: their weights, "
        "and how much variance each step left unexplained.",
        preview=_preview,
    )


def _preview(frame: Frame) -> str:
    """The loss curve, and where training began and ended."""
    steps = frame("trainings").sort("step").collect()
    ends = pl.concat([steps.head(1), steps.tail(1)]).select("step", "tokens", "variance_unexplained", "dead")
    return f"{image(picture, steps)}\n\n{table_of(ends)}"
