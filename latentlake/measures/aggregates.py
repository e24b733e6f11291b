"""What the scores of many latents come to: means with intervals, distributions, and differences from the controls.

Lazy until the last step, a row a group: a million latents are read in passing.
"""

import json
from typing import Literal, get_args

import polars as pl

from latentlake.errors import LakeError, nearest
from latentlake.measures.metrics import mean_half_width
from latentlake.reading.results import Results
from latentlake.registry import SCORERS
from latentlake.scorers import EMPTY, NONE, RANDOM_DIRECTION, SHUFFLED

By = Literal["decile", "source", "target"]
BY: tuple[str, ...] = get_args(By)
OWN = "the latent"
MAIN = "main"  # in the place of a metric: of each scorer the one by which latents are compared

_WHOSE = {SHUFFLED: "another latent", EMPTY: "nothing", RANDOM_DIRECTION: "the latent, random push"}
_GROUP = ("dictionary", "explainer", "scorer", "metric")
_LEVELS = {"p10": 0.1, "p25": 0.25, "median": 0.5, "p75": 0.75, "p90": 0.9}


def aggregates(
    results: Results,
    by: By | None = None,
    metric: str | None = None,
    explainer: str | None = None,
    scorer: str | None = None,
) -> pl.DataFrame:
    """A row for each dictionary, explainer, scorer, metric and control, and with ``by`` for each decile, source or target.

    ``metric``, ``explainer``, ``scorer``: of these alone; the metric `main` is each scorer's main one. Columns beside the
    groups: ``latents`` that have a score; its ``mean`` over latents with the 95 % interval by Student's t, ``low`` and
    ``high``, null for a single latent; ``firing_weighted``, the mean with latents counted by the tokens on which they fire;
    ``min``, ``p10``, ``p25``, ``median``, ``p75``, ``p90``, ``max``; ``judgements`` and how many of them ``failed``; where
    scorers stop when a score is decided, the share of windows that this ``saved``. Of a control, over the ``pairs`` of its
    score and that of the latent's own explanation: the mean ``difference``, own less control, with its interval
    ``difference_low`` and ``difference_high``, and the share of latents whose own score is ``above``.

    Raises:
        LakeError: there are no scores of that metric, explainer or scorer.
    """
    wanted = {"metric": None if metric == MAIN else metric, "explainer": explainer, "scorer": scorer}
    chosen = {name: value for name, value in wanted.items() if value is not None}
    keys = [*_GROUP, *([by] if by else [])]
    no_stops = {"n_left": pl.lit(None, pl.Int64)}  # a slice does not say
    scored = results.slices.filter(pl.col(by).is_not_null()).with_columns(**no_stops) if by else results.scores
    scored = scored.filter(is_main(results)) if metric == MAIN else scored
    found = []
    for each in _metrics(scored, chosen) or [""]:  # one by one, for room; without scores there are columns, and no rows
        own = scored.filter(**chosen | {"metric": each})
        summed, paired = pl.collect_all([_summed(results, own, keys), _paired(own, keys)], engine="streaming")
        found.append(summed.join(paired, on=[*keys, "control"], how="left", nulls_equal=True))
    both = _with_ends(_with_ends(pl.concat(found), "mean", ""), "difference", "difference_")
    unsaid = ["saved"] if both["saved"].is_null().all() else []
    return both.select(*keys, "control", pl.exclude(*keys, *unsaid, "control", "^.*deviation$")).sort(
        [*keys, "control"], nulls_last=False
    )


def own_means(results: Results, by: By | None = None, metric: str | None = None) -> pl.DataFrame:
    """Of `aggregates` the rows of the latents' own explanations, and of their columns no more than the number of ``latents`` and
    the ``mean`` with its interval: what a chart needs, in a tenth of the time where slices are many.
    """
    keys = [*_GROUP, *([by] if by else [])]
    scored = results.slices.filter(pl.col(by).is_not_null()) if by else results.scores
    if metric is not None:
        scored = scored.filter(is_main(results) if metric == MAIN else pl.col("metric") == metric)
    value = pl.col("value")
    found = (
        scored.filter(pl.col("control").is_null())
        .group_by(keys)
        .agg(latents=value.count(), mean=value.mean(), deviation=value.std())
    )
    return _with_ends(found.collect(engine="streaming"), "mean", "").drop("deviation").sort(keys)


