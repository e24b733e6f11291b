"""Pages as HTML: what the other modules find out, in templates. A page that cannot be shown says why."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import wraps
from random import Random
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec

import marimo as mo
import polars as pl
from markupsafe import Markup

from latentlake.charts.drawing import bare
from latentlake.charts.scores import WHOSE
from latentlake.console import with_interval
from latentlake.errors import LatentlakeError
from latentlake.explorer import browsing, latent, overview
from latentlake.explorer.address import ORDERS, PAGES, SHOWN, WHICH, Asked, link, require
from latentlake.explorer.html import render
from latentlake.pages.compared import Compared
from latentlake.pages.figures import Figure
from latentlake.reading.results import choices_of

if TYPE_CHECKING:
    from latentlake.reading.view import View

_TITLES = {"overview": "Overview", "latents": "Latents", "latent": "Latent"}
_ORDERS = {
    "nearest": "best match first",
    "best": "best score first",
    "worst": "worst score first",
    "often": "most frequent first",
    "seldom": "least frequent first",
    "strong": "strongest first",
    "latent": "by number",
}
# what a pair's numbers of latents are called, by what is compared
_PAIRS = {"directions": ("same partner", "shared"), "activations": ("aligned", "similar")}
_WIDTH = 320  # of a chart, pixels: a phone's

P = ParamSpec("P")
Shower = Callable[Concatenate["View", P], str]  # a part of a page


def careful(show: Shower[P]) -> Shower[P]:
    """A part of a page that says why, where it cannot be shown."""

    @wraps(show)
    def shown(view: View, /, *arguments: P.args, **named: P.kwargs) -> str:
        try:
            return show(view, *arguments, **named)
        except LatentlakeError as error:
            return render("notice", text=_sentence(error))

    return shown


def frame(view: View, page: str) -> str:
    """What stands above each page."""
    return render("frame", study=view.lake.study, pages=_TITLES, page=page)


def dictionary(view: View, given: Mapping[str, str]) -> str:
    """The dictionary that the overview's charts are of: the address's, or the study's first."""
    known = list(choices_of(view)["dictionaries"])
    return given["dictionary"] if given.get("dictionary") in known else known[0]


@careful
def facts(view: View) -> str:
    """What the study is, and how far it has come."""
    return render("facts", facts=overview.facts(view))


@careful
def firing(view: View, dictionary: str) -> str:
    """How often latents fire, with links to the overviews of the other dictionaries."""
    several = list(choices_of(view)["dictionaries"])
    choice = render("choice", names=several, chosen=dictionary) if len(several) > 1 else ""
    return choice + _figures(
        "How often latents fire",
        overview.firing(view, dictionary),
        "No latents are published yet.",
    )


@careful
def scores(view: View, dictionary: str) -> str:
    """Scores beside the controls: means and distributions."""
    return _figures(
        "Scores against controls",
        [*overview.means(view, dictionary), *overview.distributions(view, dictionary)],
        "No scores are published yet.",
        said="Each scorer in its main metric, a score a latent. Dashed: chance.",
        legend=WHOSE,
    )


@careful
def where(view: View, dictionary: str) -> str:
    """Where scores are high: by density, and by decile of activation."""
    return _figures(
        "Where scores are high",
        [*overview.by_density(view, dictionary), *overview.by_decile(view, dictionary)],
        "No scores are published yet.",
        said="By how often latents fire, and by decile of activation: windows of one decile against those in which the latent "
        "does not fire.",
    )


@careful
def agreements(view: View, dictionary: str) -> str:
    """How far scorers agree."""
    found = overview.agreements(view, dictionary)
    return _figures("Scorers against each other", found, "No two scorers have scored the same latents yet.")


@careful
def comparisons(view: View) -> str:
    """Dictionaries held against one another, where the study compares any."""
    return "".join(_compared(each) for each in overview.comparisons(view))


def _compared(found: Compared) -> str:
    title = f"Dictionaries compared: {found.name}"
    table = render("table", title=title, said=found.said, rows=_pairs(found), otherwise="They are not compared yet.")
    return table + (_figures("", found.figures, "") if found.figures else "")


