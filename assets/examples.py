"""Windows of the chosen latents, by sample."""

from collections.abc import Callable

import dagster as dg
import polars as pl

from assets.preview import Frame, highlighted, table_of
from assets.stage import stage_asset
from latentlake.flow import Flow, Stage
from latentlake.stages import examples as core
from latentlake.study import Sample
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
        preview=_preview(sample),
    )


def _preview(sample: Sample) -> Callable[[Frame], str]:
    """How many windows there are of those asked for, and the first ones."""

    def preview(frame: Frame) -> str:
        rows = frame("examples").filter(pl.col("is_activating") & (pl.col("rank") < 2)).sort("latent", "rank").head(12)
        parts = rows.collect().partition_by("latent", as_dict=True, maintain_order=True)
        shown = [f"**latent {latent}**\n{highlighted(each.to_dicts())}" for (latent,), each in parts.items()]
        return "\n\n".join([table_of(_drawn(frame, sample)), *shown])

    return preview


def _drawn(frame: Frame, sample: Sample) -> pl.DataFrame:
    """For activating windows and others: how many were asked for, and how many latents have them all."""
    others = pl.col("is_activating").not_()
    counts = frame("examples").group_by("latent").agg(activating=pl.col("is_activating").sum(), others=others.sum())
    asked = pl.DataFrame({"windows": ["activating", "others"], "asked for": [sample.windows, sample.negatives]})
    kinds = counts.unpivot(index="latent", variable_name="windows", value_name="drawn").collect().join(asked, "windows")
    return kinds.group_by("windows", "asked for", maintain_order=True).agg(
        pl.len().alias("latents"),
        (pl.col("drawn") >= pl.col("asked for")).sum().alias("that have them all"),
        pl.col("drawn").min().alias("fewest"),
    )
