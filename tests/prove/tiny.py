"""The small study under a daemon: what a change made it compute, once it has come to rest."""

import shutil
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import dagster as dg
import polars as pl

from tests.prove.daemon import IN_PROGRESS, ROOT, DagsterDev, Row
from tests.workbench import Workbench


class Tiny:
    """The study in ``folder/study``, the Dagster instance in ``folder/home``."""

    def __init__(self, folder: Path, instance: dg.DagsterInstance) -> None:
        self.bench = Workbench(folder / "study", instance)
        self.bench.prepare()
        self.dev = DagsterDev(folder / "home", folder / "study")

    def edit(self, prompt: str, old: str, new: str) -> None:
        """Edit a prompt beside the study."""
        path = self.bench.folder / prompt
        assert old in path.read_text()
        path.write_text(path.read_text().replace(old, new))

    def computed(self, since: float) -> dict[str, int]:
        """Partitions computed since a time, by asset."""
        rows = self.bench.lake.open("tiny").scan("partitions").filter(state="published")
        new = rows.filter(pl.col("at") > datetime.fromtimestamp(since, UTC)).select("asset").collect()
        return dict(Counter(new["asset"]))

    def runs(self, since: float) -> list[Row]:
        """Runs created since a time, newest first."""
        return [run for run in self.dev.runs() if run["creationTime"] > since]

    def settle(self, since: float) -> None:
        """Wait until every run has ended, and the schedule after that has found nothing to launch."""
        self.dev.wait(lambda: self._is_settled(since), "the schedule finds everything up to date", 1200)

    def _is_settled(self, since: float) -> bool:
        runs, ticks = self.dev.runs(), self.dev.ticks("nightly")
        failed = [tick for tick in ticks if tick["status"] == "FAILURE" and tick["timestamp"] > since]
        assert not failed, f"{failed}\n{self.dev.report()}"
        if any(run["status"] in IN_PROGRESS for run in runs):
            return False
        rest = max([since, *(run["endTime"] or 0 for run in runs)])
        return any(tick["status"] == "SKIPPED" and tick["timestamp"] > rest for tick in ticks)


@contextmanager
def tiny_study(folder: Path) -> Iterator[Tiny]:
    """The study with a Dagster instance of its own; what was started is killed at the end."""
    (folder / "home").mkdir(parents=True, exist_ok=True)
    shutil.copy(ROOT / "dagster.yaml", folder / "home")
    with dg.DagsterInstance.from_config(str(folder / "home")) as instance:
        tiny = Tiny(folder, instance)
        try:
            yield tiny
        finally:
            tiny.dev.kill()
