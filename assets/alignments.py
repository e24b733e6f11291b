"""Which latents of two dictionaries are which."""

import dagster as dg

from assets.preview import Frame, table_of
from assets.stage import stage_asset
from latentlake.charts.alignments import picture
from latentlake.charts.svg import image
from latentlake.flow import Flow, Stage
from latentlake.stages import alignments as core
from latentlake.work import each

_LATENTS = 12


def alignments(flow: Flow, stage: Stage) -> dg.AssetsDefinition:
    """Latents of two dictionaries, one to one."""
    choice = flow.study.comparisons[stage.constants["comparison"]]
    by = "by decoder and by encoder directions" if choice.by == "directions" else "by the tokens on which they fire"
    return stage_asset(
        flow,
        stage,
        each(core.compute),
        group="comparisons",
        kinds={"pytorch", "scipy"},
        description=f"Which latent of one dictionary is which of another, one to one, {by}.",
        preview=_preview,
    )


def _preview(frame: Frame) -> str:
    rows = frame("alignments").drop("comparison", "pair", "dictionary", "other").collect()
    shown = rows.select(name for name in rows.columns if rows[name].count())
    nearness = image(picture, rows) if shown.width > 1 else ""
    return f"{nearness}\n\n{table_of(shown.head(_LATENTS))}"
