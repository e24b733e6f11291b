"""The plan says beforehand what a run then does, and the commands say it to people."""

import json

import pytest

from latentlake import cli
from latentlake.calls.estimate import Estimator
from latentlake.plan import name_of
from resources.lake import LakeResource
from tests.workbench import EVERYTHING, FakeModels, Workbench


def estimates(bench: Workbench) -> dict[str, dict[str, object]]:
    run = bench.prepare()
    table = Estimator(run.plan(), run.flow, run.lake, run.origins).table()
    return {row["asset"]: row for row in table.iter_rows(named=True)}


def command(bench: Workbench, monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    bench.prepare()
    monkeypatch.setenv("LATENTLAKE_CACHE", str(bench.folder / "cache"))
    return cli.main(["--lake", bench.lake.uri, "--study-file", str(bench.path), *arguments])


def change_prompt(bench: Workbench) -> None:
    path = bench.folder / "detection.txt"
    path.write_text(path.read_text().replace("Answer yes or no.", "Say yes or no."))


def test_before_the_first_run_everything_is_ahead(workbench: Workbench, materialized: Workbench) -> None:
    another = Workbench(workbench.folder, workbench.instance)
    another.lake = LakeResource(uri=str(workbench.folder / "empty"))
    found = estimates(another)
    ahead = {name: int(str(row["to_compute"])) + int(str(row["waiting"])) for name, row in found.items()}
    assert ahead == EVERYTHING
    for asset, row in found.items():
        made = materialized.lake.open("tiny").scan("calls").filter(asset=asset).collect().height
        assert made <= int(str(row["calls"]))
        assert row["calls_are"] == ("at most" if row["calls"] else "exact")


def test_calls_are_counted_exactly_where_the_inputs_are_there(materialized: Workbench) -> None:
    change_prompt(materialized)
    row = estimates(materialized)["scores/default/detection"]
    assert (row["to_compute"], row["waiting"], row["calls_are"]) == (2, 0, "exact")
    materialized.run()
    assert row["calls"] == len(materialized.llm.made) > 0


def test_what_the_ledger_holds_is_taken_off(materialized: Workbench) -> None:
    before = (materialized.folder / "detection.txt").read_text()
    change_prompt(materialized)
    materialized.run()
    (materialized.folder / "detection.txt").write_text(before)
    row = estimates(materialized)["scores/default/detection"]
    assert (row["to_compute"], row["calls"]) == (2, 0)


def test_an_explainers_calls_are_exact_and_those_below_it_a_bound(materialized: Workbench) -> None:
    path = materialized.folder / "pattern.txt"
    path.write_text(path.read_text().replace("spices", "seasonings"))
    found = estimates(materialized)
    materialized.run()
    made = materialized.lake.open("tiny").scan("calls").collect()
    asked = len(materialized.llm.made)
    assert found["explanations/default"]["calls_are"] == "exact"
    assert found["scores/default/detection"]["calls_are"] == "at most"
    assert sum(int(str(row["calls"])) for row in found.values()) >= asked
    assert made.height > asked


def test_tokens_money_and_time_follow_from_the_past(materialized: Workbench) -> None:
    change_prompt(materialized)
    materialized.study["llms"]["judge"]["price"] = {"input": 3.0, "output": 6.0}
    row = estimates(materialized)["scores/default/detection"]
    past = materialized.lake.open("tiny").scan("calls").filter(asset="scores/default/detection").collect()
    mean = float(past["tokens_in"].mean())  # type: ignore[arg-type]
    assert row["tokens"] == pytest.approx(int(str(row["calls"])) * mean, abs=1)
    assert row["money"] == pytest.approx(int(str(row["calls"])) * mean * 3e-6)
    assert row["seconds"] == 0.0  # the fake takes no time
    assert int(str(row["bytes"])) > 0


def test_no_model_is_loaded_for_an_estimate(materialized: Workbench, monkeypatch: pytest.MonkeyPatch) -> None:
    path = materialized.folder / "pattern.txt"
    path.write_text(path.read_text() + "\n# changed")

    def refuse(*_: object) -> None:
        raise AssertionError("a model was asked for")

    monkeypatch.setattr(FakeModels, "handles", refuse)
    estimates(materialized)


def test_the_plan_is_printed_with_reasons(
    materialized: Workbench, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command(materialized, monkeypatch, "plan") == 0
    assert "nothing to compute: all 30 partitions are up to date" in capsys.readouterr().out
    change_prompt(materialized)
    assert command(materialized, monkeypatch, "plan") == 0
    printed = capsys.readouterr().out
    assert "scores/default/detection[0|one] and 1 more: code version" in printed
    assert "scores/default/surprisal" not in printed
    assert command(materialized, monkeypatch, "plan", "--json") == 0
    plan = json.loads(capsys.readouterr().out)
    assert [each["partition"] for each in plan["partitions"]] == ["one", "0|one", "1|one"]  # the first of agreements


def test_every_reason_is_true(materialized: Workbench) -> None:
    materialized.write_shard("b", 9)
    run = materialized.prepare()
    plan = run.plan()
    reasons = {name_of(*key): reason for key, reason in plan.reasons(plan.all).items()}
    assert reasons["contexts[docs-b-0000]"].startswith("input files outside the lake: ")
    assert reasons["activations[one|docs-b-0000]"] == "contexts[docs-b-0000] is not up to date"
    assert reasons["latents[0|one]"] == "activations[one|docs-b-0000] is not up to date"


def test_prune_deletes_what_is_no_longer_in_the_study(
    materialized: Workbench, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    del materialized.study["scorers"]["surprisal"]
    lake = materialized.lake.open("tiny")
    calls = lake.scan("calls").collect().height
    assert command(materialized, monkeypatch, "prune") == 0
    assert "2 partitions are no longer in the study; --yes deletes them" in capsys.readouterr().out
    assert lake.scan("scores", {"scorer": "surprisal"}).collect().height > 0
    assert command(materialized, monkeypatch, "prune", "--yes") == 0
    for table in ("scores", "judgements"):
        assert lake.scan(table, {"scorer": "surprisal"}).collect().height == 0
        assert lake.scan(table, {"scorer": "detection"}).collect().height > 0
    assert lake.scan("calls").collect().height == calls
    assert materialized.prepare().plan().orphans == []
    assert materialized.run() == {"agreements": 1}  # of those that are left
    materialized.study["scorers"]["surprisal"] = {
        "method": "surprisal", "explainers": ["default"], "sample": "test", "windows": 4, "llm": "judge",
    }  # fmt: skip
    assert materialized.run() == {"scores/default/surprisal": 2, "agreements": 1}
    assert materialized.llm.made == []  # the ledger remembers


@pytest.mark.parametrize("arguments", [("plan",), ("prune",)])
def test_an_unreadable_lake_is_one_clear_error(
    materialized: Workbench,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: tuple[str, ...],
) -> None:
    for log in (materialized.folder / "lake" / "tiny" / "partitions" / "_delta_log").iterdir():
        log.write_text("not a log")
    assert command(materialized, monkeypatch, *arguments) == 1
    said = capsys.readouterr().err
    assert said.startswith("error: cannot read the table")
    assert "check the lake's address and rights" in said
