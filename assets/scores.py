"""Scores of explanations, by explainer and scorer."""

import dagster as dg
import polars as pl

from assets import plots
from assets.preview import Frame, table_of
from assets.stage import stage_asset
from latentlake.flow import Flow, Stage
from latentlake.scorers.fuzzing import WRONG_TOKENS
from latentlake.stages import scores as core
from latentlake.work import each

_WORTH_A_CHART = 5  # latents; of fewer, the table says as much


def scores(flow: Flow, stage: Stage) -> dg.AssetsDefinition:
    """What one scorer makes of one explainer's explanations."""
    explainer, scorer = stage.constants["explainer"], stage.constants["scorer"]
    asks_models = any(source.stage == "llms" for source in stage.inputs)
    return stage_asset(
        flow,
        stage,
        each(core.compute),
        group="scores",
        kinds={"scipy", *(["huggingface"] if asks_models else [])},
        description=f"What the scorer `{scorer}` (method `{flow.study.scorers[scorer].method}`) makes of the explanations of "
        f"`{explainer}`, of the same explanations shuffled among latents, and of an empty one; "
        "each judged window is in `judgements`.",
        preview=_preview,
    )


def _preview(frame: Frame) -> str:
    rows = frame("scores").collect()
    means = rows.group_by("metric", "control").agg(
        mean=pl.col("value").mean(), latents=pl.col("value").count(), failed=pl.col("n_failed").sum()
    )
    # of wrong tokens the latent fires in the window, which is neither of its deciles nor silent
    own = frame("judgements").filter(pl.col("source") != WRONG_TOKENS)
    judgements = own.select("control", "latent", "decile", "probability", "measure").collect()
    image = plots.image(plots.scores, rows, judgements) if rows["latent"].n_unique() >= _WORTH_A_CHART else ""
    return f"{image}\n\n{table_of(means.sort('metric', 'control', nulls_last=False))}"
