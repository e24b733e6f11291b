"""What a study is, how far it has come, and what came out of it over all latents."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

import polars as pl

from latentlake.aggregates import MAIN, aggregates, is_main, main_metrics, own_means
from latentlake.agreement import agreements_of
from latentlake.catalog import BUILDING
from latentlake.charts import agreements as matrices_of
from latentlake.charts import latents as firing_of
from latentlake.charts import scores as scores_of
from latentlake.costs import costs
from latentlake.errors import LakeError
from latentlake.explorer.opened import paid, published
from latentlake.leaderboard import leaderboard
from latentlake.metrics import mean_half_width
from latentlake.registry import SCORERS
from latentlake.results import choices_of
from latentlake.scorers import NONE

if TYPE_CHECKING:
    import altair as alt

    from latentlake.view import View

_DECADE = 0.5  # of log10 density: latents that fire about as often


@dataclass(frozen=True)
class Facts:
    """``missing``: stages of which nothing is published; ``unfinished``: partitions that are being built, or were when their run
    was ended. ``at``: when something was last published, None where nothing is."""

    name: str
    subject: str
    dictionaries: pl.DataFrame
    documents: int
    contexts: int
    tokens: int
    explainers: tuple[str, ...]
    scorers: tuple[str, ...]
    missing: tuple[str, ...]
    unfinished: tuple[str, ...]
    at: datetime | None


@published
def facts(view: View) -> Facts:
    """What the study is, and how far it has come."""
    choices = choices_of(view)
    latest = view.latest()
    seen, building = latest.filter("is_seen"), latest.filter(state=BUILDING)
    assets = view.study["assets"] if view.study else []
    counted = view.documents.select(pl.len(), tokens=pl.col("n_tokens").sum()).collect(engine="streaming")
    documents, tokens = counted.row(0)
    subject = view.subject.select("reference").collect()
    return Facts(
        name=choices["name"],
        subject=subject["reference"].item() if subject.height else choices["subject"]["model"],
        dictionaries=dictionaries(view),
        documents=documents,
        contexts=view.contexts.select(pl.len()).collect().item(),
        tokens=tokens,
        explainers=tuple(choices["explainers"]),
        scorers=tuple(choices["scorers"]),
        missing=tuple(sorted(set(assets) - set(seen["asset"]), key=assets.index)),
        unfinished=tuple(
            f"{asset} [{key}]" if key else asset for asset, key in building.select("asset", "partition").rows()
        ),
        at=seen.select(pl.max("at")).item(),
    )


@published
def dictionaries(view: View) -> pl.DataFrame:
    """The study's dictionaries, a row each: what they are, and how many latents there are of each kind."""
    key = "dictionary"
    names = pl.DataFrame({key: list(choices_of(view)["dictionaries"])}, schema={key: pl.String})
    what = view.dictionaries.select(key, "hookpoint", "kind", "family", "format", "width", "control")
    latents = view.latents.group_by(key).agg(latents=pl.len(), chosen=pl.sum("is_chosen"))
    said = view.explanations.filter(pl.col("explanation").is_not_null()).group_by(key)
    scored = view.scores.filter(pl.col("value").is_not_null(), pl.col("control").is_null()).group_by(key)
    counted = [
        latents,
        *(
            rows.agg(pl.col("latent").n_unique().alias(name))
            for name, rows in (("explained", said), ("scored", scored))
        ),
    ]
    for frame in pl.collect_all([what, *counted], engine="streaming"):
        names = names.join(frame, on=key, how="left", maintain_order="left")
    return names.with_columns(pl.col("latents", "chosen", "explained", "scored").fill_null(0))


@published
def firing(view: View, dictionary: str) -> list[alt.Chart | alt.LayerChart]:
    """How often latents fire, and how many fall to each triage; nothing where there are none yet."""
    rows = view.latents.filter(dictionary=dictionary).select("triage", "density")
    if rows.head(1).collect().is_empty():
        return []
    return [firing_of.density(rows), firing_of.triage(rows)]


@published
def against_controls(view: View, dictionary: str) -> dict[str, alt.LayerChart]:
    """Mean scores of each scorer and explainer beside the controls', by metric: they are not of one scale."""
    rows = aggregates(view, metric=MAIN).filter(pl.col("mean").is_not_null(), dictionary=dictionary)
    parts = rows.sort("metric").partition_by("metric", as_dict=True, maintain_order=True)
    return {f"means, {metric}": scores_of.means(own) for (metric,), own in parts.items()}


