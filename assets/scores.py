"""Scores of explanations, by explainer and scorer, and of latents by scorers that judge none."""

from functools import partial

import dagster as dg
import polars as pl

from assets.preview import Frame, table_of
from assets.stage import stage_asset
from latentlake import charts
from latentlake.flow import Flow, Stage
from latentlake.scorers import EMPTY, NONE, SHUFFLED, Scorer
from latentlake.scorers.fuzzing import WRONG_TOKENS
from latentlake.stages import scores as core
from latentlake.work import each

_CONTROLS = {SHUFFLED: "the same explanations shuffled among latents", EMPTY: "an empty one"}
_WORTH_A_CHART = 5  # latents; of fewer, the table says as much


def scores(flow: Flow, stage: Stage) -> dg.AssetsDefinition:
    """What one scorer makes of one explainer's explanations, or of latents without."""
    scorer = flow.study.scorers[stage.constants["scorer"]]
    asks_models = any(source.stage == "llms" for source in stage.inputs)
    return stage_asset(
        flow,
        stage,
        each(core.compute),
        group="scores",
        kinds={"scipy", *(["huggingface"] if asks_models else [])},
        description=f"What the scorer `{stage.constants['scorer']}` (method `{scorer.method}`) makes of "
        f"{_of(scorer, stage.constants['explainer'])}; each judged window is in `judgements`."
        + (f" Of the metric `{scorer.metrics[0]}` chance is {scorer.chance:g}." if scorer.chance is not None else ""),
        preview=partial(_preview, scorer),
    )


def _of(scorer: Scorer, explainer: str) -> str:
    """What is judged."""
    if explainer == NONE:
        return "latents by their windows alone: no explanation is judged"
    controls = [_CONTROLS.get(name, f"`{name}`") for name in scorer.controls]
    own = f"the explanations of `{explainer}`"
    return f"{', '.join([own, *controls[:-1]])} and {controls[-1]}" if controls else own


def _preview(scorer: Scorer, frame: Frame) -> str:
    rows = frame("scores").collect()
    means = rows.group_by("metric", "control").agg(
        mean=pl.col("value").mean(), latents=pl.col("value").count(), failed=pl.col("n_failed").sum()
    )
    # of wrong tokens the latent fires in the window, which is neither of its deciles nor silent
    own = frame("judgements").filter(pl.col("source") != WRONG_TOKENS)
    judgements = own.select("control", "latent", "decile", "probability", "measure").collect()
    chart = partial(charts.scores, metric=scorer.metrics[0], chance=scorer.chance)
    image = charts.image(chart, rows, judgements) if rows["latent"].n_unique() >= _WORTH_A_CHART else ""
    return f"{image}\n\n{table_of(means.sort('metric', 'control', nulls_last=False))}"
