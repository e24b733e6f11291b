"""Ratings by people: read from files of several forms, and scores like others."""

import gzip
import json
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import scipy.stats

from latentlake.errors import InputError, StudyError
from latentlake.files import FileFacts
from latentlake.imported import RATING, File, look
from latentlake.measures.scoring import means
from latentlake.reading.summary import by_latent
from latentlake.scorers.ratings import Ratings
from tests.workbench import LATENTS, Workbench

ENTRIES = [(7, 3), (0, 0.5), (7, 4.5), (12, -1), (7, 3)]
READ = [(0, 0.5), (7, 3.0), (7, 4.5), (7, 3.0), (12, -1.0)]


def looked(path: Path) -> File:
    return look(path, RATING, FileFacts(path.parent / "cache"))


def as_lines(path: Path) -> None:
    path.write_text("\n".join(json.dumps({"latent": latent, "rating": rating}) for latent, rating in ENTRIES))


def as_csv(path: Path) -> None:
    path.write_text("rating,who,latent\n" + "\n".join(f"{rating},me,{latent}" for latent, rating in ENTRIES))


def as_gzip(path: Path) -> None:
    as_csv(path)
    path.write_bytes(gzip.compress(path.read_bytes()))


def as_parquet(path: Path) -> None:
    pl.DataFrame(ENTRIES, schema={"latent": pl.Int64, "rating": pl.Float32}, orient="row").write_parquet(path)


FORMS = {"a.jsonl": as_lines, "a.csv": as_csv, "a.csv.gz": as_gzip, "a.parquet": as_parquet}


@pytest.mark.parametrize("name", FORMS)
def test_several_people_may_rate_a_latent(tmp_path: Path, name: str) -> None:
    FORMS[name](tmp_path / name)
    file = looked(tmp_path / name)
    assert file.last == 12
    assert file.read().rows() == READ


def test_an_object_has_a_rating_a_latent(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text('{"3": 4, "1": 2.5}')
    assert looked(tmp_path / "a.json").read().rows() == [(1, 2.5), (3, 4.0)]


BAD: dict[str, tuple[str, str, str]] = {
    "a text": ("a.json", '{"1": 2, "3": "good"}', "entry 2: a rating must be a number, and is 'good'"),
    "a text of a number": ("a.json", '{"3": "4"}', "entry 1: a rating must be a number"),
    "a truth value": ("a.jsonl", '{"latent": 1, "rating": true}', "line 1: a rating must be a number, and is True"),
    "nothing": ("a.jsonl", '\n{"latent": 1, "rating": null}', "line 2: a rating must be a number, and is None"),
    "no number": ("a.jsonl", '{"latent": 1, "rating": NaN}', "line 1: a rating must be a number, and is nan"),
    "beyond all numbers": ("a.json", '{"1": 1' + 400 * "0" + "}", "entry 1: a rating must be a number"),
    "a list": ("a.json", '{"1": [1, 2]}', "entry 1: a rating must be a number"),
    "twice in an object": ("a.json", '{"3": 1, "3": 2}', "entry 2: the latent 3 is there a second time; leave one rating"),
    "an empty cell": ("a.csv", "latent,rating\n1,2\n3,\n", "row 2: a rating must be a number, and is None"),
    "words in a cell": ("a.csv", "latent,rating\n1,2\n3,2/5\n", "row 2: a rating must be a number, and is '2/5'"),
    "infinity": ("a.csv", "latent,rating\n1,inf\n", "row 1: a rating must be a number, and is 'inf'"),
    "no column": ("a.csv", "latent,ratng\n3,1\n", "no column 'rating'.*'ratng'"),
    "another column": ("a.jsonl", '{"latent": 3, "score": 1}', 'line 1: it must be like {"latent": 0, "rating": 0.5}'),
    "no latent": ("a.csv", "latent,rating\n-3,1\n", "row 1: the latent must be"),
    "no entry": ("a.csv", "latent,rating\n", "holds no rating; remove it from the study or fill it"),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
def test_a_bad_file_is_refused_with_its_place(tmp_path: Path, case: str) -> None:
    name, text, said = BAD[case]
    (tmp_path / name).write_text(text)
    with pytest.raises(InputError, match=said) as refused:
        looked(tmp_path / name)
    assert str(tmp_path / name) in str(refused.value)


@pytest.mark.parametrize(("kind", "said"), [(pl.String, "and is String"), (pl.Boolean, "and is Boolean")])
def test_a_column_of_another_type_is_refused(tmp_path: Path, kind: Any, said: str) -> None:
    pl.DataFrame({"latent": [1], "rating": [1]}).cast({"rating": kind}).write_parquet(tmp_path / "a.parquet")
    with pytest.raises(InputError, match=f"a rating must be a number, {said}"):
        looked(tmp_path / "a.parquet")


# scores


def test_a_score_is_the_mean_of_the_people_with_its_interval() -> None:
    rows = pl.DataFrame({"latent": [1, 1, 1, 2], "control": [None] * 4, "rating": [1.0, 2.0, 4.0, 5.0]})
    one, other = means(rows.cast({"control": pl.String}), "rating").sort("latent").to_dicts()
    known = scipy.stats.ttest_1samp([1, 2, 4], 0).confidence_interval(0.95)
    assert [one[name] for name in ("value", "low", "high")] == pytest.approx([7 / 3, known.low, known.high])
    assert (one["n"], one["n_failed"], one["error"]) == (3, 0, None)
    assert (other["value"], other["low"], other["high"], other["n"]) == (5.0, None, None, 1)


def test_a_summary_has_no_brackets_where_there_is_no_control() -> None:
    keys = {"dictionary": "one", "latent": 3, "explainer": "default"}
    rated = {**keys, "scorer": "people", "control": None, "value": 2.5, "n": 1}
    judged = [{**rated, "scorer": "detection", "control": control, "value": 0.5} for control in (None, "shuffled")]
    shown = by_latent(pl.DataFrame([rated, *judged]), pl.DataFrame([{**keys, "explanation": "dogs", "error": None}]))
    assert shown.select("people", "detection").row(0) == ("2.50", "0.50 (0.50)")


def test_what_has_no_explanation_or_no_rating_says_so() -> None:
    scorer = Ratings(method="ratings", explainers=("e",), files={})
    schema = {"latent": pl.Int32, "control": pl.String, "error": pl.String, "rating": pl.List(pl.Float64)}
    rows = [(1, None, None, [2.0, 3.0]), (2, None, "no_explanation", [5.0]), (3, None, "not_rated", None)]
    given = pl.DataFrame(rows, schema=schema, orient="row")
    judgements = pl.DataFrame(schema={"latent": pl.Int32, "control": pl.String, "error": pl.String})
    scores, slices = scorer.score(given, judgements)
    assert scores.select("latent", "metric", "value", "n", "error").rows() == [
        (1, "rating", 2.5, 2, None), (2, "rating", None, 0, "no_explanation"), (3, "rating", None, 0, "not_rated"),
    ]  # fmt: skip
    assert slices.is_empty()


# from a lake


def rate(bench: Workbench, text: str, dictionary: str = "one", name: str = "rated.csv") -> None:
    (bench.folder / name).write_text(text)
    bench.study["scorers"]["people"] = {"method": "ratings", "explainers": ["default"], "files": {dictionary: name}}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (f"latent,rating\n{LATENTS},1", f"rates the latent {LATENTS}, and the dictionary has {LATENTS}"),
        ("latent,rating\n1,good", r"scorers\.people\.files\.one: .*rated\.csv, row 1: a rating must be a number"),
    ],
)
def test_a_bad_file_is_refused_before_any_work(workbench: Workbench, text: str, said: str) -> None:
    rate(workbench, text)
    with pytest.raises(InputError, match=said):
        workbench.run()
    (workbench.folder / "rated.csv").unlink()
    with pytest.raises(InputError, match=r"there is no file .*it must hold ratings by latent"):
        workbench.run()
    assert not (workbench.folder / "lake").exists()


