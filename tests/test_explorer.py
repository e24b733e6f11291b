"""The explorer: what its pages show is what the tables hold, however far the study has come, and whatever an address says."""

from __future__ import annotations

import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import sentence_transformers  # noqa: F401  before marimo: where that is there, transformers takes itself to be in a notebook

from latentlake.cli import main
from latentlake.errors import LakeError
from latentlake.explorer import address, browsing, latent, opened, overview, pages
from latentlake.explorer.address import SHOWN, Asked, link, said
from latentlake.explorer.app import app
from latentlake.explorer.html import render
from latentlake.lake import Lake
from latentlake.reading.view import View, open_lake
from tests.workbench import Workbench

SCRIPT = "<script>alert('&')</script>"


@pytest.fixture
def view(materialized: Workbench) -> View:
    return materialized.view()


@pytest.fixture(scope="module")
def comparing(compared: Path) -> View:
    """A study that compares dictionaries."""
    return open_lake(f"{compared}/study/lake")


def before(view: View, asset: str) -> View:
    """The study as it was when nothing of an asset was published yet."""
    rows = view.lake.scan("partitions").filter(pl.col("asset") == asset, pl.col("state") == "published")
    moments = view.lake.scan("partitions").filter(pl.col("at") < rows.select(pl.min("at")).collect().item())
    return View(view.lake, moments.select(pl.max("at")).collect().item())


def no_embedder() -> Any:
    raise AssertionError("nothing is looked for by meaning")


def shown(view: View, given: dict[str, str]) -> str:
    """All that the app shows at an address."""
    opened.show(view, no_embedder)
    outputs, _ = app.run(defs={"params": Params(given), "followed": lambda: 0, "set_followed": lambda _: None})
    return "".join(output.text for output in outputs if output is not None)


class Params(dict[str, str]):
    """What an address says, as the app takes it."""

    def to_dict(self) -> dict[str, str]:
        return dict(self)


def data_of(chart: Any) -> int:
    """Rows that a chart sends to the browser."""
    return sum(len(rows) for rows in chart.to_dict().get("datasets", {}).values())


def test_the_overview_says_what_there_is(view: View) -> None:
    facts = overview.facts(view)
    latents, documents = view.latents.collect(), view.documents.collect()
    assert facts.tokens == documents["n_tokens"].sum() > 0
    assert facts.documents == documents.height
    assert facts.missing == facts.unfinished == ()
    row = facts.dictionaries.filter(dictionary="one").row(0, named=True)
    own = latents.filter(dictionary="one")
    assert (row["latents"], row["chosen"]) == (own.height, own["is_chosen"].sum())
    said = view.explanations.filter(pl.col("explanation").is_not_null(), dictionary="one").collect()
    assert row["explained"] == said["latent"].n_unique() > 0
    assert facts.at == view.latest()["at"].max()


def test_charts_get_few_rows(view: View) -> None:
    shown = [
        figure
        for find in (
            overview.firing, overview.means, overview.distributions, overview.by_density, overview.by_decile,
            overview.agreements,
        )
        for figure in find(view, "one")
    ]  # fmt: skip
    assert len(shown) > 6
    assert all(0 < data_of(figure.chart) < 500 for figure in shown)


def test_dictionaries_that_are_compared_have_tables_and_maps(comparing: View, view: View) -> None:
    found = {each.name: each for each in overview.comparisons(comparing)}
    assert list(found) == ["every", "near", "fires"]
    assert [len(each.figures) for each in found.values()] == [5, 0, 4]
    assert all(0 < data_of(figure.chart) < 500 for each in found.values() for figure in each.figures)
    html = shown(comparing, {"page": "overview"})
    assert [f"Dictionaries compared: {name}" in html for name in found] == [True] * 3
    row = comparing.comparisons.filter(comparison="every", pair="half-one", by="decoder").collect().row(0, named=True)
    assert f"{row['mean']:.2f} [{row['low']:.2f}, {row['high']:.2f}]" in html
    assert "<td>≈64<td" in html
    assert "Dictionaries compared" not in shown(view, {"page": "overview"})


