"""Scores out of judgements: pure functions from rows of `judgements` to rows of `scores` and `slices`.

What all figures have in common is here: failures are counted, and what has no score says why (`laid_out`).
"""

from collections.abc import Mapping, Sequence
from dataclasses import fields

import polars as pl

from latentlake.measures.metrics import LABEL_METRICS, Judged, mean_half_width, measure, share
from latentlake.tables import TABLES

_WHO = ["latent", "control"]
_COUNTS = [field.name for field in fields(Judged) if field.name != "variance"]
_AT_ONCE = 512  # latents: their slices hold six times their judgements
# what a slice has in common with all judgements is not said again: a decile the silent windows, a source the firing ones
_SLICES = {"decile": pl.Int32, "source": pl.String, "target": pl.Float64}
_SHARED = {"decile": "specificity", "source": "sensitivity"}


def score(given: pl.DataFrame, judgements: pl.DataFrame, is_labelling: bool) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Rows of `scores` and of `slices`, without the columns of the partition.

    ``given``: latent, control, and as ``error`` why nothing was judged, if so; each has its rows in `scores`.
    ``judgements``: rows as in the table. ``is_labelling``: whether they have predictions.
    """
    names = ["auroc", *(LABEL_METRICS if is_labelling else ())]
    part = pl.col("latent").rank("dense") // _AT_ONCE
    parts = judgements.with_columns(part=part).partition_by("part") if len(judgements) else []
    found = pl.concat([_measured(each, names) for each in [*parts, judgements.clear()]])
    return laid_out(given, judgements, found, names)


def means(rows: pl.DataFrame, metric: str) -> pl.DataFrame:
    """Figures for `laid_out`: of each latent and control the mean of the column ``metric``, with the interval by Student's t."""
    found = rows.group_by(_WHO).agg(
        value=pl.col(metric).mean(), deviation=pl.col(metric).std(), n=pl.len().cast(pl.Int64)
    )
    return _with_ends(found, found["n"]).select(
        *_WHO, "value", "low", "high", "n", n_failed=pl.lit(0), metric=pl.lit(metric), error=pl.lit(None, pl.String),
        worst="value", best="value",
    )  # fmt: skip


def _with_ends(found: pl.DataFrame, n: pl.Series) -> pl.DataFrame:
    """Means with their intervals, by the ``deviation`` of what they are of, and by how many these are."""
    half = mean_half_width(found["deviation"].cast(pl.Float64).to_numpy(), n.cast(pl.Float64).to_numpy())
    ends = pl.Series(half).fill_nan(None)
    return found.with_columns(low=found["value"] - ends, high=found["value"] + ends)


def shares(given: pl.DataFrame, judgements: pl.DataFrame, metric: str) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Rows of `scores` and of `slices`, without the columns of the partition, of judgements whose ``prediction`` says whether the
    judge was right: the share of these, of all and by decile and source.
    """
    failed, hits = pl.col("error").is_not_null(), pl.col("prediction").fill_null(False)
    counts = pl.concat(
        [
            judgements.group_by(*_WHO, *by).agg(n=pl.len().cast(pl.Int64), n_failed=failed.sum(), hits=hits.sum())
            for by in ([], ["decile"], ["source"])
        ],
        how="diagonal",
    )
    n, wrong, right = (counts[name].cast(pl.Float64).to_numpy() for name in ("n", "n_failed", "hits"))
    found = counts.hstack(pl.DataFrame(vars(share(right, n - wrong, wrong))).fill_nan(None))
    reason = pl.when(pl.col("value").is_null()).then(pl.lit("all_failed"))
    return laid_out(given, judgements, found.with_columns(metric=pl.lit(metric), error=reason), [metric])


def laid_out(
    given: pl.DataFrame, judgements: pl.DataFrame, found: pl.DataFrame, metrics: Sequence[str]
) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Rows of `scores` and of `slices`, without the columns of the partition: every latent and control has each metric, or the
    reason why not.

    ``found``: figures of latent, control and metric: value, low, high, worst, best, n, n_failed, and as ``error`` why there is no
    value; of a slice, its decile, source or target. Columns that there is nothing for may be left out.
    """
    missing = [pl.lit(None, kind).alias(by) for by, kind in _SLICES.items() if by not in found.columns]
    found = found.with_columns(missing)
    is_whole = pl.all_horizontal(pl.col(by).is_null() for by in _SLICES)
    wanted = given.select(*_WHO, reason="error").join(pl.DataFrame({"metric": metrics}), how="cross")
    scores = wanted.join(found.filter(is_whole), on=[*_WHO, "metric"], how="left", nulls_equal=True)
    scores = scores.join(_failures(judgements), on=_WHO, how="left", nulls_equal=True).with_columns(
        pl.col("n", "n_failed").fill_null(0),
        pl.col("failures").fill_null([]),
        error=pl.when(pl.col("n").is_null()).then(pl.coalesce("reason", pl.lit("no_windows"))).otherwise("error"),
    )
    said = [pl.col(by).is_not_null() & (pl.col("metric") == metric) for by, metric in _SHARED.items()]
    return _rows(scores, "scores"), _rows(found.filter(~is_whole, ~pl.any_horizontal(said)), "slices")


