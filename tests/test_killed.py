"""A run that is killed loses nothing but what it was about to write, and the next one ends where it would have ended."""

import shutil
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path

import dagster as dg
import pytest

from latentlake.catalog import Catalog
from tests.killed import main
from tests.workbench import Workbench, open_instance

FLUSH = 64  # calls that the ledger gathers before it writes


def run(folder: Path, when: str) -> int:
    """The study in a process of its own, which dies; returns its exit status."""
    command = [sys.executable, "-W", "ignore", "-m", "tests.killed", str(folder), when]
    return subprocess.run(command, cwd=Path(__file__).parents[1], capture_output=True, check=False).returncode


@pytest.fixture(scope="module")
def changed(finished: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the small study, run once, and the explainer's prompt changed since."""
    folder = tmp_path_factory.mktemp("changed") / "it"
    shutil.copytree(finished, folder)
    prompt = folder / "study" / "pattern.txt"
    prompt.write_text(prompt.read_text().replace("spices", "seasonings"))
    return folder


@pytest.fixture(scope="module")
def undisturbed(changed: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same, run again to its end."""
    folder = tmp_path_factory.mktemp("undisturbed") / "it"
    shutil.copytree(changed, folder)
    main(folder, "never")
    return folder


@pytest.fixture
def disturbed(changed: Path, tmp_path: Path) -> Path:
    """The same, to be run and killed."""
    return Path(shutil.copytree(changed, tmp_path / "it"))


def opened(folder: Path) -> tuple[Workbench, dg.DagsterInstance]:
    """The study of a folder, with its Dagster instance."""
    instance = open_instance(folder / "instance")
    return Workbench(folder / "study", instance), instance


@pytest.mark.parametrize("when", ["calls:4", "calls:90", "publish:explanations/default"])
def test_after_a_kill_the_next_run_ends_the_same(undisturbed: Path, disturbed: Path, when: str) -> None:
    assert run(disturbed, when) == -signal.SIGKILL
    main(disturbed, "never")
    bench, instance = opened(disturbed)
    other, _ = opened(undisturbed)
    with instance:
        assert bench.data_versions() == other.data_versions()
        made = Counter((disturbed / "engine.log").read_text().split())
        assert made.keys() == Counter((undisturbed / "engine.log").read_text().split()).keys()
        assert sum(made.values()) - len(made) <= FLUSH
        assert bench.dagster_stale() == {}
        unfinished = dg.RunsFilter(statuses=[dg.DagsterRunStatus.STARTED])
        assert instance.get_runs(unfinished) == []


def test_between_commit_and_publication_readers_see_nothing(disturbed: Path) -> None:
    before, instance = opened(disturbed)
    with instance:
        judged = before.view().judgements.filter(scorer="surprisal").collect()
        assert {0, 1} == set(judged["block"])
    assert run(disturbed, "publish:scores/default/surprisal") == -signal.SIGKILL
    bench, instance = opened(disturbed)
    with instance:
        written = bench.lake.open("tiny").scan("judgements", {"scorer": "surprisal", "block": 0}).collect()
        assert len(written) > 0
        assert not written.equals(judged.filter(block=0))
        assert set(bench.view().judgements.filter(scorer="surprisal").collect()["block"]) == {1}
        state = Catalog(bench.lake.open("tiny")).publications("scores/default/surprisal")
        assert not state["scores/default/surprisal", "0|one"].is_published


def test_a_fresh_instance_over_an_old_lake_is_filled_and_nothing_computed(finished: Path, tmp_path: Path) -> None:
    study = Path(shutil.copytree(finished / "study", tmp_path / "study"))
    (tmp_path / "fresh").mkdir()
    with open_instance(tmp_path / "fresh") as instance:
        bench = Workbench(study, instance)
        assert sum(bench.dagster_stale().values()) == len(bench.data_versions())
        assert bench.run() == {}
        assert bench.llm.made == []
        assert bench.dagster_stale() == {}


def test_an_up_to_date_run_imports_no_torch(finished: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(finished, tmp_path / "it")
    code = (
        "import sys; from pathlib import Path; from tests.killed import main\n"
        f"main(Path({str(folder)!r}), 'never'); sys.exit(bool({{'torch', 'transformers'}} & set(sys.modules)))"
    )
    command = [sys.executable, "-W", "ignore", "-c", code]
    assert subprocess.run(command, cwd=Path(__file__).parents[1], capture_output=True, check=False).returncode == 0
