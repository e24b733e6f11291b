"""A view that is kept open shows what is published now, and opens nothing anew that did not change."""

import json
from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pytest

from latentlake.catalog import Catalog, Made, Publication
from latentlake.corpus import Shard
from latentlake.lake import Lake
from latentlake.study import Study
from latentlake.study_corpus import Source
from latentlake.tables import TABLES
from latentlake.view import View
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
