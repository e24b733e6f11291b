"""How far scorers agree: correlations of their scores over latents, of the latents' own explanations.

Of each scorer its main metric counts. A scorer that judges no explanation is held against those of every explainer.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from itertools import combinations
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl
from scipy.stats import norm, pearsonr, spearmanr

from latentlake.errors import LakeError, nearest
from latentlake.measures.aggregates import main_metrics
from latentlake.measures.metrics import LEVEL
from latentlake.scorers import NONE
from latentlake.tables import TABLES

if TYPE_CHECKING:
    from latentlake.reading.view import View

FEWEST = 4  # latents; of three the variance of Fisher's z is not defined
_SCORED = ["dictionary", "explainer", "scorer"]
_SAME = 1e-12  # of the largest score: what differs by less differs by rounding

Judge = tuple[str, str]  # explainer and scorer


def agreements(scores: pl.LazyFrame, metrics: Mapping[str, str]) -> pl.DataFrame:
    """Rows of `agreements` out of rows of `scores`. ``metrics``: the main metric of each scorer.

    The scores of one scorer and dictionary are read at a time, 12 bytes a latent, and held as long as the dictionary's others.
    """
    main = pl.LazyFrame(list(metrics.items()), schema={"scorer": pl.String, "metric": pl.String}, orient="row")
    own = scores.filter(pl.col("control").is_null()).join(main, on=["scorer", "metric"], how="semi")
    there = own.select(_SCORED).unique().collect(engine="streaming").sort(_SCORED)
    rows = []
    for (dictionary,), judges in there.partition_by("dictionary", as_dict=True, maintain_order=True).items():
        values = {
            judge: own.filter(dictionary=dictionary, explainer=judge[0], scorer=judge[1])
            .select("latent", "value")
            .drop_nulls()
            .collect(engine="streaming")
            .sort("latent")  # that sums come out to the same digits
            for judge in judges.select(_SCORED[1:]).iter_rows()
        }
        for explainer, one, other in pairs(values):
            who = {"dictionary": dictionary, "explainer": explainer, "scorer": one[1], "other": other[1]}
            of = {"metric": metrics[one[1]], "other_metric": metrics[other[1]]}
            both = values[one].join(values[other], on="latent", suffix="_other", maintain_order="left")
            rows.append({**who, **of, **correlations(both)})
    table = TABLES["agreements"]
    return pl.DataFrame(rows, schema=table.empty().schema).sort(table.keys)


def pairs(judges: Iterable[Judge]) -> Iterator[tuple[str, Judge, Judge]]:
    """Each two that share latents and explanations, by name, and the explainer under which they stand: two of one explainer, one
    of an explainer and one that judges none, or two that judge none."""
    for one, other in combinations(sorted(judges, key=lambda judge: judge[::-1]), 2):
        if one[1] != other[1] and (one[0] == other[0] or NONE in (one[0], other[0])):
            yield other[0] if one[0] == NONE else one[0], one, other


def correlations(both: pl.DataFrame) -> dict[str, Any]:
    """Spearman's and Pearson's correlation of ``value`` and ``value_other`` with their intervals, or why there are none.

    Pearson's interval is by Fisher's z, whose variance is 1 / (n - 3); Spearman's by (1 + r² / 2) / (n - 3), of D. G. Bonett and
    T. A. Wright, Psychometrika 65, 2000.
    """
    x, y = both["value"].to_numpy(), both["value_other"].to_numpy()
    found: dict[str, Any] = {"latents": len(both)}
    if len(both) < FEWEST:
        return {**found, "error": "few_latents"}
    if _is_constant(x) or _is_constant(y):
        return {**found, "error": "constant"}
    for name, r in (("spearman", float(spearmanr(x, y).statistic)), ("pearson", float(pearsonr(x, y).statistic))):
        factor = 1 + r**2 / 2 if name == "spearman" else 1.0
        low, high = interval(r, factor / (len(both) - 3))
        found |= {name: r, f"{name}_low": low, f"{name}_high": high}
    return found


def interval(r: float, variance: float, level: float = LEVEL) -> tuple[float | None, float | None]:
    """Interval of a correlation, the ``variance`` being that of its Fisher's z; None at -1 and 1, where z has no end."""
    if 1 - abs(r) < _SAME:
        return None, None
    half = norm.ppf((1 + level) / 2) * np.sqrt(variance)
    return float(np.tanh(np.arctanh(r) - half)), float(np.tanh(np.arctanh(r) + half))