def test_a_comparison_that_is_not_made_yet_is_said_to_be_missing(comparing: View) -> None:
    html = shown(before(comparing, "comparisons/every"), {"page": "overview"})
    assert "Dictionaries compared: every" in html
    assert "They are not compared yet." in html


def test_a_latent_leads_to_its_partners_in_other_dictionaries(comparing: View) -> None:
    html = shown(comparing, {"page": "latent", "dictionary": "one", "latent": "3"})
    rows = comparing.alignments.filter(comparison="every", other="one", decoder_partner=3).collect()
    assert rows.height == 2
    for dictionary, partner in rows.select("dictionary", "latent").rows():
        assert link("latent", dictionary=dictionary, latent=partner).replace("&", "&amp;") in html


@pytest.mark.parametrize("asset", ["contexts", "latents", "explanations/default", "scores/default/detection"])
@pytest.mark.parametrize("page", address.PAGES)
def test_a_study_that_is_not_finished_says_what_is_missing(view: View, asset: str, page: str) -> None:
    half = before(view, asset)
    html = shown(half, {"page": page, "dictionary": "one"})
    if page == "overview":
        assert f"Nothing is published of {overview.facts(half).missing[0]}" in html
        assert asset in overview.facts(half).missing
    elif asset in ("contexts", "latents"):
        assert "no latents are published yet" in html or "not materialized" in html


def test_hits_are_the_explained_latents_the_best_first(view: View) -> None:
    asked = browsing.asked(view, {})
    found = browsing.hits(view, asked)
    said = view.explanations.filter(pl.col("explanation").is_not_null()).collect()
    assert found.total == said.select("dictionary", "latent").n_unique()
    best = [
        max(each["value"] for each in row["scores"][asked.scorer] if each["value"] is not None)
        for row in found.rows
        if any(each["value"] is not None for each in row["scores"].get(asked.scorer, []))
    ]
    assert best == sorted(best, reverse=True)
    assert len(best) > 1


@pytest.mark.parametrize(
    ("given", "holds"),
    [
        ({"which": "left out"}, lambda row: not row["is_chosen"]),
        ({"which": "chosen"}, lambda row: row["is_chosen"]),
        ({"which": "all", "triage": "rare"}, lambda row: row["triage"] == "rare"),
        ({"dictionary": "one"}, lambda row: row["dictionary"] == "one"),
        ({"explainer": "default"}, lambda row: {each["explainer"] for each in row["said"]} == {"default"}),
    ],
)
def test_filters_keep_what_they_say(view: View, given: dict[str, str], holds: Callable[[dict[str, Any]], bool]) -> None:
    found = browsing.hits(view, browsing.asked(view, given))
    assert 0 < len(found.rows) <= SHOWN
    assert all(holds(row) for row in found.rows)


def test_bounds_hold_for_scores(view: View) -> None:
    own = view.scores.filter(pl.col("control").is_null(), scorer="detection", metric="auroc").collect()
    best = own.group_by("dictionary", "latent").agg(pl.max("value")).drop_nulls()
    middle = best["value"].median()
    within = best.filter(pl.col("value") >= middle)
    assert 0 < within.height < best.height
    found = browsing.hits(view, browsing.asked(view, {"scorer": "detection", "low": str(middle)}))
    assert {(row["dictionary"], row["latent"]) for row in found.rows} == set(
        within.select("dictionary", "latent").rows()
    )
    assert browsing.hits(view, browsing.asked(view, {"scorer": "detection", "high": str(middle - 1e-9)})).total == (
        best.height - within.height
    )


def test_pages_of_hits_follow_one_another(view: View) -> None:
    asked = Asked(which="all", order="latent")
    keys = view.latents.select("latent", "dictionary").collect().sort("latent", "dictionary").rows()
    assert len(keys) > 2
    found = browsing.hits(view, Asked(**{**vars(asked), "first": 2}))
    assert found.total == len(keys)
    assert [(row["latent"], row["dictionary"]) for row in found.rows] == keys[2 : 2 + SHOWN]


