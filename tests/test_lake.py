"""Delta tables in a folder: one partition is replaced at a time, by writers that do not disturb each other."""

import shutil
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from deltalake import DeltaTable, Field
from deltalake.exceptions import DeltaError

from latentlake.errors import LakeError
from latentlake.lake import Lake
from latentlake.tables import TABLES


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    """An empty lake."""
    return Lake(str(tmp_path / "lake"), "tiny")


def explanations(explainer: str, block: int, *texts: str) -> pa.Table:
    rows = [
        {"explainer": explainer, "dictionary": "one", "block": block, "latent": latent, "explanation": text}
        for latent, text in enumerate(texts)
    ]
    return pa.Table.from_pylist(rows, schema=TABLES["explanations"].schema)


def partition(explainer: str, block: int) -> dict[str, str | int]:
    return {"explainer": explainer, "dictionary": "one", "block": block}


def put(lake: Lake, explainer: str, block: int, *texts: str) -> int:
    rows = explanations(explainer, block, *texts)
    return lake.replace("explanations", rows, partition(explainer, block), {"of": f"{explainer}{block}"}).version


def texts(lake: Lake, where: Mapping[str, object] | None = None) -> list[tuple[str, int, str]]:
    rows = lake.scan("explanations", where).select("explainer", "block", "explanation").collect()
    return sorted(rows.iter_rows())


def shards(*names: str) -> pa.Table:
    rows = [{"shard": name, "ordinal": n, "source": "s", "file": "f"} for n, name in enumerate(names)]
    return pa.Table.from_pylist(rows, schema=TABLES["shards"].schema)


@pytest.mark.parametrize("table", TABLES)
def test_a_table_that_does_not_exist_is_empty_with_the_declared_schema(lake: Lake, table: str) -> None:
    frame = lake.scan(table, {TABLES[table].columns[0].name: "x"} if table != "studies" else None)
    assert frame.collect().schema == TABLES[table].empty().schema
    assert frame.collect().is_empty()
    assert not Path(lake.uri).exists()


def test_replace_puts_rows_in_the_place_of_one_partition_only(lake: Lake) -> None:
    for explainer in ("a", "b"):
        for block in (0, 1, 10):
            put(lake, explainer, block, f"{explainer}{block}", "old")
    put(lake, "a", 1, "new")
    others = [(e, b, t) for e in "ab" for b in (0, 1, 10) if (e, b) != ("a", 1) for t in (f"{e}{b}", "old")]
    assert texts(lake) == sorted([*others, ("a", 1, "new")])


def test_replace_by_no_rows_empties_the_partition_only(lake: Lake) -> None:
    put(lake, "a", 0, "x")
    put(lake, "a", 1, "y")
    put(lake, "a", 0)
    assert texts(lake) == [("a", 1, "y")]
    put(lake, "b", 0)
    assert texts(lake) == [("a", 1, "y")]


@pytest.mark.parametrize(("explainer", "block"), [("b", 0), ("a", 1)])
def test_replace_refuses_rows_of_another_partition(lake: Lake, explainer: str, block: int) -> None:
    put(lake, "a", 0, "x")
    put(lake, explainer, block, "y")
    before = texts(lake)
    with pytest.raises((DeltaError, LakeError)):
        lake.replace("explanations", explanations(explainer, block, "z"), partition("a", 0), {})
    assert texts(lake) == before


def test_a_table_without_partitions_is_replaced_as_a_whole(lake: Lake) -> None:
    row = {"reference": "r", "revision": "v", "digest": "d", "dtype": "float32"}
    for reference in ("one", "two"):
        rows = pa.Table.from_pylist([{**row, "reference": reference}], schema=TABLES["subject"].schema)
        lake.replace("subject", rows, {}, {})
    assert lake.scan("subject").collect()["reference"].to_list() == ["two"]


def test_append_keeps_what_was_there(lake: Lake) -> None:
    assert [
        lake.append("shards", shards("a")),
        lake.append("shards", shards()),
        lake.append("shards", shards("b", "a")),
    ] == [1, 2, 3]
    assert sorted(lake.scan("shards").collect()["shard"]) == ["a", "a", "b"]


