"""Corpus files make stable shards and documents, and every kind of bad file is refused by name."""

import gzip
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from latentlake.corpus import Document, list_shards, read_documents
from latentlake.errors import InputError
from latentlake.files import FileFacts, file_sha256
from latentlake.sections.corpus import Corpus


def corpus(size: int = 4, **sources: Any) -> Corpus:
    sources = sources or {"docs": {"path": "*.jsonl*"}}
    return Corpus.model_validate({"sources": sources, "documents_per_shard": size})


def records(first: int, last: int) -> list[dict[str, str]]:
    return [{"text": f"text {n}", "title": f"title {n}"} for n in range(first, last)]


def write(path: Path, lines: Sequence[Any]) -> Path:
    """A file of lines, strings as they are and everything else as JSON; gzipped by its name."""
    text = "\n".join(line if isinstance(line, str) else json.dumps(line) for line in lines) + "\n"
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(gzip.compress(text.encode(), mtime=0) if path.suffix == ".gz" else text.encode())
    return path


def keys(home: Path, choices: Corpus) -> list[str]:
    return [shard.key for shard in list_shards(choices, home, FileFacts(home / "cache"))]


def refusal(home: Path, choices: Corpus | None = None) -> str:
    with pytest.raises(InputError) as caught:
        list_shards(choices or corpus(), home, FileFacts(home / "cache"))
    return str(caught.value)


@pytest.mark.parametrize("name", ["a.jsonl", "a.jsonl.gz"])
@pytest.mark.parametrize(("documents", "sizes"), [(1, [1]), (3, [3]), (4, [4]), (5, [4, 1]), (12, [4, 4, 4])])
def test_shards_are_ranges_of_documents(tmp_path: Path, name: str, documents: int, sizes: list[int]) -> None:
    write(tmp_path / name, records(0, documents))
    shards = list_shards(corpus(4), tmp_path, FileFacts(tmp_path / "cache"))
    assert [shard.key for shard in shards] == [f"docs-a-{n:04d}" for n in range(len(sizes))]
    assert [shard.documents for shard in shards] == sizes
    read = [document for shard in shards for document in read_documents(shard)]
    assert [document.text for document in read] == [f"text {n}" for n in range(documents)]
    assert [len(read_documents(shard)) for shard in shards] == sizes


def test_plain_and_gzipped_files_hold_the_same_documents(tmp_path: Path) -> None:
    write(tmp_path / "plain" / "a.jsonl", records(0, 9))
    write(tmp_path / "packed" / "a.jsonl.gz", records(0, 9))
    sources = {"plain": {"path": "plain/*", "id": "title"}, "packed": {"path": "packed/*", "id": "title"}}
    shards = list_shards(corpus(5, **sources), tmp_path, FileFacts(tmp_path / "cache"))
    assert [shard.key for shard in shards] == ["plain-a-0000", "plain-a-0001", "packed-a-0000", "packed-a-0001"]
    assert [read_documents(shard) for shard in shards[:2]] == [read_documents(shard) for shard in shards[2:]]


def test_shards_come_in_the_order_of_the_study_then_of_file_names(tmp_path: Path) -> None:
    for name in ("b", "c", "a"):
        write(tmp_path / "x" / f"{name}.jsonl", records(0, 5))
    write(tmp_path / "y" / "a.jsonl", records(0, 1))
    sources = {"second": {"path": "y/*"}, "first": {"path": "x/*"}}
    found = keys(tmp_path, corpus(4, **sources))
    assert found == ["second-a-0000", *(f"first-{name}-000{n}" for name in "abc" for n in (0, 1))]
    assert len(set(found)) == len(found)


def test_adding_files_and_documents_keeps_the_keys_that_were_there(tmp_path: Path) -> None:
    write(tmp_path / "b.jsonl", records(0, 6))
    before = keys(tmp_path, corpus())
    write(tmp_path / "a.jsonl", records(0, 2))
    write(tmp_path / "b.jsonl", records(0, 9))
    after = keys(tmp_path, corpus())
    assert [key for key in after if key in before] == before
    assert set(after) - set(before) == {"docs-a-0000", "docs-b-0002"}


