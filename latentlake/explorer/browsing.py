"""Which latents are searched for, and a page of them: the search is one lazy query, and what a page shows is read of its latents
alone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import polars as pl

from latentlake.explorer import opened
from latentlake.explorer.address import SHOWN, Asked, asked_of
from latentlake.explorer.opened import published
from latentlake.explorer.overview import dictionaries
from latentlake.measures.aggregates import is_main
from latentlake.reading.results import choices_of
from latentlake.reading.search import Within, by_meaning, by_words
from latentlake.scorers import NONE

if TYPE_CHECKING:
    from latentlake.reading.view import View

_KEYS = ["dictionary", "latent"]
MOST = 10_000  # matches that a search looks through: more than anybody reads
_TOKENS = 5  # on which a latent fires most, that a row shows
_TRIAGE = ("ok", "single_token", "position_bound", "dense", "rare", "dead")


@dataclass(frozen=True)
class Hits:
    """``total``: how many latents were found. ``rows``: those of the page, as the page shows them."""

    total: int
    rows: list[dict[str, Any]]


def asked(view: View, given: Mapping[str, str]) -> Asked:
    """What an address searches for. Where it says nothing: of words, everything that has them, the best match first; else the
    explained latents, the best score first, as far as there are any.

    Raises:
        LakeError: it names something that the study lacks, or a number that is none.
    """
    found = asked_of(given, places(view), usual(view))
    if found.words and "which" not in given:
        found = replace(found, which="all")
    if found.words and "order" not in given:
        found = replace(found, order="nearest")
    is_scored = found.order in ("best", "worst") or found.low is not None or found.high is not None
    return replace(found, scorer=next(iter(places(view)["scorer"]), "")) if is_scored and not found.scorer else found


def places(view: View) -> dict[str, tuple[str, ...]]:
    """What a search may name."""
    choices = choices_of(view)
    sections = {"dictionary": "dictionaries", "scorer": "scorers", "explainer": "explainers"}
    by = ("words", "meaning") if choices.get("search") else ("words",)
    return {**{name: tuple(choices[section]) for name, section in sections.items()}, "triage": _TRIAGE, "by": by}


def usual(view: View) -> Asked:
    """What is shown where nothing is asked for."""
    explained, scored, chosen = dictionaries(view).select(pl.sum("explained", "scored", "chosen")).row(0)
    return Asked(
        which="explained" if explained else "chosen" if chosen else "all", order="best" if scored else "latent"
    )


@published
def hits(view: View, asked: Asked) -> Hits:
    """The latents that are searched for, those of one page.

    Raises:
        LakeError: what explanations mean cannot be compared.
    """
    found = _found(view, asked)
    page = found.sort(*_order(asked)).slice(asked.first, SHOWN).select(*_KEYS, "density", "max_activation", "triage")
    total, rows = pl.collect_all([found.select(pl.len()), page], engine="streaming")
    return Hits(int(total.item()), _shown(view, asked, rows))


def _found(view: View, asked: Asked) -> pl.LazyFrame:
    """Every latent that is searched for: keys and what they are sorted by."""
    found = view.latents.select(*_KEYS, "density", "max_activation", "triage", "is_chosen")
    for name in ("dictionary", "triage"):
        if getattr(asked, name):
            found = found.filter(pl.col(name) == getattr(asked, name))
    if asked.which in ("chosen", "left out"):
        found = found.filter(pl.col("is_chosen") == (asked.which == "chosen"))
    if asked.which in ("explained", "failed") or (asked.explainer and not asked.words):
        kept = {"explained": pl.col("explanation").is_not_null(), "failed": pl.col("error").is_not_null()}
        said = view.explanations.filter(kept.get(asked.which, pl.lit(True)))
        if asked.explainer:
            said = said.filter(explainer=asked.explainer)
        found = found.join(said.select(_KEYS), on=_KEYS, how="semi")
    if asked.words:
        found = found.join(_matches(view, asked).lazy(), on=_KEYS)
    return _scored(view, asked, found) if asked.scorer else found


def _matches(view: View, asked: Asked) -> pl.DataFrame:
    """The latents that words fit, or that mean something like them, with the place of each among them."""
    within = Within(asked.dictionary or None, asked.explainer or None, asked.triage or None)
    if asked.by == "meaning":
        rows = by_meaning(view, asked.words, opened.embedder(), within, MOST)
    else:
        rows = by_words(view, asked.words, within, MOST)
    return rows.select(_KEYS).with_row_index("place").unique(_KEYS, keep="first", maintain_order=True)


def _scored(view: View, asked: Asked, found: pl.LazyFrame) -> pl.LazyFrame:
    """Latents with their score by a scorer, the best of several explainers', as far as it is asked for."""
    own = view.scores.filter(pl.col("scorer") == asked.scorer, pl.col("control").is_null(), is_main(view))
    if asked.explainer:
        own = own.filter(pl.col("explainer").is_in([asked.explainer, NONE]))
    best = own.group_by(_KEYS).agg(score=pl.col("value").max())
    is_bound = asked.low is not None or asked.high is not None
    found = found.join(best, on=_KEYS, how="inner" if is_bound else "left")
    if asked.low is not None:
        found = found.filter(pl.col("score") >= asked.low)
    return found if asked.high is None else found.filter(pl.col("score") <= asked.high)


def _order(asked: Asked) -> list[pl.Expr]:
    key = {
        "nearest": pl.col("place") if asked.words else pl.col("latent"),
        "best": -pl.col("score"),
        "worst": pl.col("score"),
        "often": -pl.col("density"),
        "seldom": pl.col("density"),
        "strong": -pl.col("max_activation"),
        "latent": pl.col("latent"),
    }[asked.order]
    return [key.is_null(), key, *map(pl.col, _KEYS)]


def _shown(view: View, asked: Asked, page: pl.DataFrame) -> list[dict[str, Any]]:
    """What is shown of the latents of a page."""
    of = pl.col("explainer").is_in([asked.explainer, NONE]) if asked.explainer else pl.lit(True)
    here = [pl.col(name).is_in(page[name].unique().to_list()) for name in _KEYS]
    tokens = pl.col("top_tokens").list.head(_TOKENS).list.eval(pl.element().struct.field("text"))
    is_own = pl.col("control").is_null()
    facts, said, scores = pl.collect_all(
        [
            view.latents.filter(here).select(*_KEYS, "is_chosen", "reason", tokens=tokens),
            view.explanations.filter(*here, of).select(*_KEYS, "explainer", "explanation", "error"),
            view.scores.filter(*here, of, is_own, is_main(view)).select(*_KEYS, "scorer", "explainer", "value"),
        ],
        engine="streaming",
    )
    rows = page.join(facts, on=_KEYS, how="left", maintain_order="left").to_dicts()
    for row in rows:
        own = {name: row[name] for name in _KEYS}
        row["said"] = said.filter(**own).sort("explainer").drop(_KEYS).to_dicts()
        by_scorer = scores.filter(**own).sort("scorer", "explainer").drop(_KEYS)
        row["scores"] = {
            name: each.to_dicts()
            for (name,), each in by_scorer.partition_by("scorer", as_dict=True, maintain_order=True).items()
        }
    return rows
