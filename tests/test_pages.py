"""Pages of latents: what they show is what the lake holds, and text stays text."""

import base64
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from latentlake.pages import document, style
from latentlake.pages.glimpses import Glimpse, glimpses, in_view
from latentlake.pages.judged import judged_windows, truth, verdict
from latentlake.pages.latent import BRIEF, latent_html
from latentlake.pages.rendering import number, shown
from latentlake.pages.windows import highlighted, level_of, token_in_signs
from latentlake.reading.trace import Trace, traces
from latentlake.reading.view import View, open_lake
from latentlake.sampling.texts import SEPARATOR

NASTY = "<script>alert('1')</script> & \"quoted\" ]]> \x00\x1b \u202eright to left\ud800 {{ 7 * 7 }}"


@pytest.fixture(scope="module")
def view(finished: Path) -> View:
    """The finished study."""
    return open_lake(f"{finished}/study/lake")


@pytest.fixture(scope="module")
def found(view: View) -> Trace:
    """The first latent that was chosen."""
    latent = view.latents.filter("is_chosen").select("latent").first().collect().item()
    return traces(view, "one", [latent])[0]


@pytest.fixture(scope="module")
def partnered(compared: Path) -> Trace:
    """A latent with partners in two dictionaries."""
    return traces(open_lake(f"{compared}/study/lake"), "one", [3])[0]


def parsed(html: str) -> ElementTree.Element:
    """A page as XML, which it must be."""
    return ElementTree.fromstring(html)


def texts(html: str, of: str) -> list[str]:
    """The texts of elements that have a class."""
    return ["".join(each.itertext()) for each in parsed(html).iter() if of in (each.get("class") or "").split()]


def test_a_page_shows_each_window_with_its_tokens_marked(found: Trace) -> None:
    html = latent_html(found)
    firing = found.examples.filter("is_activating").unique(["shard", "context", "start"])
    assert firing.height > 5
    lines = [each for each in parsed(html).iter("li") if each.get("class") is None and each.find(".//mark") is not None]
    assert len(lines) == firing.height
    marked = {"".join(each.itertext()).strip() for line in lines for each in line.iter("mark")}
    for row in firing.iter_rows(named=True):
        ends = [*row["offsets"][1:], len(row["text"])]
        pieces = [row["text"][begin:end] for begin, end in zip(row["offsets"], ends, strict=True)]
        strongest = pieces[max(range(len(pieces)), key=lambda at: row["activations"][at])].strip(" ")
        assert any(token_in_signs(strongest).rstrip() in each for each in marked)


def test_a_page_says_what_each_explainer_said_and_every_score(found: Trace) -> None:
    html = latent_html(found)
    assert texts(html, "ll-explanations")
    for said in found.explanations["explanation"]:
        assert said in "".join(parsed(html).itertext())
    values = found.scores.filter(pl.col("control").is_null())["value"].drop_nulls()
    assert values.len() > 3
    assert {number(value) for value in values} <= set(texts(html, "ll-value"))


def test_every_judged_window_is_there_and_the_wrong_ones_are_marked(found: Trace) -> None:
    judged = judged_windows(found, 1.0)
    own = found.judgements.filter(pl.col("control").is_null())
    cells = [each for row in judged["windows"] for each in row["verdicts"] if each is not None]
    assert len(cells) == own.height
    labelled = own.filter(pl.col("prediction").is_not_null())
    assert labelled.height
    wrong = labelled.filter(pl.col("prediction") != pl.col("is_activating")).height
    measured = own.filter(pl.col("prediction").is_null() & (pl.col("misranked") > 0.5)).height
    assert sum(each["is_wrong"] for each in cells) == wrong + measured
    assert len(texts(latent_html(found), "ll-wrong")) == wrong + measured
    shares = [row["wrong"] for row in judged["windows"]]
    assert shares == sorted(shares, reverse=True)


def test_what_was_simulated_stands_below_the_window(found: Trace) -> None:
    own = found.judgements.filter(pl.col("control").is_null(), scorer="embedding").head(1)
    length = found.examples.join(own, on=["shard", "context", "start"], how="semi")["offsets"].list.len()[0]
    simulated = [None, 9.0, *[0.0] * (length - 2)]  # of a token without text nothing is simulated
    judged = own.with_columns(simulated=pl.lit(simulated, pl.List(pl.Float64)), scorer=pl.lit("simulation"))
    (row,) = judged_windows(replace(found, judgements=judged), 1.0)["windows"]
    assert row["simulated"].count("<mark") == 1
    assert 'class="ll-10"' in row["simulated"]


