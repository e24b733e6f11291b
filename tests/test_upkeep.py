"""Upkeep makes a lake small and fast, and changes nothing that anybody knows of it."""

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import polars as pl
import pyarrow as pa
import pytest
from deltalake import DeltaTable
from polars.testing import assert_frame_equal

from latentlake.keeping.upkeep import APPENDED, maintain, tidy
from latentlake.lake import Lake
from latentlake.plan import State
from latentlake.tables import TABLES
from tests.workbench import Workbench


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    """An empty lake."""
    return Lake(str(tmp_path / "lake"), "tiny")


def shard(name: str) -> pa.Table:
    rows = [{"shard": name, "ordinal": 0, "source": "s", "file": "f"}]
    return pa.Table.from_pylist(rows, schema=TABLES["shards"].schema)


def log(lake: Lake, table: str) -> list[Path]:
    """Commits that are still in a table's log."""
    return sorted(Path(lake.path(table), "_delta_log").glob("*.json"))


def test_maintenance_changes_no_row(materialized: Workbench) -> None:
    lake = materialized.lake.open("tiny")
    before = {name: lake.scan(name).collect() for name in TABLES}
    done = {each.table: each for each in maintain(lake, vacuum_hours=0)}
    for name, rows in before.items():
        ordered = name not in APPENDED
        assert_frame_equal(lake.scan(name).collect(), rows, check_row_order=ordered)
    assert done["partitions"].files_before > 10
    assert {done[name].files_after for name in APPENDED} == {1}
    assert done["partitions"].vacuumed >= done["partitions"].files_before
    assert done["activations"][1:] == (2, 2, 0)


def test_the_plan_outlives_the_log(materialized: Workbench) -> None:
    lake = materialized.lake.open("tiny")
    for name in filter(lambda each: lake.version(each) is not None, TABLES):
        DeltaTable(lake.path(name)).alter.set_table_properties({"delta.logRetentionDuration": "interval 0 days"})
    maintain(lake, vacuum_hours=0)
    assert {len(log(lake, name)) for name in TABLES} <= {0, 1}
    plan = materialized.prepare().plan()
    assert {each.state for each in plan.all} == {State.FRESH}
    assert materialized.run() == {}
    assert materialized.llm.made == []
    prompt = materialized.folder / "pattern.txt"
    prompt.write_text(prompt.read_text().replace("spices", "seasonings"))
    assert materialized.run()["explanations/default"] == 2
    assert materialized.dagster_stale() == {}


def test_appends_during_compaction_lose_nothing(lake: Lake) -> None:
    lake.append("shards", shard("first"))
    over = threading.Event()

    def compact() -> int:
        times = 0
        while not over.is_set():
            tidy(lake, many=2)
            times += 1
        return times

    with ThreadPoolExecutor(5) as pool:
        compacting = [pool.submit(compact) for _ in range(2)]
        list(pool.map(lambda n: lake.append("shards", shard(f"s{n}")), range(40)))
        over.set()
        assert min(each.result() for each in compacting) > 0
    tidy(lake, many=1)
    assert lake.files("shards") == 1
    assert sorted(lake.scan("shards").collect()["shard"]) == sorted(["first", *(f"s{n}" for n in range(40))])


def test_only_crowded_tables_are_tidied(lake: Lake) -> None:
    for n in range(5):
        lake.append("shards", shard(f"s{n}"))
    assert tidy(lake, many=5) == []
    assert tidy(lake, many=4) == ["shards"]
    assert lake.files("shards") == 1


def test_what_a_killed_writer_left_is_vacuumed_once_it_is_old(lake: Lake) -> None:
    lake.append("shards", shard("a"))
    (file,) = Path(lake.path("shards")).glob("*.parquet")
    file.with_name("part-stray.parquet").write_bytes(file.read_bytes())
    assert lake.vacuum("shards", 1) == 0
    assert lake.vacuum("shards", 0) == 1
    assert lake.scan("shards").select(pl.len()).collect().item() == 1


def test_an_empty_lake_needs_no_upkeep(lake: Lake) -> None:
    assert maintain(lake, vacuum_hours=168) == []
    assert not Path(lake.uri).exists()


def test_a_run_tidies_up_behind_itself(materialized: Workbench) -> None:
    lake = materialized.lake.open("tiny")
    before = lake.scan("prompts").collect()
    for n in range(65):
        row = pa.Table.from_pylist([{"prompt": f"{n}", "prefix": None, "text": ""}], schema=TABLES["prompts"].schema)
        lake.append("prompts", row)
    assert materialized.run() == {}
    assert lake.files("prompts") == 1
    assert lake.files("shards") > 1 or lake.files("partitions") > 1
    assert len(before.join(lake.scan("prompts").collect(), on="prompt", how="anti")) == 0
