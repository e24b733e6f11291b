"""What a study is, how far it has come, and what came out of it over all latents."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

import polars as pl

from latentlake.calls.costs import costs
from latentlake.catalog import BUILDING
from latentlake.errors import LakeError
from latentlake.explorer.opened import paid, published
from latentlake.measures.aggregates import MAIN
from latentlake.measures.agreement import agreements_of
from latentlake.measures.leaderboard import leaderboard
from latentlake.pages import figures
from latentlake.pages.compared import compared
from latentlake.reading.results import choices_of

if TYPE_CHECKING:
    from latentlake.reading.view import View


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


# counted once, for the report too
firing = published(figures.firing)
means = published(figures.means)
distributions = published(figures.distributions)
by_density = published(figures.by_density)
by_decile = published(figures.by_decile)
comparisons = published(compared)


@published
def agreements(view: View, dictionary: str) -> list[figures.Figure]:
    """How far scorers agree: a matrix for each explainer."""
    try:
        rows = agreements_of(view, dictionary=dictionary)
    except LakeError:  # of no two scorers
        return []
    return figures.agreements(rows)


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
    for whole in (facts, board, spent, comparisons):
        _tried(whole, view)
    for part in (firing, means, distributions, by_density, by_decile, agreements):
        _tried(part, view, dictionary)


def _tried(read: Callable[..., object], *arguments: object) -> None:
    """What is not there yet is said to who asks for it."""
    with suppress(LakeError):
        read(*arguments)