def is_main(results: Results) -> pl.Expr:
    """Whether a score is in the main metric of its scorer."""
    return pl.any_horizontal(
        pl.lit(False),
        *((pl.col("scorer") == name) & (pl.col("metric") == metric) for name, metric in main_metrics(results).items()),
    )


def main_metrics(results: Results) -> dict[str, str]:
    """The main metric of each scorer of the study."""
    scorers = json.loads(results.study["choices"])["scorers"] if results.study else {}
    return {name: SCORERS[choice["method"]].metrics[0] for name, choice in scorers.items()}


def whose() -> pl.Expr:
    """Whose explanation a score or judgement is of, by its control, in words."""
    return pl.col("control").cast(pl.String).replace(_WHOSE).fill_null(OWN).alias("explanation of")


def judged() -> pl.Expr:
    """The same, and `none` where no explanation is judged; of frames with the column ``explainer``."""
    return pl.when(explainer=NONE).then(pl.lit("none")).otherwise(whose()).alias("explanation of")


def _metrics(scored: pl.LazyFrame, chosen: dict[str, str]) -> list[str]:
    """The metrics that there are of what is chosen; what no score is of is refused, lest an empty table say that nothing was
    scored."""
    there = scored.select("metric", "explainer", "scorer").unique().collect(engine="streaming")
    for name, value in chosen.items():
        known = there[name].unique().sort().to_list()
        if value not in known:
            raise LakeError(f"there are no scores of the {name} {value!r}, only of {known}{nearest(value, known)}")
    metrics = there.filter(**chosen)["metric"].unique().sort().to_list()
    if chosen and not metrics:
        raise LakeError(f"there are no scores of {' and '.join(f'{name} {value!r}' for name, value in chosen.items())}")
    return metrics


def _summed(results: Results, scored: pl.LazyFrame, keys: list[str]) -> pl.LazyFrame:
    """Mean and distribution over latents, of each control by itself."""
    value, tokens = pl.col("value"), pl.col("n_tokens").filter(pl.col("value").is_not_null())
    weighted = (value * pl.col("n_tokens")).sum() / tokens.sum()
    return (
        scored.join(results.latents.select("dictionary", "latent", "n_tokens"), on=["dictionary", "latent"], how="left")
        .group_by(*keys, "control")
        .agg(
            latents=value.count(),
            mean=value.mean(),
            deviation=value.std(),
            firing_weighted=pl.when(tokens.sum() > 0).then(weighted),
            min=value.min(),
            **{name: value.quantile(level, "linear") for name, level in _LEVELS.items()},
            max=value.max(),
            judgements=pl.col("n").sum(),
            failed=pl.col("n_failed").sum(),
            saved=_saved(),
        )
    )


def _saved() -> pl.Expr:
    """Share of windows that were not judged; null where all always are."""
    left = pl.col("n_left").sum()
    return pl.when(pl.col("n_left").is_not_null().any()).then(left / (left + pl.col("n").sum()))


def _paired(scored: pl.LazyFrame, keys: list[str]) -> pl.LazyFrame:
    """Differences of each latent's own score from its control's, where it has both."""
    of, is_own = [*keys, "latent"], pl.col("control").is_null()
    valued = scored.drop_nulls("value").select(*of, "control", "value")
    both = valued.filter(~is_own).join(valued.filter(is_own).drop("control"), on=of, suffix="_own")
    difference = pl.col("value_own") - pl.col("value")
    return both.group_by(*keys, "control").agg(
        pairs=pl.len(),
        difference=difference.mean(),
        difference_deviation=difference.std(),
        above=(difference > 0).mean(),
    )


def _with_ends(found: pl.DataFrame, name: str, prefix: str) -> pl.DataFrame:
    """The interval of a mean after it, by its standard deviation and the number of latents."""
    n = found["pairs" if prefix else "latents"].cast(pl.Float64).to_numpy()
    half = pl.Series(mean_half_width(found[f"{prefix}deviation"].to_numpy(), n)).fill_nan(None)
    ends = {f"{prefix}low": found[name] - half, f"{prefix}high": found[name] + half}
    return found.insert_column(found.columns.index(name) + 1, ends[f"{prefix}low"].alias(f"{prefix}low")).insert_column(
        found.columns.index(name) + 2, ends[f"{prefix}high"].alias(f"{prefix}high")
    )
