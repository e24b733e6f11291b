"""What scorers make of latents whose meaning is known: whether they rank a true explanation above a near miss and a false one."""

from itertools import combinations
from math import ceil, floor

import numpy as np
import polars as pl
from scipy.stats import binomtest

from latentlake.errors import LakeError
from latentlake.measures.metrics import LEVEL
from latentlake.reading.view import View
from latentlake.scorers import NONE

# explainers of a study of planted latents, the better before the worse
TRUTHS = ("true", "near_miss", "false")
ALL = "all"  # in the place of a kind

_UNIT = ["scorer", "dictionary", "latent"]


def ranked(view: View) -> pl.DataFrame:
    """A row a scorer and planted latent: its kind, and the AUROC of each of its explanations, null where there is none.

    Raises:
        LakeError: an explainer is not among the study's.
    """
    scores = view.scores.filter(pl.col("explainer") != NONE, pl.col("control").is_null(), pl.col("metric") == "auroc")
    return of_truths(scores.select(*_UNIT, "explainer", "value").collect(), view.planted.collect())


def of_truths(scores: pl.DataFrame, planted: pl.DataFrame) -> pl.DataFrame:
    """The same out of rows of ``scores`` and ``planted``."""
    own = scores.join(planted.select("dictionary", "latent", "kind"), on=["dictionary", "latent"])
    missing = [name for name in TRUTHS if name not in own["explainer"]]
    if not own.is_empty() and missing:
        raise LakeError(
            f"planted latents have no scores of the explainer {missing[0]!r}; the study needs {', '.join(TRUTHS)}, of the method "
            "`imported`, and scorers that judge them"
        )
    values = [pl.col("value").filter(pl.col("explainer") == name).first().alias(name) for name in TRUTHS]
    return own.group_by(*_UNIT, "kind").agg(values).sort(_UNIT)


def means(rows: pl.DataFrame) -> pl.DataFrame:
    """A row a scorer and kind: number of latents, and the mean AUROC of each explanation. ``rows``: of `ranked`."""
    return _by_kind(rows).agg(pl.len().alias("latents"), *(pl.col(name).mean() for name in TRUTHS))


def orders(rows: pl.DataFrame) -> pl.DataFrame:
    """A row a scorer, kind and two explanations: the share of latents of which the ``better`` has the higher AUROC, with its
    95 % interval.

    Ties count half; Wilson's interval takes whole numbers, and is then that of the next lower and the next higher. Latents of
    which one of the two has no AUROC are left out.
    """
    found = []
    for (scorer, kind), group in _by_kind(rows):
        for better, worse in combinations(TRUTHS, 2):
            pairs = group.select(better, worse).drop_nulls().to_numpy()
            ranks = np.sign(pairs[:, 0] - pairs[:, 1])
            n, won = len(ranks), float((ranks > 0).sum() + (ranks == 0).sum() / 2)
            share, low, high = _share(won, n)
            found.append(
                {"scorer": scorer, "kind": kind, "better": better, "worse": worse, "latents": n}
                | {"share": share, "low": low, "high": high}
            )
    schema = dict.fromkeys(("scorer", "kind", "better", "worse"), pl.String) | {"latents": pl.Int64}
    return pl.DataFrame(found, schema=schema | dict.fromkeys(("share", "low", "high"), pl.Float64))


def _by_kind(rows: pl.DataFrame) -> "pl.dataframe.group_by.GroupBy":
    """Groups by scorer and kind, all kinds together last."""
    both = pl.concat([rows.sort("scorer", "kind"), rows.with_columns(kind=pl.lit(ALL)).sort("scorer")])
    return both.sort("scorer", maintain_order=True).group_by("scorer", "kind", maintain_order=True)


def _share(won: float, n: int) -> tuple[float | None, float | None, float | None]:
    if not n:
        return None, None, None
    low, high = (binomtest(round_(won), n).proportion_ci(LEVEL, method="wilson") for round_ in (floor, ceil))
    return won / n, float(low.low), float(high.high)
