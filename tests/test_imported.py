"""Explanations come from files of several forms, and what is no explanation is refused or says so."""

import gzip
import json
from pathlib import Path
from typing import Any, cast

import polars as pl
import pytest

from latentlake.errors import InputError, StudyError
from latentlake.explainers import Hypothesis
from latentlake.explainers.imported import Imported
from latentlake.files import FileFacts
from latentlake.imported import EXPLANATION, File, Saying, look
from tests.workbench import LATENTS, Workbench

ENTRIES = [(7, "of seven"), (0, " of nought \n"), (12, None)]
READ = [(0, "of nought"), (7, "of seven"), (12, None)]


def as_json(path: Path) -> None:
    path.write_text(json.dumps({str(latent): text for latent, text in ENTRIES}))


def as_lines(path: Path) -> None:
    path.write_text("\n\n".join(json.dumps({"latent": latent, "explanation": text}) for latent, text in ENTRIES))


def as_csv(path: Path) -> None:
    path.write_text("explanation,latent,by\n" + "\n".join(f'"{text or ""}",{latent},me' for latent, text in ENTRIES))


def as_parquet(path: Path) -> None:
    pl.DataFrame(ENTRIES, schema=["latent", "explanation"], orient="row").write_parquet(path)


def as_gzip(path: Path) -> None:
    path.write_bytes(gzip.compress(json.dumps({str(latent): text for latent, text in ENTRIES}).encode()))


FORMS = {"a.json": as_json, "a.jsonl": as_lines, "a.csv": as_csv, "a.parquet": as_parquet, "a.json.gz": as_gzip}


def looked(path: Path, saying: Saying = EXPLANATION) -> File:
    return look(path, saying, FileFacts(path.parent / "cache"))


@pytest.mark.parametrize("name", FORMS)
def test_a_file_is_read_in_the_form_of_its_suffix(tmp_path: Path, name: str) -> None:
    FORMS[name](tmp_path / name)
    file = looked(tmp_path / name)
    assert file.last == 12
    found = [(latent, text or None) for latent, text in file.read().iter_rows()]
    assert found == READ


BAD: dict[str, tuple[str, str, str]] = {
    "no number": ("a.json", '{"0": "a", "x1": "b"}', "entry 2: the latent must be"),
    "negative": ("a.json", '{"-1": "a"}', "entry 1: the latent must be"),
    "a fraction": ("a.jsonl", '{"latent": 1.5, "explanation": "a"}', "line 1: the latent must be"),
    "a truth value": ("a.jsonl", '{"latent": true, "explanation": "a"}', "line 1: the latent must be"),
    "twice": ("a.json", '{"3": "a", "4": "b", "3": "c"}', "entry 3: the latent 3 is there a second time"),
    "in two lines": ("a.jsonl", '{"latent": 3, "explanation": "a"}\n\n{"latent": "03", "explanation": "b"}', "line 3.*second"),
    "no text": ("a.json", '{"3": ["a"]}', "entry 1: an explanation must be a text"),
    "no object": ("a.json", '["a"]', "must be one object"),
    "no JSON": ("a.json", '{"3": "a"', "not of the form"),
    "no JSON line": ("a.jsonl", '{"latent": 3, "explanation": "a"}\nb', "line 2: not JSON"),
    "no column": ("a.csv", "latent,explanaton\n3,a\n", "no column 'explanation'.*'explanaton'"),
    "csv without latent": ("a.csv", "latent,explanation\n3,a\n,b\n", "row 2: the latent must be"),
    "no entry": ("a.json", "{}", "holds no explanation"),
    "other suffix": ("a.txt", "{}", "has none of the suffixes"),
    "no parquet": ("a.parquet", "a", "not of the form"),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
def test_a_bad_file_is_refused_with_its_place(tmp_path: Path, case: str) -> None:
    name, text, said = BAD[case]
    (tmp_path / name).write_text(text)
    with pytest.raises(InputError, match=said) as refused:
        looked(tmp_path / name)
    assert str(tmp_path / name) in str(refused.value)


def test_a_file_that_changes_after_it_was_looked_at_is_refused(tmp_path: Path) -> None:
    as_json(tmp_path / "a.json")
    file = looked(tmp_path / "a.json")
    (tmp_path / "a.json").write_text('{"0": "another"}')
    with pytest.raises(InputError, match="changed while it was being read"):
        file.read()
    assert looked(tmp_path / "a.json").sha256 != file.sha256


def test_what_is_no_explanation_says_so() -> None:
    explainer = Imported(method="imported", files={}, longest=10)
    cases = [(True, "of seven"), (False, None), (True, None), (True, "…!"), (True, "x" * 11)]
    found = [explainer._hypothesis(*each) for each in cases]
    assert [each.error for each in found] == [None, "not_imported", "empty", "empty", "too_long"]
    assert found[0] == Hypothesis("imported", "of seven")
    assert all(each.explanation is None for each in found[1:])


def imported(bench: Workbench, text: str, dictionary: str = "one") -> None:
    (bench.folder / "given.json").write_text(text)
    bench.study["explainers"]["given"] = {"method": "imported", "files": {dictionary: "given.json"}}
    bench.study["scorers"]["embedding"]["explainers"].append("given")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (json.dumps({str(LATENTS): "a"}), f"explains the latent {LATENTS}, and the dictionary has {LATENTS}"),
        ('{"a": "b"}', r"explainers\.given\.files\.one: .*given\.json, entry 1"),
    ],
)
def test_a_bad_file_is_refused_before_any_work(workbench: Workbench, text: str, said: str) -> None:
    imported(workbench, text)
    with pytest.raises(InputError, match=said):
        workbench.run()
    (workbench.folder / "given.json").unlink()
    with pytest.raises(InputError, match="there is no file"):
        workbench.run()
    assert not (workbench.folder / "lake").exists()


def test_files_are_of_dictionaries_of_the_study(workbench: Workbench) -> None:
    imported(workbench, '{"0": "a"}', "onne")
    with pytest.raises(StudyError, match=r"refers to dictionaries\.onne, which is not there .*'one'"):
        workbench.prepare()


def test_imported_explanations_are_scored_like_others(materialized: Workbench) -> None:
    chosen = materialized.view().latents.filter("is_chosen").sort("latent").collect()["latent"].to_list()
    said = {str(latent): f"latent {latent}" for latent in chosen[:-1]}
    imported(materialized, json.dumps(said))
    assert materialized.run() == {"explanations/given": 2, "scores/given/embedding": 2}
    lake = materialized.view()
    rows = lake.explanations.filter(pl.col("explainer") == "given").sort("latent").collect()
    assert rows.select("latent", "explanation", "error").rows() == [
        *((latent, said[str(latent)], None) for latent in chosen[:-1]),
        (chosen[-1], None, "not_imported"),
    ]
    own = lake.scores.filter(pl.col("explainer") == "given", pl.col("control").is_null()).collect()
    scored = cast(Any, own.drop_nulls("value"))["latent"].sort().to_list()
    assert scored == chosen[:-1]
