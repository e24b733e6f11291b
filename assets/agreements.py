"""How far the scorers of each dictionary agree."""

import dagster as dg

from assets.preview import Frame, table_of
from assets.stage import stage_asset
from latentlake.charts.agreements import picture
from latentlake.charts.svg import image
from latentlake.flow import Flow, Stage
from latentlake.stages import agreements as core
from latentlake.work import each


def agreements(flow: Flow, stage: Stage) -> dg.AssetsDefinition:
    """Correlations of scorers over latents."""
    return stage_asset(
        flow,
        stage,
        each(core.compute),
        group="scores",
        kinds={"scipy"},
        description="How far each two scorers agree over the latents of a dictionary, by explainer: Spearman's correlation of "
        "their scores below the diagonal, Pearson's above, with 95 % intervals.",
        preview=_preview,
    )


def _preview(frame: Frame) -> str:
    rows = frame("agreements").collect()
    matrices = "" if rows.is_empty() else image(picture, rows)
    return f"{matrices}\n\n{table_of(rows.drop('dictionary', 'metric', 'other_metric'))}"
