"""Digests depend on values alone: not on key order, row order or Arrow's memory layout, and on every value."""

from collections.abc import Sequence
from itertools import product
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from latentlake.digest import digest, mix, rows_digest, seed_of, token_hash

SCHEMA = pa.schema(
    {
        "id": pa.int32(),
        "text": pa.string(),
        "tokens": pa.list_(pa.int32()),
        "entries": pa.list_(pa.struct({"name": pa.string(), "count": pa.int64()})),
        "flag": pa.bool_(),
        "mass": pa.float64(),
    }
)
ENTRY = st.fixed_dictionaries({"name": st.text(max_size=2), "count": st.integers(0, 3)})
ROW = st.fixed_dictionaries(
    {
        "id": st.integers(0, 30),
        "text": st.none() | st.text(max_size=3),
        "tokens": st.none() | st.lists(st.integers(0, 3), max_size=3),
        "entries": st.lists(ENTRY, max_size=2),
        "flag": st.none() | st.booleans(),
        "mass": st.none() | st.floats(0, 1),
    }
)
ROWS = st.lists(ROW, min_size=1, max_size=8, unique_by=lambda row: row["id"])

# type → values of which every column of up to four rows must have a digest of its own
DOMAINS: list[tuple[pa.DataType, list[Any]]] = [
    (pa.bool_(), [None, True, False]),
    (pa.int32(), [None, 0, 1]),
    (pa.int64(), [None, 0, 1]),
    (pa.float64(), [None, 0.0, 1.0]),
    (pa.string(), [None, "", "a", "ab"]),
    (pa.list_(pa.int32()), [None, [], [1], [None], [1, 1]]),
    (pa.list_(pa.list_(pa.int32())), [None, [], [[]], [[1], [1]], [[1, 1], []]]),
    (
        pa.struct({"a": pa.int32(), "b": pa.string()}),
        [None, {"a": 1, "b": None}, {"a": None, "b": "x"}, {"a": 1, "b": "x"}],
    ),
]


def rows_of(rows: Sequence[dict[str, Any]]) -> pa.Table:
    return pa.Table.from_pylist(list(rows), schema=SCHEMA)


def of(table: pa.Table) -> str:
    return rows_digest(table, SCHEMA.names, ["id"])


def column_digest(values: Sequence[Any], kind: pa.DataType) -> str:
    return rows_digest(pa.table({"x": pa.array(values, kind)}), ["x"], [])


@pytest.mark.parametrize("value", [{1, 2}, object(), b"bytes", [1, {2}], {"a": object()}, np.int32(1)])
def test_what_has_no_canonical_form_is_refused(value: Any) -> None:
    with pytest.raises(TypeError):
        digest(value)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), [1.0, float("nan")]], ids=repr)
def test_numbers_that_json_lacks_are_refused_as_documented(value: Any) -> None:
    with pytest.raises(TypeError):
        digest(value)


def test_digest_does_not_depend_on_key_order() -> None:
    assert digest({"a": 1, "b": {"c": [1], "d": None}}) == digest({"b": {"d": None, "c": [1]}, "a": 1})


def test_digest_tells_values_apart() -> None:
    values = [
        None,
        False,
        0,
        0.5,
        "",
        "0",
        "None",
        [],
        {},
        [[]],
        ["a", "b"],
        ["ab"],
        ["a,b"],
        {"a": "b"},
        [0],
        [None],
        ["é"],
    ]
    assert len({digest(value) for value in values}) == len(values)


def test_digest_is_32_hex_digits_and_the_same_in_every_process() -> None:
    # sha256 of the text {"a":1}
    assert digest({"a": 1}) == "015abd7f5cc57a2dd94b7590f04ad808"


@settings(deadline=None, max_examples=40)
@given(ROWS, st.randoms(use_true_random=False))
def test_row_order_does_not_matter(rows: list[dict[str, Any]], chance: Any) -> None:
    shuffled = chance.sample(rows, len(rows))
    assert of(rows_of(rows)) == of(rows_of(shuffled))


