"""Dictionaries of every kind in one study: checkpoints of all formats, neurons, controls, coders that are trained."""

from __future__ import annotations

import base64
import json
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch

from assets.events import asset_key
from latentlake.checks import Result
from latentlake.coders.opening import Source, facts, format_of
from latentlake.coders.parameters import TRANSCODERS
from latentlake.dictionaries import coder_of
from latentlake.errors import InputError, LakeError, StudyError
from latentlake.execute import Executor
from latentlake.fakes import FakeSubject, write_coder
from latentlake.reading.view import View
from tests.coder_fixtures import VARIANTS, perfect
from tests.workbench import LATENTS, WIDTH, Workbench

POINT = {"hookpoint": "layers.1", "latents": 4}
CODER = {**POINT, "coder": "coders/one"}
TRAINING = {"latents": 48, "k": 4, "contexts": 8, "epochs": 4, "lr": 0.01}
KINDS: dict[str, dict[str, Any]] = {
    "one": CODER,
    "directions": {**CODER, "control": "directions"},
    "initialised": {**CODER, "control": "initialised", "k": 5},
    "model": {**CODER, "control": "model"},
    "neurons": {**POINT, "coder": "neurons", "k": 4},
    "mine": {**POINT, "train": TRAINING},
}
TOKENS = 300


class OnePlace(FakeSubject):
    """A subject of which all hookpoints give the same: so that transcoders can be perfect."""

    def _states(self, context: Sequence[int], hookpoint: str) -> np.ndarray:
        return super()._states(context, "it")


def reconstructions(bench: Workbench) -> tuple[dict[str, dict[str, Any]], Result]:
    """What was measured, by dictionary, and the check of it."""
    run = bench.prepare()
    executor = Executor(run.flow, run.lake, run.origins, None, run.progress, "", "")  # type: ignore[arg-type]
    checks = executor.check("reconstructions", list(bench.study["dictionaries"]))
    (result,) = [result for check, result in checks if check.name == "reconstructs"]
    rows = View(run.lake).reconstructions.collect().rows(named=True)
    return {row["dictionary"]: row for row in rows}, result


@pytest.fixture
def every_kind(workbench: Workbench) -> Iterator[Workbench]:
    """A study of each kind of dictionary, and no language model."""
    workbench.study["dictionaries"] = json.loads(json.dumps(KINDS))
    workbench.study["reconstruction"] = {"tokens": TOKENS}
    workbench.study["explainers"] = {"tokens": {"method": "tokens"}}
    workbench.study["scorers"] = {"embedding": {**workbench.study["scorers"]["embedding"], "explainers": ["tokens"]}}
    del workbench.study["llms"]["judge"]
    yield workbench


def test_every_kind_goes_all_the_way(every_kind: Workbench) -> None:
    n = len(KINDS)
    counts = {
        "subject": 1,
        "llms": 1,
        "selections": n,
        "contexts": 2,
        "coder": 1,
        "dictionaries": n,
        "reconstructions": n,
    }
    below = [
        "latents",
        "examples/strong",
        "examples/select",
        "examples/test",
        "explanations/tokens",
        "scores/tokens/embedding",
    ]
    assert every_kind.run() == {**counts, **dict.fromkeys(["activations", *below], 2 * n)}
    assert every_kind.dagster_stale() == {}
    assert every_kind.run() == {}

    view = every_kind.view()
    rows = {row["dictionary"]: row for row in view.dictionaries.collect().rows(named=True)}
    found = {
        name: tuple(row[c] for c in ("kind", "family", "control", "width", "k", "site")) for name, row in rows.items()
    }
    assert found == {
        "one": ("sae", "topk", None, LATENTS, 8, "residual"),
        "directions": ("sae", "topk", "directions", LATENTS, 8, "residual"),
        "initialised": ("sae", "topk", "initialised", LATENTS, 5, "residual"),
        "model": ("sae", "topk", "model", LATENTS, 8, "residual"),
        "neurons": ("neurons", "topk", None, WIDTH, 4, "residual"),
        "mine": ("sae", "topk", None, 48, 4, "residual"),
    }
    fired = dict(view.activations.group_by("dictionary").len().collect().iter_rows())
    assert fired.keys() == KINDS.keys()
    assert len(set(fired.values())) >= 3
    scored = view.scores.filter(pl.col("control").is_null(), metric="auroc").group_by("dictionary").len().collect()
    assert dict(scored.iter_rows()) == dict.fromkeys(KINDS, 4)
    _assert_the_trained_coder_is_the_best(every_kind)
    _assert_its_training_is_shown(every_kind)
    _assert_only_what_is_new_is_trained(every_kind)