def test_keys_hold_nothing_but_small_letters_digits_and_underscores(tmp_path: Path) -> None:
    write(tmp_path / "Wiki Leads|2024's.v2.jsonl.gz", records(0, 1))
    assert keys(tmp_path, corpus()) == ["docs-wiki_leads_2024_s-0000"]


def test_documents_are_named_by_their_field_or_by_file_and_line(tmp_path: Path) -> None:
    write(tmp_path / "a.jsonl", ["", *records(0, 1), "  ", {"text": "no title"}, {"text": "t", "title": 7}])
    choices = {"named": {"path": "a.jsonl", "id": "title"}}
    named = list_shards(corpus(9, **choices), tmp_path, FileFacts(tmp_path / "cache"))[0]
    assert [document.name for document in read_documents(named)] == ["title 0", "a.jsonl:4", "7"]
    unnamed = list_shards(corpus(9), tmp_path, FileFacts(tmp_path / "cache"))[0]
    assert [document.name for document in read_documents(unnamed)] == ["a.jsonl:2", "a.jsonl:4", "a.jsonl:5"]


def test_blank_lines_are_no_documents(tmp_path: Path) -> None:
    first, second = records(0, 2)
    write(tmp_path / "a.jsonl", ["", first, "   ", "\t", second, "", ""])
    shards = list_shards(corpus(1), tmp_path, FileFacts(tmp_path / "cache"))
    assert [[document.text for document in read_documents(shard)] for shard in shards] == [["text 0"], ["text 1"]]


def test_the_text_field_is_the_one_that_the_source_names(tmp_path: Path) -> None:
    write(tmp_path / "a.jsonl", records(0, 1))
    shard = list_shards(corpus(1, docs={"path": "a.jsonl", "text": "title"}), tmp_path, FileFacts(tmp_path / "cache"))[
        0
    ]
    assert [document.text for document in read_documents(shard)] == ["title 0"]


def test_the_digest_of_a_shard_follows_its_file_range_and_fields(tmp_path: Path) -> None:
    def digests(size: int = 4, **source: Any) -> list[str]:
        choices = corpus(size, docs={"path": "*.jsonl", **source})
        return [shard.digest for shard in list_shards(choices, tmp_path, FileFacts(tmp_path / "cache"))]

    write(tmp_path / "a.jsonl", records(0, 8))
    before = digests()
    assert digests() == before
    assert len(set(before)) == 2
    assert not set(digests(size=5)) & set(before)
    assert not set(digests(text="title")) & set(before)
    assert not set(digests(id="title")) & set(before)
    write(tmp_path / "a.jsonl", records(1, 10))
    assert not set(digests()) & set(before)


# name → (content of a.jsonl, line that is to be named)
BAD_LINES: dict[str, tuple[list[Any], int]] = {
    "not JSON": ([*records(0, 2), "{not json"], 3),
    "not JSON after blank lines": (["", *records(0, 1), "", "{not json"], 4),
    "no object": (["[1]"], 1),
    "no text": ([*records(0, 1), {"title": "t"}], 2),
    "empty text": ([*records(0, 1), {"text": " \n"}], 2),
    "text that is a number": ([{"text": 5}], 1),
    "text that is null": ([{"text": None}], 1),
    "text that cannot be encoded": ([*records(0, 1), r'{"text": "half a character: \ud83d"}'], 2),
}


@pytest.mark.parametrize(("lines", "line"), BAD_LINES.values(), ids=BAD_LINES)
@pytest.mark.parametrize("name", ["a.jsonl", "a.jsonl.gz"])
def test_a_bad_line_is_named_with_its_file(tmp_path: Path, name: str, lines: list[Any], line: int) -> None:
    path = write(tmp_path / name, lines)
    assert refusal(tmp_path).startswith(f"{path}, line {line}: ")


def test_a_path_that_matches_nothing_is_named(tmp_path: Path) -> None:
    (tmp_path / "folder.jsonl").mkdir()
    message = refusal(tmp_path)
    assert "corpus.sources.docs" in message
    assert "*.jsonl*" in message


@pytest.mark.parametrize("path", ["/nowhere/*.jsonl", ""])
def test_a_path_that_is_no_relative_glob_is_refused(tmp_path: Path, path: str) -> None:
    assert "corpus.sources.docs" in refusal(tmp_path, corpus(docs={"path": path}))