@settings(deadline=None, max_examples=40)
@given(ROWS, ROWS, st.integers(0, 8))
def test_chunks_slices_and_offsets_do_not_matter(
    rows: list[dict[str, Any]], others: list[dict[str, Any]], cut: int
) -> None:
    whole = rows_of(rows)
    padded = rows_of([*others, *rows, *others]).slice(len(others), len(rows))
    chunked = pa.concat_tables([padded.slice(0, cut), padded.slice(cut), padded.slice(0, 0)])
    assert of(padded) == of(chunked) == of(whole)


@settings(deadline=None, max_examples=40)
@given(ROWS, ROW, st.sampled_from(SCHEMA.names), st.data())
def test_every_value_of_a_column_matters(
    rows: list[dict[str, Any]], other: dict[str, Any], name: str, data: Any
) -> None:
    place = data.draw(st.integers(0, len(rows) - 1))
    changed = [{**row, name: other[name]} if index == place else row for index, row in enumerate(rows)]
    is_same = sorted(changed, key=lambda row: row["id"]) == sorted(rows, key=lambda row: row["id"])
    assert (of(rows_of(changed)) == of(rows_of(rows))) == is_same


@pytest.mark.parametrize(("kind", "domain"), DOMAINS, ids=[str(kind) for kind, _ in DOMAINS])
def test_different_columns_have_different_digests(kind: pa.DataType, domain: list[Any]) -> None:
    columns = [values for n in range(5) for values in product(domain, repeat=n)]
    seen: dict[str, Any] = {}
    same = [
        (seen[key], values)
        for values in columns
        if seen.setdefault(key := column_digest(values, kind), values) != values
    ]
    assert same == []


def test_the_same_bytes_cut_elsewhere_are_other_rows() -> None:
    assert column_digest(["ab", "c"], pa.string()) != column_digest(["a", "bc"], pa.string())
    nested = pa.list_(pa.int32())
    assert column_digest([[1], [2]], nested) != column_digest([[1, 2], []], nested)


def test_only_the_named_columns_count_and_each_under_its_name() -> None:
    table = pa.table({"a": [1, 2], "b": [3, 4], "c": [5, 6]})
    assert rows_digest(table, ["a", "b"], ["a"]) == rows_digest(table.drop(["c"]), ["b", "a"], ["a"])
    swapped = table.rename_columns({"a": "b", "b": "a"})
    assert rows_digest(table, ["a", "b"], []) != rows_digest(swapped, ["a", "b"], [])


def test_mix_has_no_collisions_and_is_splitmix64() -> None:
    values = np.arange(100_000, dtype=np.uint64)
    assert len(np.unique(mix(values, np.uint64(0)))) == len(values)
    assert len(np.unique(mix(values, seed_of("x")))) == len(values)
    # The first two outputs of splitmix64 seeded with 0.
    steps = np.array([0, 0x9E3779B97F4A7C15], dtype=np.uint64)
    assert mix(steps, np.uint64(0)).tolist() == [0xE220A8397B1DCDAF, 0x6E789E6AA1B965F4]


def test_seeds_tell_their_parts_apart() -> None:
    seeds = {int(seed_of(*parts)) for parts in (("a", "b"), ("ab",), ("b", "a"), (1, 12), (11, 2), (112,), ())}
    assert len(seeds) == 7


@settings(deadline=None, max_examples=100)
@given(st.lists(st.lists(st.integers(-1, 200), max_size=6), min_size=1, max_size=4))
def test_left_out_tokens_do_not_count(rows: list[list[int]]) -> None:
    padded = np.full((len(rows), 8), -1)
    for row, tokens in zip(padded, rows, strict=True):
        row[: len(tokens)] = tokens
    for tokens, found in zip(rows, token_hash(padded), strict=True):
        kept = np.array([[token for token in tokens if token >= 0]], dtype=np.int64).reshape(1, -1)
        assert found == token_hash(kept)[0]


def test_token_hash_depends_on_tokens_and_their_order() -> None:
    rows = [tokens for n in range(4) for tokens in product(range(12), repeat=n)]
    padded = np.array([[*tokens, *[-1] * (3 - len(tokens))] for tokens in rows])
    assert len(np.unique(token_hash(padded))) == len(rows)
