"""Explanations of the chosen latents, by explainer."""

from collections.abc import Callable

import dagster as dg
import polars as pl

from assets.preview import Frame
from assets.stage import stage_asset
from latentlake.flow import Flow, Stage
from latentlake.pages.glimpses import Glimpse, glimpses
from latentlake.stages import explanations as core
from latentlake.work import each

_LATENTS, _WINDOWS = 6, 3


def explanations(flow: Flow, stage: Stage) -> dg.AssetsDefinition:
    """What one explainer says."""
    explainer = stage.constants["explainer"]
    shown = [name for mark, name in flow.study.explainers[explainer].references() if mark.split == "explain"]
    sample = next(iter(shown), None)
    return stage_asset(
        flow,
        stage,
        each(core.compute),
        group="explanations",
        kinds={"huggingface"} if any(source.stage == "llms" for source in stage.inputs) else {"polars"},
        description=f"What the explainer `{explainer}` (method `{flow.study.explainers[explainer].method}`) says of each "
        "chosen latent; all its hypotheses are in `hypotheses`.",
        preview=_preview(sample),
    )


def _preview(sample: str | None) -> Callable[[Frame], str]:
    """Explanations, the windows that were shown where there were any, and the hypotheses that were not chosen."""

    def preview(frame: Frame) -> str:
        rows = frame("explanations").sort("latent").head(_LATENTS).collect()
        hypotheses = frame("hypotheses").sort("hypothesis").collect()
        shown = frame(f"examples/{sample}").sort("rank").collect() if sample else None
        found = []
        for row in rows.iter_rows(named=True):
            own = pl.col("latent") == row["latent"]
            others = hypotheses.filter(own & ~pl.col("is_chosen"))["explanation"].drop_nulls().to_list()
            windows = [] if shown is None else shown.filter(own & pl.col("is_activating")).head(_WINDOWS).to_dicts()
            said = row["explanation"] or f"none, {row['error']}"
            note = f"not chosen: {'; '.join(others) or 'nothing'}"
            found.append(Glimpse(f"latent {row['latent']}", said, windows, note))
        return glimpses(found)

    return preview