def test_a_table_is_opened_anew_only_when_it_has_changed(lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[str] = []
    plain = Lake._open

    def counted(self: Lake, table: str, *options: Any, **named: Any) -> DeltaTable | None:
        opened.append(table)
        return plain(self, table, *options, **named)

    monkeypatch.setattr(Lake, "_open", counted)
    put(lake, "a", 0, "x")
    opened.clear()
    for same in (lake, Lake(lake.uri, "tiny")):
        assert texts(same) == [("a", 0, "x")]
        assert same.files("explanations") == 1
    assert opened == []
    DeltaTable(lake.path("explanations")).delete()  # as another process would
    assert texts(lake) == texts(lake) == []
    assert opened == ["explanations"]


def test_a_frame_is_of_the_version_that_was_scanned(lake: Lake) -> None:
    put(lake, "a", 0, "x")
    before = lake.scan("explanations")
    put(lake, "a", 0, "y")
    put(lake, "b", 0, "z")
    assert before.collect()["explanation"].to_list() == ["x"]
    assert texts(lake) == [("a", 0, "y"), ("b", 0, "z")]


def test_a_table_made_anew_in_the_place_of_another_is_read(lake: Lake, tmp_path: Path) -> None:
    put(lake, "a", 0, "x")
    other = Lake(str(tmp_path / "other"), "tiny")
    put(other, "a", 0, "y")
    assert texts(lake) == [("a", 0, "x")]
    shutil.rmtree(lake.path("explanations"))
    assert texts(lake) == []
    shutil.copytree(other.path("explanations"), lake.path("explanations"))
    assert texts(lake) == [("a", 0, "y")]
    shutil.rmtree(lake.path("explanations"))
    put(lake, "a", 0, "z")
    assert texts(lake) == [("a", 0, "z")]


def test_lakes_of_one_name_in_two_folders_are_two(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        monkeypatch.chdir(tmp_path / name)
        put(Lake("lake", "tiny"), "a", 0, name)
    shutil.copytree(tmp_path / "two", tmp_path / "copy")
    (tmp_path / "copy" / "lake" / "tiny" / "explanations").rename(tmp_path / "copy" / "aside")
    monkeypatch.chdir(tmp_path / "one")
    assert texts(Lake("lake", "tiny")) == [("a", 0, "one")]
    monkeypatch.chdir(tmp_path / "two")
    assert texts(Lake("lake", "tiny")) == [("a", 0, "two")]
    monkeypatch.chdir(tmp_path / "copy")
    assert texts(Lake("lake", "tiny")) == []


def test_what_is_made_of_a_table_is_made_again_exactly_when_it_has_changed(lake: Lake) -> None:
    made: list[int] = []

    def count() -> int:
        made.append(len(texts(lake)))
        return made[-1]

    assert [lake.once("explanations", "n", count) for _ in range(2)] == [0, 0]
    assert len(made) == 2  # of what is not there nothing is kept
    put(lake, "a", 0, "x")
    assert [lake.once("explanations", name, count) for name in ("n", "n", "m")] == [1, 1, 1]
    assert len(made) == 4
    put(lake, "a", 1, "y")
    assert [Lake(lake.uri, "tiny").once("explanations", "n", count) for _ in range(2)] == [2, 2]
    assert len(made) == 5


def test_every_write_is_one_version_with_its_facts(lake: Lake) -> None:
    assert [put(lake, "a", 0, "x"), put(lake, "a", 0, "y")] == [1, 2]
    facts = {"recipe": "abc", "run": "r1"}
    assert lake.replace("explanations", explanations("a", 0, "z"), partition("a", 0), facts).version == 3
    assert facts.items() <= DeltaTable(lake.path("explanations")).history(1)[0].items()


@pytest.mark.parametrize(
    ("where", "expected"),
    [
        ({}, ["a0", "a1", "b0", "b1"]),
        ({"explainer": "a"}, ["a0", "a1"]),
        ({"explainer": ["a", "b"], "block": [1]}, ["a1", "b1"]),
        ({"explainer": "a", "block": 0}, ["a0"]),
        ({"explanation": ["a0", "b1", "c"]}, ["a0", "b1"]),
        ({"explainer": "c"}, []),
        ({"block": []}, []),
    ],
    ids=str,
)
def test_where_restricts_rows(lake: Lake, where: dict[str, Any], expected: list[str]) -> None:
    for explainer in "ab":
        for block in (0, 1):
            put(lake, explainer, block, f"{explainer}{block}")
    assert [text for _, _, text in texts(lake, where)] == expected


@pytest.mark.parametrize("name", ["it's", "''", "' OR '1'='1", "a b", "a/b", "50%", "a=b", "é"])
def test_any_partition_value_is_replaced_exactly(lake: Lake, name: str) -> None:
    put(lake, "other", 0, "kept")
    put(lake, name, 0, "old")
    put(lake, name, 0, "new")
    assert texts(lake) == sorted([("other", 0, "kept"), (name, 0, "new")])
    assert texts(lake, {"explainer": name}) == [(name, 0, "new")]


def test_writers_of_different_partitions_lose_nothing(lake: Lake) -> None:
    def write(explainer: str) -> dict[int, str]:
        wanted = [(block, text) for text in ("first", "second") for block in (0, 1)]
        return {put(lake, explainer, block, text, explainer): f"{explainer}{block}" for block, text in wanted}

    with ThreadPoolExecutor(4) as pool:
        written = list(pool.map(write, "abcd"))
    assert texts(lake) == sorted((e, block, text) for e in "abcd" for block in (0, 1) for text in ("second", e))
    # Each writer is told the version that holds its own commit.
    history = {entry["version"]: entry.get("of") for entry in DeltaTable(lake.path("explanations")).history()}
    assert {version: of for version, of in history.items() if of} == {
        v: of for each in written for v, of in each.items()
    }


def test_writers_of_one_partition_leave_the_rows_of_one(lake: Lake) -> None:
    put(lake, "a", 0, "before")
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda n: put(lake, "a", 0, f"{n}", f"{n}"), range(4)))
    assert texts(lake) in [[("a", 0, f"{n}")] * 2 for n in range(4)]


