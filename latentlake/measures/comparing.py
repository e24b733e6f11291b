"""Dictionaries held against one another, as tables: how near their latents are, and how alike the explanations of these."""

import re

import numpy as np
import polars as pl

from latentlake.digest import seed_of
from latentlake.errors import LakeError, nearest
from latentlake.measures.likeness import likeness, vectors_of
from latentlake.reading.results import Results

_PLACE = ["comparison", "pair", "dictionary", "other", "by"]
_ALIKE = ("mean", "low", "high", "shuffled", "difference", "difference_low", "difference_high")
_NAMES = {name: "explanations" if name == "mean" else f"explanations_{name}" for name in _ALIKE}


def compared(sums: pl.DataFrame, alike: pl.DataFrame) -> pl.DataFrame:
    """Rows of `comparisons`, and beside them those of `similarities`: a row each explainer, one where there is none.

    Columns: those of `comparisons`; ``explainer``, ``explained``, pairs that both have an explanation, and ``explanations``,
    ``explanations_low``, ``explanations_high``, ``explanations_shuffled``, ``explanations_difference`` with its ends.
    """
    of = alike.rename({"pairs": "explained", **_NAMES})
    return sums.join(of, on=_PLACE, how="left").sort(*_PLACE[:2], "by", "explainer")


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
