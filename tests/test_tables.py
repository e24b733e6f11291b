"""Every declared table is consistent, refuses rows that do not fit it, and comes back from Delta as it went in."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from latentlake.errors import LakeError
from latentlake.lake import Lake
from latentlake.tables import TABLES
from latentlake.tables.table import Column, Layout, Table, _ascend

EVERY = pytest.mark.parametrize("table", TABLES.values(), ids=TABLES)


def value_of(kind: pa.DataType, number: int) -> Any:
    """A value of a type; other numbers give other values."""
    if pa.types.is_list(kind):
        return [value_of(kind.value_type, number), value_of(kind.value_type, number + 1)]
    if pa.types.is_struct(kind):
        return {field.name: value_of(field.type, number) for field in kind}
    if pa.types.is_timestamp(kind):
        return datetime(2026, 1, 1, microsecond=number, tzinfo=UTC)
    if pa.types.is_boolean(kind):
        return number % 2 == 0
    return f"it's {number}" if pa.types.is_string(kind) else kind.to_pandas_dtype()(number + 0.5).item()


def row_of(table: Table, number: int, is_sparse: bool = False) -> dict[str, Any]:
    """A row; the partition columns are the same for all numbers. ``is_sparse``: null where that is allowed."""
    return {
        c.name: None if is_sparse and c.nullable else value_of(c.type, 0 if c.name in table.partition_by else number)
        for c in table.columns
    }


def rows_of(table: Table, *rows: dict[str, Any]) -> pa.Table:
    return pa.Table.from_pylist(list(rows), schema=pa.schema([(c.name, c.type) for c in table.columns]))


SMALL = Table(
    "small",
    "for tests",
    (
        Column("key", pa.string(), "k"),
        Column("n", pa.int32(), "n"),
        Column("note", pa.string(), "may be null", nullable=True),
    ),
    keys=("key",),
)
GOOD = {"key": ["a", "b"], "n": [1, 2], "note": ["x", None]}


@EVERY
def test_names_columns_that_are_there(table: Table) -> None:
    names = [c.name for c in table.columns]
    assert len(set(names)) == len(names)
    layout = table.layout or Layout(1, {})
    for named in (table.keys, table.identity, table.partition_by, tuple(layout.encodings)):
        assert set(named) <= set(names)
        assert len(set(named)) == len(named)
    assert all(c.doc for c in table.columns)


@EVERY
def test_partition_columns_are_never_null_and_can_be_paths(table: Table) -> None:
    columns = {c.name: c for c in table.columns}
    assert not [name for name in table.partition_by if columns[name].nullable]
    assert {columns[name].type for name in table.partition_by} <= {pa.string(), pa.int32()}


@EVERY
def test_identity_leaves_out_times_prices_and_what_partitions_say(table: Table) -> None:
    assert not set(table.identity) & {"at", "created_at", "seconds", "price", *table.partition_by}


@EVERY
def test_an_empty_frame_has_the_schema(table: Table) -> None:
    frame = table.empty()
    assert frame.height == 0
    assert frame.schema == pl.from_arrow(rows_of(table, row_of(table, 1))).schema
    assert table.conform(frame).schema == table.schema


@EVERY
def test_rows_come_back_from_delta_as_they_went_in(table: Table, tmp_path: Path) -> None:
    lake = Lake(str(tmp_path), "s")
    for row in (row_of(table, 1), row_of(table, 2, is_sparse=True)):
        rows = table.conform(rows_of(table, row))
        lake.replace(table.name, rows, {name: row[name] for name in table.partition_by}, {})
        found = lake.scan(table.name)
        assert found.collect_schema() == table.empty().schema
        assert found.collect().to_dicts() == [row]


@EVERY
def test_each_column_is_needed(table: Table) -> None:
    rows = rows_of(table, row_of(table, 1))
    for column in table.columns:
        with pytest.raises(LakeError, match=f"table {table.name}: .*{column.name}"):
            table.conform(rows.drop([column.name]))


@EVERY
def test_a_null_is_refused_where_none_may_be(table: Table) -> None:
    for column in table.columns:
        row = rows_of(table, {**row_of(table, 1), column.name: None})
        if column.nullable:
            assert table.conform(row)[column.name].null_count == 1
        else:
            with pytest.raises(LakeError, match=column.name):
                table.conform(row)


@pytest.mark.parametrize("table", [each for each in TABLES.values() if each.keys], ids=lambda table: table.name)
def test_a_repeated_key_is_refused_and_another_is_not(table: Table) -> None:
    first, second = row_of(table, 1), row_of(table, 2)
    with pytest.raises(LakeError, match="repeat the key"):
        table.conform(rows_of(table, first, {**second, **{name: first[name] for name in table.keys}}))
    for name in set(table.keys) - set(table.partition_by):
        assert table.conform(rows_of(table, first, {**first, name: second[name]})).num_rows == 2


def test_keys_that_hold_nulls_are_compared_too() -> None:
    table = Table(
        "small", "", (Column("a", pa.int32(), ""), Column("b", pa.string(), "", nullable=True)), keys=("a", "b")
    )
    assert table.conform(pa.table({"a": [1, 1], "b": [None, "x"]})).num_rows == 2
    with pytest.raises(LakeError, match="1 row"):
        table.conform(pa.table({"a": [1, 1], "b": pa.array([None, None], pa.string())}))


@pytest.mark.parametrize("rows", [pa.table(GOOD), pl.DataFrame(GOOD)], ids=["arrow", "polars"])
def test_fitting_rows_get_the_declared_order_and_types(rows: pa.Table | pl.DataFrame) -> None:
    found = SMALL.conform(rows.select(["note", "n", "key"]))
    assert found.schema == SMALL.schema
    assert found.to_pydict() == GOOD


def test_columns_that_are_not_declared_are_left_out() -> None:
    assert SMALL.conform(pa.table({**GOOD, "more": [1, 2]})).column_names == ["key", "n", "note"]


@pytest.mark.parametrize(
    ("column", "values"),
    [
        ("n", ["1", "2"]),
        ("n", ["a", "b"]),
        ("n", [1.5, 2.0]),
        ("n", [2**31, 1]),
        ("n", [[1], [2]]),
        ("n", [{"x": 1}, {"x": 2}]),
        ("n", [datetime(2026, 1, 1), datetime(2026, 1, 2)]),
        ("key", [1, 2]),
        ("key", [["a"], ["b"]]),
        ("note", [True, False]),
    ],
    ids=str,
)
def test_values_of_another_type_are_refused(column: str, values: list[Any]) -> None:
    with pytest.raises(LakeError, match="table small"):
        SMALL.conform(pa.table({**GOOD, column: values}))


@settings(deadline=None, max_examples=200)
@given(st.lists(st.tuples(st.sampled_from("ab"), st.booleans(), st.integers(0, 2)), max_size=6))
def test_rows_ascend_where_sorting_would_not_move_them_and_none_is_there_twice(
    rows: list[tuple[str, bool, int]],
) -> None:
    frame = pl.DataFrame(rows, schema={"a": pl.String, "b": pl.Boolean, "c": pl.Int32}, orient="row")
    assert _ascend(frame) == (rows == sorted(set(rows)))
    with_null = pl.DataFrame({"a": ["x", None, None], "c": [1, 2, 2]})
    assert not _ascend(with_null)
