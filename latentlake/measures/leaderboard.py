"""Sparse coders side by side: what they are, how well they reconstruct, and how well their latents are explained."""

import polars as pl

from latentlake.measures.aggregates import aggregates
from latentlake.reading.results import Results

_WHAT = ("hookpoint", "site", "width", "kind", "family", "k")
_HOW_WELL = ("l0", "variance_unexplained", "cross_entropy_added")
_GROUP = ["dictionary", "explainer", "scorer", "metric"]


def leaderboard(
    results: Results, metric: str = "auroc", explainer: str | None = None, scorer: str | None = None
) -> pl.DataFrame:
    """A row for each dictionary, explainer and scorer; of those of one explainer and scorer the best mean first. The metric
    `main` is each scorer's main one.

    Columns: those of `dictionaries` that say what the coder is, ``control`` among them; ``l0``, ``variance_unexplained`` and
    ``cross_entropy_added`` as they were measured, null where they were not; ``explained``, latents that have an explanation, null
    where none is judged;
    ``latents``, ``mean``, ``low``, ``high`` and ``firing_weighted`` of the scores as in `aggregates`; and for each control, by
    its name, its mean (``shuffled``), and the mean difference of own scores from it with the 95 % interval (``over_shuffled``,
    ``over_shuffled_low``, ``over_shuffled_high``).

    Raises:
        LakeError: there are no scores of that metric, explainer or scorer.
    """
    found = aggregates(results, metric=metric, explainer=explainer, scorer=scorer)
    board = found.filter(pl.col("control").is_null()).select(
        *_GROUP, "latents", "mean", "low", "high", "firing_weighted"
    )
    for (control,), rows in found.drop_nulls("control").partition_by("control", as_dict=True).items():
        over = {f"difference{end}": f"over_{control}{end}" for end in ("", "_low", "_high")}
        named = rows.select(*_GROUP, *over, pl.col("mean").alias(str(control))).rename(over)
        board = board.join(named.select(*_GROUP, str(control), *over.values()), on=_GROUP, how="left")
    is_explained = pl.col("explanation").is_not_null()
    explained = results.explanations.group_by("dictionary", "explainer").agg(explained=is_explained.sum())
    what = results.dictionaries.select("dictionary", *_WHAT, "control")
    how_well = results.reconstructions.select("dictionary", *_HOW_WELL)
    board = board.join(what.join(how_well, on="dictionary", how="left").collect(), on="dictionary", how="left")
    board = board.join(explained.collect(), on=["dictionary", "explainer"], how="left")
    first = [*_GROUP, *_WHAT, *_HOW_WELL, "control", "explained"]
    return board.select(*first, pl.exclude(first)).sort(
        "explainer", "scorer", "mean", "dictionary", descending=[False, False, True, False], nulls_last=True
    )
