"""Judgements of latents, by explanations, true ones and controls, or without; and the scores that follow from them."""

from collections.abc import Iterator, Mapping
from itertools import pairwise

import numpy as np
import polars as pl

from latentlake.digest import mix, seed_of
from latentlake.scorers import EMPTY, NONE, SHUFFLED
from latentlake.tables import TABLES
from latentlake.work import Tables, Work

_GIVEN = {"latent": pl.Int32, "control": pl.String, "explanation_latent": pl.Int32, "explanation": pl.String}


def compute(work: Work) -> Tables:
    """What one scorer says of one block, by one explainer's explanations if it judges any."""
    explainer, scorer = work.stage.constants["explainer"], work.study.scorers[work.stage.constants["scorer"]]
    if explainer == NONE:
        chosen = work.frame("latents").filter("is_chosen").select("latent").sort("latent").collect()
        given = pl.concat([pl.DataFrame(schema={**_GIVEN, "error": pl.String}), chosen], how="diagonal")
    else:
        explained = work.frame(f"explanations/{explainer}").sort("latent").collect()
        given = _given(explained, work.study.seed, scorer.controls)
    judgements = _whole(scorer.judgements(work, given))
    scores, slices = scorer.score(given, judgements)
    tables = {"judgements": judgements.select(_columns().names()), "scores": scores, "slices": slices}
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


_Given = tuple[int, str | None, int | None, str | None, str | None]


def _given(explained: pl.DataFrame, seed: int, controls: tuple[str, ...]) -> pl.DataFrame:
    """Which explanation is held against which latent: its own, and the controls'; with the reason where there is none.

    Partners are drawn among latents that have an explanation, so that a failure costs one score and not two. What a latent
    without an explanation would make of an empty one is not asked: it could be compared with nothing.
    """
    texts = dict(zip(explained["latent"], explained["explanation"], strict=True))
    partner = partners({latent: text for latent, text in texts.items() if text is not None}, seed)

    def rows() -> Iterator[_Given]:
        for latent, text in texts.items():
            other, missing = partner.get(latent), None if text is not None else "no_explanation"
            alone = missing or (None if other is not None else "no_partner")
            yield latent, None, latent, text, missing
            for control in controls:
                if control == SHUFFLED:
                    yield latent, control, other, None if other is None else texts[other], alone
                elif control == EMPTY:
                    yield latent, control, None, None if missing else "", missing
                else:  # the latent's own, held against something else
                    yield latent, control, latent, text, missing

    return pl.DataFrame(list(rows()), schema={**_GIVEN, "error": pl.String}, orient="row")


def _whole(judgements: pl.DataFrame) -> pl.DataFrame:
    """Rows with all columns of the table but the partition's, and the scorer's own."""
    missing = [pl.lit(None, dtype).alias(name) for name, dtype in _columns().items() if name not in judgements.columns]
    return judgements.with_columns(missing)


def _columns() -> pl.Schema:
    """Columns of the table without the partition's."""
    table = TABLES["judgements"]
    return table.empty().drop(table.partition_by).schema