def _assert_the_trained_coder_is_the_best(bench: Workbench) -> None:
    figures, check = reconstructions(bench)
    assert {row["n_tokens"] for row in figures.values()} == {figures["one"]["n_tokens"]}
    assert TOKENS * 0.9 < figures["one"]["n_tokens"] < TOKENS * 1.3
    assert min(figures, key=lambda name: figures[name]["variance_unexplained"]) == "mine"
    steps = bench.view().trainings.sort("step").collect()
    assert figures["mine"]["variance_unexplained"] < 0.5 * steps["variance_unexplained"][0]
    assert 3.5 < figures["mine"]["l0"] <= 4
    assert not check.passed  # a coder of random weights reconstructs nothing
    assert (
        check.figures["one: variance unexplained"]
        > check.figures["bound"]
        > check.figures["mine: variance unexplained"]
    )  # type: ignore[operator]


def _assert_its_training_is_shown(bench: Workbench) -> None:
    record = bench.instance.fetch_materializations(asset_key("coder"), limit=1).records[0]
    assert record.asset_materialization is not None
    told = str(record.asset_materialization.metadata["preview"].value)
    assert told.startswith("![](data:image/svg+xml;base64,")
    drawn = base64.b64decode(told.partition("base64,")[2].partition(")")[0]).decode()
    assert "share of variance unexplained" in drawn
    assert "dead latents" in drawn
    steps = bench.view().trainings.sort("step").collect()
    for row in (steps.row(0, named=True), steps.row(-1, named=True)):
        assert f"| {row['step']} | {row['tokens']} | {row['variance_unexplained']:.3f} | {row['dead']} |" in told


def _assert_only_what_is_new_is_trained(bench: Workbench) -> None:
    bench.write_shard("c", 3)
    assert bench.run() == {"contexts": 1, "activations": len(KINDS)}
    assert bench.dagster_stale() == {}
    bench.study["dictionaries"]["more"] = {**POINT, "train": {**TRAINING, "seed": 1}}
    assert {name: n for name, n in bench.stale().items() if name in ("coder", "dictionaries", "reconstructions")} == {
        "coder": 1, "dictionaries": 1, "reconstructions": 1,
    }  # fmt: skip
    for name in ("more", "mine"):
        del bench.study["dictionaries"][name]
    assert bench.run() == {}  # nothing is stale where the last trained dictionary goes


def test_a_trained_coder_that_is_lost_is_trained_again_and_no_other_is_used(workbench: Workbench) -> None:
    workbench.study["dictionaries"] = {"mine": KINDS["mine"]}
    workbench.prepare().execute("data")
    run, versions = workbench.prepare(), workbench.data_versions()
    weights = coder_of("mine", run.origins, run.lake).directions
    run.lake.delete("coders", {"dictionary": "mine"})
    with pytest.raises(LakeError, match="the weights of dictionary mine in the lake are not those"):
        coder_of("mine", run.origins, run.lake)
    again = workbench.prepare()
    again.execute("data")
    assert {name: n for name, n in again.progress.computed.items() if n} == {"coder": 1}
    assert workbench.data_versions() == versions
    assert torch.equal(coder_of("mine", again.origins, again.lake).directions, weights)


@pytest.fixture
def all_formats(workbench: Workbench) -> Workbench:
    """A study of a perfect coder in every format, on a subject of which all hookpoints give the same."""
    workbench.subject = OnePlace(WIDTH)
    workbench.study["dictionaries"] = {}
    workbench.study["reconstruction"] = {"tokens": TOKENS}
    for name, variant in VARIANTS.items():
        path = perfect(variant, workbench.folder / "formats" / name, WIDTH)
        source = Source(path, path.as_posix())
        is_transcoder = facts(format_of(path, name), source).kind in TRANSCODERS or "skip" in name
        entry = {"hookpoint": "layers.1.mlp.input" if is_transcoder else "layers.1", "latents": 1}
        workbench.study["dictionaries"][name] = {**entry, "coder": str(path.relative_to(workbench.folder))}
    return workbench


