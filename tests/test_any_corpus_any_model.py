"""From corpora of every kind through real models of several families to explanations, and windows back in their documents."""

import copy
import json
from pathlib import Path
from typing import Any

import datasets
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from jobs.progress import TerminalProgress
from jobs.run import Run
from latentlake.errors import InputError, LakeError
from latentlake.fakes import write_coder
from latentlake.passages import passages
from latentlake.reading.view import View
from resources.lake import LakeResource
from resources.models import ModelsResource
from tests.models import SIZE, TEXTS, tokenizer, write_model
from tests.workbench import open_instance

STUDY: dict[str, Any] = {
    "name": "any",
    "blocks": 1,
    "corpus": {"context_length": 33, "refresh": "all"},
    "subject": {"model": "model"},
    "dictionaries": {
        "early": {"hookpoint": "layers.1", "coder": "coders/early", "latents": 4},
        "late": {"hookpoint": "blocks.2.hook_resid_post", "coder": "coders/late", "latents": 4},
        "mlp": {"hookpoint": "layers.2.mlp", "coder": "coders/mlp", "latents": 4},
        "transcoder": {"hookpoint": "layers.1.mlp.input", "coder": "coders/transcoder", "latents": 4},
        "neurons": {"hookpoint": "layers.2.mlp.neurons", "coder": "coders/neurons", "latents": 4},
    },
    "selection": {"window": 8, "min_windows": {"explain": 2, "select": 0, "score": 0}},
    "samples": {"some": {"split": "explain", "windows": 4, "negatives": 4}},
    "explainers": {"tokens": {"method": "tokens"}},
}


def documents(start: int, n: int) -> list[str]:
    """Texts of several lengths, no two alike; one has many letters that take several tokens."""
    return [
        f"{number}. " + " ".join(TEXTS[(number + k) % 3] for k in range(1 + number % 4))
        for number in range(start, start + n)
    ]


def sources(folder: Path) -> dict[str, Any]:
    """A file or folder of each kind, and the sources that read them."""
    lines = "\n".join(json.dumps({"text": text}) for text in documents(0, 6)).encode()
    with pa.output_stream(str(folder / "a.jsonl.zst"), compression="zstd") as packed:
        packed.write(lines)
    pq.write_table(pa.table({"body": documents(6, 6), "name": [f"row {n}" for n in range(6)]}), folder / "b.parquet")
    (folder / "c.txt").write_text("\n\n\n".join(documents(12, 6)))
    datasets.Dataset.from_dict({"text": documents(18, 6)}).save_to_disk(folder / "set")
    tokens = [tokenizer().encode(text, add_special_tokens=False) for text in documents(24, 6)]
    pq.write_table(pa.table({"ids": tokens}), folder / "e.parquet")
    return {
        "lines": {"path": "a.jsonl.zst"},
        "table": {"path": "b.parquet", "text": "body", "id": "name"},
        "plain": {"path": "c.txt", "delimiter": "\n\n\n"},
        "set": {"dataset": "set", "documents": 6},
        "ready": {"path": "e.parquet", "tokens": "ids"},
    }


def prepare(folder: Path, family: str, only: tuple[str, ...] = (), **corpus: Any) -> Path:
    """The study in a folder, with its model, coders and corpus. ``only``: some of the sources and dictionaries."""
    write_model(folder / "model", family)
    for name, width in (("early", 32), ("late", 32), ("mlp", 32), ("neurons", 64)):
        write_coder(folder / "coders" / name, width, 48, k=6, seed=len(name))
    write_coder(folder / "coders" / "transcoder", 32, 48, k=6, seed=3, is_transcoder=True)
    study = copy.deepcopy(STUDY)
    study["corpus"].update({"sources": sources(folder), **corpus})
    for section in (study["corpus"]["sources"], study["dictionaries"]):
        for name in set(section) - set(only) if only else ():
            del section[name]
    (folder / "study.yaml").write_text(yaml.safe_dump(study, sort_keys=False))
    return folder


def run(folder: Path) -> View:
    """Run the study to its end."""
    lake = LakeResource(uri=str(folder / "lake"))
    with open_instance(folder / "instance") as instance:
        models = ModelsResource(cache=str(folder / "cache"), batch_tokens=200)
        Run(str(folder / "study.yaml"), instance, lake, models, TerminalProgress()).execute()
    return View(lake.open("any"))


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> View:
    """Every kind of source and of hookpoint, packed."""
    return run(prepare(tmp_path_factory.mktemp("whole"), "llama"))


def test_every_kind_of_corpus_and_hookpoint_goes_all_the_way(whole: View) -> None:
    shards = ["lines-a-0000", "plain-c-0000", "ready-e-0000", "set-train-0000", "table-b-0000"]
    assert sorted(whole.contexts.collect()["shard"].unique()) == shards
    counts = whole.activations.group_by("dictionary", "shard").len().collect()
    assert counts.height == 5 * len(STUDY["dictionaries"])
    explained = whole.explanations.filter(pl.col("explanation").is_not_null()).collect()
    assert dict(explained["dictionary"].value_counts().iter_rows()) == dict.fromkeys(STUDY["dictionaries"], 4)
    places = {row["dictionary"]: row for row in whole.dictionaries.collect().to_dicts()}
    assert [places["late"][name] for name in ("hookpoint", "writes", "module")] == [
        "layers.2",
        "layers.2",
        "layers.2.output",
    ]
    assert [places["transcoder"][name] for name in ("hookpoint", "writes")] == ["layers.1.mlp.input", "layers.1.mlp"]
    assert len({row["module"] for row in places.values()}) == len(STUDY["dictionaries"])


