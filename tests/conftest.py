"""What tests share."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.workbench import EVERYTHING, Workbench, open_instance

# Tests run in several processes at once: with one torch thread each, these do not wait for each other's cores.
os.environ.setdefault("OMP_NUM_THREADS", "1")


@pytest.fixture
def workbench(tmp_path: Path) -> Iterator[Workbench]:
    """A small study that was never run, with a Dagster instance of its own."""
    yield from _open(tmp_path)


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which the small study was run once; to be copied, not changed."""
    folder = tmp_path_factory.mktemp("finished")
    for workbench in _open(folder):
        assert workbench.run() == EVERYTHING
    return folder


@pytest.fixture
def materialized(finished: Path, tmp_path: Path) -> Iterator[Workbench]:
    """A small study that was run once, with its lake and its Dagster instance; a copy for each test."""
    shutil.copytree(finished, tmp_path, dirs_exist_ok=True)
    yield from _open(tmp_path)


def _open(folder: Path) -> Iterator[Workbench]:
    with open_instance(folder / "instance") as instance:
        yield Workbench(folder / "study", instance)
