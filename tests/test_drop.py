"""Activations can be dropped to save room: nothing becomes stale, and what needs them again derives the same ones."""

import pytest

from assets.events import asset_key
from latentlake.catalog import Catalog
from latentlake.cli import main
from latentlake.errors import LakeError
from latentlake.keeping.drop import drop
from latentlake.keeping.upkeep import maintain
from latentlake.plan import State
from latentlake.stages import latents
from latentlake.work import Tables, Work
from tests.workbench import Workbench


@pytest.fixture
def dropped(materialized: Workbench) -> Workbench:
    """A finished study without its activations."""
    stage = materialized.prepare().flow["activations"]
    drop(materialized.lake.open("tiny"), stage, ["one|docs-a-0000", "one|docs-b-0000"])
    return materialized


def test_nothing_becomes_stale_in_the_plan_or_in_the_ui(dropped: Workbench) -> None:
    assert dropped.lake.open("tiny").scan("activations").collect().is_empty()
    assert dropped.stale() == {}
    assert dropped.dagster_stale() == {}
    assert dropped.run() == {}
    assert dropped.view().activations.collect().is_empty()
    assert len(dropped.view().scores.collect()) > 0


def test_files_are_gone_once_the_table_is_vacuumed(dropped: Workbench) -> None:
    lake = dropped.lake.open("tiny")
    maintain(lake, 0)
    assert lake.bytes("activations") == 0
    assert dropped.run() == {}


def test_what_needs_them_derives_them_again_and_only_what_changed_is_computed(dropped: Workbench) -> None:
    before = dropped.data_versions()
    dropped.study["samples"]["test"]["seed"] = 1
    plan = dropped.prepare().plan()
    planned = {each.key: each for each in plan.all}
    assert planned["activations", "one|docs-a-0000"].state is State.STALE
    assert planned["examples/test", "0|one"].above == "activations[one|docs-a-0000]"
    reasons = plan.reasons(list(planned.values()))
    assert reasons["activations", "one|docs-a-0000"] == "its rows were dropped, and are needed again"
    computed = dropped.run()
    assert {name: n for name, n in computed.items() if not name.startswith(("scores/", "agreements"))} == {
        "activations": 2, "examples/test": 2,
    }  # fmt: skip
    after = dropped.data_versions()
    same = [key for key in before if key[0] in ("activations", "latents", "examples/strong", "explanations/default")]
    assert {key: after[key] for key in same} == {key: before[key] for key in same}
    assert dropped.stale() == dropped.dagster_stale() == {}


def test_the_same_rows_come_again(materialized: Workbench) -> None:
    lake, keys = materialized.lake.open("tiny"), ["shard", "latent", "position"]
    before = lake.scan("activations").collect().sort(keys)
    drop(lake, materialized.prepare().flow["activations"], ["one|docs-b-0000"])
    assert set(lake.scan("activations").collect()["shard"]) == {"docs-a-0000"}
    materialized.study["selection"]["min_windows"] = {"explain": 3, "select": 2, "score": 4}
    assert materialized.run()["activations"] == 1
    assert lake.scan("activations").collect().sort(keys).equals(before)


def test_a_new_shard_that_is_not_in_use_derives_nothing_again(dropped: Workbench) -> None:
    dropped.write_shard("c", 3)
    assert dropped.run() == {"contexts": 1, "activations": 1}
    assert set(dropped.lake.open("tiny").scan("activations").collect()["shard"]) == {"docs-c-0000"}


def test_asked_for_by_hand_they_are_derived(dropped: Workbench) -> None:
    run = dropped.prepare()
    job = run._job.get_subset(asset_selection={asset_key("activations")})
    tags = {
        "dagster/asset_partition_range_start": "one|docs-a-0000",
        "dagster/asset_partition_range_end": "one|docs-a-0000",
    }
    assert job.execute_in_process(instance=dropped.instance, tags=tags).success
    assert set(dropped.lake.open("tiny").scan("activations").collect()["shard"]) == {"docs-a-0000"}
    assert dropped.stale() == {}


def test_what_would_read_them_by_hand_is_refused_and_not_made_of_nothing(dropped: Workbench) -> None:
    dropped.study["samples"]["test"]["seed"] = 1
    run = dropped.prepare()
    job = run._job.get_subset(asset_selection={asset_key("examples/test")})
    tags = {"dagster/asset_partition_range_start": "0|one", "dagster/asset_partition_range_end": "0|one"}
    with pytest.raises(
        LakeError, match=r"examples/test\[0\|one\] reads activations\[one\|docs-a-0000\], whose rows were dropped"
    ):
        job.execute_in_process(instance=dropped.instance, tags=tags)


def test_rows_dropped_while_something_is_made_of_them_are_noticed(
    materialized: Workbench, monkeypatch: pytest.MonkeyPatch
) -> None:
    materialized.study["selection"]["min_windows"] = {"explain": 3, "select": 2, "score": 4}
    lake, stage = materialized.lake.open("tiny"), materialized.prepare().flow["activations"]
    compute = latents.compute

    def drop_first(work: Work) -> Tables:
        if materialized.lake.open("tiny").scan("activations", {"shard": "docs-a-0000"}).limit(1).collect().height:
            drop(lake, stage, ["one|docs-a-0000"])
        return compute(work)

    monkeypatch.setattr(latents, "compute", drop_first)
    with pytest.raises(
        LakeError, match=r"activations\[one\|docs-a-0000\] was dropped while latents\[0\|one\] was made of it"
    ):
        materialized.run()
    monkeypatch.setattr(latents, "compute", compute)
    assert materialized.run()["activations"] == 1
    assert materialized.stale() == {}


def test_what_changed_is_stale_whether_it_was_dropped_or_not(dropped: Workbench) -> None:
    dropped.study["activations"] = {"precision": "bfloat16"}
    assert dropped.stale() == {"activations": 2}
    changed = dropped.prepare().plan()
    reasons = changed.reasons([each for each in changed.all if each.stage.name == "activations"])
    assert all(reason.startswith("code version") for reason in reasons.values())


def test_the_command_lists_and_drops(
    materialized: Workbench, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    materialized.prepare()
    monkeypatch.setenv("LATENTLAKE_CACHE", str(materialized.folder / "cache"))
    given = ["--lake", materialized.lake.uri, "--study-file", str(materialized.path), "drop"]
    assert main([*given, "--shard", "docs-b-0000"]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "activations[one|docs-b-0000]", "1 partitions could be dropped; --yes drops them",
    ]  # fmt: skip
    assert main([*given, "--dictionary", "one", "--yes", "--vacuum"]) == 0
    assert capsys.readouterr().out.splitlines()[-1].startswith("dropped 2 partitions, ")
    assert materialized.lake.open("tiny").bytes("activations") == 0
    assert main(given) == 0
    assert capsys.readouterr().out == "no activations are there to be dropped\n"
    assert main([*given, "--dictionary", "two"]) == 1
    assert "there is no dictionary 'two'" in capsys.readouterr().err
    states = Catalog(materialized.lake.open("tiny")).latest("activations").collect()["state"]
    assert set(states) == {"dropped"}
