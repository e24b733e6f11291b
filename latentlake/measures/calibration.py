"""What judges are worth beside one another: whether their probabilities hold, and how far they agree.

Judgements of the latents' own explanations count, without those that failed. Scorers that judge no explanation have no part in
it: what they predict or measure of a window is not whether it fits one.
"""

from itertools import combinations

import numpy as np
import polars as pl
from scipy.stats import spearmanr
from sklearn.metrics import brier_score_loss, cohen_kappa_score

from latentlake.reading.view import View
from latentlake.scorers import NONE

BINS = 10  # of equal width, from 0 to 1

_JUDGE = ["scorer", "explainer"]
_CASE = [
    "explainer",
    "dictionary",
    "latent",
    "shard",
    "context",
    "start",
    "is_activating",
]  # the last: what was asked of it


def judged(view: View) -> pl.DataFrame:
    """The judgements that count."""
    columns = [*dict.fromkeys([*_JUDGE, *_CASE]), "prediction", "probability", "measure"]
    rows = view.judgements.filter(pl.col("explainer") != NONE, pl.col("control").is_null(), pl.col("error").is_null())
    return rows.select(columns).collect()


def reliability(judgements: pl.DataFrame) -> pl.DataFrame:
    """A row a scorer, explainer and bin of probability that holds any: windows, mean probability, share that are activating."""
    given = judgements.drop_nulls("probability")
    bins = (pl.col("probability") * BINS).floor().clip(0, BINS - 1).cast(pl.Int32)
    return (
        given.group_by(*_JUDGE, bin=bins)
        .agg(windows=pl.len(), probability=pl.col("probability").mean(), frequency=pl.col("is_activating").mean())
        .with_columns(low=pl.col("bin") / BINS, high=(pl.col("bin") + 1) / BINS)
        .sort(*_JUDGE, "bin")
        .select(*_JUDGE, "low", "high", "windows", "probability", "frequency")
    )


def calibration(judgements: pl.DataFrame) -> pl.DataFrame:
    """A row a scorer and explainer with probabilities: windows, expected calibration error, Brier score.

    The expected calibration error is the mean distance of probability and frequency over the bins, by their windows.
    """
    distance = (pl.col("probability") - pl.col("frequency")).abs()
    errors = (
        reliability(judgements).group_by(_JUDGE).agg(ece=(distance * pl.col("windows")).sum() / pl.col("windows").sum())
    )
    groups = judgements.drop_nulls("probability").partition_by(_JUDGE, as_dict=True)
    scores = [(*judge, len(rows), _brier(rows)) for judge, rows in groups.items()]
    schema = {**dict.fromkeys(_JUDGE, pl.String), "windows": pl.Int64, "brier": pl.Float64}
    return pl.DataFrame(scores, schema=schema, orient="row").join(errors, on=_JUDGE).sort(_JUDGE)


def _brier(rows: pl.DataFrame) -> float:
    return float(brier_score_loss(rows["is_activating"].to_numpy(), rows["probability"].to_numpy()))


def agreement(judgements: pl.DataFrame) -> pl.DataFrame:
    """A row two scorers that judged the same windows by the same explanations: how many, Cohen's kappa of their labels, and
    Spearman's correlation of their probabilities or measures; null where one of the two gives none, or always the same.
    """
    said = judgements.with_columns(value=pl.coalesce("probability", "measure"))
    scorers = {name: rows for (name,), rows in sorted(said.partition_by("scorer", as_dict=True).items())}
    found = []
    for one, other in combinations(scorers, 2):
        both = scorers[one].join(scorers[other], on=_CASE, suffix="_other")
        if not both.is_empty():
            found.append((one, other, len(both), _kappa(both), _spearman(both)))
    schema = {"scorer": pl.String, "other": pl.String, "windows": pl.Int64, "kappa": pl.Float64, "spearman": pl.Float64}
    return pl.DataFrame(found, schema=schema, orient="row")


def _kappa(both: pl.DataFrame) -> float | None:
    labels = both.select("prediction", "prediction_other").drop_nulls().to_numpy().astype(bool)
    return None if len(np.unique(labels)) < 2 else float(cohen_kappa_score(labels[:, 0], labels[:, 1]))


def _spearman(both: pl.DataFrame) -> float | None:
    values = both.select("value", "value_other").drop_nulls()
    varies = all(values[name].n_unique() > 1 for name in values.columns)
    return float(spearmanr(values["value"], values["value_other"]).statistic) if varies else None
