"""Scores of explanations, by explainer and scorer, and of latents by scorers that judge none."""

from functools import partial

import dagster as dg
import polars as pl

from assets.preview import Frame, table_of
from assets.stage import stage_asset
from latentlake.charts.scores import picture
from latentlake.charts.svg import image
from latentlake.flow import Flow, Stage
from latentlake.pages.glimpses import Glimpse, glimpses
from latentlake.pages.judged import truth, verdict
from latentlake.reading.trace import ranked
from latentlake.scorers import EMPTY, NONE, SHUFFLED, Scorer
from latentlake.scorers.fuzzing import WRONG_TOKENS
from latentlake.stages import scores as core
from latentlake.work import each

_CONTROLS = {SHUFFLED: "the same explanations shuffled among latents", EMPTY: "an empty one"}
_SHOWN, _WINDOWS = 4, 3  # latents, and windows of each
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
        preview=partial(_preview, scorer, _sample(stage)),
    )


def _sample(stage: Stage) -> str | None:
    """The sample whose windows are judged, if any."""
    return next(
        (each.stage.removeprefix("examples/") for each in stage.inputs if each.stage.startswith("examples/")), None
    )


def _of(scorer: Scorer, explainer: str) -> str:
    """What is judged."""
    if explainer == NONE:
        return "latents by their windows alone: no explanation is judged"
    controls = [_CONTROLS.get(name, f"`{name}`") for name in scorer.controls]
    own = f"the explanations of `{explainer}`"
    return f"{', '.join([own, *controls[:-1]])} and {controls[-1]}" if controls else own


def _preview(scorer: Scorer, sample: str | None, frame: Frame) -> str:
    rows = frame("scores").collect()
    means = rows.group_by("metric", "control").agg(
        mean=pl.col("value").mean(), latents=pl.col("value").count(), failed=pl.col("n_failed").sum()
    )
    image = _image(scorer, rows, frame) if rows["latent"].n_unique() >= _WORTH_A_CHART else ""
    return "\n\n".join([image, table_of(means.sort("metric", "control", nulls_last=False)), _misjudged(sample, frame)])


def _image(scorer: Scorer, rows: pl.DataFrame, frame: Frame) -> str:
    # of wrong tokens the latent fires in the window, which is neither of its deciles nor silent
    own = frame("judgements").filter(pl.col("source") != WRONG_TOKENS)
    judgements = own.select("control", "latent", "decile", "probability", "measure").collect()
    chart = partial(picture, metric=scorer.metrics[0], chance=scorer.chance)
    return image(chart, rows, judgements)


def _misjudged(sample: str | None, frame: Frame) -> str:
    """Of the first latents the windows that were judged most wrongly, by their own explanations."""
    if sample is None:
        return ""
    own = frame("judgements").filter(pl.col("control").is_null())
    few = own.select(pl.col("latent").unique().bottom_k(_SHOWN)).collect()["latent"]
    judgements = ranked(own.filter(pl.col("latent").is_in(few.to_list())).collect())
    windows = frame(f"examples/{sample}").filter(pl.col("latent").is_in(few.to_list()))
    place = ["latent", "shard", "context", "start"]
    texts = windows.select(*place, "text", "offsets", "activations").unique(place).collect()
    rows = judgements.join(texts, on=place, how="inner", maintain_order="left")
    return glimpses([_glimpse(each) for each in rows.partition_by("latent", maintain_order=True)])


def _glimpse(rows: pl.DataFrame) -> Glimpse:
    windows = [
        {
            **row,
            "verdict": f"{found['said']}, {truth(row)}",
            "is_wrong": found["is_wrong"] if not found["is_failed"] else True,
        }
        for row in rows.head(_WINDOWS).iter_rows(named=True)
        for found in [verdict(row)]
    ]
    return Glimpse(f"latent {rows['latent'][0]}", f"{rows.height} judged windows, the most misjudged first", windows)