def test_a_short_page_holds_less_and_says_so(found: Trace) -> None:
    brief = latent_html(found, BRIEF)
    assert len(brief) < len(latent_html(found)) / 2
    assert "1 of " in "".join(texts(brief, "ll-decile"))
    assert not texts(brief, "ll-traced")


def test_partners_in_other_dictionaries_are_shown_with_what_is_said_of_them(partnered: Trace) -> None:
    rows = partnered.partners.to_dicts()
    assert {row["other"] for row in rows} == {"copy", "half"}
    html = latent_html(partnered, link=lambda dictionary, latent: f"#{dictionary}-{latent}")
    (section,) = (each for each in parsed(html).iter("section") if each.get("class") == "ll-partners")
    lines = [["".join(cell.itertext()) for cell in line] for line in section.findall(".//tbody/tr")]
    assert lines == [
        [
            row["other"], f"{row['partner']}{' shared' if row['is_shared'] else ''}",
            *(number(row[name]) for name in ("decoder_cosine", "encoder_cosine", "jaccard")), row["explanation"] or "",
        ]
        for row in rows
    ]  # fmt: skip
    links = [each.get("href") for each in section.iter("a")]
    assert links == [f"#{row['other']}-{row['partner']}" for row in rows]
    assert "ll-partners" not in latent_html(replace(partnered, partners=partnered.partners.clear()))


def test_a_short_page_has_the_nearest_partners_and_nothing_said_of_them_is_markup(partnered: Trace) -> None:
    many = pl.concat([partnered.partners] * 4).with_columns(explanation=pl.lit(str(shown(NASTY))), other=pl.lit("<i>"))
    html = latent_html(replace(partnered, partners=many), BRIEF)
    (section,) = (each for each in parsed(html).iter("section") if each.get("class") == "ll-partners")
    assert len(section.findall(".//tbody/tr")) == BRIEF.partners
    assert f"{BRIEF.partners} of {many.height}" in "".join(section.itertext())
    assert "<script" not in html and "<i>" not in html
    assert "{{ 7 * 7 }}" in "".join(section.itertext())
    assert not list(section.iter("a"))


JUDGEMENT = {
    "explainer": "default", "error": None, "probability": None, "measure": None, "prediction": None, "misranked": None,
    "is_activating": True, "decile": 4, "source": "quantiles",
}  # fmt: skip


@pytest.mark.parametrize(
    ("judgement", "said", "is_wrong"),
    [
        ({"prediction": False, "probability": 0.25}, "no 0.25", True),
        ({"prediction": True}, "yes", False),
        ({"measure": -0.5, "misranked": 0.75}, "−0.5", True),
        ({"measure": 2.0, "misranked": 0.5}, "2", False),
        ({"measure": 2.0}, "2", None),
        ({"error": "not_json", "prediction": None}, "not json", None),
        ({"explainer": "none", "is_activating": False, "prediction": True, "probability": 0.5}, "found 0.5", False),
        ({"explainer": "none", "is_activating": False, "prediction": False}, "missed", True),
    ],
)
def test_a_verdict_is_wrong_where_the_label_or_the_order_is(
    judgement: dict[str, Any], said: str, is_wrong: bool | None
) -> None:
    given = verdict({**JUDGEMENT, **judgement})
    assert (given["said"], given["is_wrong"]) == (said, is_wrong)
    assert given["is_failed"] == ("error" in judgement)


def test_whether_a_latent_fires_is_said_in_words() -> None:
    silent = {**JUDGEMENT, "is_activating": False}
    assert truth(JUDGEMENT) == "fires, decile 5"
    assert truth({**silent, "decile": None, "source": "token_matched"}) == "silent, token matched"
    assert truth({**silent, "decile": None, "source": "wrong_tokens"}) == "fires, but not on what was marked"
    assert truth(silent) == "silent, among decile 5"


def test_of_a_latent_that_was_not_chosen_the_page_says_why(view: View) -> None:
    row = view.latents.filter(~pl.col("is_chosen")).first().collect().row(0, named=True)
    html = latent_html(traces(view, "one", [row["latent"]])[0])
    assert f"Not explained: {row['reason'] or row['triage']}." in texts(html, "ll-missing")


