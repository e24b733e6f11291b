"""Pages as HTML: what the other modules find out, in templates. A page that cannot be shown says why."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import wraps
from random import Random
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec

import marimo as mo
from markupsafe import Markup

from latentlake import charts
from latentlake.errors import LatentlakeError
from latentlake.explorer import browsing, latent, overview
from latentlake.explorer.address import ORDERS, PAGES, SHOWN, WHICH, link, require
from latentlake.explorer.html import render
from latentlake.scorers import NONE

if TYPE_CHECKING:
    from latentlake.view import View

_TITLES = {"overview": "Overview", "latents": "Latents", "latent": "Latent"}
_ORDERS = {
    "best": "best score first",
    "worst": "worst score first",
    "often": "most frequent first",
    "seldom": "least frequent first",
    "strong": "strongest first",
    "latent": "by number",
}

P = ParamSpec("P")
Shower = Callable[Concatenate["View", P], str]


def careful(show: Shower[P]) -> Shower[P]:
    """A part of a page that says why, where it cannot be shown."""

    @wraps(show)
    def shown(view: View, *arguments: P.args, **named: P.kwargs) -> str:
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
    known = list(overview.choices_of(view)["dictionaries"])
    return given["dictionary"] if given.get("dictionary") in known else known[0]


@careful
def facts(view: View) -> str:
    """What the study is, and how far it has come."""
    return render("facts", facts=overview.facts(view))


@careful
def firing(view: View, dictionary: str) -> str:
    """How often latents fire, with links to the overviews of the other dictionaries."""
    figures = [("", _figure(each)) for each in overview.firing(view, dictionary)]
    several = list(overview.choices_of(view)["dictionaries"])
    choice = render("choice", names=several, chosen=dictionary) if len(several) > 1 else ""
    return choice + _figures(
        "How often latents fire",
        figures,
        "No latents are published yet.",
    )


@careful
def scores(view: View, dictionary: str) -> str:
    """Scores beside the controls: means and distributions."""
    means = overview.against_controls(view, dictionary)
    figures = [] if means is None else [("means", _figure(means))]
    figures += [(name, _figure(each)) for name, each in overview.distributions(view, dictionary).items()]
    return _figures(
        "Scores against controls",
        figures,
        "No scores are published yet.",
        said="Each scorer in its main metric, a score a latent. Dashed: chance.",
        legend=charts.WHOSE,
    )


@careful
def where(view: View, dictionary: str) -> str:
    """Where scores are high: by density, and by decile of activation."""
    figures = [
        ("no explanation judged" if name == NONE else f"explainer {name}", _figure(each))
        for found in (overview.by_density(view, dictionary), overview.by_decile(view, dictionary))
        for name, each in found.items()
    ]
    return _figures(
        "Where scores are high",
        figures,
        "No scores are published yet.",
        said="By how often latents fire, and by decile of activation: windows of one decile against those in which the latent "
        "does not fire.",
    )


@careful
def agreements(view: View, dictionary: str) -> str:
    """How far scorers agree."""
    figures = [("", _figure(each)) for each in overview.agreements(view, dictionary)]
    return _figures("Scorers against each other", figures, "No two scorers have scored the same latents yet.")


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


def filters(view: View, given: Mapping[str, str], ask: Callable[[str, Any], None]) -> Any:
    """Boxes and menus of a search, as an address fills them. ``ask``: is told what is changed, and to what."""
    try:
        asked = browsing.asked(view, given)
    except LatentlakeError:  # the page says it
        asked = browsing.usual(view)
    places = browsing.places(view)

    def menu(name: str, label: str, options: Mapping[str, str]) -> Any:
        value = getattr(asked, name)
        shown = next((text for text, each in options.items() if each == value), next(iter(options)))
        return mo.ui.dropdown(dict(options), value=shown, label=label, on_change=lambda said: ask(name, said))

    def named(name: str, whole: str) -> dict[str, str]:
        return {whole: ""} | {each: each for each in places[name]}

    def bound(name: str, label: str) -> Any:
        value = getattr(asked, name)
        said = "" if value is None else f"{value:g}"
        return mo.ui.text(value=said, placeholder="any", label=label, on_change=lambda said: ask(name, said.strip()))

    return {
        "words": mo.ui.text(
            value=asked.words,
            placeholder="words of an explanation",
            label="search",
            debounce=300,
            full_width=True,
            on_change=lambda words: ask("words", words.strip()),
        ),
        "which": menu("which", "which", {each: each for each in WHICH}),
        "order": menu("order", "order", {_ORDERS[each]: each for each in ORDERS}),
        "dictionary": menu("dictionary", "dictionary", named("dictionary", "all")),
        "explainer": menu("explainer", "explainer", named("explainer", "any")),
        "triage": menu("triage", "triage", named("triage", "any")),
        "scorer": menu("scorer", "scorer", named("scorer", "any")),
        "low": bound("low", "score from"),
        "high": bound("high", "to"),
    }


@careful
def search(view: View, given: Mapping[str, str], filters: Mapping[str, Any]) -> str:
    """Boxes and menus as they stand above the hits."""
    return render("search", filters={name: Markup(each.text) for name, each in filters.items()})


@careful
def turning(view: View, given: Mapping[str, str], follow: Callable[[str], None], random: Random) -> str:
    """The way from one chosen latent to others: buttons, which have keys, and a box to jump."""
    name, number = latent.asked(view, given.get("dictionary", ""), given.get("latent", ""))
    around = latent.around(view, name, number)

    def to(other: int | None) -> Callable[[Any], None]:
        return lambda _: None if other is None else follow(link("latent", dictionary=name, latent=other))

    def anywhere(_: Any) -> None:
        follow(link("latent", dictionary=name, latent=int(random.choice(around.every))))

    def jump(said: str) -> None:
        try:
            other, place = latent.jump(view, said)
        except LatentlakeError:
            follow(link("latent", dictionary=name, latent=said))  # that page says what is wrong
        else:
            follow(link("latent", dictionary=other, latent=place))

    buttons = [
        ("← previous", "Shift-ArrowLeft", to(around.before), around.before is None),
        ("next →", "Shift-ArrowRight", to(around.after), around.after is None),
        ("random", "Shift-ArrowUp", anywhere, around.many == 0),
    ]
    turned = [
        mo.ui.button(label=label, keyboard_shortcut=key, on_change=act, disabled=off, tooltip=key.replace("-", " + "))
        for label, key, act, off in buttons
    ]
    box = mo.ui.text(placeholder=f"{name} {number}", on_change=jump, label="jump to")
    return render(
        "turning",
        around=around,
        buttons=[Markup(each.text) for each in turned],
        box=Markup(box.text),
        here=link("latent", dictionary=name, latent=number),
    )


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
            earlier=link("latents", there, first=max(0, asked.first - SHOWN) or ""),
            later=link("latents", there, first=asked.first + SHOWN),
        )
    return latent.article(view, *latent.asked(view, given.get("dictionary", ""), given.get("latent", "")))


def _figures(
    title: str,
    figures: list[tuple[str, str]],
    otherwise: str,
    said: str = "",
    legend: Mapping[str, str] | None = None,
) -> str:
    return render("figures", title=title, figures=figures, otherwise=otherwise, said=said, legend=legend)


def _figure(chart: Any) -> Markup:
    """A chart as HTML, which is not escaped again."""
    return Markup(mo.as_html(charts.bare(chart)).text)


def _sentence(error: Exception) -> str:
    text = str(error)
    return text[:1].upper() + text[1:].rstrip(".") + "."
