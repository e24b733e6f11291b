"""The report: one HTML file of what came out of the study."""

import dagster as dg

from assets.preview import Frame
from assets.stage import stage_asset
from latentlake.flow import Flow, Stage
from latentlake.stages import report as core
from latentlake.work import each


def report(flow: Flow, stage: Stage) -> dg.AssetsDefinition:
    """The report of a study, beside its tables."""
    return stage_asset(
        flow,
        stage,
        each(core.compute),
        group="report",
        kinds={"html"},
        description="One self-contained HTML file of the study: overview, scores beside controls, the best, the worst and random "
        "latents, a list of all, methods and versions.",
        preview=_preview,
    )


def _preview(frame: Frame) -> str:
    (row,) = frame("reports").collect().to_dicts()
    return (
        f"`{row['file']}` beside the tables: {row['bytes'] / 1e6:.1f} MB, {row['shown']} of {row['latents']:,} latents in full, "
        f"{row['listed']:,} in its list."
    )