def _pairs(found: Compared) -> pl.DataFrame:
    """Pairs in figures, without what is not compared."""
    pairs, similar = _PAIRS[found.by]
    is_about = pl.lit(found.by == "directions") & ~pl.col("is_exact") & pl.col("error").is_null()
    about = pl.when(is_about).then(pl.lit("≈")).otherwise(pl.lit(""))
    wide = found.rows.select(
        "pair",
        *(with_interval(way, f"{way}_low", f"{way}_high") for way in ("decoder", "encoder", "activations")),
        pl.format("{}{}", about, "pairs").alias(pairs),
        pl.col("similar").alias(similar),
        "share",
        of_those_that_fire="share_firing",
        explainer="explainer",
        explanations=with_interval("explanations", "explanations_low", "explanations_high"),
        exchanged="explanations_shuffled",
        own_above_it=with_interval(*(f"explanations_difference{end}" for end in ("", "_low", "_high"))),
        error=pl.col("error").str.replace_all("_", " "),
    )
    return wide.select(name for name in wide.columns if wide[name].count()).rename(
        {"activations": "tokens in common"}, strict=False
    )


@careful
def tables(view: View) -> str:
    """Dictionaries and explainers compared, and what calls cost."""
    board, spent = overview.board(view), overview.spent(view)
    return render(
        "table",
        title="Explainers and dictionaries compared",
        said="Means over latents in each scorer's main metric, the best first; over shuffled: how far above another latent's "
        "explanation.",
        rows=board,
        otherwise="No scores are published yet.",
    ) + render(
        "table",
        title="Costs",
        said="All calls of the lake's ledger, each where it was first made.",
        rows=spent,
        otherwise="No model was called yet.",
    )


def plain(given: Mapping[str, str | list[str]]) -> dict[str, str]:
    """What an address says; of what it says twice, the last."""
    return {name: value if isinstance(value, str) else value[-1] for name, value in given.items()}


def filters(view: View, given: Mapping[str, str], ask: Callable[[str, Any], None]) -> dict[str, tuple[str, Any]]:
    """Boxes and menus of a search, as an address fills them, with what they are called. ``ask``: is told what is changed, and to
    what."""
    try:
        asked = browsing.asked(view, given)
    except LatentlakeError:  # the page says it
        asked = browsing.usual(view)
    places = browsing.places(view)

    def box(name: str, shown: str, value: Any, **more: Any) -> Any:
        text = "" if value is None else f"{value:g}" if isinstance(value, float) else value
        told = lambda said: ask(name, said.strip())  # noqa: E731
        return mo.ui.text(value=text, placeholder=shown, full_width=True, on_change=told, **more)

    def menu(name: str, options: Mapping[str, str]) -> Any:
        value = getattr(asked, name)
        shown = next((text for text, each in options.items() if each == value), next(iter(options)))
        return mo.ui.dropdown(dict(options), value=shown, full_width=True, on_change=lambda said: ask(name, said))

    def named(name: str, whole: str) -> dict[str, str]:
        return {whole: ""} | {each: each for each in places[name]}

    by_meaning = {"by": ("by", menu("by", {each: each for each in places["by"]}))} if len(places["by"]) > 1 else {}
    return {
        "words": ("search", box("words", "explanations and top tokens", asked.words, debounce=300)),
        **by_meaning,
        "which": ("which", menu("which", {each: each for each in WHICH})),
        "order": ("order", menu("order", {_ORDERS[each]: each for each in ORDERS})),
        "dictionary": ("dictionary", menu("dictionary", named("dictionary", "all"))),
        "explainer": ("explainer", menu("explainer", named("explainer", "any"))),
        "triage": ("triage", menu("triage", named("triage", "any"))),
        "scorer": ("scorer", menu("scorer", named("scorer", "any"))),
        "low": ("score from", box("low", "any", asked.low)),
        "high": ("to", box("high", "any", asked.high)),
    }


@careful
def search(view: View, given: Mapping[str, str], filters: Mapping[str, tuple[str, Any]]) -> str:
    """Boxes and menus as they stand above the hits."""
    shown = {name: (label, Markup(each.text)) for name, (label, each) in filters.items()}
    return render("search", filters=shown)


