"""The report: what it shows is what there is, it needs nothing beside it, and text stays text."""

import json
import re
from collections import Counter
from collections.abc import Mapping
from hashlib import sha256
from io import BytesIO
from itertools import pairwise, permutations
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import polars as pl
import pytest

from latentlake.catalog import Catalog
from latentlake.cli import main
from latentlake.errors import StudyError
from latentlake.flow import Flow
from latentlake.keeping.beside import Beside
from latentlake.keeping.prune import prune
from latentlake.keeping.reported import FILE, said_of
from latentlake.keeping.upkeep import maintain
from latentlake.lake import Lake
from latentlake.pages import figures
from latentlake.pages.report import report
from latentlake.plan import Plan
from latentlake.reading.picks import Judge, picks, ranking
from latentlake.reading.results import Results
from latentlake.reading.view import View, open_lake
from latentlake.registry import EXPLAINERS, SCORERS
from latentlake.sections.results import Report
from latentlake.sources import MILLIONS
from latentlake.tables import TABLES
from tests.workbench import EVERYTHING, Workbench

NASTY = "<script>alert('1')</script> & \"quoted\" ]]> \x00\x1b \u202eright to left {{ 7 * 7 }}"
FEW = {"best": 2, "worst": 2, "random": 2}


class Changed:
    """Results of which some tables are others."""

    def __init__(self, view: View, study: Mapping[str, Any] | None = None, **frames: pl.LazyFrame) -> None:
        self._view, self._frames = view, frames
        self.study = dict(study) if study is not None else view.study
        self.uri = view.uri

    def latest(self) -> pl.DataFrame:
        """The same."""
        return self._view.latest()

    def __getattr__(self, table: str) -> pl.LazyFrame:
        frame: pl.LazyFrame = self._frames[table] if table in self._frames else getattr(self._view, table)
        return frame


@pytest.fixture(scope="module")
def view(finished: Path) -> View:
    """The finished study."""
    return open_lake(f"{finished}/study/lake")


@pytest.fixture(scope="module")
def html(view: View) -> str:
    """Its report."""
    return report(view).html


@pytest.fixture(scope="module")
def comparing(compared: Path) -> View:
    """A study that compares dictionaries."""
    return open_lake(f"{compared}/study/lake")


def parsed(html: str) -> ElementTree.Element:
    """A report as XML, which it must be."""
    return ElementTree.fromstring(html)


def text_of(html: str) -> str:
    """What a reader reads, in one line."""
    body = parsed(html).find("body")
    assert body is not None
    return " ".join("".join(body.itertext()).split())


def require_sound(html: str) -> None:
    """Well-formed, without scripts, and needing nothing beside it; ids are unique, and links within lead somewhere."""
    elements = list(parsed(html).iter())
    tags = {each.tag.rpartition("}")[2] for each in elements}
    assert not tags & {"script", "link", "iframe", "object", "embed", "img", "image", "use", "form"}
    ids = Counter(each.get("id") for each in elements if each.get("id") is not None)
    assert [name for name, n in ids.items() if n > 1] == []
    attributes = [(name.rpartition("}")[2], value) for each in elements for name, value in each.items()]
    assert not [name for name, _ in attributes if name == "src" or name.startswith("on")]
    links = [value for name, value in attributes if name == "href"]
    assert {link[1:] for link in links if link.startswith("#")} <= ids.keys()
    assert all(link.startswith(("#", "https://arxiv.org/", "https://openaipublic.")) for link in links)
    assert "@import" not in html and not re.search(r"url\((?!#)", html)
    levels = [int(each.tag[1]) for each in elements if re.fullmatch("h[1-6]", each.tag)]
    assert levels[0] == 1 and levels.count(1) == 1
    assert all(below <= above + 1 for above, below in pairwise(levels))


def test_a_report_is_sound_and_the_same_each_time(view: View, html: str) -> None:
    require_sound(html)
    assert report(view).html == html


def test_figures_do_not_depend_on_the_order_of_a_sum() -> None:
    values = [0.14, 0.32, 0.27, 1.0, 0.79, 0.99]
    means = [pl.DataFrame({"mean": [sum(order) / len(order)]}) for order in permutations(values)]
    assert len({f"{each.item():.2f}" for each in means}) == 2
    assert len({f"{figures.steady(each).item():.2f}" for each in means}) == 1


