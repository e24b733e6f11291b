"""Windows of the chosen latents, by sample."""

import dagster as dg
import polars as pl

from assets.preview import Frame, highlighted
from assets.stage import stage_asset
from latentlake.flow import Flow, Stage
from latentlake.stages import examples as core
from latentlake.work import each


def examples(flow: Flow, stage: Stage) -> dg.AssetsDefinition:
    """One named sample."""
    sample = flow.study.samples[stage.constants["sample"]]
    return stage_asset(
        flow,
        stage,
        each(core.compute),
        group="examples",
        kinds={"polars"},
        description=f"The sample `{stage.constants['sample']}`: {sample.windows} activating windows ({sample.sampler}) and "
        f"{sample.negatives} others of {flow.study.selection.window} tokens, from the split `{sample.split}`.",
        preview=_preview,
    )


def _preview(frame: Frame) -> str:
    rows = frame("examples").filter(pl.col("is_activating") & (pl.col("rank") < 2)).sort("latent", "rank").head(12)
    parts = rows.collect().partition_by("latent", as_dict=True, maintain_order=True)
    return "\n\n".join(f"**latent {latent}**\n{highlighted(each.to_dicts())}" for (latent,), each in parts.items())
