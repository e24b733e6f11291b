"""What tests share."""

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from filelock import FileLock

from tests.compared import COMPARISONS, PAIRS, REPORT, comparing
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

    def run(workbench: Workbench) -> None:
        assert workbench.run() == EVERYTHING

    return _once(tmp_path_factory, "finished", run)


@pytest.fixture(scope="session")
def compared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same of the study whose dictionary is compared with copies, with a report."""

    def run(workbench: Workbench) -> None:
        comparing(workbench, **COMPARISONS)
        workbench.study["report"] = REPORT
        computed = workbench.run()
        made = {f"{what}/{name}": n for name, n in PAIRS.items() for what, n in (("alignments", n), ("comparisons", 1))}
        assert computed == computed | made | {"report": 1}

    return _once(tmp_path_factory, "compared", run)


def _once(factory: pytest.TempPathFactory, name: str, run: Callable[[Workbench], None]) -> Path:
    base = factory.getbasetemp()  # of one of several processes a folder in the one that they share
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / name
    with FileLock(f"{folder}.lock"):
        if not folder.exists():
            under_way = folder.with_name(f"{name}_under_way")
            with opened(under_way) as bench:
                run(bench)
            under_way.rename(folder)
    return folder


@pytest.fixture
def materialized(finished: Path, tmp_path: Path) -> Iterator[Workbench]:
    """A small study that was run once, with its lake and its Dagster instance; a copy for each test."""
    shutil.copytree(finished, tmp_path, dirs_exist_ok=True)
    with opened(tmp_path) as bench:
        yield bench


@pytest.fixture
def compared_bench(compared: Path, tmp_path: Path) -> Iterator[Workbench]:
    """The same of the study that compares."""
    shutil.copytree(compared, tmp_path, dirs_exist_ok=True)
    with opened(tmp_path) as bench:
        yield bench