def test_it_has_each_explanation_and_the_scores_beside_the_controls(view: View, html: str) -> None:
    said = text_of(html)
    explanations = view.explanations.collect()["explanation"].drop_nulls()
    assert len(explanations) == 12
    assert all(" ".join(each.split()) in said for each in explanations)
    rows = [each for each in parsed(html).iter("tr") if each.find("th") is not None]
    means = {"".join(row.find("th").itertext()): ["".join(each.itertext()) for each in row.iter("td")] for row in rows}  # type: ignore[union-attr]
    own = view.scores.filter(pl.col("control").is_null(), scorer="embedding", explainer="default", metric="auroc")
    mean = own.select(pl.col("value").mean()).collect().item()
    assert means["embedding of default"][1] == f"{mean:.2f}"
    for section in ("Overview", "Scores", "Methods and controls", "Versions", "How to reproduce", "How to cite"):
        assert section in said
    assert MILLIONS.url in html and MILLIONS.title in said
    digests = view.dictionaries.collect()["digest"].to_list() + view.subject.collect()["digest"].to_list()
    assert all(each in said for each in digests)
    assert json.loads((view.study or {})["choices"])["corpus"]["sources"]["docs"]["path"] in said


def test_latents_are_shown_once_and_linked_to_one_another(view: View) -> None:
    made = report(view)
    assert (made.latents, made.shown, made.listed, made.missing) == (6, 6, 6, ())
    pages = [each.get("id") for each in parsed(made.html).iter("article")]
    chosen = view.latents.filter("is_chosen").collect()["latent"]
    assert sorted(pages) == sorted(f"one-{latent}" for latent in chosen)  # type: ignore[type-var]


def test_a_latent_stands_under_the_heading_of_its_group(html: str) -> None:
    groups = [each for each in parsed(html).iter("section") if each.find("article") is not None]
    assert groups
    for group in groups:
        assert [each.tag for each in group if each.tag.startswith("h")] == ["h2"]
        for article in group.iter("article"):
            tags = [each.tag for each in article.iter() if re.fullmatch("h[1-6]", each.tag)]
            assert tags[0] == "h3" and set(tags[1:]) == {"h4", "h5"}


def rows_of(html: str, label: str) -> list[list[str]]:
    """The cells of a table's rows, by what it is called."""
    (table,) = (each for each in parsed(html).iter("div") if each.get("aria-label") == label)
    return [[" ".join("".join(cell.itertext()).split()) for cell in row] for row in table.findall(".//tbody/tr")]


def test_dictionaries_that_are_compared_stand_in_tables_and_maps(comparing: View, compared: Path, html: str) -> None:
    made = report(comparing).html
    require_sound(made)
    assert (compared / "study" / "lake" / "tiny" / FILE).read_text() == made
    assert "The study has no scorers." in text_of(made)
    sums = {(row["comparison"], row["pair"], row["by"]): row for row in comparing.comparisons.collect().to_dicts()}
    alike = {(row["comparison"], row["pair"], row["by"]): row for row in comparing.similarities.collect().to_dicts()}

    def ends(row: Mapping[str, Any], name: str = "mean", prefix: str = "") -> str:
        return f"{row[name]:.2f} {row[f'{prefix}low']:.2f} to {row[f'{prefix}high']:.2f}"

    for comparison, ways, of in (("every", ("decoder", "encoder"), "both"), ("fires", ("activations",), "activations")):
        rows = rows_of(made, f"Pairs of {comparison}")
        assert [row[0] for row in rows] == ["copy-half", "copy-one", "half-one"]
        for pair, *cells in rows:
            own, said = sums[comparison, pair, of], alike[comparison, pair, ways[0]]
            assert cells == [
                *(ends(sums[comparison, pair, way]) for way in ways),
                str(own["pairs"]),
                f"{own['similar']} {own['share']:.2f}",
                f"{own['similar_firing']} {own['share_firing']:.2f}",
                ends(said),
                f"{said['shuffled']:.2f}",
                ends(said, "difference", "difference_"),
            ]
    ((_, *_, aligned, _, _),) = rows_of(made, "Pairs of near")
    assert aligned == f"≈{sums['near', 'copy-one', 'both']['pairs']}"
    pictures = [each.get("aria-label") for each in parsed(made).iter("div") if each.get("role") == "img"]
    assert "every: mean similarity by decoder" in pictures
    assert sum(str(each).endswith("beside their partner’s, and another’s") for each in pictures) == 2
    assert 'id="comparisons"' not in html and "#comparisons" not in html


