"""Corpus files make stable shards and documents, and every kind of bad file is refused by name."""

import gzip
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from latentlake.corpus import list_shards, read_documents
from latentlake.errors import InputError
from latentlake.files import FileFacts
from latentlake.study import Corpus


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
