"""The report of a study: one HTML file that needs nothing beside it, of whatever is there."""

import json
import re
import sys
from collections.abc import Iterator, Mapping, Sequence, Set
from importlib.metadata import PackageNotFoundError, version
from inspect import cleandoc
from typing import Any, NamedTuple

import polars as pl
import yaml
from markupsafe import Markup

from latentlake.charts.scores import WHOSE
from latentlake.measures.aggregates import MAIN, OWN, aggregates, is_main, whose
from latentlake.pages import document, figures
from latentlake.pages.compared import compared
from latentlake.pages.latent import BRIEF, Row, latent_html
from latentlake.pages.rendering import render
from latentlake.reading.picks import Judge, Picks, picks, ranking
from latentlake.reading.results import Results
from latentlake.reading.trace import traces
from latentlake.registry import EXPLAINERS, SCORERS
from latentlake.scorers import EMPTY, NONE, RANDOM_DIRECTION, SHUFFLED
from latentlake.sections.results import Report
from latentlake.sources import MILLIONS, Source

_AT_ONCE = 50  # latents whose traces are held together
_PACKAGES = ("latentlake", "torch", "transformers", "sentence-transformers", "polars", "deltalake", "numpy", "scipy")
_CONTROLS = {
    SHUFFLED: "each latent is also judged by the explanation of another latent of its dictionary",
    EMPTY: "and by an empty one: what a judge scores without being told anything",
    RANDOM_DIRECTION: "interventions also push along a direction drawn at random that moves the subject as far",
}
_ASIDE = "report"  # an asset that the report does not speak of: itself


class Made(NamedTuple):
    """A report. ``latents``: how many the study chose, ``shown``: of how many there are pages, ``listed``: how many the list has.
    ``missing``: assets of which nothing is there yet."""

    html: str
    latents: int
    shown: int
    listed: int
    missing: tuple[str, ...]


class _Of(NamedTuple):
    """What is read through, and what the study says."""

    results: Results
    choices: Mapping[str, Any]
    report: Report
    judge: Judge | None


def report(results: Results) -> Made:
    """The report of what there is: of a finished study, of a half-finished one, or of none."""
    if results.study is None:
        body = render("report.html", name=None, style="")
        return Made(document("latentlake", body), 0, 0, 0, ())
    choices = json.loads(results.study["choices"])
    wanted = Report.model_validate(choices.get("report") or {})
    of = _Of(results, choices, wanted, ranking(results, choices, wanted))
    chosen = dict(_picked(of))
    assets = _assets(results)
    missing = tuple(name for name in results.study["assets"] if name not in assets and name != _ASIDE)
    scores = _scores(of)
    body = render(
        "report.html",
        name=choices["name"],
        subject=_subject(of),
        missing=missing,
        figures=_counts(of, chosen),
        dictionaries=_dictionaries(of),
        corpus=choices["corpus"]["sources"],
        firing=[(name, figures.firing(results, name)) for name in choices["dictionaries"]],
        scores=scores,
        scorers=list(choices["scorers"]),
        controls=_controls(choices),
        legend=[(said, WHOSE[said]) for said in WHOSE if said in {OWN, *scores["controls"]}],
        pictures=[(name, _pictures(of, name)) for name in choices["dictionaries"]],
        comparisons=compared(results),
        judge=of.judge,
        ranked=_ranked(of.judge),
        groups=list(_groups(of, chosen)),
        lists=[_list(of, name, own, set(own.shown)) for name, own in chosen.items()],
        methods=_methods(choices),
        sources=_sources(choices),
        versions=_versions(),
        weights=_weights(of),
        assets=assets,
        prompts=results.study["prompts"],
        study=results.study["study"],
        yaml=yaml.safe_dump(choices, sort_keys=False, allow_unicode=True, width=100),
    )
    counts = [(own.chosen, len(own.shown), len(own.listed)) for own in chosen.values()]
    latents, shown, listed = map(sum, zip(*counts, strict=True))
    return Made(document(f"{choices['name']}: latents explained", body), latents, shown, listed, missing)


def _picked(of: _Of) -> Iterator[tuple[str, Picks]]:
    """Each dictionary with what is shown of it: without pages while it is opened anew, for where a latent lies follows from its
    width."""
    opened = of.results.dictionaries.select("dictionary").collect()["dictionary"].to_list()
    for name in of.choices["dictionaries"]:
        own = picks(of.results, name, of.judge, of.report, of.choices["seed"])
        yield name, own if name in opened else own._replace(best=(), worst=(), random=())


def _assets(results: Results) -> dict[str, str]:
    """The code version of each asset that is there, in the order of the study."""
    there = results.latest().filter("is_seen").sort("at")
    versions = dict(there.select("asset", "code_version").iter_rows())
    assets = results.study["assets"] if results.study else []
    return {name: versions[name] for name in assets if name in versions and name != _ASIDE}