@published
def distributions(view: View, dictionary: str) -> dict[str, alt.LayerChart]:
    """Distributions of each scorer's main metric over latents, by scorer and explainer."""
    methods = {name: SCORERS[each["method"]] for name, each in choices_of(view)["scorers"].items()}
    own = view.scores.filter(pl.col("dictionary") == dictionary, pl.col("value").is_not_null(), is_main(view))
    own = own.select("explainer", "scorer", "control", "metric", "value")
    judges = own.select("scorer", "explainer").unique().collect(engine="streaming").sort("scorer", "explainer")
    found = {}
    for scorer, explainer in judges.iter_rows():
        rows = own.filter(scorer=scorer, explainer=explainer)
        method = methods[scorer]
        found[judge(scorer, explainer)] = scores_of.distribution(rows, main_metrics(view)[scorer], method.chance)
    return found


@published
def by_density(view: View, dictionary: str) -> dict[str, alt.LayerChart]:
    """Mean score of latents that fire about as often, by explainer, a line a scorer."""
    latents = view.latents.select("dictionary", "latent", "density")
    place = ((pl.col("density").log10() / _DECADE).floor() + 0.5) * _DECADE
    value = pl.col("value")
    rows = (
        view.scores.filter(pl.col("control").is_null(), pl.col("dictionary") == dictionary, is_main(view))
        .select("dictionary", "latent", "explainer", "scorer", "value")
        .join(latents, on=["dictionary", "latent"])
        .filter(value.is_not_null(), pl.col("density") > 0)
        .group_by("explainer", "scorer", place.alias("density"))
        .agg(mean=value.mean(), deviation=value.std(), latents=pl.len())
        .collect(engine="streaming")
    )
    half = pl.Series(mean_half_width(rows["deviation"].to_numpy(), rows["latents"].cast(pl.Float64).to_numpy()))
    ended = rows.with_columns(low=rows["mean"] - half.fill_nan(None), high=rows["mean"] + half.fill_nan(None))
    return _by_explainer(ended, "density", "log10 of density")


@published
def by_decile(view: View, dictionary: str) -> dict[str, alt.LayerChart]:
    """Mean score of windows of one decile of activation against all others, by explainer, a line a scorer."""
    rows = own_means(view, by="decile", metric=MAIN).filter(dictionary=dictionary)
    return _by_explainer(rows.with_columns(pl.col("decile") + 1), "decile", "decile of activation, 1 the weakest")


def _by_explainer(rows: pl.DataFrame, place: str, title: str) -> dict[str, alt.LayerChart]:
    shown = rows.drop_nulls("mean").select("explainer", "scorer", place, "mean", "low", "high", "latents")
    return {
        str(name): scores_of.along(own.drop("explainer"), place, title)
        for (name,), own in shown.sort("explainer", "scorer", place).partition_by("explainer", as_dict=True).items()
    }


@published
def agreements(view: View, dictionary: str) -> list[alt.LayerChart]:
    """How far scorers agree: a matrix for each explainer."""
    try:
        rows = agreements_of(view, dictionary=dictionary)
    except LakeError:  # of no two scorers
        return []
    return matrices_of.matrices(rows)


@published
def board(view: View) -> pl.DataFrame:
    """Dictionaries side by side, the best explained first."""
    rows = leaderboard(view, MAIN)
    over = [name for name in ("over_shuffled",) if name in rows.columns]
    figures = ["l0", "variance_unexplained", "latents", "mean", "low", "high", *over]
    return rows.select("scorer", "explainer", "dictionary", "control", *figures)


@paid
def spent(view: View) -> pl.DataFrame:
    """What calls cost, by asset and model."""
    rows = costs(view)
    return rows.select(
        "asset", "model", "calls", "failed", "tokens_in", "tokens_cached", "tokens_out", "seconds", "price"
    )


def read_ahead(view: View) -> None:
    """Read what the overview shows first, so that whoever comes finds it read."""
    if view.study is None:
        return
    dictionary = next(iter(choices_of(view)["dictionaries"]))
    for whole in (facts, board, spent):
        _tried(whole, view)
    for part in (firing, against_controls, distributions, by_density, by_decile, agreements):
        _tried(part, view, dictionary)


def _tried(read: Callable[..., object], *arguments: object) -> None:
    """What is not there yet is said to who asks for it."""
    with suppress(LakeError):
        read(*arguments)


def judge(scorer: str, explainer: str) -> str:
    """A scorer and whose explanations it judges, in words."""
    return scorer if explainer == NONE else f"{scorer} · {explainer}"
