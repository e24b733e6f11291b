"""What people pin to latents holds, is scored like any other explanation, and can be taken back."""

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from latentlake.cli import main
from latentlake.errors import InputError, StudyError
from latentlake.pins import Pin, file_of, pin, read_pins, unpin
from latentlake.plan import State
from latentlake.reading.trace import trace
from latentlake.study import load_study
from tests.workbench import Workbench

PEOPLE = {"method": "pinned", "files": {"one": "pins/one.jsonl"}, "otherwise": "tokens"}


def a_chosen_latent(bench: Workbench) -> int:
    return int(bench.view().latents.filter("is_chosen").sort("latent").collect()["latent"][0])


def with_people(bench: Workbench, **changes: Any) -> None:
    bench.study["explainers"] = {"people": {**PEOPLE, **changes}, **bench.study["explainers"]}
    bench.study["scorers"]["embedding"]["explainers"] = ["tokens", "default", "people"]


def test_a_pin_holds_and_the_rest_is_taken_over(materialized: Workbench) -> None:
    latent = a_chosen_latent(materialized)
    with_people(materialized)
    pins = materialized.folder / "pins" / "one.jsonl"
    pin(pins, Pin(latent, "capitals  of countries", by="Ada", at="2026-03-01"))
    assert materialized.run() == {"explanations/people": 2, "scores/people/embedding": 2}
    assert materialized.llm.made == []

    view = materialized.view()
    said = {name: own for (name,), own in view.explanations.collect().partition_by("explainer", as_dict=True).items()}
    mine, theirs = (dict(said[name].select("latent", "explanation").iter_rows()) for name in ("people", "tokens"))
    assert mine == {**theirs, latent: "capitals of countries"}
    own = trace(view, "one", latent, "people").hypotheses.row(0, named=True)
    assert (own["source"], own["provenance"], own["call"]) == ("pinned", "Ada, 2026-03-01", None)
    others = view.hypotheses.filter(pl.col("latent") != latent, explainer="people").collect()
    assert set(others.select("source", "provenance").iter_rows()) == {("otherwise", "tokens")}
    for scores in (trace(view, "one", latent, name, "embedding").scores for name in ("people", "tokens")):
        assert scores.select("control", "metric").sort("control").rows() == [
            (None, "auroc"), ("empty", "auroc"), ("shuffled", "auroc"),
        ]  # fmt: skip
        assert scores["error"].null_count() == 3

    # what is said by another is the same said, and stales no score; taken back, all is as if it had never been
    pin(pins, Pin(latent, "capitals of countries", by="Grace"))
    assert materialized.run() == {"explanations/people": 2}
    unpin(pins, latent)
    computed = materialized.run()
    assert computed["explanations/people"] == 2
    assert computed["scores/people/embedding"] == 1  # of the latent's block
    rows = materialized.view().explanations.filter(explainer="people").collect()
    assert dict(rows.select("latent", "explanation").iter_rows()) == theirs


def test_a_pin_stales_the_explanations_of_its_dictionary_alone(materialized: Workbench) -> None:
    latent = a_chosen_latent(materialized)
    materialized.study["dictionaries"]["two"] = {**materialized.study["dictionaries"]["one"], "latents": 2}
    with_people(materialized, files={"one": "pins/one.jsonl", "two": "pins/two.jsonl"})
    del materialized.study["explainers"]["default"]
    materialized.study["scorers"] = {}
    pins = {name: materialized.folder / "pins" / f"{name}.jsonl" for name in ("one", "two")}
    for path in pins.values():
        pin(path, Pin(latent, "words"))
    materialized.run()
    pin(pins["one"], Pin(latent, "other words"))
    assert materialized.stale() == {"explanations/people": 2}
    plan = materialized.prepare().plan()
    people = [each for each in plan.all if each.stage.name == "explanations/people"]
    assert {each.stage.values(each.partition)["dictionary"] for each in people if each.state is State.STALE} == {"one"}


def test_without_another_explainer_the_rest_has_none(materialized: Workbench) -> None:
    latent = a_chosen_latent(materialized)
    with_people(materialized, otherwise=None)
    pin(materialized.folder / "pins" / "one.jsonl", Pin(latent, "words"))
    materialized.run()
    rows = materialized.view().explanations.filter(explainer="people").collect()
    assert dict(rows.select("latent", "error").iter_rows()) == {
        each: None if each == latent else "not_pinned" for each in rows["latent"]
    }