def _subject(of: _Of) -> str:
    rows = of.results.subject.select("reference").collect()
    return str(rows.item() if rows.height else of.choices["subject"]["model"])


def _counts(of: _Of, chosen: Mapping[str, Picks]) -> list[tuple[str, str]]:
    """What there is, in figures and words."""
    explanation, error = pl.col("explanation"), pl.col("error")
    said = of.results.explanations.select(
        explained=pl.struct("dictionary", "latent").filter(explanation.is_not_null()).n_unique(),
        explanations=explanation.count(),
        failed=error.count(),
    )
    judged = of.results.scores.filter(is_main(of.results)).select(pl.col("n").sum(), pl.col("n_failed").sum())
    latents = of.results.latents.select(pl.len())
    documents = of.results.contexts.select(pl.len())
    found = pl.collect_all([said, judged, latents, documents], engine="streaming")
    (explained, explanations, failed), (n, n_failed), (there,), (contexts,) = (each.row(0) for each in found)
    picked = sum(own.chosen for own in chosen.values())
    context = of.choices["corpus"]["context_length"]
    return [
        (f"{there:,}", "latents in " + _n(len(of.choices["dictionaries"]), "dictionary", "dictionaries")),
        (f"{explained:,}", f"explained, of {picked:,} chosen"),
        (f"{explanations:,}", f"explanations, {failed:,} failed"),
        (f"{n:,}", f"judgements, {n_failed:,} failed"),
        (f"{contexts:,}", f"contexts of {context} tokens"),
    ]


def _n(number: int, one: str, many: str) -> str:
    return f"{number:,} {one if number == 1 else many}"


def _dictionaries(of: _Of) -> list[Row]:
    """What each dictionary is, and how well it reconstructs; the columns are null where nothing is there yet."""
    keys = list(of.choices["dictionaries"])
    names = pl.DataFrame({"dictionary": keys}, schema={"dictionary": pl.String})
    how_well = of.results.reconstructions.drop("l0").join(
        of.results.reconstructions.select("dictionary", measured_l0="l0"), on="dictionary"
    )
    counts = of.results.latents.group_by("dictionary").agg(latents=pl.len(), chosen=pl.sum("is_chosen"))
    for rows in (of.results.dictionaries, how_well, counts):
        names = names.join(rows.collect(engine="streaming"), on="dictionary", how="left", maintain_order="left")
    return names.to_dicts()


def _scores(of: _Of) -> Row:
    """Mean scores of each dictionary, explainer and scorer beside each control's, and the controls there are."""
    rows = figures.steady(aggregates(of.results, metric=MAIN)).with_columns(whose())
    controls = [each for each in rows["explanation of"].unique().sort() if each != OWN]
    keys = ["dictionary", "explainer", "scorer", "metric"]
    beside = {tuple(row[name] for name in (*keys, "explanation of")): row for row in rows.iter_rows(named=True)}
    own = [row for row in rows.iter_rows(named=True) if row["explanation of"] == OWN]
    order = {name: place for place, name in enumerate(of.choices["dictionaries"])}
    own.sort(key=lambda row: (row["scorer"], row["explainer"], -(row["mean"] or 0), order.get(row["dictionary"], 0)))
    return {
        "controls": controls,
        "rows": [
            {
                **row,
                "metric": figures.metric_name(row["metric"]),
                "judge": figures.judge(row["scorer"], row["explainer"]),
                "beside": [beside.get((*(row[name] for name in keys), each)) for each in controls],
            }
            for row in own
        ],
    }


def _controls(choices: Mapping[str, Any]) -> list[str]:
    """What each control of the study's scorers is, in words."""
    there = {each for scorer in choices["scorers"].values() for each in SCORERS[scorer["method"]].controls}
    return [said for control, said in _CONTROLS.items() if control in there]


def _pictures(of: _Of, dictionary: str) -> list[figures.Figure]:
    results = of.results
    return [
        *figures.means(results, dictionary),
        *figures.distributions(results, dictionary),
        *figures.by_decile(results, dictionary),
        *figures.by_density(results, dictionary),
        *figures.agreements(results.agreements.filter(dictionary=dictionary).collect()),
    ]


def _ranked(judge: Judge | None) -> str:
    """By what latents are ranked, in words."""
    if judge is None:
        return ""
    return f"{figures.metric_name(judge.metric)} of {figures.judge(judge.scorer, judge.explainer)}"


