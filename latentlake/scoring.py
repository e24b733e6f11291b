"""Scores out of judgements: pure functions from rows of `judgements` to rows of `scores`."""

from collections.abc import Iterator
from typing import Any

import polars as pl

from latentlake.metrics import LABEL_METRICS, Metric, label_metrics, rank_metric
from latentlake.tables import TABLES


def score(given: pl.DataFrame, judgements: pl.DataFrame, is_labelling: bool) -> pl.DataFrame:
    """Rows of `scores`, without the columns of the partition.

    ``given``: latent, control, and as ``error`` why nothing was judged, if so. ``is_labelling``: whether judgements have
    predictions.
    """
    groups = judgements.partition_by("latent", "control", as_dict=True)
    rows = [
        row
        for each in given.iter_rows(named=True)
        for row in _score(each, groups.get((each["latent"], each["control"])), is_labelling)
    ]
    schema = TABLES["scores"].empty().drop(TABLES["scores"].partition_by).schema
    return pl.DataFrame(rows, schema=schema)


def _score(given: dict[str, Any], rows: pl.DataFrame | None, is_labelling: bool) -> Iterator[dict[str, Any]]:
    """The metrics of one latent and control; rows with the reason where there is nothing to score."""
    who = {"latent": given["latent"], "control": given["control"]}
    if rows is None:
        nothing = dict.fromkeys(("value", "low", "high", "worst", "best"))
        for name in ("auroc", *(LABEL_METRICS if is_labelling else ())):
            yield {**who, "metric": name, **nothing, "n": 0, "n_failed": 0, "error": given["error"] or "no_windows"}
        return
    counts = {"n": len(rows), "n_failed": rows["error"].count()}
    failure = "all_failed" if counts["n"] == counts["n_failed"] else "one_class"
    for metric in _metrics(rows, is_labelling):
        found = {name: value for name, value in vars(metric).items() if name != "name"}
        reason = failure if metric.value is None else None
        yield {**who, "metric": metric.name, **found, **counts, "error": reason}


def _metrics(rows: pl.DataFrame, is_labelling: bool) -> list[Metric]:
    truth, failed = rows["is_activating"].to_numpy(), rows["error"].is_not_null().to_numpy()
    measure = rows.select(pl.coalesce("probability", "measure").fill_null(0.0)).to_series().to_numpy()
    metrics = [rank_metric(truth, measure, failed)]
    if is_labelling:
        metrics += label_metrics(truth, rows["prediction"].fill_null(False).to_numpy(), failed)
    return metrics
