"""Windows that are like one another come out above those that are not, and random ones at chance."""

from itertools import product
from typing import Any, cast

import numpy as np
import polars as pl
import pytest

from latentlake.errors import StudyError
from latentlake.fakes import FakeEmbedder
from latentlake.measures.metrics import auroc
from latentlake.stages import scores
from latentlake.tables import TABLES
from latentlake.work import Work
from tests.stub import Stub, latents_frame, rows_of, study

OWN: dict[str, Any] = {"method": "example_embedding", "sample": "wide", "windows": 20, "embedder": "embedder"}
WIDE: dict[str, Any] = {"split": "score", "windows": 20, "negatives": 20}
Texts = dict[tuple[int, bool], list[str]]


def frame_of(texts: Texts) -> pl.DataFrame:
    """Windows by latent and whether it fires in them, ranked in order."""
    rows = [
        {
            "sample": "wide", "dictionary": "one", "block": 0, "latent": latent, "rank": rank, "is_activating": is_on,
            "source": "quantiles" if is_on else "random", "decile": rank % 10 if is_on else None, "shard": "s",
            "context": 1000 * latent + 2 * rank + is_on, "start": 0, "tokens": [1], "activations": [float(is_on)], "text": text,
            "offsets": [0],
        }
        for (latent, is_on), own in texts.items()
        for rank, text in enumerate(own)
    ]  # fmt: skip
    return pl.DataFrame(rows, schema=TABLES["examples"].empty().schema)


class Drawn:
    """An embedder that gives each text a vector drawn at random: about one of some topics, or of none."""

    def __init__(self, seed: int, topics: int) -> None:
        self._chosen = np.random.default_rng(seed)
        self._topics = self._chosen.normal(size=(topics, 16)) if topics else np.zeros((1, 16))

    def embed(self, texts: list[str]) -> np.ndarray:
        """Unit-length vectors, float32 [texts, 16]."""
        topics = self._topics[self._chosen.integers(len(self._topics), size=len(texts))]
        drawn = topics + self._chosen.normal(size=topics.shape)
        return (drawn / np.linalg.norm(drawn, axis=1, keepdims=True)).astype(np.float32)


def work_of(frame: pl.DataFrame, embedder: Any = None, **settings: Any) -> Work:
    named = {f"l{latent}": ["x"] for latent in (1, 2, 3)}
    changed = study(scorers={"own": OWN | settings}, samples={"wide": WIDE})
    work = Stub(None, changed, latents=latents_frame(**named), examples__wide=frame).work("scores/none/own")
    if embedder is not None:
        cast(Any, work.handles).embedder = lambda name: embedder
    return work


def made(frame: pl.DataFrame, embedder: Any = None, **settings: Any) -> dict[str, list[dict[str, Any]]]:
    """Rows of the tables of the stage."""
    tables = scores.compute(work_of(frame, embedder, **settings))
    return {name: rows_of(name, rows) for name, rows in tables.items()}


def alike(words: str, n: int = 20) -> list[str]:
    """Texts of the same words, each told apart by its number."""
    return [f"{words} {number}" for number in range(n)]


def test_windows_that_are_like_one_another_score_above_those_that_are_not() -> None:
    texts = {
        (1, True): alike("the river and the sea"), (1, False): alike("xylophones jump"),
        (2, True): alike("the same"), (2, False): alike("the same"),
    }  # fmt: skip
    rows = made(frame_of(texts))
    found = {row["latent"]: row for row in rows["scores"]}
    assert (found[1]["explainer"], found[1]["metric"], found[1]["control"]) == ("none", "auroc", None)
    assert (found[1]["value"], found[1]["n"], found[1]["error"]) == (1.0, 20, None)
    assert abs(found[2]["value"] - 0.5) < 0.35
    assert (found[3]["value"], found[3]["error"]) == (None, "few_windows")