def test_coders_of_every_format_reconstruct_and_a_wrong_scaling_shows(all_formats: Workbench) -> None:
    all_formats.prepare().execute("dictionaries")
    figures, check = reconstructions(all_formats)
    assert figures.keys() == VARIANTS.keys()
    assert {
        name: row["variance_unexplained"] for name, row in figures.items() if row["variance_unexplained"] > 1e-6
    } == {}
    assert {
        name: row["cross_entropy_added"] for name, row in figures.items() if abs(row["cross_entropy_added"]) > 1e-6
    } == {}
    assert check.passed

    config = all_formats.folder / "formats" / "llama_scope" / "hyperparams.json"
    values = json.loads(config.read_text())
    values["dataset_average_activation_norm"]["out"] *= 3
    config.write_text(json.dumps(values))
    all_formats.prepare().execute("dictionaries")
    figures, check = reconstructions(all_formats)
    assert not check.passed
    assert figures["llama_scope"]["variance_unexplained"] > 1


def test_checkpoints_say_where_they_were_trained(workbench: Workbench) -> None:
    path = perfect(VARIANTS["saelens_topk"], workbench.folder / "formats" / "it", WIDTH)
    config = json.loads((path / "cfg.json").read_text())
    config["metadata"] |= {"hook_name": "blocks.2.hook_resid_post", "model_name": "another"}
    (path / "cfg.json").write_text(json.dumps(config))
    workbench.study["dictionaries"] = {"it": {**POINT, "coder": "formats/it"}}
    run = workbench.prepare()
    run.execute("dictionaries")
    row = View(run.lake).dictionaries.collect().row(0, named=True)
    assert (row["stated_model"], row["stated_hookpoint"], row["format"]) == (
        "another",
        "blocks.2.hook_resid_post",
        "saelens",
    )
    (said,) = run.progress.failed_checks
    assert said.startswith("dictionaries, as_trained:")
    assert "it on layers.1, trained on blocks.2.hook_resid_post" in said


REFUSED: list[tuple[dict[str, Any], str]] = [
    (
        {**CODER, "coder": "coders/none"},
        r"dictionaries\.it: Coder 'coders/none' is no path here, and the hub does not give it",
    ),
    (
        {**CODER, "coder": "docs"},
        r"dictionaries\.it: Coder 'docs': the format of .*docs is not known.*sparsify: sae.safetensors",
    ),
    ({**CODER, "format": "saelens"}, r"is not of the format saelens: there is no .*sae_weights.safetensors"),
    ({**CODER, "format": "openai"}, r"cannot be of the format openai"),
    ({**CODER, "revision": "main"}, r"lies on the disk and has no revisions"),
    ({**CODER, "k": 5}, r"k is 5 in the study, and 8 in the coder"),
    ({**CODER, "hookpoint": "layers.1.mlp.input"}, r"is a sae, which writes what it reads"),
    ({**CODER, "writes": "layers.2"}, r"is a sae, which writes what it reads"),
    ({**POINT, "coder": "formats/transcoder"}, r"is a transcoder, which reads one hookpoint.*layers\.N\.mlp\.input"),
    ({**POINT, "coder": "formats/thresholds", "control": "directions"}, r"of a jumprelu coder needs a `k`"),
    (
        {**CODER, "hookpoint": "layers.1.mlp.neurons"},
        r"reads 16 numbers a token, but layers.1.mlp.neurons of model gives 24",
    ),
    ({**POINT, "coder": "neurons", "k": WIDTH + 1}, r"k = 17 is not between 1 and the 16 latents"),
    ({**POINT, "train": {**TRAINING, "skip": True}}, r"only a transcoder"),
    ({**POINT, "train": {**TRAINING, "shards": 3}}, r"dictionaries\.it\.train\.shards is 3, and the corpus has 2"),
    ({**CODER, "control": "directions", "k": LATENTS + 1}, r"k = 65 is not between 1 and the 64 latents"),
    (
        {**POINT, "coder": "formats/transcoder", "writes": "layers.0"},
        r"layers\.0 comes before layers\.1, which is read",
    ),
]


@pytest.mark.parametrize(("entry", "message"), REFUSED, ids=[message[:30] for _, message in REFUSED])
def test_what_does_not_fit_is_refused_with_nothing_written(
    workbench: Workbench, entry: dict[str, Any], message: str
) -> None:
    config = workbench.folder / "model" / "config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), "intermediate_size": 24}))
    perfect(VARIANTS["sparsify_transcoder"], workbench.folder / "formats" / "transcoder", WIDTH)
    perfect(VARIANTS["saelens_jumprelu"], workbench.folder / "formats" / "thresholds", WIDTH)
    workbench.study["dictionaries"] = {"it": entry}
    with pytest.raises(InputError, match=message):
        workbench.run()
    assert not Path(workbench.lake.uri).exists()


