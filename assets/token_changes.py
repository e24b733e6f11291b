"""Which tokens become likelier when latents are pushed, by intervention."""

import dagster as dg
import polars as pl

from assets.preview import Frame, table_of
from assets.stage import stage_asset
from latentlake.flow import Flow, Stage
from latentlake.stages import token_changes as core
from latentlake.work import each

_ROWS = 12


def token_changes(flow: Flow, stage: Stage) -> dg.AssetsDefinition:
    """The tokens whose probability rises most."""
    choice = flow.study.interventions[stage.constants["intervention"]]
    return stage_asset(
        flow,
        stage,
        each(core.compute),
        group="interventions",
        kinds={"pytorch"},
        description=f"The {choice.rising} tokens whose probability rises most after each prompt of the sample `{choice.show}`, "
        "when the latent's decoder direction is added as strongly as each target asks.",
        preview=_preview,
    )


def _preview(frame: Frame) -> str:
    tokens = pl.col("tokens").list.eval(pl.element().struct.field("text")).list.join(" · ")
    rows = frame("token_changes").select("latent", "target", "rank", tokens)
    return table_of(rows.sort("latent", "target", "rank").head(_ROWS).collect())