def test_words_find_explanations(view: View) -> None:
    row = view.explanations.filter(pl.col("explanation").is_not_null()).sort("latent").collect().row(0, named=True)
    word = max(row["explanation"].split(), key=len)
    found = browsing.hits(view, browsing.asked(view, {"words": word.upper()}))
    assert (row["dictionary"], row["latent"]) in [(each["dictionary"], each["latent"]) for each in found.rows]
    assert browsing.hits(view, browsing.asked(view, {"words": "no latent says zzzz"})).total == 0


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"page": "nowhere"}, "the page &#39;nowhere&#39;"),
        ({"page": "latents", "dictionary": "tow"}, "the dictionary &#39;tow&#39;"),
        ({"page": "latents", "order": SCRIPT}, "the order"),
        ({"page": "latents", "low": "nan"}, "must be a number"),
        ({"page": "latents", "first": "1e300"}, "latents."),
        ({"page": "latents", "words": SCRIPT}, "No latent is like this"),
        ({"page": "latent", "dictionary": "tow"}, "the dictionary &#39;tow&#39;"),
        ({"page": "latent", "dictionary": "one", "latent": "1000000"}, "has no latent 1000000"),
        ({"page": "latent", "dictionary": "one", "latent": "-1"}, "has no latent -1"),
        ({"page": "latent", "dictionary": "one", "latent": SCRIPT}, "must be a number"),
        ({"page": "latent", "dictionary": "one", "latent": "1e999"}, "must be a number"),
    ],
)
def test_nonsense_in_an_address_is_a_sentence_on_the_page(view: View, given: dict[str, str], said: str) -> None:
    html = shown(view, given)
    assert said in html
    assert "<script" not in html


def test_a_latent_has_its_page_among_the_chosen(view: View) -> None:
    every = latent.chosen(view, "one").tolist()
    middle = latent.around(view, "one", every[1])
    assert (middle.before, middle.after, middle.place, middle.many) == (every[0], every[2], 2, len(every))
    aside = next(n for n in range(every[-1]) if n not in every)
    assert latent.around(view, "one", aside).place is None
    assert latent.jump(view, f"one/{every[2]}") == latent.jump(view, f" one  {every[2]} ") == ("one", every[2])
    html = shown(view, {"page": "latent", "dictionary": "one", "latent": str(every[1])})
    assert "<mark" in html
    assert f"2 of {len(every)} chosen" in html


def test_texts_stay_text(view: View) -> None:
    (row, *_) = browsing.hits(view, browsing.asked(view, {})).rows
    row = {**row, "said": [{"explainer": SCRIPT, "explanation": SCRIPT, "error": None}], "tokens": [SCRIPT]}
    html = render(
        "hits", hits=browsing.Hits(1, [row]), asked=Asked(), shown=SHOWN, said="", why="", earlier="", later=""
    )
    assert "<script" not in html
    assert html.count("&lt;script&gt;") == 2


def test_links_say_what_they_lead_to() -> None:
    given = {"words": "a&b=c #é?", "dictionary": "one"}
    assert said(link("latents", given, first="")) == {**given, "page": "latents"}


def test_what_is_read_is_remembered_until_something_is_published(materialized: Workbench, view: View) -> None:
    first = overview.facts(view)
    assert overview.facts(view) is first
    materialized.lake.open("tiny").append("partitions", view.lake.scan("partitions").head(1).collect().to_arrow())
    assert overview.facts(view) is not first


def test_an_empty_lake_is_refused(workbench: Workbench, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--lake", str(workbench.folder / "nothing"), "explore", "--no-browser"]) == 1
    assert "holds no study" in capsys.readouterr().err
    with pytest.raises(LakeError, match="no study was ever run"):
        overview.choices_of(View(Lake(str(workbench.folder), "nothing")))


def test_an_address_that_is_taken_is_refused(materialized: Workbench, capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        assert main(["--lake", materialized.lake.uri, "explore", "--no-browser", "--port", port]) == 1
    assert f"port {port}" in capsys.readouterr().err


def test_a_page_that_cannot_be_shown_says_why(view: View) -> None:
    def broken(view: View) -> str:
        raise LakeError("files were deleted")

    assert "Files were deleted." in pages.careful(broken)(view)
