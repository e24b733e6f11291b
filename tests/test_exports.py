"""Results leave a lake in other tools' forms and come back the same; what is not of a form is refused with its place."""

import gzip
import json
import math
import shutil
from collections.abc import Iterator
from datetime import datetime
from decimal import Decimal
from pathlib import Path
from tempfile import TemporaryDirectory
from types import SimpleNamespace
from typing import Any

import numpy as np
import polars as pl
import pyarrow.parquet as pq
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import load_file

from latentlake.cli import main
from latentlake.errors import InputError, LakeError
from latentlake.exporting import export
from latentlake.exports import LeftOut, Rated, Said
from latentlake.exports.rows import EXAMPLES, EXPLANATIONS
from latentlake.importing import bring_in
from latentlake.registry import EXPORTS
from latentlake.study import load_study
from latentlake.tables import TABLES
from tests.workbench import LATENTS, Workbench, opened

FORMS = ["delphi", "huggingface", "neuronpedia", "paper", "parquet"]
ODD = [
    'quotes " and \' and \\ and `',
    "two\nlines\r\nand\ttab",
    "nul \0 inside",
    "emoji 🦜 and 漢字 and é",
    "right to \u202eleft\u202c שלום",
    "</script><b>&amp; line\u2028and paragraph\u2029separators, \x85",
]  # fmt: skip


def test_a_form_is_found_by_being_there() -> None:
    assert list(EXPORTS.classes()) == FORMS


# a lake with odd explanations


@pytest.fixture(scope="module")
def odd(finished: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workbench]:
    """The small study with an explainer more, whose explanations hold odd characters; not to be changed."""
    folder = tmp_path_factory.mktemp("odd")
    shutil.copytree(finished, folder, dirs_exist_ok=True)
    with opened(folder) as bench:
        chosen = chosen_of(bench)
        said = {str(latent): f"{n} {ODD[n % len(ODD)]}" for n, latent in enumerate(chosen)}
        (bench.folder / "odd.json").write_text(json.dumps(said))
        bench.study["explainers"]["odd"] = {"method": "imported", "files": {"one": "odd.json"}}
        bench.study["scorers"]["embedding"]["explainers"].append("odd")
        assert bench.run() == {"explanations/odd": 2, "scores/odd/embedding": 2}
        yield bench


def chosen_of(bench: Workbench) -> list[int]:
    return bench.view().latents.filter("is_chosen").sort("latent").collect()["latent"].to_list()


def said_of(bench: Workbench) -> dict[tuple[str, int], str]:
    rows = bench.view().explanations.drop_nulls("explanation").collect()
    return {(row["explainer"], row["latent"]): row["explanation"] for row in rows.iter_rows(named=True)}


def scores_of(bench: Workbench) -> dict[tuple[str, str, int], float]:
    rows = bench.view().scores.filter(pl.col("control").is_null(), pl.col("explainer") != "none").drop_nulls("value")
    return {
        (row["explainer"], f"{row['scorer']}_{row['metric']}", row["latent"]): row["value"]
        for row in rows.collect().iter_rows(named=True)
    }


