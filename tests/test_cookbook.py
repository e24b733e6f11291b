"""Each query of docs/cookbook.md runs as it stands, and gives what it says."""

import shutil
from pathlib import Path

import polars as pl
import pytest
from polars.testing import assert_frame_equal

import latentlake
from latentlake.catalog import Catalog, Made
from tests.fences import by_heading, run
from tests.workbench import Workbench, open_instance

RECIPES = by_heading("docs/cookbook.md")


@pytest.fixture(scope="module")
def lake(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The lake of a small study under the quickstart's name, with what the quickstart has; a scorer of it was removed since."""
    folder = tmp_path_factory.mktemp("cookbook")
    with open_instance(folder / "instance") as instance:
        bench = Workbench(folder / "study", instance)
        bench.study |= {"name": "quickstart", "neighbours": {"k": 20}, "search": {"embedder": "embedder", "query": ""}}
        bench.run()
        del bench.study["scorers"]["surprisal"]
        bench.run()
    return folder / "study" / "lake"


@pytest.mark.parametrize("recipe", RECIPES.values(), ids=RECIPES)
def test_a_recipe_works(
    recipe: str, lake: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert len(recipe.splitlines()) <= 12
    (tmp_path / "lake").symlink_to(lake)
    monkeypatch.chdir(tmp_path)
    run(recipe, capsys)


@pytest.mark.parametrize("heading", ["A plain scan", "A plain scan without latentlake"])
def test_a_plain_scan_comes_to_what_readers_see(
    heading: str, lake: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(lake, tmp_path / "lake")
    monkeypatch.chdir(tmp_path)
    view = latentlake.open()
    catalog = Catalog(view.lake)
    asset = next(key for key in sorted(catalog.publications()) if key[0] == "scores/tokens/embedding")
    publication = catalog.publications()[asset]
    catalog.begin(Made(publication._replace(attempt=publication.attempt + 1), (), {}, {}))
    names = run(RECIPES[heading], capsys)
    plain, scores = names["plain"].collect(), names["scores"]
    assert set(plain["scorer"]) - set(scores["scorer"]) == {"surprisal"}
    assert plain.filter(pl.col("scorer") != "surprisal").height > scores.height
    assert_frame_equal(scores, view.scores.collect(), check_row_order=False)