def test_writers_that_append_lose_nothing(lake: Lake) -> None:
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda n: lake.append("shards", shards(f"s{n}")), range(8)))
    assert sorted(lake.scan("shards").collect()["shard"]) == [f"s{n}" for n in range(8)]


def test_studies_share_only_what_is_declared_shared(lake: Lake) -> None:
    other = Lake(lake.uri, "other")
    assert {name for name in TABLES if lake.path(name) == other.path(name)} == {"calls", "prompts"}
    put(lake, "a", 0, "x")
    assert texts(other) == []


def test_a_table_that_cannot_be_read_is_named(lake: Lake) -> None:
    put(lake, "a", 0, "x")
    for file in Path(lake.path("explanations"), "_delta_log").glob("*.json"):
        file.write_text("{")
    with pytest.raises(LakeError, match="explanations"):
        lake.scan("explanations")


def test_activations_are_laid_out_as_declared(lake: Lake) -> None:
    layout = TABLES["activations"].layout
    assert layout is not None
    n = layout.row_group + 5
    columns = {
        "dictionary": ["one"] * n,
        "shard": ["s"] * n,
        "latent": range(n),
        "position": range(n),
        "activation": [0.5] * n,
    }
    rows = TABLES["activations"].conform(pl.DataFrame(columns))
    lake.replace("activations", rows, {"dictionary": "one", "shard": "s"}, {})
    (uri,) = DeltaTable(lake.path("activations")).file_uris()
    metadata = pq.ParquetFile(unquote(uri.removeprefix("file://"))).metadata
    assert [metadata.row_group(group).num_rows for group in range(metadata.num_row_groups)] == [layout.row_group, 5]
    stored = {column["path_in_schema"]: column for column in metadata.row_group(0).to_dict()["columns"]}
    assert set(stored) == set(layout.encodings)
    for name, encoding in layout.encodings.items():
        assert encoding in stored[name]["encodings"]
        assert not {"PLAIN", "PLAIN_DICTIONARY", "RLE_DICTIONARY"} & set(stored[name]["encodings"])
        assert stored[name]["compression"] == "ZSTD"
        assert stored[name]["statistics"]["has_min_max"]


def test_a_table_of_a_newer_schema_is_refused(lake: Lake) -> None:
    put(lake, "a", 0, "x")
    DeltaTable(lake.path("explanations")).alter.add_columns([Field("rationale", "string")])
    for use in (lambda: lake.scan("explanations"), lambda: put(lake, "a", 0, "y")):
        with pytest.raises(LakeError, match=r"rationale, which this latentlake does not know.*Upgrade latentlake"):
            use()
    assert DeltaTable(lake.path("explanations")).version() == 2


def test_a_table_without_a_column_that_may_be_null_is_read_and_gets_it(lake: Lake) -> None:
    older = pa.schema([field for field in TABLES["calls"].schema if field.name != "launch"])
    DeltaTable.create(lake.path("calls"), schema=older)
    assert lake.scan("calls").collect().schema == TABLES["calls"].empty().schema
    lake.append("calls", TABLES["calls"].schema.empty_table())
    assert "launch" in {field.name for field in DeltaTable(lake.path("calls")).schema().fields}


def test_a_table_without_a_column_that_is_needed_is_refused(lake: Lake) -> None:
    older = pa.schema([field for field in TABLES["partitions"].schema if field.name != "recipe"])
    DeltaTable.create(lake.path("partitions"), schema=older)
    with pytest.raises(LakeError, match=r"lacks the columns recipe: an older latentlake"):
        lake.scan("partitions")


def test_a_column_may_be_described_in_other_words_than_when_its_table_was_made(
    lake: Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(lake, "e", 0, "before")
    table = TABLES["explanations"]
    columns = tuple(replace(column, doc=f"{column.doc}, in other words") for column in table.columns)
    monkeypatch.setitem(TABLES, "explanations", replace(table, columns=columns))
    put(lake, "e", 1, "after")
    assert texts(lake) == [("e", 0, "before"), ("e", 1, "after")]