def test_the_first_half_by_rank_are_examples_and_the_rest_are_judged_against_their_means() -> None:
    texts = {(1, is_on): [f"{'on' if is_on else 'off'} {rank}" for rank in range(24)] for is_on in (True, False)}
    rows = made(frame_of(texts), windows=11)["judgements"]
    assert {(row["context"] - 1000) // 2 for row in rows} == set(range(5, 11))
    embedded = {
        (is_on, rank): FakeEmbedder().embed([text])[0]
        for (_, is_on), own in texts.items()
        for rank, text in enumerate(own)
    }
    for row in rows:
        own = embedded[row["is_activating"], (row["context"] - 1000) // 2]
        near, far = (np.mean([own @ embedded[is_on, rank] for rank in range(5)]) for is_on in (True, False))
        assert row["measure"] == pytest.approx(near - far, abs=1e-5)
        assert (row["prediction"], row["probability"], row["error"], row["call"]) == (None,) * 4


def test_slices_are_by_decile_and_source() -> None:
    rows = made(frame_of({(1, True): alike("a river"), (1, False): alike("a xylophone")}))["slices"]
    assert {row["decile"] for row in rows} == {None, *range(10)}
    assert {row["source"] for row in rows} == {None, "random"}


@pytest.mark.parametrize(("topics", "sizes"), product([0, 6], [(10, 10), (20, 20), (8, 20)]))
def test_of_random_vectors_the_mean_auroc_is_chance(topics: int, sizes: tuple[int, int]) -> None:
    """Held against all others of both kinds but themselves, windows of topics come out below it."""
    texts = {
        (1, is_on): [f"{is_on} {n}" for n in range(size)] for is_on, size in zip((True, False), sizes, strict=True)
    }
    work, values = work_of(frame_of(texts)), []
    for seed in range(300):
        cast(Any, work.handles).embedder = lambda name, seed=seed: Drawn(seed, topics)
        rows = work.study.scorers["own"].judgements(work, pl.DataFrame())
        values.append(auroc(rows["is_activating"].to_numpy(), rows["measure"].to_numpy()))
    assert np.mean(values) == pytest.approx(0.5, abs=3 * np.std(values) / len(values) ** 0.5)


@pytest.mark.parametrize(
    ("firing", "silent", "error"),
    [(0, 20, "few_windows"), (20, 0, "few_windows"), (1, 20, "few_windows"), (20, 1, "few_windows"), (2, 2, None)],
)
def test_a_latent_with_too_few_windows_has_no_score_and_says_why(firing: int, silent: int, error: str | None) -> None:
    rows = made(frame_of({(1, True): alike("a", firing), (1, False): alike("b", silent)}))
    (row,) = [row for row in rows["scores"] if row["latent"] == 1]
    assert (row["error"], row["value"] is None) == (error, error is not None)


def test_measures_do_not_depend_on_the_order_of_rows_or_on_other_latents() -> None:
    kinds = {(latent, is_on): alike(f"text {latent} {is_on}") for latent in (1, 2) for is_on in (True, False)}
    frame = frame_of(kinds)
    everything = made(frame)["judgements"]
    assert made(frame.sample(fraction=1, shuffle=True, seed=1))["judgements"] == everything
    alone = made(frame.filter(latent=2))["judgements"]
    assert alone == [row for row in everything if row["latent"] == 2]


@pytest.mark.parametrize(
    ("sample", "settings", "message"),
    [
        ({"windows": 19}, {}, r"scorers\.own judges 20 windows, but samples\.wide draws only 19"),
        ({"negatives": 0}, {}, r"scorers\.own compares windows with others, but samples\.wide has no negatives"),
        ({"split": "explain"}, {}, r"it needs one of the split score"),
        ({}, {"windows": 1}, "greater than or equal to 2"),
        ({}, {"embedder": "judge"}, "sentence_transformers, which embeds"),
    ],
    ids=str,
)
def test_a_study_that_cannot_be_is_refused(sample: dict[str, Any], settings: dict[str, Any], message: str) -> None:
    assert study(scorers={"own": OWN}, samples={"wide": WIDE})
    with pytest.raises(StudyError, match=message):
        study(scorers={"own": OWN | settings}, samples={"wide": WIDE | sample})
