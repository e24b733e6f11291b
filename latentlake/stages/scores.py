"""Judgements of explanations, true ones and controls; the scores that follow from them are of `latentlake.scoring`."""

from collections.abc import Mapping
from itertools import pairwise
from typing import Any

import numpy as np
import polars as pl

from latentlake.digest import mix, seed_of
from latentlake.scorers import Case, Judgement, Scorer
from latentlake.scoring import EMPTY, SHUFFLED, score
from latentlake.work import Tables, Work


def compute(work: Work) -> Tables:
    """What one scorer says of one explainer's explanations of one block."""
    explained = work.frame(f"explanations/{work.stage.constants['explainer']}").sort("latent").collect()
    scorer = work.study.scorers[work.stage.constants["scorer"]]
    given = _given(explained, work.study.seed)
    judgements = _judge(work, scorer, given)
    scores, slices = score(given, judgements, scorer.is_labelling)
    tables = {"judgements": judgements, "scores": scores, "slices": slices}
    return {name: rows.with_columns(**work.columns(len(rows))) for name, rows in tables.items()}


def partners(texts: Mapping[int, str], seed: int) -> dict[int, int]:
    """For each latent, by its explanation, the next one in hash order that is explained otherwise: its control. Latents that
    are all explained alike have none.
    """
    latents = np.array(list(texts), dtype=np.int64)
    order = latents[np.argsort(mix(latents.astype(np.uint64), seed_of("shuffled", seed)), kind="stable")].tolist()
    found: dict[int, int] = {}
    for latent, after in pairwise(reversed([*order, *order])):  # a ring, walked backwards
        if texts[latent] != texts[after]:
            found[after] = latent
        elif latent in found:
            found[after] = found[latent]
    return found


def _given(explained: pl.DataFrame, seed: int) -> pl.DataFrame:
    """Which explanation is held against which latent: its own, another's, and an empty one; with the reason where there is none.

    Partners are drawn among latents that have an explanation, so that a failure costs one score and not two. What a latent
    without an explanation would make of an empty one is not asked: it could be compared with nothing.
    """
    texts = dict(zip(explained["latent"], explained["explanation"], strict=True))
    partner = partners({latent: text for latent, text in texts.items() if text is not None}, seed)
    rows: list[tuple[int, str | None, int | None, str | None, str | None]] = []
    for latent, text in texts.items():
        other = partner.get(latent)
        missing = None if text is not None else "no_explanation"
        alone = missing or (None if other is not None else "no_partner")
        rows.append((latent, None, latent, text, missing))
        rows.append((latent, SHUFFLED, other, None if other is None else texts[other], alone))
        rows.append((latent, EMPTY, None, None if missing else "", missing))
    schema = {"latent": pl.Int32, "control": pl.String, "explanation_latent": pl.Int32, "explanation": pl.String}
    return pl.DataFrame(rows, schema={**schema, "error": pl.String}, orient="row")


def _judge(work: Work, scorer: Scorer, given: pl.DataFrame) -> pl.DataFrame:
    """A row for each explanation and window, in the order of latents, controls and ranks."""
    windows = scorer.shown(work.frame(f"examples/{scorer.sample}"))
    windows = windows.with_columns(order=_order(windows, work.study.seed))
    rows = given.filter(pl.col("explanation").is_not_null()).drop("error").join(windows, on="latent")
    rows = rows.sort("latent", "control", "is_activating", "source", "rank", nulls_last=False)
    cases = [Case(*each) for each in rows.select("latent", "explanation", "text", "control", "order").iter_rows()]
    judged = scorer.judge(work, cases) if cases else []
    schema = {"prediction": pl.Boolean, "probability": pl.Float64, "measure": pl.Float64, "error": pl.String}
    answers = pl.DataFrame([_row(each) for each in judged], schema={**schema, "call": pl.String})
    return pl.concat([rows.drop("explanation", "rank", "text", "order"), answers], how="horizontal")


def _order(windows: pl.DataFrame, seed: int) -> pl.Series:
    """Numbers that put windows in an order which tells nothing of them: hashes of their places in the sample, so that a window
    that is replaced leaves the others in the prompts in which they are.
    """
    latents = mix(windows["latent"].to_numpy().astype(np.uint64), seed_of("order", seed))
    places = 2 * windows["rank"].to_numpy().astype(np.uint64) + windows["is_activating"].to_numpy()
    return pl.Series(mix(places, latents))


def _row(judgement: Judgement) -> dict[str, Any]:
    return vars(judgement)
