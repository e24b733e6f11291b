"""What tests share."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from filelock import FileLock

from tests.workbench import EVERYTHING, Workbench, opened

# Tests run in several processes at once: with one torch thread each, these do not wait for each other's cores.
os.environ.setdefault("OMP_NUM_THREADS", "1")


@pytest.fixture
def workbench(tmp_path: Path) -> Iterator[Workbench]:
    """A small study that was never run, with a Dagster instance of its own."""
    with opened(tmp_path) as bench:
        yield bench


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which the small study was run once, by the first process that asks; to be copied, not changed."""
    base = tmp_path_factory.getbasetemp()  # of one of several processes a folder in the one that they share
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "finished"
    with FileLock(f"{folder}.lock"):
        if not folder.exists():
            with opened(folder.with_name("under_way")) as bench:
                assert bench.run() == EVERYTHING
            folder.with_name("under_way").rename(folder)
    return folder


@pytest.fixture
def materialized(finished: Path, tmp_path: Path) -> Iterator[Workbench]:
    """A small study that was run once, with its lake and its Dagster instance; a copy for each test."""
    shutil.copytree(finished, tmp_path, dirs_exist_ok=True)
    with opened(tmp_path) as bench:
        yield bench
