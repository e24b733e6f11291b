"""Dictionaries held against one another, as tables: how near their latents are, and how alike the explanations of these."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import polars as pl

from latentlake.digest import seed_of
from latentlake.errors import LakeError, nearest
from latentlake.measures.likeness import likeness, vectors_of
from latentlake.reading.results import Results
from latentlake.sections.comparisons import BETWEEN, pairs_of

_PLACE = ["comparison", "pair", "dictionary", "other", "by"]
_ALIKE = ("mean", "low", "high", "shuffled", "difference", "difference_low", "difference_high")
# how near a latent is to its partner, and which that is, by each way of aligning them
_PARTNERS = {"decoder_cosine": "decoder_partner", "encoder_cosine": "encoder_partner", "jaccard": "activation_partner"}
_NAMES = {name: "explanations" if name == "mean" else f"explanations_{name}" for name in _ALIKE}


def compared(sums: pl.DataFrame, alike: pl.DataFrame) -> pl.DataFrame:
    """Rows of `comparisons`, and beside them those of `similarities`: a row each explainer, one where there is none.

    Columns: those of `comparisons`; ``explainer``, ``explained``, pairs that both have an explanation, and ``explanations``,
    ``explanations_low``, ``explanations_high``, ``explanations_shuffled``, ``explanations_difference`` with its ends.
    """
    of = alike.rename({"pairs": "explained", **_NAMES})
    return sums.join(of, on=_PLACE, how="left").sort(*_PLACE[:2], "by", "explainer")


def told(alike: pl.DataFrame) -> pl.DataFrame:
    """Of rows of `similarities` those that stand for a pair: of latents aligned by decoder, or by activations."""
    return alike.filter(pl.col("by").is_in(["decoder", "activations"]))


def by_pair(sums: pl.DataFrame, alike: pl.DataFrame) -> pl.DataFrame:
    """Rows of `comparisons` and of `similarities`: a row each pair of dictionaries, or each explainer where explanations are
    compared, with the ways of aligning side by side; pairs in the order of their names.

    Columns: comparison, pair, dictionary, other; ``decoder``, ``encoder`` and ``activations``, the mean similarity by each way,
    with the ends of its interval (``decoder_low``, ``decoder_high``, …); of `both` or `activations` what `comparisons` has;
    explainer, and from ``explained`` on as in `compared`, of the rows that are `told`.
    """
    place = _PLACE[:-1]
    found = sums.filter(pl.col("by").is_in(["both", "activations"])).drop("mean", "low", "high", "median")
    for way in ("decoder", "encoder", "activations"):
        names = {"mean": way, "low": f"{way}_low", "high": f"{way}_high"}
        found = found.join(sums.filter(by=way).select(*place, *names).rename(names), on=place, how="left")
    said = told(alike).drop("by").rename({"pairs": "explained", **_NAMES})
    rank = {name: place for place, name in enumerate(ordered(pl.concat([sums["dictionary"], sums["other"]])))}
    order = (pl.col(name).replace_strict(rank, return_dtype=pl.Int64) for name in ("dictionary", "other"))
    return found.join(said, on=place, how="left").sort("comparison", *order, "explainer")


def pairs_with(choices: Mapping[str, Any], dictionary: str) -> dict[str, list[str]]:
    """The pairs of a study that have a dictionary, by comparison. ``choices``: the study's."""
    every = {name: pairs_of(each, choices["dictionaries"]) for name, each in choices.get("comparisons", {}).items()}
    own = {name: [pair for pair in pairs if dictionary in pair.split(BETWEEN)] for name, pairs in every.items()}
    return {name: pairs for name, pairs in own.items() if pairs}