def _groups(of: _Of, chosen: Mapping[str, Picks]) -> Iterator[Row]:
    """The pages of latents, each once, under the first reason for which it is shown."""
    shown = {(name, latent) for name, own in chosen.items() for latent in own.shown}
    for name, own in chosen.items():
        pages = _pages(of, name, own.shown, shown)
        for kind, title, latents in (
            ("best", "best explained", own.best),
            ("worst", "worst explained", own.worst),
            ("random", "drawn at random", own.random),
        ):
            if latents:
                yield {
                    "id": f"{kind}:{name}",
                    "dictionary": name,
                    "title": title,
                    "kind": kind,
                    "latents": [{"latent": each, "value": own.values.get(each)} for each in latents],
                    "pages": [page for page in (pages.pop(each, None) for each in latents) if page is not None],
                }


def _pages(of: _Of, dictionary: str, latents: Sequence[int], shown: Set[tuple[str, int]]) -> dict[int, Markup]:
    """The page of each latent, with links to those that are shown, of other dictionaries too."""

    def link(dictionary: str, latent: int) -> str | None:
        return f"#{dictionary}-{latent}" if (dictionary, latent) in shown else None

    parts = [latents[start : start + _AT_ONCE] for start in range(0, len(latents), _AT_ONCE)]
    return {
        found.latent: Markup(latent_html(found, BRIEF, link, level=3))
        for part in parts
        for found in traces(of.results, dictionary, part)
    }


def _list(of: _Of, dictionary: str, own: Picks, shown: set[int]) -> Row:
    """The latents of the list: what is said of each, and its main scores."""
    listed = list(own.listed)
    is_listed = (pl.col("dictionary") == dictionary) & pl.col("latent").is_in(listed)
    said = of.results.explanations.filter(is_listed).select("latent", "explainer", "explanation", "error")
    scored = of.results.scores.filter(is_listed, pl.col("control").is_null(), is_main(of.results))
    frames = pl.collect_all([said, scored.select("latent", "explainer", "scorer", "value")], engine="streaming")
    explanations = {(row[0], row[1]): row[2:] for row in frames[0].iter_rows()}
    values = {row[:3]: row[3] for row in frames[1].iter_rows()}
    explainers = list(of.choices["explainers"])
    scorers = list(of.choices["scorers"])
    bare = [name for name in scorers if any((latent, NONE, name) in values for latent in listed)]
    judging = [name for name in scorers if name not in bare]
    rows = [
        {
            "latent": latent,
            "is_shown": latent in shown,
            "bare": [values.get((latent, NONE, name)) for name in bare],
            "explanations": [
                {
                    "explainer": name,
                    "text": explanations.get((latent, name), (None, None))[0],
                    "error": explanations.get((latent, name), (None, None))[1],
                    "values": [values.get((latent, name, scorer)) for scorer in judging],
                }
                for name in explainers
            ],
        }
        for latent in listed
    ]
    return {
        "dictionary": dictionary,
        "chosen": own.chosen,
        "explainers": explainers,
        "bare": bare,
        "judging": judging,
        "rows": rows,
    }


def _methods(choices: Mapping[str, Any]) -> list[Row]:
    """The explainers and scorers of the study: what they do, and where that comes from."""
    return [
        {"kind": kind, "name": name, "method": each["method"], **_method(registry[each["method"]])}
        for kind, registry in (("explainer", EXPLAINERS), ("scorer", SCORERS))
        for name, each in choices[f"{kind}s"].items()
    ]


def _method(method: type[Any]) -> Row:
    """What a method does, in the first sentence of its module, and its source."""
    said = " ".join(cleandoc(sys.modules[method.__module__].__doc__ or "").split("\n\n")[0].split())
    return {"said": re.split(r"(?<=\.) (?=[A-Z])", said)[0], "source": method.source}


def _sources(choices: Mapping[str, Any]) -> list[Source]:
    """The works that the study's methods are taken from, the paper of the whole first."""
    named = [each["source"] for each in _methods(choices) if each["source"] is not None]
    return list(dict.fromkeys([MILLIONS, *named]))


def _versions() -> list[tuple[str, str]]:
    """Python and the packages that results depend on, as they are here."""
    here = [("Python", ".".join(map(str, sys.version_info[:3])))]
    for name in _PACKAGES:
        try:
            here.append((name, version(name)))
        except PackageNotFoundError:
            continue
    return here


def _weights(of: _Of) -> list[Row]:
    """The models and coders, and what they are made of."""
    subject = of.results.subject.select(pl.lit("subject").alias("name"), "reference", "digest")
    llms = of.results.llms.select(pl.format("model {}", "llm").alias("name"), "reference", "digest").sort("name")
    coders = of.results.dictionaries.select(
        pl.format("dictionary {}", "dictionary").alias("name"), pl.col("format").alias("reference"), "digest"
    ).sort("name")
    return [row for rows in pl.collect_all([subject, llms, coders]) for row in rows.to_dicts()]