def _is_constant(values: np.ndarray) -> bool:
    return bool(np.ptp(values) <= _SAME * np.abs(values).max())


def cells(rows: pl.DataFrame) -> pl.DataFrame:
    """Rows of `agreements` as matrices, one for each dictionary and explainer: a row a cell, Spearman's correlations below the
    diagonal and Pearson's above. Scorers that judge no explanation stand in the matrix of every explainer.

    Columns: dictionary, explainer, row, column, correlation (`spearman` or `pearson`), value, low, high, latents, error.
    """
    is_named = pl.col("explainer") != NONE
    explainers = rows.filter(is_named).select("dictionary", "explainer").unique()
    unnamed = rows.filter(~is_named).drop("explainer").join(explainers, on="dictionary", how="left")
    every = pl.concat(
        [rows.filter(is_named), unnamed.with_columns(pl.col("explainer").fill_null(NONE))], how="diagonal"
    )
    halves = [
        every.select(
            *("dictionary", "explainer", pl.col(row).alias("row"), pl.col(column).alias("column")),
            *(pl.lit(name).alias("correlation"), pl.col(name).alias("value")),
            *(pl.col(f"{name}_{end}").alias(end) for end in ("low", "high")),
            *("latents", "error"),
        )
        for name, row, column in (("spearman", "other", "scorer"), ("pearson", "scorer", "other"))
    ]
    return pl.concat(halves).sort("dictionary", "explainer", "row", "column")


def agreements_of(view: View, explainer: str | None = None, dictionary: str | None = None) -> pl.DataFrame:
    """Rows of `agreements` of a lake: those that are published where no score is younger, else made of the scores there are.

    Of an explainer also the rows of scorers that judge no explanation: they stand in its matrix.

    Raises:
        LakeError: there are no scores of two scorers, or none of that explainer or dictionary.
    """
    found = pl.concat([_of_dictionary(view, name) for name in _dictionaries(view)] or [TABLES["agreements"].empty()])
    if found.is_empty():
        raise LakeError("no two scorers have scored the same latents; name two in the study's `scorers`, and run it")
    asked = {"dictionary": (dictionary, [dictionary]), "explainer": (explainer, [explainer, NONE])}
    for name, (value, kept) in asked.items():
        if value is not None:
            known = found[name].unique().sort().to_list()
            if value not in known:
                raise LakeError(f"no two scorers are of the {name} {value!r}, only of {known}{nearest(value, known)}")
            found = found.filter(pl.col(name).is_in(kept))
    return found


def _dictionaries(view: View) -> list[str]:
    return view.scores.select("dictionary").unique().collect(engine="streaming")["dictionary"].sort().to_list()


def _of_dictionary(view: View, dictionary: str) -> pl.DataFrame:
    if _is_up_to_date(view, dictionary):
        return view.agreements.filter(dictionary=dictionary).collect()
    return agreements(view.scores.filter(dictionary=dictionary), main_metrics(view))


def _is_up_to_date(view: View, dictionary: str) -> bool:
    """Whether the published agreements of a dictionary are younger than all its scores, and of these scorers."""
    of = pl.element().filter(pl.element().struct.field("column") == "dictionary").struct.field("value").first()
    rows = view.latest().filter("is_seen").with_columns(dictionary=pl.col("where").list.eval(of).list.first())
    own = rows.filter(dictionary=dictionary)
    made, scored = own.filter(asset="agreements"), own.filter(pl.col("asset").str.starts_with("scores/"))
    if made.is_empty() or scored.is_empty():
        return False
    judges = [(explainer, scorer) for _, explainer, scorer in (each.split("/") for each in scored["asset"].unique())]
    there = view.agreements.filter(dictionary=dictionary).select("explainer", "scorer", "other").collect().rows()
    wanted = [(explainer, one[1], other[1]) for explainer, one, other in pairs(judges)]
    return set(there) == set(wanted) and made["at"][0] >= scored["at"].max()
