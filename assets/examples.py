"""Windows of the chosen latents, by sample."""

from collections.abc import Callable

import dagster as dg
import polars as pl

from assets.preview import Frame, table_of
from assets.stage import stage_asset
from latentlake.flow import Flow, Stage
from latentlake.pages.glimpses import Glimpse, glimpses
from latentlake.sections.samples import Sample
from latentlake.stages import examples as core
from latentlake.work import each


def examples(flow: Flow, stage: Stage) -> dg.AssetsDefinition:
    """One named sample."""
    sample = flow.study.samples[stage.constants["sample"]]
    others = " and ".join(f"{number} {name.replace('_', ' ')}" for name, number in sample.sources.items()) or "no"
    return stage_asset(
        flow,
        stage,
        each(core.compute),
        group="examples",
        kinds={"polars"},
        description=f"The sample `{stage.constants['sample']}`: {sample.windows} activating windows ({sample.sampler}) and "
        f"{others} ones in which the latent does not fire, of {flow.study.length_of(sample)} tokens ({sample.alignment}), "
        f"from the split `{sample.split}`.",
        preview=_preview(sample),
    )


def _preview(sample: Sample) -> Callable[[Frame], str]:
    """How many windows there are of those asked for, and the first ones."""

    def preview(frame: Frame) -> str:
        rows = frame("examples").filter(pl.col("is_activating") & (pl.col("rank") < 2)).sort("latent", "rank").head(12)
        parts = rows.collect().partition_by("latent", as_dict=True, maintain_order=True)
        shown = [Glimpse(f"latent {latent}", windows=each.to_dicts()) for (latent,), each in parts.items()]
        return "\n\n".join([table_of(_drawn(frame, sample)), glimpses(shown)])

    return preview


def _drawn(frame: Frame, sample: Sample) -> pl.DataFrame:
    """For activating windows and each source of others: how many were asked for, how many latents have them all, and for how
    many windows a random one stands in."""
    source = pl.when("is_activating").then(pl.lit("activating")).otherwise(pl.coalesce("in_place_of", "source"))
    counts = (
        frame("examples")
        .group_by("latent", windows=source)
        .agg(drawn=pl.len(), at_random=pl.col("in_place_of").count())
        .collect()
    )
    latents = counts.select("latent").unique()
    wanted = {"activating": sample.windows, **sample.sources}
    asked = pl.DataFrame({"windows": list(wanted), "asked for": list(wanted.values())})
    every = latents.join(asked, how="cross").join(counts, on=["latent", "windows"], how="left").fill_null(0)
    return every.group_by("windows", "asked for", maintain_order=True).agg(
        pl.len().alias("latents"),
        (pl.col("drawn") >= pl.col("asked for")).sum().alias("that have them all"),
        pl.col("drawn").min().alias("fewest"),
        pl.col("at_random").sum().alias("random in place"),
    )