def test_partners_that_are_shown_are_linked(comparing: View) -> None:
    choices = json.loads((comparing.study or {})["choices"]) | {"report": {"random": 64, "best": 0, "worst": 0}}
    made = report(Changed(comparing, {**(comparing.study or {}), "choices": json.dumps(choices)})).html
    require_sound(made)
    shown = {str(each.get("id")) for each in parsed(made).iter("article")}
    sections = [each for each in parsed(made).iter("section") if each.get("class") == "ll-partners"]
    assert len(sections) == len(shown) > 100
    for row in (row for each in sections for row in each.findall(".//tbody/tr")):
        other, partner = row.findtext("td"), row.find("th")
        assert partner is not None
        named = f"{other}-{''.join(partner.itertext()).split()[0]}"
        assert [each.get("href") for each in row.iter("a")] == ([f"#{named}"] if named in shown else [])


def test_what_is_not_compared_yet_or_cannot_be_is_said(comparing: View) -> None:
    none = {name: TABLES[name].empty().lazy() for name in ("alignments", "comparisons", "similarities")}
    made = report(Changed(comparing, **none)).html
    require_sound(made)
    assert text_of(made).count("were not compared yet; run the study") == 3
    assert "ll-partners" not in made.partition("</style>")[2]
    null = {name: pl.lit(None, pl.Float64) for name in ("mean", "low", "high", "share_firing")}
    other = comparing.comparisons.with_columns(**null, error=pl.lit("other_space"), pairs=pl.lit(0, pl.Int64))
    made = report(Changed(comparing, **none | {"comparisons": other})).html
    require_sound(made)
    assert rows_of(made, "Pairs of every") == [
        [pair, "–", "–", "other space"] for pair in ("copy-half", "copy-one", "half-one")
    ]


def test_explainers_have_a_line_each_and_many_pairs_fold(comparing: View) -> None:
    both = pl.concat([comparing.similarities, comparing.similarities.with_columns(explainer=pl.lit("<b>"))])
    made = report(Changed(comparing, similarities=both)).html
    require_sound(made)
    rows = rows_of(made, "Pairs of every")
    assert [row[-4] for row in rows] == ["<b>", "tokens"] * 3
    assert [len(row) for row in rows] == [10, 4] * 3

    names = [f"layer{number}" for number in range(12)]
    pairs = pl.DataFrame(
        [(one, other) for place, one in enumerate(names) for other in names[place + 1 :]], orient="row"
    )
    named = pairs.select(
        dictionary="column_0", other="column_1", pair=pl.concat_str("column_0", "column_1", separator="-")
    )
    many = {
        name: getattr(comparing, name)
        .filter(comparison="every", pair="copy-one")
        .drop("dictionary", "other", "pair")
        .join(named.lazy(), how="cross")
        .select(TABLES[name].empty().columns)
        for name in ("comparisons", "similarities")
    }
    made = report(Changed(comparing, **many)).html
    require_sound(made)
    assert "66 pairs" in text_of(made)
    assert [row[0] for row in rows_of(made, "Pairs of every")] == named["pair"].to_list()
    assert "another’s" not in made


def frames(values: Mapping[int, float | None]) -> dict[str, pl.LazyFrame]:
    """Latents and their scores by one judge."""
    latents = pl.DataFrame({"dictionary": "one", "latent": list(values), "is_chosen": True})
    rows = [
        {"dictionary": "one", "explainer": "e", "scorer": "s", "metric": "auroc", "control": control, "latent": n, "value": v}
        for n, v in values.items()
        for control in (None, "shuffled")
    ]  # fmt: skip
    types = {name: TABLES["scores"].empty().schema[name] for name in rows[0]}
    scores = pl.DataFrame(rows, schema=types)
    scores = scores.with_columns(value=pl.when(pl.col("control").is_null()).then("value").otherwise(9.0))
    cast = pl.col("latent").cast(pl.Int32)
    return {"latents": latents.with_columns(cast).lazy(), "scores": scores.lazy()}