INVALID: list[tuple[dict[str, Any], str]] = [
    (POINT, "either a `coder` or `train`"),
    ({**CODER, "train": TRAINING}, "either a `coder` or `train`"),
    ({**POINT, "coder": "neurons"}, "neurons need a `k`"),
    ({**POINT, "coder": "neurons", "k": 4, "control": "directions"}, "no control but `model`"),
    ({**POINT, "train": TRAINING, "k": 4}, "takes no `k`"),
    ({**POINT, "train": {**TRAINING, "k": 49}}, "more than the 48 latents"),
    ({**POINT, "train": {**TRAINING, "activation": "groupmax", "k": 5}}, "equal groups, which cannot be"),
    ({**CODER, "format": "sparsfy"}, "no coder format 'sparsfy' (did you mean 'sparsify'"),
    ({**CODER, "control": "random"}, "is none of directions, initialised, model"),
]


@pytest.mark.parametrize(("entry", "message"), INVALID, ids=[message[:30] for _, message in INVALID])
def test_a_dictionary_that_cannot_be_is_refused_by_the_study(
    workbench: Workbench, entry: dict[str, Any], message: str
) -> None:
    workbench.study["dictionaries"] = {"it": entry}
    with pytest.raises(StudyError) as error:
        workbench.prepare()
    assert message in str(error.value)


def test_what_a_control_draws_follows_the_seed_of_the_study(workbench: Workbench) -> None:
    write_coder(workbench.folder / "coders" / "one", WIDTH, LATENTS, k=8, seed=1)
    drawn = {
        "directions": KINDS["directions"],
        "model": KINDS["model"],
        "on_random": {**KINDS["mine"], "control": "model"},
    }
    workbench.study["dictionaries"] = {"one": CODER, "mine": KINDS["mine"], **drawn}
    found = []
    for seed in (0, 1):
        workbench.study["seed"] = seed
        origins = workbench.prepare().origins
        read = {name: origins.dictionary(name).digest for name in workbench.study["dictionaries"]}
        trained = {f"coder {name}": origins.digest_of("coder", {"dictionary": name}) for name in ("mine", "on_random")}
        found.append({**read, **trained})
    changed = {name for name in found[0] if found[0][name] != found[1][name]}
    assert changed == {*drawn, "coder on_random"}


def test_errors_name_the_format(workbench: Workbench) -> None:
    config = workbench.folder / "coders" / "one" / "cfg.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), "activation": "tanh"}))
    named = r"activation 'tanh' is not supported; supported are topk, groupmax\. \(read as sparsify\)"
    message = rf"dictionaries\.one: .*cfg\.json: {named}"
    with pytest.raises(InputError, match=message):
        workbench.run()


def test_what_a_name_says_is_not_taken_from_another(workbench: Workbench) -> None:
    path = perfect(VARIANTS["qwen_scope"], workbench.folder / "formats", WIDTH)
    said = path.parent.name
    other = path.parent.with_name(said.replace("L0_16", "L0_8")) / path.name
    other.parent.mkdir()
    shutil.copy(path, other)
    named = {"first": path, "second": other}
    entries = {name: {**POINT, "coder": str(each.relative_to(workbench.folder))} for name, each in named.items()}
    workbench.study["dictionaries"] = {**entries, "control": {**entries["second"], "control": "directions", "k": 3}}
    origins = workbench.prepare().origins
    origins.verify()
    found = {name: origins.dictionary(name) for name in workbench.study["dictionaries"]}
    assert {name: each.facts.k for name, each in found.items()} == {"first": 16, "second": 8, "control": 3}
    assert len({each.digest for each in found.values()}) == 3


def test_a_run_that_is_for_one_dictionary_does_not_hide_what_another_lacks(workbench: Workbench) -> None:
    workbench.study["dictionaries"] = {"one": CODER}
    workbench.study["reconstruction"] = {"tokens": TOKENS}
    for added in ({}, {"mine": KINDS["mine"]}):
        workbench.study["dictionaries"] |= added
        run = workbench.prepare()
        run.execute("dictionaries")
        assert run.progress.computed["reconstructions"] == 1
        (said,) = run.progress.failed_checks
        assert said.startswith("reconstructions, reconstructs: ")
        assert all(f"{name}: variance unexplained" in said for name in workbench.study["dictionaries"])