def files_of(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def lines_of(path: Path) -> list[dict[str, Any]]:
    raw = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    return [json.loads(line) for line in raw.decode().split("\n") if line]


@pytest.mark.parametrize("form", FORMS)
def test_what_goes_out_comes_back(odd: Workbench, tmp_path: Path, form: str) -> None:
    view, out, again = odd.view(), tmp_path / "out", tmp_path / "again"
    export(view, form, out)
    export(view, form, again)
    assert files_of(out) == files_of(again)
    expected = said_of(odd)
    assert len({text for (explainer, _), text in expected.items() if explainer == "odd"}) >= 6
    if form == "neuronpedia":  # its database has no NUL
        expected = {key: text.replace("\0", "") for key, text in expected.items()}
    study = load_study(odd.prepare().study.home / "study.yaml")
    taken = bring_in(study, form, out, f"from_{form}", overwrite=True)
    assert not taken.left_out
    lines = yaml.safe_load(taken.lines)
    found = {
        (name.removeprefix(f"from_{form}_"), row["latent"]): row["explanation"]
        for name, choice in lines["explainers"].items()
        for row in lines_of(odd.folder / choice["files"]["one"])
    }
    assert found == expected
    rated = {
        (choice["explainers"][0].removeprefix(f"from_{form}_"), name.removeprefix(f"{choice['explainers'][0]}_"), row["latent"]):
        row["rating"]
        for name, choice in lines["scorers"].items()
        for row in lines_of(odd.folder / choice["files"]["one"])
    }  # fmt: skip
    own = scores_of(odd)
    if form == "delphi":  # has judgements, of which these two are made
        own = {key: value for key, value in own.items() if key[1].endswith(("_auroc", "_balanced_accuracy"))}
    assert rated == pytest.approx(own)
    provenance = json.loads((out / "provenance.json").read_text())
    assert provenance["study_digest"] == study.digest
    assert provenance["dictionaries"][0]["digest"] == view.dictionaries.collect()["digest"].item()


def test_what_is_imported_stands_beside_the_studys_own(materialized: Workbench, tmp_path: Path) -> None:
    expected, scores = said_of(materialized), scores_of(materialized)
    export(materialized.view(), "delphi", tmp_path / "out", explainers=["default"])
    study = load_study(materialized.prepare().study.home / "study.yaml")
    lines = yaml.safe_load(bring_in(study, "delphi", tmp_path / "out", "theirs").lines)
    assert list(lines["explainers"]) == ["theirs"]
    assert list(lines["scorers"]) == [
        "theirs_detection_auroc", "theirs_detection_balanced_accuracy", "theirs_embedding_auroc", "theirs_surprisal_auroc",
    ]  # fmt: skip
    materialized.study["explainers"] |= lines["explainers"]
    materialized.study["scorers"] |= lines["scorers"]
    computed = materialized.run()
    assert computed == {
        "explanations/theirs": 2, **{f"scores/theirs/{name}": 2 for name in lines["scorers"]}, "agreements": 1,
    }  # fmt: skip
    found = said_of(materialized)
    assert {latent: text for (name, latent), text in found.items() if name == "theirs"} == {
        latent: text for (name, latent), text in expected.items() if name == "default"
    }
    rated = materialized.view().scores.filter(scorer="theirs_embedding_auroc").drop_nulls("value").collect()
    own = {
        latent: value
        for (name, scorer, latent), value in scores.items()
        if (name, scorer) == ("default", "embedding_auroc")
    }
    assert dict(zip(rated["latent"], rated["value"], strict=True)) == pytest.approx(own)
    pair = {"scorer": "theirs_detection_auroc", "other": "theirs_embedding_auroc", "explainer": "theirs"}
    assert materialized.view().agreements.filter(**pair).collect().height == 1


def test_activations_and_tokens_are_those_of_the_windows(odd: Workbench, tmp_path: Path) -> None:
    view = odd.view()
    export(view, "delphi", tmp_path / "delphi", explainers=["odd"])
    export(view, "neuronpedia", tmp_path / "np", explainers=["odd"])
    shards = view.shards.sort("ordinal").collect()["shard"].to_list()
    sizes = dict(view.contexts.group_by("shard").len().collect().iter_rows())
    dense: dict[int, np.ndarray] = {}
    tokens = None
    for path in sorted((tmp_path / "delphi" / "latents" / "layers.1").glob("*.safetensors")):
        held, (first, last) = load_file(path), map(int, path.stem.split("_"))
        tokens = held["tokens"]
        for latent in range(first, last + 1):
            dense[latent] = np.zeros(tokens.shape, dtype=np.float32)
        for (context, position, latent), value in zip(held["locations"], held["activations"], strict=True):
            dense[int(latent) + first][context, position] = value
    assert sorted(dense) == list(range(LATENTS))
    assert tokens is not None
    windows = view.examples.collect()
    assert windows["is_activating"].n_unique() == 2
    for row in windows.iter_rows(named=True):
        context = row["context"] + sum(sizes[shard] for shard in shards[: shards.index(row["shard"])])
        place = slice(row["start"], row["start"] + len(row["tokens"]))
        assert tokens[context, place].tolist() == row["tokens"]
        assert dense[row["latent"]][context, place].tolist() == row["activations"]
    (file,) = (tmp_path / "np").rglob("activations/*.gz")
    found = {(each["index"], each["dataIndex"]): each for each in lines_of(file)}
    firing = windows.filter("is_activating")
    assert len(lines_of(file)) == firing.height
    for row in firing.iter_rows(named=True):
        own = found[str(row["latent"]), f"{row['shard']}/{row['context']}/{row['start']}"]
        assert own["values"] == row["activations"]
        assert "".join(own["tokens"]) == row["text"]
        assert len(own["tokens"]) == len(row["tokens"])
        assert (own["maxValue"], own["minValue"]) == (max(row["activations"]), min(row["activations"]))
        assert own["values"][own["maxValueTokenIndex"]] == own["maxValue"]


def test_a_data_set_folder_loads(odd: Workbench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    datasets = pytest.importorskip("datasets")
    export(odd.view(), "huggingface", tmp_path / "out", licence="cc0-1.0")
    options = {"split": "train", "cache_dir": str(tmp_path / "cache")}
    rows = datasets.load_dataset(str(tmp_path / "out"), **options)
    assert rows.column_names == [column.name for column in EXPLANATIONS]
    assert {(row["explainer"], row["latent"]): row["explanation"] for row in rows if row["explanation"]} == said_of(odd)
    found = {
        (row["explainer"], f"{score['scorer']}_{score['metric']}", row["latent"]): score["value"]
        for row in rows
        for score in row["scores"]
        if score["control"] is None and score["value"] is not None
    }
    assert found == scores_of(odd)
    assert len(set(rows["latent"])) == LATENTS
    windows = datasets.load_dataset(str(tmp_path / "out"), "examples", **options)
    assert len(windows) == odd.view().examples.collect().height
    assert windows.column_names == [column.name for column in EXAMPLES]
    card = (tmp_path / "out" / "README.md").read_text()
    front = yaml.safe_load(card.split("---\n")[1])
    assert front["license"] == "cc0-1.0"
    assert all(f"| `{column.name}` |" in card for column in (*EXPLANATIONS, *EXAMPLES))
    assert "2410.13928" in card


def test_parquet_says_what_it_holds(odd: Workbench, tmp_path: Path) -> None:
    export(odd.view(), "parquet", tmp_path / "out", explainers=["tokens"])
    schema = pq.read_schema(tmp_path / "out" / "tiny.parquet")
    assert all(schema.field(column.name).metadata[b"comment"].decode() == column.doc for column in EXPLANATIONS)
    assert json.loads(schema.metadata[b"latentlake"]) == json.loads((tmp_path / "out" / "provenance.json").read_text())
    rows = pl.read_parquet(tmp_path / "out" / "tiny.parquet")
    assert set(rows["explainer"]) == {"tokens", None}
    assert rows.height == LATENTS


# what is refused


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"dictionaries": ["onne"]}, "has no dictionary 'onne' .*'one'"),
        ({"explainers": ["defualt"]}, "has no explainer 'defualt' .*'default'"),
    ],
)
def test_what_is_not_there_is_not_exported(odd: Workbench, tmp_path: Path, options: Any, said: str) -> None:
    with pytest.raises(LakeError, match=said):
        export(odd.view(), "paper", tmp_path / "out", **options)
    assert not (tmp_path / "out").exists()