def picked(view: View, values: Mapping[int, float | None], **choices: Any) -> Any:
    results: Results = Changed(view, **frames(values))
    return picks(results, "one", Judge("e", "s", "auroc"), Report(**choices), seed=1)


def test_the_best_and_the_worst_are_by_score_and_ties_by_latent(view: View) -> None:
    values = {9: 0.5, 3: 0.9, 4: 0.9, 5: 0.1, 1: 0.5, 2: None, 8: 0.5}
    found = picked(view, values, best=3, worst=3, random=0, listed=7)
    assert found.best == (3, 4, 1)
    assert found.worst == (5, 1, 8)
    assert found.shown == [3, 4, 1, 5, 8]
    assert found.listed == (3, 4, 1, 8, 9, 5, 2)
    assert found.chosen == 7


def test_random_latents_follow_from_nothing_but_their_numbers(view: View) -> None:
    values = {n: float(n % 7) for n in range(400)}
    found = picked(view, values, random=40, listed=100)
    shuffled = {int(n): -values[int(n)] for n in np.random.default_rng(1).permutation(400)}
    other = picked(view, shuffled, random=40, listed=100)
    assert found.random == other.random and sorted(found.listed) == sorted(other.listed)
    assert set(found.random) <= set(found.listed)
    assert picked(view, values, random=20).random == found.random[:20]
    assert 120 < np.mean(found.random) < 280
    fewer = picked(view, dict.fromkeys(range(0, 400, 2), 0.0), random=400)
    assert [n for n in picked(view, values, random=400).random if n % 2 == 0] == list(fewer.random)


def test_a_list_has_as_many_latents_as_the_study_says_and_tells_how_many_there_are(view: View) -> None:
    choices = json.loads((view.study or {})["choices"]) | {"report": {"best": 1, "worst": 0, "random": 0, "listed": 4}}
    made = report(Changed(view, {**(view.study or {}), "choices": json.dumps(choices)}))
    assert (made.shown, made.listed) == (1, 4)
    assert "4 of 6, drawn by a hash of their numbers" in text_of(made.html)
    require_sound(made.html)


@pytest.mark.parametrize(
    ("chosen", "judge"),
    [
        ({}, ("tokens", "embedding", "auroc")),
        ({"scorer": "detection"}, ("default", "detection", "auroc")),
        ({"explainer": "default"}, ("default", "embedding", "auroc")),
    ],
)
def test_latents_are_ranked_by_who_is_named_or_comes_first(view: View, chosen: Any, judge: tuple[str, ...]) -> None:
    choices = json.loads((view.study or {})["choices"])
    assert ranking(view, choices, Report(**chosen)) == judge


@pytest.mark.parametrize(
    ("section", "said"),
    [
        ({"scorer": "embeding"}, r"report.scorer names embeding, which is not in scorers.*embedding"),
        (
            {"explainer": "tokens", "scorer": "detection"},
            "report.explainer is tokens, whose explanations detection does",
        ),
        ({"explainer": "other"}, "explainers.other"),
        ({"best": -1}, "line"),
        ({"bests": 1}, "best"),
    ],
)
def test_a_section_that_cannot_be_followed_is_refused(workbench: Workbench, section: Any, said: str) -> None:
    workbench.study["report"] = section
    with pytest.raises(StudyError, match=said):
        workbench.prepare()


