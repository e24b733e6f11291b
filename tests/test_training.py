"""Coders trained with sparsify on what a subject gives; on a subject of fixed vectors, fast and the same each time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import polars as pl
import pytest
import torch

from latentlake.coders import training
from latentlake.coders.opening import Source, open_coder
from latentlake.coders.training import Lesson, Step, train
from latentlake.errors import InputError, LakeError
from latentlake.fakes import FakeSubject
from latentlake.keeping.weights import Weights
from latentlake.lake import Lake
from latentlake.sections.dictionaries import Training
from latentlake.tables import TABLES

D = 16


class Counting(FakeSubject):
    """Notes how many contexts it reads at a time."""

    def __init__(self, width: int, asked: list[int]) -> None:
        super().__init__(width)
        self._asked = asked

    def activations(
        self, contexts: Sequence[Sequence[int]], hookpoints: Sequence[str]
    ) -> Iterator[tuple[list[int], dict[str, torch.Tensor]]]:
        """As ever."""
        self._asked.append(len(contexts))
        return super().activations(contexts, hookpoints)


def lesson(reads: str = "layers.1", writes: str = "layers.1") -> Lesson:
    """Contexts of several lengths, each opened by BOS; one holds nothing else."""
    texts = ["the river runs to the sea", "a king", "music and law", "birds of an island"] * 10
    tokens = [[1, *each.tokens] for each in FakeSubject(D).tokenize(texts)] + [[1]]
    return Lesson(FakeSubject(D), tokens, [[0]] * len(tokens), reads, writes)


def trained(folder: Path, shares: list[float] | None = None, of: Lesson | None = None, **choices: object) -> list[Step]:
    """Train a small coder."""
    folder.mkdir(parents=True)
    choice = Training.model_validate({"latents": 40, "k": 4, "contexts": 4, "epochs": 3, "lr": 0.01, **choices})
    return train(choice, of or lesson(), folder, (shares if shares is not None else []).append)


def test_training_lowers_what_is_left_unexplained_and_reports_it(tmp_path: Path) -> None:
    shares: list[float] = []
    steps = trained(tmp_path / "a", shares)
    assert [step.step for step in steps] == list(range(30))
    assert steps[-1].variance_unexplained < 0.8 * steps[0].variance_unexplained
    kept = sum(len(each) - 1 for each in lesson().contexts)
    assert steps[10].tokens == kept  # an epoch of ten steps; BOS is not counted
    assert shares == sorted(shares)
    assert shares[-1] == 1.0


@pytest.mark.parametrize(("room", "times"), [(None, 1), (0, 3)])
def test_contexts_are_read_once_for_all_epochs_where_there_is_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, room: int | None, times: int
) -> None:
    if room is not None:
        monkeypatch.setattr(training, "_KEPT", room)
    given = lesson()
    asked: list[int] = []
    subject = Counting(D, asked)
    steps = trained(tmp_path / "a", of=replace(given, subject=subject))
    assert (tmp_path / "a" / "states").exists() == (room is None)
    usable = sum(len(each) > 1 for each in given.contexts)
    assert 0 <= sum(asked) - times * usable <= 2  # one or two are asked for to see what they are like
    assert steps == trained(tmp_path / "b")  # of vectors that do not depend on the batch, so nothing else may differ


def test_a_place_without_room_for_states_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "states").write_text("no folder")
    choice = Training.model_validate({"latents": 40, "k": 4, "contexts": 4, "epochs": 2, "lr": 0.01})
    with pytest.raises(InputError, match=r"GiB in .*states, and cannot be.*TMPDIR"):
        train(choice, lesson(), tmp_path / "a", lambda share: None)


def test_what_is_trained_is_a_coder_like_any_other(tmp_path: Path) -> None:
    steps = trained(tmp_path / "a")
    coder = open_coder("sparsify", Source(tmp_path / "a" / "coder", "a"), "cpu")
    assert (coder.width, coder.d_in, coder.k) == (40, D, 4)
    given, left = lesson(), [0.0, 0.0]
    for batch, states in given.subject.activations(given.contexts, ["layers.1"]):
        kept = torch.cat([torch.arange(len(given.contexts[n])) > 0 for n in batch])
        inputs = states["layers.1"][kept]
        left[0] += float((inputs - coder.decode(coder.encode(inputs), inputs)).square().sum())
        left[1] += float((inputs - inputs.mean(0)).square().sum())
    assert left[0] / left[1] < steps[0].variance_unexplained


def test_the_same_choices_train_the_same_coder_and_another_seed_another(tmp_path: Path) -> None:
    state = torch.random.get_rng_state()
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        trained(tmp_path / name, seed=seed)
    assert torch.equal(state, torch.random.get_rng_state())
    weights = [(tmp_path / name / "coder" / "sae.safetensors").read_bytes() for name in "abc"]
    assert weights[0] == weights[1]
    assert weights[0] != weights[2]


def test_transcoders_learn_what_another_hookpoint_gives(tmp_path: Path) -> None:
    steps = trained(tmp_path / "a", of=lesson("layers.1.mlp.input", "layers.1.mlp"), skip=True, epochs=6)
    assert steps[-1].variance_unexplained < steps[0].variance_unexplained
    coder = open_coder("sparsify", Source(tmp_path / "a" / "coder", "a"), "cpu")
    assert coder.d_out == D


def test_latents_die_that_do_not_fire_for_long(tmp_path: Path) -> None:
    assert max(step.dead for step in trained(tmp_path / "a", dead_after=200, auxk=0)) > 0
    assert all(step.dead == 0 for step in trained(tmp_path / "b"))


def test_too_few_contexts_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="takes 4 contexts a step, and the shards it reads have 1"):
        trained(tmp_path / "a", of=Lesson(FakeSubject(D), [[1, 5], [1]], [[0], [0]], "h", "h"), epochs=1)


def test_training_that_diverges_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="training diverged"):
        trained(tmp_path / "a", lr=1e30)


@pytest.mark.parametrize("scheme", ["", "file://"])  # a folder, and a store behind an address
def test_files_come_out_of_the_lake_as_they_went_in(tmp_path: Path, scheme: str) -> None:
    folder, lake = tmp_path / "a", Lake(f"{scheme}{tmp_path}/lake", "study")
    folder.mkdir()
    for name, size in (("cfg.json", 10), ("sae.safetensors", 250_000)):
        (folder / name).write_bytes(bytes(n % 251 for n in range(size)))
    beside = tmp_path / "lake" / "study" / "weights"
    beside.mkdir(parents=True)  # stores have no folders; behind this address one must be there
    weights = Weights(lake)
    rows = [{"dictionary": "d", **row} for row in weights.keep(folder)]
    assert weights.keep(folder) == [{name: row[name] for name in ("file", "sha256", "bytes")} for row in rows]
    kept = sorted(beside.iterdir())
    assert [file.name for file in kept] == sorted(str(row["sha256"]) for row in rows)
    found = weights.unpacked(pl.DataFrame(rows), tmp_path / "cache")
    assert {file.name: file.read_bytes() for file in found.iterdir()} == {
        file.name: file.read_bytes() for file in folder.iterdir()
    }
    assert weights.unpacked(pl.DataFrame(rows), tmp_path / "cache") == found

    lake.replace("coders", TABLES["coders"].conform(pl.DataFrame(rows[:1])), {"dictionary": "d"}, {})
    assert weights.sweep(hours=1) == 0  # another run may be about to publish it
    assert weights.sweep(hours=0) == 1
    (left,) = beside.iterdir()
    left.write_bytes(b"other")
    with pytest.raises(LakeError, match="a file of a trained coder, cannot be read: its bytes are others"):
        weights.unpacked(pl.DataFrame(rows[:1]), tmp_path / "another")
    left.unlink()
    with pytest.raises(LakeError, match="a file of a trained coder, cannot be read"):
        weights.unpacked(pl.DataFrame(rows[:1]), tmp_path / "another")
