"""The quickstart in a folder of its own, run by the same command as everywhere, and changed at will."""

import os
import re
import shutil
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import dagster as dg
import polars as pl
import yaml

from definitions import build_definitions
from latentlake.catalog import Catalog
from latentlake.flow import Flow
from latentlake.lake import Lake
from latentlake.origins import Origins
from latentlake.plan import Plan, State
from latentlake.reading.view import View, open_lake
from latentlake.study import load_study
from tests.staleness import dagster_stale, is_published

ROOT = Path(__file__).parents[2]


class Quickstart:
    """A copy of the quickstart study with its data, a lake and a Dagster instance."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.study: dict[str, Any] = yaml.safe_load((ROOT / "study.yaml").read_text())
        self.comment = ""
        folder.mkdir(parents=True, exist_ok=True)
        shutil.copytree(ROOT / "data", folder / "data", dirs_exist_ok=True)
        shutil.copy(ROOT / "dagster.yaml", folder)
        for prompt in ("pattern.txt", "detection.txt"):
            shutil.copy(ROOT / "latentlake" / "prompts" / prompt, folder)
        self.study["explainers"]["default"]["prompt"] = "pattern.txt"
        self.study["scorers"]["detection"]["prompt"] = "detection.txt"
        self.study["report"] = None  # it follows from every change
        self.write()

    def write(self) -> None:
        """Write the study file."""
        (self.folder / "study.yaml").write_text(self.comment + yaml.safe_dump(self.study, sort_keys=False))

    def start(self) -> "subprocess.Popen[str]":
        """Start the run entry in a process of its own."""
        environment = {
            **os.environ,
            "DAGSTER_HOME": str(self.folder),
            "LATENTLAKE_STUDY": str(self.folder / "study.yaml"),
            "LATENTLAKE_LAKE": str(self.folder / "lake"),
            "LATENTLAKE_CACHE": str(ROOT / ".cache"),
            "ENGINE_LOG": str(self.folder / "engine.log"),
        }
        command = [sys.executable, "-m", "tests.prove.logged_run"]
        return subprocess.Popen(
            command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )

    def run(self) -> tuple[dict[str, int], int, float]:
        """Run to the end: partitions computed by asset, model calls made, seconds."""
        self.write()
        began = time.monotonic()
        process = self.start()
        out, err = process.communicate()
        assert process.returncode == 0, err[-3000:]
        computed = re.search(r"^computed: (.*)$", out, re.MULTILINE)
        calls = re.search(r"^model calls made: (\d+)$", out, re.MULTILINE)
        assert computed and calls
        counts = dict(re.findall(r"(\S+) (\d+)(?:,|$)", computed[1])) if "nothing" not in computed[1] else {}
        return {name: int(n) for name, n in counts.items()}, int(calls[1]), time.monotonic() - began

    def stale(self) -> tuple[Counter[str], Counter[str]]:
        """By asset, partitions to compute: what the plan says of their own recipes, and what the Dagster UI says."""
        self.write()
        study = load_study(self.folder / "study.yaml")
        flow, lake = Flow(study), Lake(str(self.folder / "lake"), study.name)
        plan = Plan(flow, Origins(study, ROOT / ".cache"), Catalog(lake))
        own = Counter(
            each.stage.name
            for each in plan.all
            if each.state is State.STALE or (each.state is State.WAITING and not is_published(plan, each))
        )
        with dg.DagsterInstance.from_config(str(self.folder)) as instance:
            seen = dagster_stale(instance, build_definitions(study), flow, plan.shards)
        return own, Counter(asset for asset, _ in seen)

    def engine_calls(self) -> int:
        """Calls that engines answered since the log was begun, over all processes."""
        path = self.folder / "engine.log"
        found = re.findall(r": (\d+) calls in", path.read_text()) if path.exists() else []
        return sum(map(int, found))

    def ledger_calls(self) -> int:
        """Calls in the ledger."""
        return int(Lake(str(self.folder / "lake"), "quickstart").scan("calls").select(pl.len()).collect().item())

    def data_versions(self) -> dict[tuple[str, str], str | None]:
        """Data version of each published partition."""
        publications = Catalog(Lake(str(self.folder / "lake"), "quickstart")).publications()
        return {key: each.data_version for key, each in publications.items() if each.is_published}

    def view(self) -> View:
        """The lake, as readers see it."""
        return open_lake(str(self.folder / "lake"))
