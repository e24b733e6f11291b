"""Pictures of what came out over all latents, for the report and the explorer: counted by queries that hold a few rows of a
million latents."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

import polars as pl
from markupsafe import Markup
from polars import selectors

from latentlake.charts import agreements as matrices_of
from latentlake.charts import comparisons as pairs_of
from latentlake.charts import latents as firing_of
from latentlake.charts import scores as scores_of
from latentlake.charts.drawing import bare
from latentlake.charts.svg import inline
from latentlake.measures.aggregates import MAIN, aggregates, is_main, main_metrics, own_means
from latentlake.measures.comparing import told
from latentlake.measures.metrics import mean_half_width
from latentlake.reading.results import Results, choices_of
from latentlake.registry import SCORERS
from latentlake.scorers import NONE

if TYPE_CHECKING:
    import altair as alt

_DIGITS = (
    10  # of means: the last ones of sums change with the order in which they are summed; of fewer, ties are common
)
_FEWEST = 4  # latents of which a mean is shown: of fewer the interval says nothing
_MOST = 60  # pairs that have a line each: of more, the maps say what can be seen
_DECADE = 0.5  # of log10 density: latents that fire about as often


class Figure(NamedTuple):
    """A picture, and what it shows in words. ``is_wide``: whether it has a row of its own; ``is_fixed``: whether it is as wide as
    its cells are, however wide the page."""

    chart: alt.Chart | alt.LayerChart
    title: str
    is_wide: bool = False
    is_fixed: bool = False

    @property
    def svg(self) -> Markup:
        """The picture as it stands in HTML."""
        return Markup(inline(bare(self.chart)))


def firing(results: Results, dictionary: str) -> list[Figure]:
    """How often latents fire, and how many fall to each triage; nothing where there are none yet."""
    rows = results.latents.filter(dictionary=dictionary).select("triage", "density")
    if rows.head(1).collect().is_empty():
        return []
    return [
        Figure(firing_of.triage(rows), "latents by triage"),
        Figure(firing_of.density(rows), "how often latents fire, by triage"),
    ]


def means(results: Results, dictionary: str) -> list[Figure]:
    """Mean scores beside the controls', by metric: they are not of one scale."""
    rows = aggregates(results, metric=MAIN).filter(pl.col("mean").is_not_null(), dictionary=dictionary)
    parts = steady(rows).sort("metric", maintain_order=True).partition_by("metric", as_dict=True, maintain_order=True)
    return [
        Figure(
            scores_of.means(own),
            "mean scores and controls" if len(parts) == 1 else f"means and controls, {metric_name(metric)}",
        )
        for (metric,), own in parts.items()
    ]


def distributions(results: Results, dictionary: str) -> list[Figure]:
    """Scores over latents beside the controls', by scorer and explainer."""
    own = results.scores.filter(pl.col("value").is_not_null(), is_main(results), dictionary=dictionary)
    own = own.select("explainer", "scorer", "control", "metric", "value")
    judges = own.select("scorer", "explainer").unique().collect(engine="streaming").sort("scorer", "explainer")
    metrics, scorers = main_metrics(results), choices_of(results)["scorers"]
    return [
        Figure(
            scores_of.distribution(
                own.filter(scorer=scorer, explainer=explainer),
                metrics[scorer],
                SCORERS[scorers[scorer]["method"]].chance,
            ),
            judge(scorer, explainer),
        )
        for scorer, explainer in judges.iter_rows()
    ]


def by_decile(results: Results, dictionary: str) -> list[Figure]:
    """Mean score of windows of one decile of activation against all others, by explainer, a line a scorer."""
    rows = own_means(results, by="decile", metric=MAIN).filter(dictionary=dictionary)
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


def agreements(rows: pl.DataFrame) -> list[Figure]:
    """Rows of `agreements` of one dictionary: how far scorers agree, a matrix for each explainer."""
    named = rows.filter(pl.col("explainer") != NONE)["explainer"].unique().sort().to_list() or [NONE]
    if rows.is_empty():
        return []
    titles = (f"agreement of scorers of {name}" if name != NONE else "agreement of scorers" for name in named)
    return [
        Figure(chart, title, is_wide=True, is_fixed=True)
        for chart, title in zip(matrices_of.matrices(rows), titles, strict=True)
    ]


def comparisons(sums: pl.DataFrame, alike: pl.DataFrame) -> list[Figure]:
    """Rows of `comparisons` and of `similarities` of one comparison: maps of dictionaries, of more than two, and explanations of
    aligned latents beside those with partners exchanged."""
    several = sums["pair"].n_unique() > 1
    maps = pairs_of.nearness_maps(sums) | pairs_of.explanation_maps(alike) if several else {}
    figures = [Figure(chart, title, is_fixed=True) for title, chart in maps.items()]
    if 0 < told(alike)["mean"].count() <= _MOST:
        figures.append(Figure(pairs_of.likeness(alike), "explanations beside their partner’s, and another’s"))
    return figures


def judge(scorer: str, explainer: str) -> str:
    """A scorer and whose explanations it judges, in words."""
    return scorer if explainer == NONE else f"{scorer} of {explainer}"


def metric_name(metric: str) -> str:
    """A metric in words."""
    return {"auroc": "AUROC"}.get(metric, metric.replace("_", " "))


def steady(rows: pl.DataFrame) -> pl.DataFrame:
    """Rows with their figures rounded so far that they do not depend on the order in which they were summed, and no farther: what
    is rounded again for readers would else go now up and now down where it lies halfway."""
    return rows.with_columns(selectors.float().round(_DIGITS))


def _by_explainer(rows: pl.DataFrame, place: str, axis: str, title: str) -> Iterator[Figure]:
    shown = steady(rows.drop_nulls("mean").select("explainer", "scorer", place, "mean", "low", "high", "latents"))
    parts = shown.sort("explainer", "scorer", place).partition_by("explainer", as_dict=True, maintain_order=True)
    for (name,), own in parts.items():
        whose = "" if name == NONE else f", {name}"
        yield Figure(scores_of.along(own.drop("explainer"), place, axis), f"{title}{whose}")
