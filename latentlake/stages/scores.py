"""Judgements of explanations, true ones and controls; the scores that follow from them are of `latentlake.scoring`."""

from typing import Any

import numpy as np
import polars as pl

from latentlake.digest import mix, seed_of
from latentlake.scorers import Case, Judgement, Scorer
from latentlake.scoring import score
from latentlake.work import Tables, Work

SHUFFLED = "shuffled"


def compute(work: Work) -> Tables:
    """What one scorer says of one explainer's explanations of one block."""
    explained = work.frame(f"explanations/{work.stage.constants['explainer']}").sort("latent").collect()
    scorer = work.study.scorers[work.stage.constants["scorer"]]
    given = _given(explained, work.study.seed)
    judgements = _judge(work, scorer, given)
    scores, slices = score(given, judgements, scorer.is_labelling)
    tables = {"judgements": judgements, "scores": scores, "slices": slices}
    return {name: rows.with_columns(**work.columns(len(rows))) for name, rows in tables.items()}


def partners(latents: np.ndarray, seed: int) -> dict[int, int]:
    """For each latent the next one in hash order, whose explanation controls its own; none for a single latent."""
    order = latents[np.argsort(mix(latents.astype(np.uint64), seed_of("shuffled", seed)), kind="stable")]
    return dict(zip(order.tolist(), np.roll(order, -1).tolist(), strict=True)) if len(order) > 1 else {}


def _given(explained: pl.DataFrame, seed: int) -> pl.DataFrame:
    """Which explanation is held against which latent: its own, then another's; with the reason where there is none.

    Partners are drawn among latents that have an explanation, so that a failure costs one score and not two.
    """
    texts = dict(zip(explained["latent"], explained["explanation"], strict=True))
    able = np.array([latent for latent, text in texts.items() if text is not None], dtype=np.int64)
    partner = partners(able, seed)
    rows: list[dict[str, Any]] = []
    for latent, text in texts.items():
        other = partner.get(latent)
        reason = None if text is not None else "no_explanation"
        rows.append(
            {"latent": latent, "control": None, "explanation_latent": latent, "explanation": text, "error": reason}
        )
        alone = reason or (None if other is not None else "no_partner")
        rows.append(
            {
                "latent": latent,
                "control": SHUFFLED,
                "explanation_latent": latent if other is None else other,
                "explanation": None if other is None else texts[other],
                "error": alone,
            }
        )
    schema = {"latent": pl.Int32, "control": pl.String, "explanation_latent": pl.Int32, "explanation": pl.String}
    return pl.DataFrame(rows, schema={**schema, "error": pl.String})


def _judge(work: Work, scorer: Scorer, given: pl.DataFrame) -> pl.DataFrame:
    """A row for each explanation and window, in the order of latents, controls and ranks."""
    windows = work.frame(f"examples/{scorer.sample}").filter(pl.col("rank") < scorer.windows)
    columns = ["latent", "shard", "context", "start", "source", "decile", "is_activating", "rank", "text"]
    rows = given.filter(pl.col("explanation").is_not_null()).drop("error")
    rows = rows.join(windows.select(columns).collect(), on="latent")
    rows = rows.sort("latent", "control", "is_activating", "rank", nulls_last=False)
    cases = [Case(*each) for each in rows.select("latent", "explanation", "text").iter_rows()]
    judged = scorer.judge(work, cases) if cases else []
    schema = {"prediction": pl.Boolean, "probability": pl.Float64, "measure": pl.Float64, "error": pl.String}
    answers = pl.DataFrame([_row(each) for each in judged], schema={**schema, "call": pl.String})
    return pl.concat([rows.drop("explanation", "rank", "text"), answers], how="horizontal")


def _row(judgement: Judgement) -> dict[str, Any]:
    return vars(judgement)
