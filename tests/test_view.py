"""A view that is kept open shows what is published now, and opens nothing anew that did not change."""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from shutil import rmtree

import polars as pl
import pyarrow as pa
import pytest
from polars.testing import assert_frame_equal

from latentlake.calls.ledger import Asker, Ledger
from latentlake.catalog import Catalog, Made, Publication
from latentlake.corpus import Shard
from latentlake.fakes import FakeLLM
from latentlake.lake import Lake
from latentlake.protocols import Asked, Call, Generate
from latentlake.reading.view import View
from latentlake.sections.corpus import Source
from latentlake.study import Study
from latentlake.tables import TABLES
from tests.workbench import STUDY

ASSET = "explanations/default"


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    """A lake in which a study is present."""
    lake = Lake(str(tmp_path / "lake"), "tiny")
    register(lake, {})
    return lake


def register(lake: Lake, changes: dict[str, object]) -> None:
    study = Study.model_validate(STUDY | changes)
    shard = Shard("docs-a-0000", "docs", "a", Path("a"), None, 0, 1, "digest", Source(path="a"))
    Catalog(lake).register(study, [ASSET], {shard.key: shard})


def begin(lake: Lake, block: int, attempt: int = 1) -> Made:
    publication = Publication(ASSET, f"{block}|one", attempt, "", "recipe", "1", "data", 1, 0, "study", "run", None)
    where = {"explainer": "default", "dictionary": "one", "block": block}
    return Catalog(lake).begin(Made(publication, (), where, {}))


def write(lake: Lake, made: Made, latents: Sequence[int]) -> Made:
    rows = [{**made.where, "latent": latent, "explanation": str(latent)} for latent in latents]
    arrow = pa.Table.from_pylist(rows, schema=TABLES["explanations"].schema)
    written = lake.replace("explanations", arrow, made.where, {})
    return Made(made.publication, (), made.where, {"explanations": written})


def publish(lake: Lake, block: int, latents: Sequence[int], attempt: int = 1) -> None:
    Catalog(lake).publish(write(lake, begin(lake, block, attempt), latents))


def seen(view: View) -> list[int]:
    return view.explanations.sort("latent").collect()["latent"].to_list()


def test_a_view_follows_the_lake(lake: Lake) -> None:
    view = View(lake)
    assert seen(view) == []
    publish(lake, 0, [1, 2])
    assert seen(view) == [1, 2]
    publish(lake, 1, [40])
    assert seen(view) == [1, 2, 40]
    made = begin(lake, 0, attempt=2)
    assert seen(view) == [40]
    made = write(lake, made, [3])
    assert seen(view) == [40]
    Catalog(lake).publish(made)
    assert seen(view) == [3, 40]


def test_a_view_follows_the_study(lake: Lake) -> None:
    view = View(lake)
    publish(lake, 0, [1])
    publish(lake, 1, [40])
    assert seen(view) == [1, 40]
    register(lake, {"blocks": 1})
    assert seen(view) == [1]
    assert view.study is not None
    assert json.loads(view.study["choices"])["blocks"] == 1


def test_what_did_not_change_is_not_read_again(lake: Lake) -> None:
    view = View(lake)
    publish(lake, 0, [1])
    assert view.latest() is view.latest()
    before = view.latest()
    publish(lake, 1, [40])
    assert view.latest() is not before


def test_a_lake_that_is_made_anew_is_read_anew(lake: Lake) -> None:
    view = View(lake)
    publish(lake, 0, [1])
    assert seen(view) == [1]
    version = lake.version("partitions")
    rmtree(lake.uri)
    register(lake, {})
    publish(lake, 0, [2])
    assert lake.version("partitions") == version
    assert seen(view) == [2]


def test_a_commit_that_is_being_written_is_none_yet(lake: Lake) -> None:
    publish(lake, 0, [1])
    view, version = View(lake), lake.version("partitions")
    assert version is not None
    Path(lake.path("partitions"), "_delta_log", f"{version + 1:020}.json#1").write_bytes(
        b"{}"
    )  # as a store's writer names it
    assert lake.version("partitions") == version
    assert seen(view) == [1]


def test_answers_are_those_of_the_ledger_whoever_was_asked_about(lake: Lake) -> None:
    llm, asker = FakeLLM(), Asker("judge", "rev", "transformers", "scores/default/detection", "one")
    asked = [Asked(latent, Call("shared", f"own {latent}", Generate(8))) for latent in range(6)]
    llm.fails = True
    failed = Ledger(lake).ask(lambda: llm, asker, asked[:2], lambda *_: None)
    llm.fails = False
    answered = [
        replace(asked[0], latent=5),
        *asked[2:],
    ]  # one that failed is answered when it is asked for another latent
    keys = [each.key for each in [*failed, *Ledger(lake).ask(lambda: llm, asker, answered, lambda *_: None)]]
    view = View(lake)
    for latents in ([0, 1, 2], [5], [9], []):
        found = view.answers(sorted({*keys[:-1]}), latents).sort("key").drop("attempts")
        whole = view.calls.filter(pl.col("key").is_in(keys[:-1])).collect().sort("key").drop("attempts")
        assert_frame_equal(found, whole)
        assert found["is_retryable"].sum() == 1