def test_files_are_the_same_whoever_wrote_first(tmp_path: Path) -> None:
    one, other = tmp_path / "a" / "one.jsonl", tmp_path / "other.jsonl"
    for path, order in ((one, (1, 2)), (other, (2, 1))):
        for latent in order:
            pin(path, Pin(latent, f"words {latent}"))
    assert one.read_bytes() == other.read_bytes()
    assert [json.loads(line) for line in one.read_text().splitlines()] == [
        {"latent": 1, "explanation": "words 1"},
        {"latent": 2, "explanation": "words 2"},
    ]
    pin(one, Pin(1, "others", by="Ada"))
    assert read_pins(one)[1] == Pin(1, "others", "Ada")
    assert unpin(one, 1).explanation == "others"
    assert list(read_pins(one)) == [2]
    assert [path.name for path in one.parent.iterdir()] == ["one.jsonl"]


def test_pins_of_many_at_once_are_all_kept(tmp_path: Path) -> None:
    path = tmp_path / "pins" / "one.jsonl"
    with ThreadPoolExecutor(8) as people:
        list(people.map(lambda latent: pin(path, Pin(latent, f"words {latent}")), range(24)))
    assert sorted(read_pins(path)) == list(range(24))
    assert [each.name for each in path.parent.iterdir()] == ["one.jsonl"]
    (tmp_path / "plain").write_text("")
    assert path.stat().st_mode == (tmp_path / "plain").stat().st_mode  # others may read it


def test_a_turn_that_never_comes_and_a_folder_that_is_none_are_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("latentlake.pins._WAIT", 0.001)
    (tmp_path / ".one.jsonl.new").write_text("")
    with pytest.raises(InputError, match=r"if nobody is, remove .*\.one\.jsonl\.new"):
        pin(tmp_path / "one.jsonl", Pin(1, "words"))
    (tmp_path / "pins").write_text("")
    with pytest.raises(InputError, match=r"cannot write .*one\.jsonl"):
        pin(tmp_path / "pins" / "one.jsonl", Pin(1, "words"))


@pytest.mark.parametrize("text", ["", " .. ", "a" * 1001])
def test_what_says_nothing_is_not_pinned(tmp_path: Path, text: str) -> None:
    with pytest.raises(InputError, match="an explanation has from one letter"):
        pin(tmp_path / "one.jsonl", Pin(1, text))
    assert not (tmp_path / "one.jsonl").exists()


def test_a_pin_that_is_not_there_is_not_taken_back(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no pin of the latent 3"):
        unpin(tmp_path / "one.jsonl", 3)


BAD_LINES = {
    '{"latent": 64, "explanation": "a"}': r"explains the latent 64, and the dictionary has 64",
    '{"latent": 1, "explanation": "a", "by": 3}': r"line 1: 'by' must be a text, and is 3",
    '{"latent": 1}': r"line 1: it must be like",
    '{"latent": 1, "explanation": "a"}\n{"latent": 1, "explanation": "b"}': r"line 2: the latent 1 is there a second time",
}


@pytest.mark.parametrize(("lines", "said"), BAD_LINES.items())
def test_a_file_that_holds_something_else_is_refused(workbench: Workbench, lines: str, said: str) -> None:
    with_people(workbench)
    path = workbench.folder / "pins" / "one.jsonl"
    path.parent.mkdir()
    path.write_text(lines)
    with pytest.raises(InputError, match=rf"explainers\.people\.files\.one: .*{said}"):
        _ = workbench.prepare().plan().all


def test_what_is_taken_over_is_not_taken_over_again(workbench: Workbench) -> None:
    with_people(workbench)
    workbench.study["explainers"]["more"] = {**PEOPLE, "otherwise": "people"}
    with pytest.raises(StudyError, match=r"more takes over what explainers\.people takes over itself"):
        workbench.prepare()
    workbench.study["explainers"]["more"]["otherwise"] = "token"
    with pytest.raises(StudyError, match=r"refers to explainers\.token"):
        workbench.prepare()


def test_the_command_pins_shows_and_takes_back(workbench: Workbench, capsys: pytest.CaptureFixture[str]) -> None:
    def told(*arguments: str) -> str:
        assert main(["--study-file", str(workbench.path), "pin", "one", *arguments]) == 0
        return capsys.readouterr().out

    workbench.prepare()
    assert "people: {method: pinned, files: {one: pins/one.jsonl}, otherwise: tokens}" in told(
        "7", "rivers", "--by", "Ada"
    )
    with_people(workbench)
    assert file_of(load_study(workbench.prepare().study.path), "one") == (workbench.folder / "pins" / "one.jsonl", True)
    assert "the next run explains the latent so" in told("8", "seas")
    assert told() == "7 rivers (Ada)\n8 seas\n"
    assert told("8") == "8 seas\n"
    assert told("7", "--remove").startswith("no longer pinned: 7 rivers (Ada)\n")
    assert told("7") == "nothing is pinned\n"
    assert main(["--study-file", str(workbench.path), "pin", "one", "64", "seas"]) == 1
    assert "no latent 64; its latents are 0 to 63" in capsys.readouterr().err
    assert main(["--study-file", str(workbench.path), "pin", "on", "6", "seas"]) == 1
