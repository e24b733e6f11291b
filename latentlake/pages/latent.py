"""The page of a latent: what it fires on, what it is said to be, how well that holds, and what all of this was made from."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import polars as pl
from markupsafe import Markup

from latentlake.charts.latents import histogram
from latentlake.charts.svg import inline
from latentlake.measures.aggregates import whose
from latentlake.pages.judged import judged_windows
from latentlake.pages.rendering import render, short
from latentlake.pages.windows import highlighted, token_in_signs
from latentlake.reading.trace import Trace
from latentlake.scorers import NONE

Row = dict[str, Any]
Link = Callable[[str, int], str | None]  # of a dictionary's latent, the address of its page, if it has one
_TOKENS = {
    "tokens_before": "before",
    "top_tokens": "fires on",
    "tokens_after": "after",
    "promoted": "promotes",
    "suppressed": "suppresses",
}


@dataclass(frozen=True)
class Depth:
    """How much a page shows; None: all there is.

    ``windows``: of each decile; ``judged``: windows, the most misjudged first; ``tokens``: of each list; ``neighbours``;
    ``partners``: in other dictionaries; ``prompts``: of each intervention; ``is_traced``: whether hypotheses, lineage and costs
    are there. Of long lists the first ``at_once`` are seen at once, and the others when they are asked for.
    """

    windows: int | None = None
    judged: int | None = None
    tokens: int = 10
    neighbours: int | None = None
    partners: int | None = None
    prompts: int | None = None
    is_traced: bool = True
    at_once: int = 3


FULL = Depth()
BRIEF = Depth(windows=1, judged=4, tokens=6, neighbours=3, partners=4, prompts=2, is_traced=False)


def latent_html(found: Trace, depth: Depth = FULL, link: Link = lambda dictionary, latent: None, level: int = 2) -> str:
    """The page of a latent as an HTML element ``article``, to be shown under `latentlake.pages.style`.

    ``link``: where pages of other latents are. ``level``: of its heading, below which its parts have theirs.
    Whatever is missing (a latent that was not chosen, an explanation that failed, a stage that was not run yet) is said in its
    place.
    """
    row = found.latents.row(0, named=True) if found.latents.height else None
    peak = row["max_activation"] if row else 0.0
    return render(
        "latent.html",
        dictionary=found.dictionary,
        latent=found.latent,
        level=level,
        coder=_first(found.dictionaries),
        row=row,
        histogram=_histogram(row),
        explanations=list(_explanations(found)),
        unexplained=_scores(found.scores.filter(explainer=NONE)),
        windows=list(_by_decile(found.examples, peak, depth.windows)),
        tokens=_tokens(row, _first(found.logits), depth.tokens),
        no_logits=found.logits["error"].drop_nulls().to_list(),
        judged=judged_windows(found, peak, depth.judged),
        interventions=list(_interventions(found.continuations, depth.prompts)),
        neighbours=[
            {**each, "link": link(found.dictionary, each["neighbour"])}
            for each in found.neighbours.head(depth.neighbours or found.neighbours.height).iter_rows(named=True)
        ],
        partners={"n": found.partners.height, "shown": _partners(found.partners, depth.partners, link)},
        at_once=depth.at_once,
        traced=_traced(found) if depth.is_traced else None,
    )


def _partners(partners: pl.DataFrame, most: int | None, link: Link) -> list[Row]:
    """Partners in other dictionaries, nearest first, each with the address of its page."""
    shown = partners.head(partners.height if most is None else most)
    return [{**each, "link": link(each["other"], each["partner"])} for each in shown.iter_rows(named=True)]


def _first(rows: pl.DataFrame) -> Row | None:
    return rows.row(0, named=True) if rows.height else None


def _histogram(row: Row | None) -> Markup:
    """How often the latent fires how strongly; nothing for one that never does."""
    return Markup(inline(histogram(row["histogram"]))) if row and any(row["histogram"]) else Markup("")


def _explanations(found: Trace) -> Iterator[Row]:
    """Each explanation with its scores and, beside it, what else was considered."""
    for row in found.explanations.iter_rows(named=True):
        considered = found.hypotheses.filter(explainer=row["explainer"])
        said = considered.filter("is_chosen").drop_nulls("provenance").select("source", "provenance").rows()
        yield {
            **row,
            "provenance": ", ".join(said[0]) if said else None,
            "scores": _scores(found.scores.filter(explainer=row["explainer"])),
            "hypotheses": considered.to_dicts() if considered.height > 1 else [],
        }


def _scores(scores: pl.DataFrame) -> Row:
    """By whose explanations there are controls, and a row a scorer and metric with their values, the main metrics apart."""
    whose_ = scores.drop_nulls("control").select(whose()).to_series().unique(maintain_order=True).sort().to_list()
    values = {
        (row[0], row[1], row[2]): row[3] for row in scores.select("scorer", "metric", whose(), "value").iter_rows()
    }
    rows = [
        {**row, "controls": [values.get((row["scorer"], row["metric"], each)) for each in whose_]}
        for row in scores.filter(pl.col("control").is_null()).iter_rows(named=True)
    ]
    return {
        "whose": whose_,
        "main": [row for row in rows if row["is_main"]],
        "others": [row for row in rows if not row["is_main"]],
    }


def _by_decile(examples: pl.DataFrame, peak: float, most: int | None) -> Iterator[Row]:
    """Windows in which the latent fires, strongest decile first; a window that several samples have is shown once."""
    place = ["shard", "context", "start"]
    firing = examples.filter("is_activating").unique(place, keep="first", maintain_order=True)
    ordered = firing.sort("decile", pl.col("activations").list.max(), descending=True, nulls_last=True)
    for decile, rows in groupby(ordered.iter_rows(named=True), key=lambda row: row["decile"]):
        own = list(rows)
        yield {"decile": decile + 1, "n": len(own), "windows": [_window(row, peak) for row in own[:most]]}


def _window(row: Row, peak: float) -> Row:
    return {
        "text": highlighted(row, peak),
        "peak": max(row["activations"]),
        "document": " ¶ ".join(row["documents"] or []),
        "place": f"{row['shard']}, context {row['context']}, token {row['start']}; sample {row['sample']}",
    }


def _tokens(row: Row | None, logits: Row | None, most: int) -> list[Row]:
    """Lists of tokens by name, with how many there are of each, or its logit."""
    sources = {**(row or {}), **(logits or {})}
    lists = [(name, (sources.get(column) or [])[:most]) for column, name in _TOKENS.items()]
    return [{"name": name, "tokens": [_token(each) for each in tokens]} for name, tokens in lists if tokens]


def _token(each: Row) -> Row:
    return {
        "text": token_in_signs(each["text"]),
        "figure": short(each["logit"]) if "logit" in each else f"{each['count']:,}",
    }


def _interventions(continuations: pl.DataFrame, most: int | None) -> Iterator[Row]:
    """What the subject says after each prompt: clean, and pushed as far as each target."""
    for (name,), own in continuations.partition_by("intervention", as_dict=True, maintain_order=True).items():
        prompts = own.partition_by("rank", maintain_order=True)
        yield {"name": name, "n": len(prompts), "prompts": [_prompt(rows) for rows in prompts[:most]]}


def _prompt(rows: pl.DataFrame) -> Row:
    ordered = rows.sort("target", "control", nulls_last=False)
    return {"prompt": rows["prompt"][0], "pushes": ordered.to_dicts()}


def _traced(found: Trace) -> Mapping[str, Sequence[Row]]:
    """What all of it was made from, and what it took."""
    models = [("subject", row) for row in found.subject.to_dicts()]
    models += [(f"llm {row['llm']}", row) for row in found.llms.to_dicts()]
    return {
        "models": [{"name": name, **row} for name, row in models],
        "versions": found.versions.to_dicts(),
        "costs": found.costs.to_dicts(),
    }