@pytest.mark.parametrize("lines", [[], ["", "  "]], ids=["nothing", "blank"])
@pytest.mark.parametrize("name", ["a.jsonl", "a.jsonl.gz"])
def test_a_file_without_documents_is_refused(tmp_path: Path, name: str, lines: list[str]) -> None:
    path = write(tmp_path / name, lines)
    assert str(path) in refusal(tmp_path)


def truncated(data: bytes) -> bytes:
    return data[: len(data) // 2]


def damaged(data: bytes) -> bytes:
    return data[: len(data) // 2] + b"\xff" * 20 + data[len(data) // 2 + 20 :]


def plain(data: bytes) -> bytes:
    return gzip.decompress(data)


def no_text(data: bytes) -> bytes:
    return gzip.compress(gzip.decompress(data)[:50] + b"\xff\xfe\n")


@pytest.mark.parametrize("spoil", [truncated, damaged, plain, no_text])
def test_a_spoilt_gzip_file_is_refused(tmp_path: Path, spoil: Any) -> None:
    path = write(tmp_path / "a.jsonl.gz", [{"text": f"{n * 7919 % 1009}"} for n in range(2000)])
    path.write_bytes(spoil(path.read_bytes()))
    assert str(path) in refusal(tmp_path)


@pytest.mark.parametrize("names", [("a.jsonl", "a.jsonl.gz"), ("A.jsonl", "a.jsonl"), ("a b.jsonl", "a-b.jsonl")])
def test_two_files_that_make_one_key_are_both_named(tmp_path: Path, names: tuple[str, str]) -> None:
    for name in names:
        write(tmp_path / name, records(0, 1))
    message = refusal(tmp_path)
    assert all(str(tmp_path / name) in message for name in names)
    sources = {"one": {"path": names[0]}, "two": {"path": names[1]}}
    assert len(set(keys(tmp_path, corpus(**sources)))) == 2


class Count:
    """Computes a fact, and counts how often."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, path: Path) -> int:
        self.calls += 1
        return len(path.read_text())


def test_facts_are_computed_once_even_by_another_process(tmp_path: Path) -> None:
    path, count = write(tmp_path / "a", ["abc"]), Count()
    facts = FileFacts(tmp_path / "cache")
    assert [facts.get(path, "length", count) for _ in range(3)] == [4, 4, 4]
    assert FileFacts(tmp_path / "cache").get(path, "length", count) == 4
    assert count.calls == 1


def test_facts_are_computed_again_when_the_file_changes(tmp_path: Path) -> None:
    path, count = write(tmp_path / "a", ["abc"]), Count()
    facts = FileFacts(tmp_path / "cache")
    facts.get(path, "length", count)
    write(path, ["abcdef"])
    assert (facts.get(path, "length", count), count.calls) == (7, 2)
    os.utime(path, ns=(1, path.stat().st_mtime_ns + 1))
    assert (facts.get(path, "length", count), count.calls) == (7, 3)


def test_facts_of_other_kinds_and_files_are_apart(tmp_path: Path) -> None:
    one, other, count = write(tmp_path / "a", ["abc"]), write(tmp_path / "b", ["abcd"]), Count()
    facts = FileFacts(tmp_path / "cache")
    assert facts.get(one, "length", count) == 4
    assert facts.get(one, "size", lambda _: "another") == "another"
    assert facts.get(other, "length", count) == 5


def test_a_failed_fact_is_not_remembered(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", ["{"])
    facts = FileFacts(tmp_path / "cache")
    for _ in range(2):
        with pytest.raises(InputError):
            list_shards(corpus(), tmp_path, facts)
    write(path, records(0, 1))
    assert len(list_shards(corpus(), tmp_path, facts)) == 1


def write_parquet(path: Path, rows: list[dict[str, Any]], group: int = 3) -> Path:
    pq.write_table(pa.Table.from_pylist(rows), path, row_group_size=group)
    return path


def all_documents(home: Path, choices: Corpus) -> list[Document]:
    shards = list_shards(choices, home, FileFacts(home / "cache"))
    return [document for shard in shards for document in read_documents(shard)]


def test_every_kind_of_file_gives_the_same_documents(tmp_path: Path) -> None:
    rows = records(0, 9)
    write(tmp_path / "a.jsonl", rows)
    write(tmp_path / "b.jsonl.gz", rows)
    with pa.output_stream(str(tmp_path / "c.jsonl.zst"), compression="zstd") as packed:
        packed.write((tmp_path / "a.jsonl").read_bytes())
    write_parquet(tmp_path / "d.parquet", rows)
    (tmp_path / "e.txt").write_text("\n---\n".join(row["text"] for row in rows) + "\n---\n")
    for name in ("a.jsonl", "b.jsonl.gz", "c.jsonl.zst", "d.parquet", "e.txt"):
        more = {"delimiter": "\n---\n"} if name == "e.txt" else {"id": "title"}
        for size in (2, 4, 9):
            found = all_documents(tmp_path, corpus(size, docs={"path": name, **more}))
            assert [each.text for each in found] == [row["text"] for row in rows], (name, size)
            if name != "e.txt":
                assert [each.name for each in found] == [row["title"] for row in rows]


def test_a_delimiter_may_lie_across_what_is_read_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    texts = ["Ünïcödé", "b", "日本 c", "d" * 9]
    (tmp_path / "a.txt").write_text("--==--".join(texts))
    for size in range(1, 9):
        monkeypatch.setattr("latentlake.corpora.text._CHUNK", size)
        found = all_documents(tmp_path, corpus(2, docs={"path": "a.txt", "delimiter": "--==--"}))
        assert [each.text for each in found] == texts


def test_files_of_one_name_in_several_folders_make_shards_of_their_own(tmp_path: Path) -> None:
    for folder in ("x", "y"):
        (tmp_path / "docs").mkdir(exist_ok=True)
        write(tmp_path / "docs" / folder / "a.jsonl", records(0, 1))
    assert keys(tmp_path, corpus(docs={"path": "docs/**/*.jsonl"})) == ["docs-x_a-0000", "docs-y_a-0000"]
    assert keys(tmp_path, corpus(docs={"path": "docs/x/*.jsonl"})) == ["docs-a-0000"]


def test_a_file_of_text_is_one_document(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("One.\n\nTwo.")
    assert all_documents(tmp_path, corpus(docs={"path": "*.txt"})) == [Document("a.txt:0", "One.\n\nTwo.")]


@pytest.mark.parametrize("name", ["a.jsonl", "a.parquet"])
def test_documents_may_be_token_ids(tmp_path: Path, name: str) -> None:
    rows = [{"input_ids": [5, 6]}, {"input_ids": [7]}]
    (write if name.endswith("l") else write_parquet)(tmp_path / name, rows)
    found = all_documents(tmp_path, corpus(docs={"path": "a.*", "tokens": "input_ids"}))
    assert [(each.text, each.tokens) for each in found] == [(None, (5, 6)), (None, (7,))]


@pytest.mark.parametrize("tokens", [["a"], [1.5], [-1], 3, [True]])
def test_what_is_no_list_of_token_ids_is_refused(tmp_path: Path, tokens: Any) -> None:
    write(tmp_path / "a.jsonl", [{"input_ids": tokens}])
    message = refusal(tmp_path, corpus(docs={"path": "a.jsonl", "tokens": "input_ids"}))
    assert "line 1: 'input_ids' must be a list of token ids" in message


def test_empty_documents_are_refused_or_passed_over(tmp_path: Path) -> None:
    write(tmp_path / "a.jsonl", [*records(0, 2), {"text": " "}, {"text": None}, {"text": "\xa0\u3000"}, *records(2, 3)])
    assert "line 3: no text in the field 'text'" in refusal(tmp_path)
    found = all_documents(tmp_path, corpus(2, docs={"path": "a.jsonl", "empty": "skip"}))
    assert [each.text for each in found] == ["text 0", "text 1", "text 2"]
    write(tmp_path / "a.jsonl", [*records(0, 2), {"txt": "misspelt"}])
    assert "line 3: no text in the field 'text'" in refusal(tmp_path, corpus(docs={"path": "a.jsonl", "empty": "skip"}))


@pytest.mark.parametrize("name", ["a.jsonl", "a.txt"])
def test_broken_utf8_is_named(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b'{"text": "fine"}\n{"text": "\xff"}\n')
    message = refusal(tmp_path, corpus(docs={"path": "a.*"}))
    assert message.startswith(f"{tmp_path / name}{', line 2' if name == 'a.jsonl' else ''}: not UTF-8")


def test_a_parquet_column_that_is_not_there_names_the_nearest(tmp_path: Path) -> None:
    write_parquet(tmp_path / "a.parquet", [{"texts": "a"}])
    assert "no column 'text' (did you mean 'texts'?)" in refusal(tmp_path, corpus(docs={"path": "a.parquet"}))


@pytest.mark.parametrize("cut", [0, 10, 100])
def test_a_parquet_file_cut_short_is_refused(tmp_path: Path, cut: int) -> None:
    path = write_parquet(tmp_path / "a.parquet", records(0, 50))
    path.write_bytes(path.read_bytes()[:cut])
    assert str(path) in refusal(tmp_path, corpus(docs={"path": "a.parquet"}))


def test_a_suffix_that_no_format_has_is_refused_unless_the_format_is_named(tmp_path: Path) -> None:
    write(tmp_path / "a.data", records(0, 2))
    message = refusal(tmp_path, corpus(docs={"path": "a.data"}))
    assert ".jsonl" in message
    assert ".parquet" in message
    assert len(all_documents(tmp_path, corpus(docs={"path": "a.data", "format": "lines"}))) == 2


def test_a_file_that_changes_after_it_was_listed_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", records(0, 3))
    [shard] = list_shards(corpus(), tmp_path, FileFacts(tmp_path / "cache"))
    write(path, records(0, 2))
    with pytest.raises(InputError, match="changed while it was being read"):
        read_documents(shard)


def test_a_file_that_changes_while_it_is_listed_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "a.jsonl", records(0, 3))

    def digest_and_change(of: Path) -> str:
        write(path, records(0, 2))
        return file_sha256(of)

    monkeypatch.setattr("latentlake.corpus.file_sha256", digest_and_change)
    assert "changed while it was being read" in refusal(tmp_path)


def saved(home: Path, kind: str) -> dict[str, Any]:
    """A data set of nine records in a folder, as one of the ways that its library has leaves it; and the source to read it."""
    rows = records(0, 9)
    if kind == "files":
        (home / "set").mkdir()
        write_parquet(home / "set" / "train-00000.parquet", rows)
    elif kind == "saved":
        datasets.Dataset.from_list(rows).save_to_disk(home / "set")
    else:
        datasets.DatasetDict({"train": datasets.Dataset.from_list(rows)}).save_to_disk(home / "set")
    return {"dataset": "set", "documents": 9, "id": "title"}


@pytest.mark.parametrize("kind", ["files", "saved", "saved by split"])
def test_a_data_set_gives_its_records_in_order(tmp_path: Path, kind: str) -> None:
    source = saved(tmp_path, kind)
    shards = list_shards(corpus(4, set=source), tmp_path, FileFacts(tmp_path / "cache"))
    assert [(each.key, each.documents) for each in shards] == [
        ("set-train-0000", 4), ("set-train-0001", 4), ("set-train-0002", 1),
    ]  # fmt: skip
    found = [document for shard in shards for document in read_documents(shard)]
    assert found == [Document(f"title {n}", f"text {n}") for n in range(9)]
    (tmp_path / "set" / "cache-123.arrow").write_bytes(b"what the library remembers")
    fewer = list_shards(corpus(4, set={**source, "documents": 5}), tmp_path, FileFacts(tmp_path / "cache"))
    assert fewer[0].digest == shards[0].digest


def test_a_data_set_that_has_fewer_records_than_asked_is_refused(tmp_path: Path) -> None:
    source = {**saved(tmp_path, "saved"), "documents": 10}
    with pytest.raises(InputError, match=r"9 records|ends after 9 records"):
        all_documents(tmp_path, corpus(4, set=source))


def test_a_split_that_a_data_set_has_not_is_refused(tmp_path: Path) -> None:
    source = {**saved(tmp_path, "files"), "split": "test"}
    assert "'set' cannot be opened" in refusal(tmp_path, corpus(set=source))


def test_without_the_hub_a_data_set_of_the_hub_is_refused(tmp_path: Path) -> None:
    message = refusal(tmp_path, corpus(set={"dataset": "nobody/nothing", "documents": 5}))
    assert "The data set 'nobody/nothing' is no path here, and the hub does not give it" in message
