"""Scores of simulations out of judgements: Pearson's r of predicted and true activations over all tokens of a latent's windows.

Tokens of one window are no independent draws, but windows are: the interval is of as many (docs/decisions/015-intervals.md says
how often it holds what is true).
"""

import numpy as np
import polars as pl
from scipy.stats import norm, t

from latentlake.measures.metrics import LEVEL, Interval
from latentlake.measures.scoring import laid_out

METRIC = "pearson"
_WHO = ["latent", "control"]
_SUMS = ("n", "x", "y", "xx", "yy", "xy")
_AT_ONCE = 512  # latents: their tokens are a row each
_ROUNDING = 1e-12  # of a variance that is nought but for rounding, as a share of the squares
_DIGITS = 6  # beyond these, sums depend on the order of their parts


def score(given: pl.DataFrame, judgements: pl.DataFrame) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Rows of `scores` and of `slices`, without the columns of the partition.

    ``judgements``: rows as in the table, and the ``activations`` of each window; tokens without a prediction do not count. A
    slice is a decile's windows with all in which the latent does not fire.
    """
    parts = judgements.with_columns(part=pl.col("latent").rank("dense") // _AT_ONCE).partition_by("part")
    windows = pl.concat([_summed(each) for each in [judgements.clear(), *parts]])
    firing, silent = windows.filter("is_activating").drop_nulls("decile"), windows.filter(~pl.col("is_activating"))
    deciles = firing.select(*_WHO, "decile").unique()
    repeated = silent.drop("decile").join(deciles, on=_WHO, nulls_equal=True).select(windows.columns)
    whole = windows.with_columns(decile=pl.lit(None, pl.Int32))
    found = pl.concat([_correlated(whole), _correlated(pl.concat([firing, repeated]))])
    return laid_out(given, judgements, found, [METRIC])


def pearson(sums: np.ndarray) -> np.ndarray:
    """Pearson's r out of `_SUMS`, [..., 6]; NaN where one side has no variance."""
    n, x, y, xx, yy, xy = np.moveaxis(sums, -1, 0)
    with np.errstate(invalid="ignore", divide="ignore"):
        spreads = [
            np.where(own > _ROUNDING * whole, own, np.nan)
            for own, whole in ((xx - x * x / n, xx), (yy - y * y / n, yy))
        ]
        return np.asarray(np.clip((xy - x * y / n) / np.sqrt(spreads[0] * spreads[1]), -1, 1))


def pearson_interval(sums: np.ndarray, groups: np.ndarray, level: float = LEVEL) -> Interval:
    """Interval of the r of each group of windows, on Fisher's scale: the wider of Fisher's own, with each window counting as one
    pair, however many tokens it has, and of the jackknife that leaves out each window in turn.

    ``sums``: of each window [windows, 6]; ``groups``: the group of each, from 0, none left out. NaN for three windows or fewer,
    and where leaving one out leaves no variance.
    """
    sizes = np.bincount(groups)
    with np.errstate(invalid="ignore", divide="ignore"):
        z = np.arctanh(pearson(_grouped(sums, groups, len(sizes))))
        fisher = norm.ppf((1 + level) / 2) / np.sqrt(np.where(sizes > 3, sizes - 3, np.nan))
    half = np.maximum(fisher, jackknife(sums, groups, level))
    return np.tanh(z - half), np.tanh(z + half)


def jackknife(sums: np.ndarray, groups: np.ndarray, level: float = LEVEL) -> np.ndarray:
    """Half the width of the interval on Fisher's scale that leaving out each window in turn gives, by Student's t."""
    sizes = np.bincount(groups)
    with np.errstate(invalid="ignore", divide="ignore"):
        left = np.arctanh(pearson(_grouped(sums, groups, len(sizes))[groups] - sums))
        means = np.bincount(groups, left) / sizes
        variance = np.bincount(groups, (left - means[groups]) ** 2) * (sizes - 1) / sizes
        return np.asarray(t.ppf((1 + level) / 2, sizes - 1) * np.sqrt(variance))


def _grouped(values: np.ndarray, groups: np.ndarray, number: int) -> np.ndarray:
    """Sums of rows by group, [groups, columns]."""
    return np.stack([np.bincount(groups, column, number) for column in values.T], axis=1)


def _summed(judgements: pl.DataFrame) -> pl.DataFrame:
    """A row a window: `_SUMS` over its tokens that have a prediction, in the order of keys."""
    keys = [*_WHO, "is_activating", "decile", "shard", "context", "start"]
    rows = judgements.select(*keys, "error", "simulated", "activations").sort(*_WHO, "shard", "context", "start")
    rows = rows.with_row_index("window")
    tokens = (
        rows.select("window", x="simulated", y="activations")
        .filter(pl.col("x").list.len() > 0)
        .explode("x", "y")
        .drop_nulls("x")
        .with_columns(pl.col("y").cast(pl.Float64))
    )
    x, y = pl.col("x"), pl.col("y")
    ends = {"least_y": y.min(), "most_y": y.max()}
    sums = tokens.group_by("window").agg(
        n=pl.len().cast(pl.Float64), x=x.sum(), y=y.sum(), xx=(x * x).sum(), yy=(y * y).sum(), xy=(x * y).sum(), **ends
    )  # fmt: skip
    rows = rows.drop("simulated", "activations").join(sums, on="window", how="left", maintain_order="left")
    return rows.with_columns(failed=pl.col("error").is_not_null()).select(
        *_WHO, "is_activating", "decile", "failed", *_SUMS, *ends
    )


def _correlated(windows: pl.DataFrame) -> pl.DataFrame:
    """A row for each latent, control and decile."""
    by = [*_WHO, "decile"]
    windows = windows.sort(*by, maintain_order=True, nulls_last=False)
    groups = (
        windows.group_by(by, maintain_order=True)
        .agg(
            n=pl.len().cast(pl.Int64),
            n_failed=pl.col("failed").sum().cast(pl.Int64),
            is_flat_y=pl.col("least_y").min() == pl.col("most_y").max(),
        )
        .with_row_index("group")
    )
    seen = windows.join(groups.select(*by, "group"), on=by, nulls_equal=True, maintain_order="left").drop_nulls("x")
    number, sums = len(groups), seen.select(_SUMS).to_numpy()
    members, codes = np.unique(seen["group"].to_numpy(), return_inverse=True)
    figures = np.full((number, 3), np.nan)
    if len(seen):
        figures[members, 0] = pearson(_grouped(sums, codes, len(members)))
        figures[members, 1:] = np.stack(pearson_interval(sums, codes), axis=1)
    value, low, high = (pl.Series(each).round(_DIGITS).fill_nan(None) for each in figures.T)
    reason = (
        pl.when(pl.col("n") == pl.col("n_failed"))
        .then(pl.lit("all_failed"))
        .when("is_flat_y")
        .then(pl.lit("one_activation"))
        .otherwise(pl.lit("one_prediction"))
    )
    return groups.select(
        *by, "n", "n_failed", "is_flat_y", metric=pl.lit(METRIC), value=value, low=low, high=high
    ).select(
        pl.exclude("is_flat_y"),
        # how wrong or right an r could be that lacks some tokens is not known
        *(pl.when(pl.col("n_failed") == 0).then("value").alias(name) for name in ("worst", "best")),
        error=pl.when(pl.col("value").is_null()).then(reason),
    )