def test_text_of_corpora_models_and_people_stays_text(view: View) -> None:
    nasty, hot = pl.lit(NASTY), [{"token": 1, "text": NASTY, "count": 1, "mass": 1.0}]
    documents = pl.col("documents").list.eval(pl.element().struct.with_fields(document=nasty))
    tokens = {name: pl.lit(hot, TABLES["latents"].empty().schema[name]) for name in ("top_tokens", "tokens_after")}
    choices = json.loads((view.study or {})["choices"])
    choices["corpus"]["sources"]["docs"]["path"] = NASTY
    changed = Changed(
        view,
        {**(view.study or {}), "choices": json.dumps(choices)},
        explanations=view.explanations.with_columns(explanation=nasty),
        contexts=view.contexts.with_columns(documents=documents),
        examples=view.examples.with_columns(text=nasty + pl.col("text")),
        latents=view.latents.with_columns(**tokens),
        subject=view.subject.with_columns(reference=nasty),
    )
    html = report(changed).html
    require_sound(html)
    assert "<script" not in html
    shown = NASTY.translate({0: "␀", 0x1B: "␛"})
    assert text_of(html).count(" ".join(shown.split())) > 20
    assert "49" not in re.findall(r"left (\S+)", text_of(html))


def test_failed_and_missing_explanations_are_said_to_be_so(view: View) -> None:
    failed = view.explanations.with_columns(explanation=pl.lit(None, pl.String), error=pl.lit("refused_it"))
    made = report(Changed(view, explanations=failed))
    require_sound(made.html)
    assert "none: refused it" in text_of(made.html) and "12 failed" in text_of(made.html)


def test_where_no_latent_is_chosen_there_are_none(view: View) -> None:
    skipped = view.latents.with_columns(is_chosen=False, reason=pl.lit("few windows"))
    none = {
        name: TABLES[name].empty().lazy() for name in ("scores", "slices", "judgements", "explanations", "examples")
    }
    made = report(Changed(view, latents=skipped, **none))
    require_sound(made.html)
    assert (made.latents, made.shown, made.listed) == (0, 0, 0)
    assert "No latent of one is chosen" in text_of(made.html) and "There are no scores yet" in text_of(made.html)


def test_an_empty_lake_has_a_report_that_says_so(tmp_path: Path) -> None:
    made = report(View(Lake(str(tmp_path), "tiny")))
    require_sound(made.html)
    assert "No study was ever run" in text_of(made.html)


