"""Explanations of the chosen latents of a block, and all hypotheses beside them."""

from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa

from latentlake.explainers import Hypothesis
from latentlake.tables import TABLES
from latentlake.work import Tables, Work


def compute(work: Work) -> Tables:
    """What one explainer says of one block."""
    latents = work.frame("latents").filter("is_chosen").select("latent").collect()["latent"].sort().to_list()
    explainer = work.study.explainers[work.stage.constants["explainer"]]
    hypotheses = explainer.explain(work, latents) if latents else {}
    common = work.stage.columns(work.values)
    explained = [{**common, "latent": latent, **_explanation(hypotheses[latent])} for latent in latents]
    considered = [{**common, "latent": latent, **row} for latent in latents for row in _rows(hypotheses[latent])]
    return {
        "explanations": pa.Table.from_pylist(explained, schema=TABLES["explanations"].schema),
        "hypotheses": pa.Table.from_pylist(considered, schema=TABLES["hypotheses"].schema),
    }


def choose(hypotheses: Sequence[Hypothesis]) -> int | None:
    """Place of the hypothesis with the highest selection value (of equals, and where none has one, the first)."""
    valid = [place for place, each in enumerate(hypotheses) if each.explanation is not None]
    return max(valid, key=lambda place: (hypotheses[place].selection or 0.0, -place), default=None)


def _explanation(hypotheses: Sequence[Hypothesis]) -> dict[str, Any]:
    """The explanation; where there is none, the failure of the first hypothesis."""
    place = choose(hypotheses)
    if place is None:
        first = hypotheses[0] if hypotheses else None
        error, call = (first.error, first.call) if first else ("no_windows", None)
        return {"explanation": None, "error": error, "call": call}
    return {"explanation": hypotheses[place].explanation, "error": None, "call": hypotheses[place].call}


def _rows(hypotheses: Sequence[Hypothesis]) -> list[Mapping[str, Any]]:
    chosen = choose(hypotheses)
    return [{"hypothesis": place, "is_chosen": place == chosen, **vars(each)} for place, each in enumerate(hypotheses)]