def averaged(
    given: pl.DataFrame, judgements: pl.DataFrame, metrics: Mapping[str, str], target: float
) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Rows of `scores` and of `slices` of what interventions do: means over prompts with 95 % intervals by Student's t.

    ``metrics``: names, and the columns of ``judgements`` that they are means of. `scores` are at the divergence ``target``,
    `slices` at each. What a failed judgement might have been has no bounds.
    """
    is_valid = pl.col("error").is_null()
    found = pl.concat(
        judgements.group_by(*_WHO, "target", maintain_order=True).agg(
            metric=pl.lit(name),
            value=pl.col(column).filter(is_valid).mean(),
            deviation=pl.col(column).filter(is_valid).std(),
            n=pl.len().cast(pl.Int64),
            n_failed=(~is_valid).sum().cast(pl.Int64),
        )
        for name, column in metrics.items()
    )
    reason = pl.when(pl.col("value").is_null()).then(pl.lit("all_failed"))
    found = _with_ends(found, found["n"] - found["n_failed"]).with_columns(error=reason)
    is_own = pl.col("target") == target
    whole = found.filter(is_own).with_columns(target=pl.lit(None, pl.Float64))
    return laid_out(given, judgements.filter(is_own), pl.concat([whole, found]), list(metrics))


def _rows(found: pl.DataFrame, name: str) -> pl.DataFrame:
    """Rows as a table has them, in the order of its keys, without the columns of the partition."""
    table = TABLES[name]
    schema = table.empty().drop(table.partition_by).schema
    found = found.with_columns(pl.lit(None, schema[name]).alias(name) for name in schema if name not in found.columns)
    return found.select(schema.names()).cast(schema).sort([key for key in table.keys if key in schema])


def _measured(judgements: pl.DataFrame, names: list[str]) -> pl.DataFrame:
    """Metrics by latent and control: of all judgements, of each decile, of each source of negatives."""
    groups = judgements.select(_WHO).unique(maintain_order=True).with_row_index("group")
    said = pl.coalesce("probability", "measure", pl.col("prediction").cast(pl.Float64))
    rows = judgements.join(groups, on=_WHO, nulls_equal=True).select(
        "group", "decile", "source", "is_activating", "prediction", "error",
        said=pl.when(pl.col("error").is_null()).then(said),
    )  # fmt: skip
    firing, silent = rows.filter("is_activating"), rows.filter(~pl.col("is_activating"))
    deciles, sources = (
        each.select("group", by).drop_nulls().unique() for each, by in ((firing, "decile"), (silent, "source"))
    )
    counted = [
        _counted(rows, []),
        _counted(pl.concat([firing.drop_nulls("decile"), _repeated(silent, deciles)]), ["decile"]),
        _counted(pl.concat([silent.drop_nulls("source"), _repeated(firing, sources)]), ["source"]),
    ]
    counts = pl.concat([rows.select("group", "decile", "source").clear(), *counted], how="diagonal").join(
        groups, on="group"
    )
    return pl.concat([_metric(counts, name) for name in names])


def _repeated(rows: pl.DataFrame, slices: pl.DataFrame) -> pl.DataFrame:
    """Rows once for each slice of their group, as if they belonged to it."""
    by = slices.columns[1]
    return rows.drop(by).join(slices, on="group").select(rows.columns)


def _counted(rows: pl.DataFrame, by: list[str]) -> pl.DataFrame:
    """The fields of `Judged`, a row a group and slice.

    The rank of a window among all less its rank within its class is the number of the other class's windows below it;
    DeLong's variance is that of these numbers (E. DeLong, D. DeLong, D. Clarke-Pearson, Biometrics 44, 1988).
    """
    keys = ["group", *by]
    fires, failed, tells = pl.col("is_activating"), pl.col("error").is_not_null(), pl.col("prediction").fill_null(False)
    beaten = pl.col("said").rank().over(keys) - pl.col("said").rank().over(*keys, "is_activating")
    firing, silent = (pl.col("beaten").filter(each) for each in (fires, ~fires))
    m, n = pl.col("positives"), pl.col("negatives")
    counts = (
        rows.with_columns(beaten=beaten)
        .group_by(keys)
        .agg(
            positives=(fires & ~failed).sum(),
            negatives=(~fires & ~failed).sum(),
            failed_positives=(fires & failed).sum(),
            failed_negatives=(~fires & failed).sum(),
            hits=(fires & ~failed & tells).sum(),
            alarms=(~fires & ~failed & tells).sum(),
            wins=firing.sum(),
            losses=silent.sum(),
            wins_squared=firing.pow(2).sum(),
            losses_squared=silent.pow(2).sum(),
        )
        .with_columns(pl.exclude(*keys).cast(pl.Float64))
    )
    # Sums of squares of halves are exact: whatever the order of the rows, the same digits come out.
    above = (pl.col("wins_squared") - pl.col("wins") ** 2 / m) / (m - 1)
    below = (pl.col("losses_squared") - pl.col("losses") ** 2 / n) / (n - 1)
    return counts.select(*keys, *_COUNTS, variance=above / (n**2 * m) + below / (m**2 * n))


def _metric(counts: pl.DataFrame, name: str) -> pl.DataFrame:
    """One metric of all groups and slices."""
    judged = Judged(**{each: counts[each].to_numpy() for each in (*_COUNTS, "variance")})
    found = pl.DataFrame(vars(measure(name, judged))).fill_nan(None)
    failed, seen = (pl.sum_horizontal(f"{of}positives", f"{of}negatives") for of in ("failed_", ""))
    reason = pl.when(pl.col("n") == pl.col("n_failed")).then(pl.lit("all_failed")).otherwise(pl.lit("one_class"))
    return (
        counts.select(*_WHO, "decile", "source", metric=pl.lit(name), n=seen + failed, n_failed=failed)
        .hstack(found)
        .with_columns(error=pl.when(pl.col("value").is_null()).then(reason))
    )


def _failures(judgements: pl.DataFrame) -> pl.DataFrame:
    """How many judgements failed, by class, of each latent and control that has any."""
    classes = judgements.drop_nulls("error").group_by(*_WHO, "error").agg(n=pl.len().cast(pl.Int64)).sort("error")
    return classes.group_by(*_WHO, maintain_order=True).agg(failures=pl.struct("error", "n"))