def test_what_is_missing_is_said(found: Trace) -> None:
    frames = {name: rows for name, rows in vars(found).items() if isinstance(rows, pl.DataFrame)}
    nothing = replace(found, **{name: rows.clear() for name, rows in frames.items()})
    assert any("not materialized" in each for each in texts(latent_html(nothing), "ll-missing"))
    chosen = replace(nothing, latents=found.latents)
    assert [each.split(";")[0] for each in texts(latent_html(chosen), "ll-missing")] == [
        "No explanation yet",
        "No windows were drawn yet",
    ]
    failed = found.explanations.with_columns(explanation=pl.lit(None, pl.String), error=pl.lit("no_reply"))
    assert "No explanation: no reply." in texts(latent_html(replace(found, explanations=failed)), "ll-missing")


def test_text_of_corpora_and_models_stays_text(found: Trace) -> None:
    cut = len(NASTY) // 2
    windows = found.examples.with_columns(
        text=pl.lit(str(shown(NASTY))),
        offsets=pl.lit([0, cut]),
        activations=pl.lit([0.0, 1.0]),
        documents=pl.lit(["<b>&amp;</b>"]),
    )
    said = found.explanations.with_columns(explanation=pl.lit(str(shown(NASTY))))
    html = latent_html(replace(found, examples=windows, explanations=said))
    assert "<script" not in html
    assert "{{ 7 * 7 }}" in "".join(parsed(html).itertext())
    whole = "".join(texts(html, "ll-windows"))
    assert "<script>alert('1')</script> & \"quoted\"" in whole
    assert "<b>&amp;</b>" in whole


@given(st.text(st.characters(codec=None, categories=None), max_size=30))  # half surrogates and control characters too
def test_whatever_a_text_holds_the_page_is_well_formed(text: str) -> None:
    window = {"text": text, "offsets": [0, len(text) // 2], "activations": [0.0, 1.0]}
    html = highlighted(window, 1.0)
    assert "".join(parsed(f"<p>{html}</p>").itertext()).count("<") == text.count("<")
    (image,) = pictures(glimpses([Glimpse(text, text, [window], text)]))
    assert image.tag.endswith("svg")


def pictures(markdown: str) -> Iterator[ElementTree.Element]:
    for coded in re.findall(r"\(data:image/svg\+xml;base64,([A-Za-z0-9+/=]+)\)", markdown):
        yield parsed(base64.b64decode(coded).decode())


def test_marks_are_as_strong_as_activations() -> None:
    window = {
        "text": "a b c d\ne" + SEPARATOR + "f",
        "offsets": [0, 1, 3, 5, 7],
        "activations": [0.0, 0.01, 5.0, 10.0, 0],
    }
    assert highlighted(window, 10.0) == (
        'a <mark class="ll-1">b</mark> <mark class="ll-5">c</mark> <mark class="ll-10">d</mark>↵ e ¶ f'
    )
    assert [level_of(value, 10.0) for value in (0.0, 1e-9, 1.0, 1.01, 10.0, 11.0)] == [0, 1, 1, 2, 10, 10]
    assert level_of(1.0, 0.0) == 0
    assert token_in_signs(" the") == "␣the"
    assert token_in_signs("  ") == "␣␣"


def test_a_glimpse_shows_what_the_latent_fires_on_most() -> None:
    text = "".join(f"word{number:03} " for number in range(40))
    window = {"text": text, "offsets": [8 * at for at in range(40)], "activations": [0.0] * 30 + [1.0] + [0.0] * 9}
    seen = in_view(window)
    assert seen["text"].startswith("…")
    assert seen["text"].index("word030") <= 61
    assert highlighted(seen, 1.0).count("<mark") == 1
    assert '<mark class="ll-10">word030' in highlighted(seen, 1.0)
    assert in_view({**window, "activations": [1.0] + [0.0] * 39})["text"] == text


def test_a_document_stands_alone(found: Trace) -> None:
    html = document("a <title>", latent_html(found, BRIEF))
    assert html.startswith("<!DOCTYPE html>")
    assert "<title>a &lt;title&gt;</title>" in html
    assert not re.search(r"<script|<link|url\(|@import|src=", html)
    parsed(html.removeprefix("<!DOCTYPE html>"))


def test_classes_are_declared_or_only_name_things() -> None:
    """Every class of the style sheet is used by a template, so that nothing dead stands in it."""
    folder = Path(__file__).parents[1] / "latentlake" / "pages"
    used = "".join(path.read_text() for path in [*folder.glob("templates/*"), *folder.glob("*.py")])
    declared = {each for each in re.findall(r"\.(ll-[a-z]+)", style()) if each != "ll-"}
    assert declared
    assert {each for each in declared if each not in used and each.removeprefix("ll-") not in ("explorer",)} == set()