def test_files_are_of_dictionaries_of_the_study(workbench: Workbench) -> None:
    rate(workbench, "latent,rating\n1,1", "onne")
    with pytest.raises(StudyError, match=r"refers to dictionaries\.onne, which is not there .*'one'"):
        workbench.prepare()


def test_ratings_are_scores_like_others(materialized: Workbench) -> None:
    chosen = materialized.view().latents.filter("is_chosen").sort("latent").collect()["latent"].to_list()
    rated = {latent: [float(n), n * n / 2][: 1 + n % 2] for n, latent in enumerate(chosen[:-1])}
    lines = [f"{latent},{rating}" for latent, ratings in rated.items() for rating in ratings]
    rate(materialized, "\n".join(["latent,rating", *lines]))
    assert materialized.run() == {"scores/default/people": 2, "agreements": 1}
    view = materialized.view()
    own = view.scores.filter(scorer="people").sort("latent").collect()
    assert own.select("latent", "control", "metric", "value", "n", "error").rows() == [
        *((latent, None, "rating", sum(each) / len(each), len(each), None) for latent, each in rated.items()),
        (chosen[-1], None, "rating", None, 0, "not_rated"),
    ]
    assert view.judgements.filter(scorer="people").collect().is_empty()
    judged = view.scores.filter(pl.col("control").is_null(), scorer="detection", metric="auroc").collect()
    both = own.join(judged, on="latent").drop_nulls(["value", "value_right"])
    (row,) = view.agreements.filter(scorer="detection", other="people").collect().to_dicts()
    assert (row["metric"], row["other_metric"], row["latents"]) == ("auroc", "rating", len(both))
    assert row["spearman"] == pytest.approx(scipy.stats.spearmanr(both["value"], both["value_right"]).statistic)
    # what a file holds counts, and not where it lies
    rate(materialized, "\n".join(["latent,rating", *lines, f"{chosen[-1]},2"]))
    assert materialized.run() == {"scores/default/people": 2, "agreements": 1}
    (materialized.folder / "moved.csv").write_text((materialized.folder / "rated.csv").read_text())
    materialized.study["scorers"]["people"]["files"]["one"] = "moved.csv"
    assert materialized.run() == {}
    assert materialized.dagster_stale() == {}
