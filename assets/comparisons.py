"""What the alignments of a comparison come to."""

import dagster as dg

from assets.preview import Frame, table_of
from assets.stage import stage_asset
from latentlake.charts.comparisons import picture
from latentlake.charts.svg import image
from latentlake.flow import Flow, Stage
from latentlake.measures.comparing import compared
from latentlake.stages import comparisons as core
from latentlake.work import each


def comparisons(flow: Flow, stage: Stage) -> dg.AssetsDefinition:
    """Dictionaries held against one another."""
    choice = flow.study.comparisons[stage.constants["comparison"]]
    return stage_asset(
        flow,
        stage,
        each(core.compute),
        group="comparisons",
        kinds={"polars"},
        description="How near the latents of each two dictionaries are that are aligned, how many are similar "
        f"({choice.shared:g} or more; of `both`, where decoder and encoder give the same partner, these are the shared "
        "latents), and how alike their explanations are, beside those with partners exchanged.",
        preview=_preview,
    )


def _preview(frame: Frame) -> str:
    sums, alike = frame("comparisons").collect(), frame("similarities").collect()
    return f"{image(picture, sums, alike)}\n\n{table_of(compared(sums, alike))}"