class Turning:
    """The way from one chosen latent to others: buttons, which have keys, and a box to jump.

    ``follow``: goes where a link leads. ``random``: draws.
    """

    def __init__(self, view: View, given: Mapping[str, str], follow: Callable[[str], None], random: Random) -> None:
        self._view, self._follow = view, follow
        try:
            self._dictionary, self._latent = latent.asked(view, given.get("dictionary", ""), given.get("latent", ""))
            around = latent.around(view, self._dictionary, self._latent)
        except LatentlakeError:  # the page says why
            self._elements: list[Any] = []
            return
        drawn = int(random.choice(around.every)) if around.many else None
        self._around = around
        steps = (
            ("← previous", "Shift-ArrowLeft", around.before),
            ("next →", "Shift-ArrowRight", around.after),
            ("random", "Shift-ArrowUp", drawn),
        )
        self._elements = [
            *(self._button(label, key, other) for label, key, other in steps),
            mo.ui.text(placeholder=f"{self._dictionary} {self._latent}", label="jump to", on_change=self._jump),
        ]

    def html(self) -> str:
        """The buttons in a row; nothing where the address names no latent."""
        if not self._elements:
            return ""
        *buttons, box = (Markup(each.text) for each in self._elements)
        here = link("latent", dictionary=self._dictionary, latent=self._latent)
        return render("turning", around=self._around, here=here, buttons=buttons, box=box)

    def _button(self, label: str, key: str, other: int | None) -> Any:
        return mo.ui.button(
            label=label,
            keyboard_shortcut=key,
            tooltip=key.replace("-", " + "),
            disabled=other is None,
            on_change=lambda _: self._go(self._dictionary, other),
        )

    def _go(self, dictionary: str, latent: object) -> None:
        self._follow(link("latent", dictionary=dictionary, latent=latent))

    def _jump(self, said: str) -> None:
        try:
            self._go(*latent.jump(self._view, said))
        except LatentlakeError:
            self._go(self._dictionary, said)  # that page says what is wrong


@careful
def body(view: View, page: str, given: Mapping[str, str]) -> str:
    """Hits, or a latent."""
    require("page", page, PAGES)
    if page == "latents":
        asked = browsing.asked(view, given)
        hits = browsing.hits(view, asked)
        there = {name: value for name, value in given.items() if name not in ("page", "first")}
        return render(
            "hits",
            hits=hits,
            asked=asked,
            shown=SHOWN,
            said=_said(asked),
            why=_why(view, asked),
            earlier=link("latents", there, first=max(0, asked.first - SHOWN) or ""),
            later=link("latents", there, first=asked.first + SHOWN),
        )
    article: str = latent.article(view, *latent.asked(view, given.get("dictionary", ""), given.get("latent", "")))
    return article


def _said(asked: Asked) -> str:
    """By what hits are sorted, where a score is, and how many are looked through."""
    by = f"Scores by {asked.scorer}" if asked.scorer else ""
    best = ", of several explainers the best" if by and not asked.explainer else ""
    which = "nearest" if asked.by == "meaning" else "best"
    most = f"The {which} {browsing.MOST:,} matches are looked through, and no more" if asked.words else ""
    return " ".join(f"{each}." for each in (by + best, most) if each)


def _why(view: View, asked: Asked) -> str:
    """Why there may be no hits."""
    if not overview.dictionaries(view)["latents"].sum():
        return "no latents are published yet"
    if asked.words:
        return (
            f"nothing has the words “{asked.words}”, with these filters"
            if asked.by == "words"
            else "the filters leave none"
        )
    return "the filters leave none"


def _figures(
    title: str,
    figures: Sequence[Figure],
    otherwise: str,
    said: str = "",
    legend: Mapping[str, str] | None = None,
) -> str:
    shown = [(each.title, _chart(each)) for each in figures]
    return render("figures", title=title, figures=shown, otherwise=otherwise, said=said, legend=legend)


def _chart(figure: Figure) -> Markup:
    """A chart as HTML, which is not escaped again."""
    return Markup(mo.as_html(bare(figure.chart, None if figure.is_fixed else _WIDTH)).text)


def _sentence(error: Exception) -> str:
    text = str(error)
    return text[:1].upper() + text[1:].rstrip(".") + "."