def partners(
    results: Results, comparisons: Sequence[str], pairs: Sequence[str], dictionary: str, latents: Sequence[int]
) -> pl.DataFrame:
    """The partners of some latents of a dictionary in others, a row each latent that is one by any comparison and way of
    aligning, the nearest first. ``comparisons``, ``pairs``: those that are read.

    Columns: latent, other (the partner's dictionary), partner; ``decoder_cosine``, ``encoder_cosine`` and ``jaccard``, null where
    it is no partner by this way; ``is_shared``.
    """
    is_own = (pl.col("dictionary") == dictionary) & pl.col("latent").is_in(latents)
    is_other = (pl.col("other") == dictionary) & pl.any_horizontal(pl.col(*_PARTNERS.values()).is_in(latents))
    is_read = pl.col("comparison").is_in(comparisons), pl.col("pair").is_in(pairs)
    rows = results.alignments.filter(*is_read, is_own | is_other).collect(engine="streaming")
    ways = []
    for similarity, partner in _PARTNERS.items():
        what = {"way": pl.lit(similarity), "similarity": pl.col(similarity), "is_shared": pl.col("is_shared")}
        ways += [
            rows.filter(is_own).select("latent", "other", partner=partner, **what),
            rows.filter(pl.col("other") == dictionary, pl.col(partner).is_in(latents)).select(
                latent=partner, other="dictionary", partner="latent", **what
            ),
        ]
    near = (pl.col("similarity").filter(way=name).max().alias(name) for name in _PARTNERS)
    found = pl.concat(ways).drop_nulls("partner").group_by("latent", "other", "partner")
    return found.agg(*near, pl.col("is_shared").max()).sort(
        "latent", pl.coalesce(*_PARTNERS), "other", "partner", descending=[False, True, False, False]
    )


def comparisons_of(results: Results, comparison: str | None = None) -> pl.DataFrame:
    """The same of a lake, of one comparison or all.

    Raises:
        LakeError: nothing is compared, or there is no such comparison.
    """
    sums, alike = results.comparisons.collect(), results.similarities.collect()
    if sums.is_empty():
        raise LakeError("no dictionaries are compared; add `comparisons: {all: {}}` to the study, and run it")
    if comparison is not None:
        known = sums["comparison"].unique().sort().to_list()
        if comparison not in known:
            raise LakeError(f"there is no comparison {comparison!r}, only {known}{nearest(comparison, known)}")
        sums = sums.filter(comparison=comparison)
    return compared(sums, alike)


def explainers_compared(results: Results, one: str, other: str, before: Results | None = None) -> pl.DataFrame:
    """How alike what two explainers say of the same latents is, beside what they say of others: a row a dictionary.

    ``before``: an earlier state, whose explanations by the first are compared; then both may be the same.
    Columns: dictionary, explainer, other, and as in `compared` from ``explained`` on.

    Raises:
        LakeError: the explanations of one of them have no vectors.
    """
    sides = [(results if before is None else before, one), (results, other)]
    for side, name in sides:
        known = _values(side, "explainer")
        if name not in known:
            raise LakeError(
                f"explanations of {name!r} have no vectors, only those of {known}{nearest(name, known)}; a study with `search` "
                "makes them"
            )
    rows = []
    for dictionary in sorted({*_values(sides[0][0], "dictionary")} & {*_values(results, "dictionary")}):
        left, right = (
            vectors_of(side.embeddings.filter(explainer=name, dictionary=dictionary)) for side, name in sides
        )
        both = np.intersect1d(left.latents, right.latents)
        figures = likeness(left, right, both, both, seed_of("exchange", dictionary))
        rows.append({"dictionary": dictionary, "explainer": one, "other": other, **figures})
    schema = {**dict.fromkeys(("dictionary", "explainer", "other"), pl.String), "pairs": pl.Int64}
    found = pl.DataFrame(rows, {**schema, **dict.fromkeys(_ALIKE, pl.Float64)})
    return found.with_columns(pl.col(_ALIKE).fill_nan(None)).rename({"pairs": "explained", **_NAMES})


def _values(results: Results, column: str) -> list[str]:
    return results.embeddings.select(pl.col(column).unique()).collect(engine="streaming")[column].sort().to_list()


def cells(rows: pl.DataFrame, value: str) -> pl.DataFrame:
    """A figure of pairs of dictionaries as a matrix: a row a cell, each pair twice. Columns: row, column, value."""
    halves = [
        rows.select(row=row, column=column, value=value)
        for row, column in (("dictionary", "other"), ("other", "dictionary"))
    ]
    return pl.concat(halves).unique(maintain_order=True)


def ordered(names: pl.Series) -> list[str]:
    """Names in the order of the alphabet, and of the numbers in them: layer 10 after layer 9."""
    parts = {
        name: [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", name)] for name in names.unique()
    }
    return sorted(parts, key=parts.__getitem__)