def test_a_half_finished_study_has_one_that_says_what_is_missing(
    workbench: Workbench, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    workbench.prepare().execute("data")
    made = report(workbench.view())
    require_sound(made.html)
    assert made.missing[:2] == ("explanations/tokens", "explanations/default") and made.shown == 6
    assert "This study is not finished. Nothing is there yet of explanations/tokens" in text_of(made.html)
    out = tmp_path / "new" / "half.html"
    lake = ["--lake", str(workbench.folder / "lake")]
    assert main([*lake, "report", "--out", str(out)]) == 0
    assert out.read_text() == made.html
    assert "6 of 6 latents in full" in capsys.readouterr().out
    assert main([*lake, "report", "--out", str(workbench.folder)]) == 1
    assert "name another file with --out" in capsys.readouterr().err


def test_while_a_dictionary_is_opened_anew_its_latents_are_listed_without_pages(view: View) -> None:
    made = report(Changed(view, dictionaries=view.dictionaries.filter(pl.lit(False))))
    require_sound(made.html)
    assert (made.latents, made.shown, made.listed) == (6, 0, 6)
    assert "not verified yet" in text_of(made.html)


def test_the_command_makes_one_of_an_empty_lake(workbench: Workbench, tmp_path: Path) -> None:
    workbench.prepare()
    empty = ["--lake", str(tmp_path / "none"), "--study-file", str(workbench.path)]
    assert main([*empty, "report", "--out", str(tmp_path / "r.html")]) == 0
    assert "No study was ever run" in (tmp_path / "r.html").read_text()


def test_the_report_is_made_again_exactly_when_what_it_shows_changes(materialized: Workbench) -> None:
    materialized.study["report"] = FEW
    assert materialized.run() == {"report": 1}
    assert materialized.run() == {}
    file = materialized.folder / "lake" / "tiny" / FILE
    content = file.read_bytes()
    (row,) = materialized.view().reports.collect().to_dicts()
    assert row == {
        "file": FILE, "sha256": sha256(content).hexdigest(), "bytes": len(content), "latents": 6, "shown": row["shown"],
        "listed": 6,
    }  # fmt: skip
    assert 2 <= row["shown"] <= 6
    require_sound(content.decode())
    assert report(materialized.view()).html == content.decode()  # the command's, of the same lake
    assert said_of(materialized.lake.open("tiny")) == f"the report is {file}"
    assert materialized.dagster_stale() == Counter()

    materialized.study["report"] = {**FEW, "best": 3}
    assert materialized.run() == {"report": 1}
    materialized.study["checks"] = {"control": 0.2}  # it shows the choices
    assert materialized.run() == {"report": 1}
    del materialized.study["scorers"]["surprisal"]
    assert materialized.run() == {"agreements": 1, "report": 1}
    assert "scorer surprisal" not in text_of(file.read_text())


def test_a_first_run_makes_it_last(workbench: Workbench) -> None:
    workbench.study["report"] = FEW
    assert workbench.run() == {**EVERYTHING, "report": 1}
    assert list(Flow(workbench.prepare().study).stages)[-1] == "report"


def test_a_report_that_is_lost_is_said_to_be(materialized: Workbench) -> None:
    lake = materialized.lake.open("tiny")
    assert "there is no report yet" in said_of(lake)
    materialized.study["report"] = FEW
    materialized.run()
    Path(lake.beside(FILE)).write_text("half")
    assert "was deleted or changed; `latentlake report --out FILE`" in said_of(lake)


def test_maintenance_keeps_a_report_and_deletes_one_that_was_pruned(materialized: Workbench) -> None:
    materialized.study["report"] = FEW
    materialized.run()
    lake = materialized.lake.open("tiny")
    file, own = Path(lake.beside(FILE)), Path(lake.beside("notes.txt"))
    own.write_text("somebody's")
    maintain(lake, vacuum_hours=0)
    assert file.is_file() and own.is_file()
    assert materialized.run() == {}
    materialized.study["report"] = None
    run = materialized.prepare()
    orphans = Plan(run.flow, run.origins, Catalog(lake)).orphans
    assert orphans == [("report", "")]
    prune(lake, orphans)
    maintain(lake, vacuum_hours=0)
    assert not file.exists() and own.is_file()


class Breaking(BytesIO):
    """A file whose reader is killed in the middle."""

    def read(self, size: int | None = -1, /) -> bytes:
        """Some bytes, and then nothing more."""
        if self.tell():
            raise KeyboardInterrupt
        return super().read(10)


@pytest.mark.parametrize("scheme", ["", "file://"])  # a folder, and a store behind an address
def test_a_file_is_replaced_whole_or_not_at_all(tmp_path: Path, scheme: str) -> None:
    lake = Lake(f"{scheme}{tmp_path}/lake", "study")
    (tmp_path / "lake" / "study" / "table").mkdir(parents=True)
    (tmp_path / "lake" / "study" / "table" / "rows").write_text("rows")
    beside = Beside(lake)
    assert beside.size(FILE) is None
    beside.put(FILE, BytesIO(b"old and whole"))
    beside.put(FILE, BytesIO(b"new"))
    assert beside.size(FILE) == 3
    with pytest.raises(KeyboardInterrupt):
        beside.put(FILE, Breaking(b"much longer than the one that is there"))
    assert beside.open(FILE).read() == b"new"
    assert beside.sweep(lambda name: True, hours=1) == 0  # it may be under way
    beside.sweep(lambda name: True, hours=0)
    assert [each.name for each in (tmp_path / "lake" / "study").iterdir() if each.is_file()] == [FILE]
    assert (tmp_path / "lake" / "study" / "table" / "rows").is_file()
    assert beside.sweep(lambda name: name != FILE, hours=0) == 1
    assert beside.size(FILE) is None


def test_every_method_says_what_it_does_and_where_it_is_from() -> None:
    methods = [*EXPLAINERS.classes().values(), *SCORERS.classes().values()]
    assert len(methods) > 15
    sources = {method.source for method in methods} - {None}
    assert len(sources) == 4
    for source in sources:
        assert source.url.startswith("https://") and str(source.year) in source.short
        assert source.bibtex.startswith(f"@misc{{{source.key},") and source.bibtex.count("{") == source.bibtex.count(
            "}"
        )
