"""Pictures of what came out over all latents, as HTML: counted by queries that hold a few rows of a million latents."""

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import polars as pl
from markupsafe import Markup
from polars import selectors

from latentlake.aggregates import MAIN, aggregates, is_main, main_metrics
from latentlake.charts import agreements as matrices_of
from latentlake.charts import latents as firing_of
from latentlake.charts import scores as scores_of
from latentlake.charts.drawing import bare
from latentlake.charts.svg import inline
from latentlake.metrics import mean_half_width
from latentlake.registry import SCORERS
from latentlake.results import Results
from latentlake.scorers import NONE

_DIGITS = (
    10  # of means: the last ones of sums change with the order in which they are summed; of fewer, ties are common
)
_FEWEST = 4  # latents of which a mean is shown: of fewer the interval says nothing
_DECADE = 0.5  # of log10 density: latents that fire about as often


class Figure(NamedTuple):
    """A picture, and what it shows in words. ``is_wide``: whether it has a row of its own."""

    svg: Markup
    title: str
    is_wide: bool = False


def firing(results: Results, dictionary: str) -> list[Figure]:
    """How often latents fire, and how many fall to each triage; nothing where there are none yet."""
    rows = results.latents.filter(dictionary=dictionary).select("triage", "density")
    if rows.head(1).collect().is_empty():
        return []
    return [
        _figure(firing_of.triage(rows), "latents by triage"),
        _figure(firing_of.density(rows), "how often latents fire, by triage"),
    ]


def means(results: Results, dictionary: str) -> list[Figure]:
    """Mean scores beside the controls'."""
    rows = aggregates(results, metric=MAIN).filter(dictionary=dictionary)
    return [_figure(scores_of.means(steady(rows)), "mean scores and controls")] if rows["mean"].count() else []


def distributions(results: Results, choices: Mapping[str, Any], dictionary: str) -> list[Figure]:
    """Scores over latents beside the controls', by scorer and explainer."""
    own = results.scores.filter(pl.col("value").is_not_null(), is_main(results), dictionary=dictionary)
    own = own.select("explainer", "scorer", "control", "metric", "value")
    judges = own.select("scorer", "explainer").unique().collect(engine="streaming").sort("scorer", "explainer")
    metrics = main_metrics(results)
    return [
        _figure(
            scores_of.distribution(
                own.filter(scorer=scorer, explainer=explainer),
                metrics[scorer],
                SCORERS[choices["scorers"][scorer]["method"]].chance,
            ),
            judge(scorer, explainer),
        )
        for scorer, explainer in judges.iter_rows()
    ]


def by_decile(results: Results, dictionary: str) -> list[Figure]:
    """Mean score of windows of one decile of activation against all others, by explainer, a line a scorer."""
    rows = aggregates(results, by="decile", metric=MAIN).filter(pl.col("control").is_null(), dictionary=dictionary)
    shown = rows.with_columns(pl.col("decile") + 1)
    return list(_by_explainer(shown, "decile", "decile of activation, 1 the weakest", "score by decile"))


def by_density(results: Results, dictionary: str) -> list[Figure]:
    """Mean score of latents that fire about as often, by explainer, a line a scorer."""
    latents = results.latents.filter(dictionary=dictionary).select("latent", "density")
    place = ((pl.col("density").log10() / _DECADE).floor() + 0.5) * _DECADE
    value = pl.col("value")
    rows = (
        results.scores.filter(pl.col("control").is_null(), value.is_not_null(), is_main(results), dictionary=dictionary)
        .select("latent", "explainer", "scorer", "value")
        .join(latents, on="latent")
        .filter(pl.col("density") > 0)
        .group_by("explainer", "scorer", place.alias("density"))
        .agg(mean=value.mean(), deviation=value.std(), latents=pl.len())
        .filter(pl.col("latents") >= _FEWEST)
        .collect(engine="streaming")
    )
    half = pl.Series(mean_half_width(rows["deviation"].to_numpy(), rows["latents"].cast(pl.Float64).to_numpy()))
    ended = rows.with_columns(low=rows["mean"] - half.fill_nan(None), high=rows["mean"] + half.fill_nan(None))
    return list(_by_explainer(ended, "density", "log10 of density", "score by how often latents fire"))


def agreements(results: Results, dictionary: str) -> list[Figure]:
    """How far scorers agree: a matrix for each explainer."""
    rows = results.agreements.filter(dictionary=dictionary).collect().sort("explainer", "scorer", "other")
    named = rows.filter(pl.col("explainer") != NONE)["explainer"].unique().sort().to_list() or [NONE]
    if rows.is_empty():
        return []
    titles = (f"agreement of scorers of {name}" if name != NONE else "agreement of scorers" for name in named)
    return [
        _figure(chart, title, is_wide=True) for chart, title in zip(matrices_of.matrices(rows), titles, strict=True)
    ]


def judge(scorer: str, explainer: str) -> str:
    """A scorer and whose explanations it judges, in words."""
    return scorer if explainer == NONE else f"{scorer} of {explainer}"


def steady(rows: pl.DataFrame) -> pl.DataFrame:
    """Rows with their figures rounded so far that they do not depend on the order in which they were summed, and no farther: what
    is rounded again for readers would else go now up and now down where it lies halfway."""
    return rows.with_columns(selectors.float().round(_DIGITS))


def _by_explainer(rows: pl.DataFrame, place: str, axis: str, title: str) -> Iterator[Figure]:
    shown = steady(rows.drop_nulls("mean").select("explainer", "scorer", place, "mean", "low", "high", "latents"))
    parts = shown.sort("explainer", "scorer", place).partition_by("explainer", as_dict=True, maintain_order=True)
    for (name,), own in parts.items():
        whose = "" if name == NONE else f", {name}"
        yield _figure(scores_of.along(own.drop("explainer"), place, axis), f"{title}{whose}")


def _figure(chart: Any, title: str, is_wide: bool = False) -> Figure:
    return Figure(Markup(inline(bare(chart))), title, is_wide)