def test_nothing_is_written_over(odd: Workbench, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "mine.txt").write_text("mine")
    with pytest.raises(LakeError, match=r"is not empty; name another.*--overwrite"):
        export(odd.view(), "paper", out)
    with pytest.raises(LakeError, match=r"holds no provenance\.json"):
        export(odd.view(), "paper", out, overwrite=True)
    assert files_of(out) == {"mine.txt": b"mine"}
    export(odd.view(), "paper", tmp_path / "other")
    export(odd.view(), "parquet", tmp_path / "other", overwrite=True)
    assert sorted(files_of(tmp_path / "other")) == ["provenance.json", "tiny.parquet"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["other", "out"]


def test_an_export_is_whole_or_not_there(odd: Workbench, tmp_path: Path) -> None:
    export(odd.view(), "paper", tmp_path / "out")
    before = files_of(tmp_path / "out")

    def stopped(parts: Any) -> Iterator[Any]:
        yield next(iter(parts))
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        export(odd.view(), "neuronpedia", tmp_path / "out", overwrite=True, watch=stopped)
    assert files_of(tmp_path / "out") == before
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_what_another_wrote_meanwhile_stands(odd: Workbench, tmp_path: Path) -> None:
    def slowly(parts: Any) -> Iterator[Any]:
        write(tmp_path / "out", {"theirs.json": "theirs"})
        yield from parts

    with pytest.raises(LakeError, match=r"somebody else wrote into .*out meanwhile"):
        export(odd.view(), "paper", tmp_path / "out", watch=slowly)
    assert files_of(tmp_path / "out") == {"theirs.json": b'"theirs"'}
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_a_lake_without_explanations_says_so(tmp_path: Path) -> None:
    bare = lake_of([])
    with pytest.raises(LakeError, match="there is nothing to export: here holds no explanation by default of one"):
        export(bare, "paper", tmp_path / "out")
    bare.study = None
    with pytest.raises(LakeError, match="no study was ever run in here"):
        export(bare, "paper", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_the_command_line(odd: Workbench, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lake = ["--lake", str(odd.folder / "lake"), "--study-file", str(odd.path)]
    odd.prepare()
    assert main([*lake, "export", "paper", str(tmp_path / "out"), "--explainer", "odd"]) == 0
    assert "files, 0.0 MB" in capsys.readouterr().out
    assert main([*lake, "export", "paper", str(tmp_path / "out")]) == 1
    assert "error: the folder" in capsys.readouterr().err
    assert (
        main([*lake, "import", "paper", str(tmp_path / "out"), "--as", "cli", "--dictionary", "one/model.layers.1=one"])
        == 0
    )
    shown = capsys.readouterr().out
    assert yaml.safe_load(shown)["explainers"]["cli"]["files"] == {"one": "imported/cli/cli/one.jsonl"}
    assert main([*lake, "import", "paper", str(tmp_path / "out"), "--as", "cli"]) == 1
    assert main([*lake, "import", "paper", str(tmp_path / "out"), "--as", "No Name"]) == 1


# by hand


def frame(table: str, *rows: dict[str, Any]) -> pl.LazyFrame:
    """Rows of a table of which some columns are given; the others are null."""
    return pl.DataFrame(list(rows), schema=TABLES[table].empty().schema, orient="row").lazy()


def lake_of(texts: list[str | None], **frames: pl.LazyFrame) -> Any:
    """Results of a dictionary of 2,048 latents, of which the first have explanations."""
    place = {"dictionary": "one", "block": 0}
    choices = {
        "name": "hand", "blocks": 1, "subject": {"model": "owner/a-model"}, "corpus": {"sources": {"docs": {}}}, "samples": {},
        "dictionaries": {"one": {}}, "llms": {}, "explainers": {"default": {"method": "tokens"}}, "scorers": {},
    }  # fmt: skip
    said = [
        {**place, "explainer": "default", "latent": latent, "explanation": text} for latent, text in enumerate(texts)
    ]
    nothing = {
        "n_tokens": 0,
        "n_contexts": 0,
        "density": 0.0,
        "max_activation": 0.0,
        "histogram": [0] * 10,
        "top_tokens": [],
    }
    latents = [{**place, "latent": n, **nothing, "triage": "ok", "is_chosen": True} for n in range(len(texts))]
    rows = {table: frame(table) for table in TABLES}
    rows["dictionaries"] = frame(
        "dictionaries",
        {"dictionary": "one", "hookpoint": "layers.3.mlp", "module": "layers.3.mlp", "width": 2048, "digest": "d"},
    )
    latest = pl.DataFrame(
        schema={
            "asset": pl.String, "partition": pl.String, "code_version": pl.String, "data_version": pl.String,
            "run": pl.String, "is_seen": pl.Boolean,
        }
    )  # fmt: skip
    rows |= {"explanations": frame("explanations", *said), "latents": frame("latents", *latents), **frames}
    study = {"study": "digest", "choices": json.dumps(choices)}
    return SimpleNamespace(study=study, uri="here", latest=lambda: latest, **rows)


@given(st.lists(st.text(min_size=1), min_size=1, max_size=5))
@settings(max_examples=25, deadline=None)
def test_any_text_comes_back(texts: list[str]) -> None:
    results = lake_of(list(texts))
    with TemporaryDirectory() as folder:
        for form in FORMS:
            out = export(results, form, Path(folder) / form)
            found = {entry.latent: entry.explanation for entry in EXPORTS[form]().read(out) if isinstance(entry, Said)}
            expected = [text.replace("\0", "") for text in texts] if form == "neuronpedia" else texts
            assert found == dict(enumerate(expected))


def test_a_feature_is_what_the_tables_say(tmp_path: Path) -> None:
    latent = {
        "dictionary": "one", "block": 0, "latent": 1500, "n_tokens": 6, "density": 0.015, "max_activation": 5.0,
        "histogram": [3, 0, 0, 0, 0, 2, 0, 0, 0, 1],
    }  # fmt: skip
    logits = {
        "dictionary": "one", "block": 0, "latent": 1500,
        "promoted": [{"token": 4, "text": " up", "logit": 2.5}, {"token": 5, "text": "\0x", "logit": 1.0}],
        "suppressed": [{"token": 6, "text": " down", "logit": -3.0}],
    }  # fmt: skip
    results = lake_of(["a"], latents=frame("latents", latent), logits=frame("logits", logits))
    export(results, "neuronpedia", tmp_path / "out")
    (row,) = lines_of(tmp_path / "out" / "a-model" / "3-one" / "features" / "batch-0.jsonl.gz")
    known = {
        "modelId": "a-model", "layer": "3-one", "index": "1500", "maxActApprox": 5.0, "frac_nonzero": 0.015,
        "freq_hist_data_bar_heights": [3, 0, 0, 0, 0, 2, 0, 0, 0, 1],
        "freq_hist_data_bar_values": [0.25, 0.75, 1.25, 1.75, 2.25, 2.75, 3.25, 3.75, 4.25, 4.75],
        "pos_str": [" up", "x"], "pos_values": [2.5, 1.0], "neg_str": [" down"], "neg_values": [-3.0],
        "hookName": "blocks.3.hook_mlp_out", "sourceSetName": "one",
    }  # fmt: skip
    assert {name: row[name] for name in known} == known


MUST = {  # what Neuronpedia's database has no default for
    "model": {"id", "creatorId", "layers", "neuronsPerLayer", "owner"},
    "release": {"name", "description", "creatorName", "creatorId"},
    "sourceset": {"modelId", "name", "description", "creatorName", "creatorId"},
    "source": {"id", "modelId", "setName", "creatorId"},
    "explanation_type": {"name", "displayName", "description", "creatorName", "creatorId"},
    "explanation_model_type": {"name", "displayName", "description", "creatorName"},
    "explanation_score_type": {"name", "displayName", "description", "creatorName", "creatorId"},
    "explanation_score_model": {"name", "displayName", "description", "creatorName"},
}


def test_what_rows_are_of_is_known_before_them(odd: Workbench, tmp_path: Path) -> None:
    export(odd.view(), "neuronpedia", tmp_path / "out")
    source = tmp_path / "out" / "model" / "1-one"
    found = {path.stem: lines_of(path) for path in [*source.glob("*.jsonl"), *(tmp_path / "out" / "config").iterdir()]}
    assert found.keys() == MUST.keys()
    for table, rows in found.items():
        assert all(row.keys() >= MUST[table] and None not in [row[name] for name in MUST[table]] for row in rows), table
    (model,), (release,), (of_set,), (coder,) = (found[name] for name in ("model", "release", "sourceset", "source"))
    assert of_set["releaseName"] == release["name"]
    assert (of_set["modelId"], coder["modelId"]) == (model["id"], model["id"])
    assert (coder["setName"], coder["num_tokens_in_prompt"], coder["dataset"]) == (of_set["name"], 65, "docs")
    for kind in ("features", "activations", "explanations"):
        rows = lines_of(source / kind / "batch-0.jsonl.gz")
        assert {(row["modelId"], row["layer"]) for row in rows} == {(model["id"], coder["id"])}
    said = lines_of(source / "explanations" / "batch-0.jsonl.gz")
    types, models = ({row["name"] for row in found[f"explanation_{kind}"]} for kind in ("type", "model_type"))
    assert {row["typeName"] for row in said} <= types
    assert {row["explanationModelName"] for row in said} - {None} <= models


def test_batches_hold_so_many_rows(tmp_path: Path) -> None:
    export(lake_of([str(n) for n in range(1025)]), "neuronpedia", tmp_path / "out")
    source = tmp_path / "out" / "a-model" / "3-one"
    for kind in ("features", "explanations"):
        batches = [lines_of(source / kind / f"batch-{n}.jsonl.gz") for n in range(2)]
        assert [len(each) for each in batches] == [1024, 1]
        assert batches[1][0]["index"] == "1024"


# as others write it

NOTE = {"modelId": "m", "layer": "1-s", "index": "3", "description": "a note"}


def write(folder: Path, files: dict[str, Any]) -> Path:
    for name, held in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(held if isinstance(held, bytes) else json.dumps(held).encode())
    return folder


def lines(*rows: dict[str, Any]) -> bytes:
    return gzip.compress("".join(f"{json.dumps(row)}\n" for row in rows).encode())


def lines_of_text(second: str, encoding: str = "utf-8") -> bytes:
    """A line that is well, and another."""
    return f"{json.dumps(NOTE)}\n{second}\n".encode(encoding)


def entries(form: str, path: Path) -> list[Any]:
    return list(EXPORTS[form]().read(path))


def test_delphis_own_folders_are_read(tmp_path: Path) -> None:
    def sample(fires: bool, says: Any, **more: Any) -> dict[str, Any]:
        return {
            "str_tokens": ["a"], "activations": [1.0], "distance": 3 if fires else -1, "activating": fires, "prediction": says,
            "probability": None, "correct": None if says is None else says == fires, **more,
        }  # fmt: skip

    fuzz = [sample(True, True), sample(True, 0), sample(False, False), sample(False, None)]
    embedding = [{"text": "a", "distance": 2, "similarity": 0.9}, {"text": "b", "distance": -1, "similarity": 0.1}]
    folder = write(
        tmp_path,
        {
            "run_config.json": {"model": "m"},
            "explanations/layers.10_latent3.txt": "of three",
            "explanations/layers.2.mlp_latent11.txt": "",
            "explanations/notes.md": b"of the run",
            "scores/fuzz/layers.10_latent3.txt": fuzz,
            "scores/embedding/layers.10_latent3.txt": embedding,
            "scores/surprisal/layers.10_latent3.txt": [{"text": "a", "distance": 1, "explanation": [0.5]}],
        },
    )
    found = entries("delphi", folder)
    assert [(each.source, each.latent, each.explanation) for each in found if isinstance(each, Said)] == [
        ("layers.10", 3, "of three"), ("layers.2.mlp", 11, ""),
    ]  # fmt: skip
    rated = [(each.source, each.scorer, each.latent, each.value) for each in found if isinstance(each, Rated)]
    assert rated == [("layers.10", "embedding_auroc", 3, 1.0), ("layers.10", "fuzz_balanced_accuracy", 3, 0.75)]
    left = [each.what for each in found if isinstance(each, LeftOut)]
    assert left == [
        "files in explanations that are no latent's", "scores of surprisal without judgements of both kinds of windows",
    ]  # fmt: skip


def test_neuronpedias_own_batches_are_read(tmp_path: Path) -> None:
    place = {"modelId": "gpt2-small", "layer": "9-res-jb"}
    said = [
        {"id": "x1", **place, "index": "12", "authorId": "u", "description": "of twelve", "embedding": None,
         "typeName": "oai_token-act-pair", "explanationModelName": "gpt-4o-mini", "umap_x": 0.5, "triggeredByUserId": "v"},
        {"description": "another of twelve", "index": "12", "layer": "9-res-jb", "modelId": "gpt2-small", "id": "x2",
         "typeName": "oai_token-act-pair", "explanationModelName": "gpt-4o-mini"},
        {"id": "x3", **place, "index": 7, "description": "a note", "typeName": None, "notes": "by hand"},
    ]  # fmt: skip
    scores = [
        {"value": 0.8, "explanationId": "x2", "explanationScoreTypeName": "eleuther_fuzz", "jsonDetails": "[]"},
        {"value": 0.5, "explanationId": "gone", "explanationScoreTypeName": "eleuther_fuzz"},
        {"value": None, "explanationId": "x1", "explanationScoreTypeName": "eleuther_fuzz"},
    ]
    source = "gpt2-small/9-res-jb"
    batches = {
        f"{source}/explanations/batch-10.jsonl.gz": lines(said[2]),
        f"{source}/explanations/batch-2.jsonl.gz": lines(*said[:2]),
    }
    folder = write(tmp_path, {**batches, f"{source}/scores/batch-0.jsonl": lines(*scores)})
    (folder / source / "scores" / "batch-0.jsonl").write_bytes(gzip.decompress(lines(*scores)))
    found = entries("neuronpedia", folder)
    assert [(each.explainer, each.latent, each.explanation) for each in found[:3]] == [
        ("oai_token-act-pair gpt-4o-mini", 12, "of twelve"),
        ("oai_token-act-pair gpt-4o-mini 2", 12, "another of twelve"),
        ("", 7, "a note"),
    ]
    assert {each.source for each in found[:3]} == {source}
    assert found[0].extra["triggeredByUserId"] == "v"
    assert found[2].extra == {"id": "x3", "notes": "by hand"}
    assert (found[3].explainer, found[3].scorer, found[3].latent, found[3].value) == (
        "oai_token-act-pair gpt-4o-mini 2", "eleuther_fuzz", 12, 0.8,
    )  # fmt: skip
    assert [each.what for each in found[4:]] == ["scores of explanations that are not there", "scores that are null"]


def test_the_papers_own_release_is_read(tmp_path: Path) -> None:
    folder = write(
        tmp_path,
        {
            "Gemma/16k/res/model.layers.10_feature.json": {"3": "of three", "4": None},
            "scores/gemma/model.layers.10_feature.json": {"3": 0.75},
        },
    )
    said, none, rated = entries("paper", folder)
    assert (said.source, said.latent, said.explanation, none.explanation) == (
        "16k/res/model.layers.10",
        3,
        "of three",
        None,
    )
    assert (rated.source, rated.scorer, rated.value) == ("model.layers.10", "score", 0.75)


def test_anyones_parquet_is_read(tmp_path: Path) -> None:
    pl.DataFrame({"latent": [1, 2], "explanation": ["a", None], "who": ["me", "you"]}).write_parquet(
        tmp_path / "one.parquet"
    )
    (said,) = entries("parquet", tmp_path / "one.parquet")
    assert (said.source, said.latent, said.explanation, said.extra) == ("one", 1, "a", {"who": "me"})


BAD: dict[str, tuple[str, dict[str, Any], str]] = {
    "no JSON": ("delphi", {"explanations/layers.1_latent3.txt": b"of three"}, r"layers\.1_latent3\.txt is not JSON"),
    "no text": ("delphi", {"explanations/layers.1_latent3.txt": ["a"]}, "an explanation must be a JSON text, and is"),
    "no file": ("delphi", {"explanations/readme.md": b""}, "holds no file like"),
    "no judgements": (
        "delphi",
        {"explanations/layers.1_latent3.txt": "a", "scores/fuzz/layers.1_latent3.txt": {"a": 1}},
        "it must be a list of judgements",
    ),
    "a judgement": (
        "delphi",
        {
            "explanations/layers.1_latent3.txt": "a",
            "scores/fuzz/layers.1_latent3.txt": [{"activating": True, "prediction": "yes"}],
        },
        r"fuzz/layers\.1_latent3\.txt, judgement 1, field 'prediction': it must be true or false, and is 'yes'",
    ),
    "no description": (
        "neuronpedia",
        {"m/1-s/explanations/batch-0.jsonl.gz": lines({"modelId": "m", "layer": "1-s", "index": "3"})},
        r"batch-0\.jsonl\.gz, line 1, field 'description': it must be a text, and is not there",
    ),
    "an index": (
        "neuronpedia",
        {
            "m/1-s/explanations/batch-0.jsonl.gz": lines(
                {"modelId": "m", "layer": "1-s", "index": "3", "description": "a"},
                {"modelId": "m", "layer": "1-s", "index": "-3", "description": "a"},
            )
        },
        "line 2, field 'index': it must be the number of a latent, and is '-3'",
    ),
    "no object": ("neuronpedia", {"m/1-s/explanations/batch-0.jsonl.gz": gzip.compress(b"[1]\n")}, "line 1: it must be an obj"),
    "half a file": ("neuronpedia", {"m/1-s/explanations/batch-0.jsonl.gz": lines(NOTE)[:-9]}, "write the file anew"),
    "an empty file": ("neuronpedia", {"m/1-s/explanations/batch-0.jsonl.gz": b""}, "is empty; write the file anew"),
    "no gzip": ("neuronpedia", {"m/1-s/explanations/batch-0.jsonl.gz": b"{}"}, "cannot be read on after line 0: Not a gzipped"),
    "another encoding": (
        "neuronpedia",
        {"m/1-s/explanations/batch-0.jsonl": lines_of_text('{"description": "caf\xe9"}', "latin-1")},
        "batch-0.jsonl, line 2: 'utf-8' codec",
    ),
    "a key twice": (
        "neuronpedia",
        {"m/1-s/explanations/batch-0.jsonl": lines_of_text('{"description": "a", "description": "b"}')},
        "batch-0.jsonl, line 2: the key 'description' is there twice",
    ),
    "an id twice": (
        "neuronpedia",
        {"m/1-s/explanations/batch-0.jsonl.gz": lines({**NOTE, "id": "x"}, {**NOTE, "index": "4", "id": "x"})},
        "line 2, field 'id': 'x' is another explanation too",
    ),
    "a latent too many": (
        "neuronpedia",
        {"m/1-one/explanations/batch-0.jsonl.gz": lines({**NOTE, "layer": "1-one", "index": "64"})},
        "line 1: there is no latent 64; the dictionary one has 64",
    ),
    "no number beside": (
        "neuronpedia",
        {"m/1-one/explanations/batch-0.jsonl.gz": lines({**NOTE, "layer": "1-one", "umap_x": float("nan")})},
        "line 1, field 'umap_x': it must be what JSON can hold, and is nan",
    ),
    "half a character": (
        "neuronpedia",
        {"m/1-one/explanations/batch-0.jsonl.gz": lines({**NOTE, "layer": "1-one", "notes": "\ud800"})},
        "line 1, field 'notes': it must be what JSON can hold",
    ),
    "a latent twice": ("paper", {"model.layers.1_feature.json": b'{"3": "a", "3": "b"}'}, "the key '3' is there twice"),
    "another layer's": (
        "neuronpedia",
        {"m/7-one/explanations/batch-0.jsonl.gz": lines({**NOTE, "layer": "7-one"})},
        "of m/7-one, which is no dictionary of the study: 1",
    ),
    "nothing": ("neuronpedia", {"m/readme.md": b""}, "holds no explanations/batch-0"),
    "a list": ("paper", {"model.layers.1_feature.json": ["a"]}, "must be one object"),
    "a number": ("paper", {"model.layers.1_feature.json": {"3": 4}}, "entry 1, latent 3: an explanation must be a text"),
    "a name": ("paper", {"model.layers.1_feature.json": {"x": "a"}}, "entry 1, field 'latent'.*'x'"),
    "a score": ("paper", {"scores/e/s/one/model.layers.1_feature.json": {"3": "a"}}, "entry 1, field '3': it must be a number"),
    "no Parquet": ("parquet", {"a.parquet": b"a"}, "cannot be read as Parquet"),
    "an empty folder": ("huggingface", {"readme.md": b""}, "holds no explanations"),
    "another's": ("paper", {"model.layers.77_feature.json": {"3": "a"}}, "nothing of a dictionary .*layers.77.*: 1.*SOURCE=NAME"),
    "twice": (
        "paper",
        {"a/model.layers.1_feature.json": {"3": "a"}, "a/b/model.layers.1_feature.json": {"3": "b"}},
        "the latent 3 is explained a second time",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
def test_a_malformed_file_is_refused_whole(workbench: Workbench, tmp_path: Path, case: str) -> None:
    form, files, said = BAD[case]
    path = write(tmp_path / "theirs", files)
    study = load_study(workbench.prepare().study.home / "study.yaml")
    with pytest.raises(InputError, match=said):
        bring_in(study, form, path, "theirs", width=lambda dictionary: LATENTS)
    assert not list((workbench.folder / "imported").glob("*"))


def test_a_column_that_is_not_there_is_named(tmp_path: Path) -> None:
    pl.DataFrame({"latent": [1], "explanaton": ["a"]}).write_parquet(tmp_path / "a.parquet")
    with pytest.raises(InputError, match=r"a\.parquet has no column 'explanation'; it has latent, explanaton"):
        entries("parquet", tmp_path)
    pl.DataFrame({"latent": [1.5], "explanation": ["a"]}).write_parquet(tmp_path / "a.parquet")
    with pytest.raises(InputError, match=r"row 1, field 'latent': it must be the number of a latent, and is 1\.5"):
        entries("parquet", tmp_path)


def test_a_long_explanation_says_how_long_they_may_be(workbench: Workbench, tmp_path: Path) -> None:
    path = write(tmp_path / "theirs", {"model.layers.1_feature.json": {"3": "a" * 1200}})
    study = load_study(workbench.prepare().study.home / "study.yaml")
    taken = bring_in(study, "paper", path, "theirs")
    assert yaml.safe_load(taken.lines)["explainers"]["theirs"]["longest"] == 1200


def test_two_dictionaries_on_a_hookpoint_are_told_apart(workbench: Workbench, tmp_path: Path) -> None:
    path = write(
        tmp_path / "theirs", {"model.layers.1_feature.json": {"3": "a"}, "model.layers.2_feature.json": {"4": "b"}}
    )
    workbench.study["dictionaries"]["two"] = workbench.study["dictionaries"]["one"]
    study = load_study(workbench.prepare().study.home / "study.yaml")
    with pytest.raises(
        InputError, match=r"may be any of the dictionaries one, two.*--dictionary model\.layers\.1=NAME"
    ):
        bring_in(study, "paper", path, "theirs")
    taken = bring_in(study, "paper", path, "theirs", {"model.layers.1": "two"})
    assert yaml.safe_load(taken.lines)["explainers"]["theirs"]["files"] == {"two": "imported/theirs/theirs/two.jsonl"}
    assert taken.left_out == {"of model.layers.2, which is no dictionary of the study": 1}


def test_a_damaged_page_is_laid_to_the_file_that_has_it(workbench: Workbench, tmp_path: Path) -> None:
    file = tmp_path / "one.parquet"
    pl.DataFrame({"latent": [1], "explanation": ["a"]}).write_parquet(file)
    data = bytearray(file.read_bytes())
    data[20:40] = bytes(20)
    file.write_bytes(bytes(data))
    study = load_study(workbench.prepare().study.home / "study.yaml")
    with pytest.raises(InputError, match=r"one\.parquet cannot be read as Parquet"):
        bring_in(study, "parquet", file, "theirs")


def test_columns_of_any_kind_are_carried_along(workbench: Workbench, tmp_path: Path) -> None:
    beside = {"at": [datetime(2026, 3, 1)], "price": [Decimal("1.5")], "share": [math.nan], "more": [{"raw": b"a"}]}
    pl.DataFrame({"latent": [1], "explanation": ["a"], **beside}).write_parquet(tmp_path / "one.parquet")
    study = load_study(workbench.prepare().study.home / "study.yaml")
    bring_in(study, "parquet", tmp_path / "one.parquet", "theirs")
    (row,) = lines_of(workbench.folder / "imported" / "theirs" / "theirs" / "one.jsonl")
    assert row["extra"] == {"at": "2026-03-01 00:00:00", "price": "1.5", "share": None, "more": {"raw": "b'a'"}}
    pl.DataFrame({"latent": [1], "explanation": ["a"], "scores": [0.5]}).write_parquet(tmp_path / "one.parquet")
    with pytest.raises(InputError, match=r"row 1, field 'scores': it must be a list of scores, and is 0\.5"):
        entries("parquet", tmp_path)


def test_nothing_is_lost_where_names_are_alike(workbench: Workbench, tmp_path: Path) -> None:
    """Scorers that differ in what names cannot hold, and an explainer called as a scorer would be."""
    said = [
        {**NOTE, "layer": "1-one", "id": kind, "typeName": kind, "index": str(n)}
        for n, kind in enumerate(("a", "a_b", "\u6f22", "\u5b57"))
    ]
    scores = [
        {"explanationId": "a", "explanationScoreTypeName": kind, "value": n / 8}
        for n, kind in enumerate(("b", "B", "\u6f22", "\u5b57"))
    ]
    source = "m/1-one"
    files = {
        f"{source}/explanations/batch-0.jsonl.gz": lines(*said),
        f"{source}/scores/batch-0.jsonl.gz": lines(*scores),
    }
    study = load_study(workbench.prepare().study.home / "study.yaml")
    taken = bring_in(study, "neuronpedia", write(tmp_path / "theirs", files), "t")
    told = yaml.safe_load(taken.lines)
    assert set(told["explainers"]) == {"t", "t_2", "t_a", "t_a_b"}
    assert len(told["scorers"]) == 4
    assert not set(told["explainers"]) & set(told["scorers"])
    held = [
        row
        for section in told.values()
        for choice in section.values()
        for row in lines_of(workbench.folder / choice["files"]["one"])
    ]
    assert sorted(row["rating"] for row in held if "rating" in row) == [0, 0.125, 0.25, 0.375]
    assert sorted(row["extra"]["typeName"] for row in held if "explanation" in row) == ["a", "a_b", "\u5b57", "\u6f22"]
    workbench.study = {**workbench.study, **{name: {**workbench.study[name], **told[name]} for name in told}}
    assert set(load_study(workbench.prepare().study.home / "study.yaml").explainers) >= set(told["explainers"])


def test_what_the_study_calls_otherwise_is_not_imported_so(workbench: Workbench, tmp_path: Path) -> None:
    path = write(tmp_path / "theirs", {"model.layers.1_feature.json": {"3": "a"}})
    study = load_study(workbench.prepare().study.home / "study.yaml")
    for name in ("default", "none"):
        with pytest.raises(LakeError, match=rf"cannot have explainers\.{name} from here"):
            bring_in(study, "paper", path, name)
    assert not list((workbench.folder / "imported").glob("*"))
    workbench.study["explainers"] |= yaml.safe_load(bring_in(study, "paper", path, "theirs").lines)["explainers"]
    study = load_study(workbench.prepare().study.home / "study.yaml")
    assert bring_in(study, "paper", path, "theirs", overwrite=True).explanations == {"theirs": 1}


def test_a_source_that_nothing_is_of_is_refused(workbench: Workbench, tmp_path: Path) -> None:
    path = write(tmp_path / "theirs", {"model.layers.1_feature.json": {"3": "a"}})
    study = load_study(workbench.prepare().study.home / "study.yaml")
    with pytest.raises(InputError, match=r"nothing is of 'layers\.01'.*what is there is of model\.layers\.1"):
        bring_in(study, "paper", path, "theirs", {"layers.01": "one"})


@pytest.mark.parametrize("model", ["", "..", "../other", "a\\b"])
def test_a_models_name_leads_out_of_no_folder(odd: Workbench, tmp_path: Path, model: str) -> None:
    with pytest.raises(LakeError, match="a model cannot be called"):
        export(odd.view(), "neuronpedia", tmp_path / "out", model=model)
    assert not list(tmp_path.iterdir())


def test_a_link_to_a_folder_stays_one(odd: Workbench, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "large" / "out")
    export(odd.view(), "parquet", tmp_path / "link")
    assert (tmp_path / "link").is_symlink()
    assert sorted(files_of(tmp_path / "large" / "out")) == ["provenance.json", "tiny.parquet"]