@pytest.mark.parametrize("family", ["pythia", "gemma3"])
def test_other_families_go_through_the_same_code(tmp_path: Path, family: str) -> None:
    view = run(prepare(tmp_path, family, only=("lines", "early", "mlp")))
    explained = view.explanations.filter(pl.col("explanation").is_not_null()).collect()
    assert dict(explained["dictionary"].value_counts().iter_rows()) == {"early": 4, "mlp": 4}


def assert_found_as_they_stood(view: View, windows: pl.DataFrame) -> int:
    """The passages of windows are pieces of their documents, and the windows' own text; returns how many were compared."""
    texts = {row[:2]: row[2] for row in view.documents.select("shard", "number", "text").collect().rows()}
    by_place: dict[tuple[Any, ...], list[str]] = {}
    for row in passages(view, windows, around=15).iter_rows(named=True):
        assert row["before"] + row["text"] + row["after"] in texts[row["shard"], row["number"]]
        assert len(row["before"]) <= 15
        by_place.setdefault((row["shard"], row["context"], row["start"]), []).append(row["text"])
    compared = 0
    for row in windows.iter_rows(named=True):
        parts = [part for part in row["text"].split("\u2029") if part]
        if all(part.isascii() for part in parts):  # else a window may begin or end within a character
            assert by_place[row["shard"], row["context"], row["start"]] == parts
            compared += 1
    return compared


def test_windows_are_found_in_their_documents_as_they_stood(whole: View) -> None:
    windows = whole.examples.filter(pl.col("shard") != "ready-e-0000").collect()
    assert assert_found_as_they_stood(whole, windows) > 50
    plain = whole.documents.filter(shard="plain-c-0000").sort("number").collect()
    assert plain["text"].to_list() == documents(12, 6)


def test_with_one_document_a_context_they_are_found_too(tmp_path: Path) -> None:
    view = run(prepare(tmp_path, "llama", only=("lines", "plain", "early"), contexts="documents"))
    assert all(len(each) == 1 for each in view.contexts.collect()["documents"])
    assert assert_found_as_they_stood(view, view.examples.collect()) > 10


def test_tokens_without_texts_have_no_passages(whole: View) -> None:
    windows = whole.examples.filter(shard="ready-e-0000").collect()
    assert windows.height > 0
    with pytest.raises(LakeError, match="gave tokens and no text for shard ready-e-0000"):
        passages(whole, windows)


def test_tokens_of_another_model_are_refused(tmp_path: Path) -> None:
    prepare(tmp_path, "llama")
    pq.write_table(pa.table({"ids": [[5, SIZE]]}), tmp_path / "e.parquet")
    with pytest.raises(InputError, match=rf"shard ready-e-0000.*token {SIZE}, but the model knows {SIZE}"):
        run(tmp_path)


@pytest.mark.parametrize(
    ("choices", "message"),
    [
        ({"bos": SIZE}, rf"corpus\.bos: there is no token {SIZE}; the model knows {SIZE}"),
        ({"separator": 999}, r"corpus\.separator: there is no token 999"),
        ({"context_length": 129}, r"corpus\.context_length is 129, and model reads 128 tokens at most"),
    ],
)
def test_a_corpus_that_does_not_fit_the_model_is_refused_before_anything_is_written(
    tmp_path: Path, choices: dict[str, int], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        run(prepare(tmp_path, "llama", **choices))
    assert not (tmp_path / "lake").exists()


def test_a_shard_without_documents_has_no_rows(tmp_path: Path) -> None:
    prepare(tmp_path, "llama", only=("lines", "early"), documents_per_shard=3)
    study = yaml.safe_load((tmp_path / "study.yaml").read_text())
    study["corpus"]["sources"]["lines"] = {"path": "a.jsonl", "empty": "skip"}
    (tmp_path / "a.jsonl").write_text("\n".join(json.dumps({"text": text}) for text in [*documents(0, 3), " ", " "]))
    (tmp_path / "study.yaml").write_text(yaml.safe_dump(study))
    view = run(tmp_path)
    assert set(view.activations.collect()["shard"]) == {"lines-a-0000"}
    assert view.partitions.filter(asset="activations", partition="early|lines-a-0001").collect().height > 0


def test_a_tokenizer_of_another_model_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    prepare(tmp_path, "llama")
    tokenizer(SIZE + 20).save_pretrained(tmp_path / "model")
    with pytest.raises(InputError, match=rf"makes token ids up to {SIZE + 19}, but the model knows {SIZE}"):
        run(tmp_path)
    assert not (tmp_path / "lake").exists()


@pytest.mark.parametrize(
    ("hookpoint", "message"),
    [
        ("model.layers.2.mlp.gate_prj", r"no hookpoint 'model\.layers\.2\.mlp\.gate_prj' \(did you mean.*gate_proj"),
        ("layers.2.mlp.gate_proj", r"reads 32 numbers a token, but layers\.2\.mlp\.gate_proj of model gives 64"),
        ("blocks.7.hook_mlp_out", r"no hookpoint 'blocks\.7\.hook_mlp_out' \(did you mean 'layers\..\.mlp'"),
    ],
)
def test_a_hookpoint_that_does_not_fit_is_refused_before_anything_is_written(
    tmp_path: Path, hookpoint: str, message: str
) -> None:
    prepare(tmp_path, "llama")
    study = yaml.safe_load((tmp_path / "study.yaml").read_text())
    study["dictionaries"]["mlp"]["hookpoint"] = hookpoint
    (tmp_path / "study.yaml").write_text(yaml.safe_dump(study))
    with pytest.raises(InputError, match=message):
        run(tmp_path)
    assert not (tmp_path / "lake").exists()
