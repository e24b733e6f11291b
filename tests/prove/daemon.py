"""``dagster dev`` over the small study, as a user has it: web server, daemon and code location in processes of their own."""

import json
import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil

ROOT = Path(__file__).parents[2]
LOCATION = "tests.prove.tiny_location"
IN_PROGRESS = {"QUEUED", "NOT_STARTED", "STARTING", "STARTED", "CANCELING"}
_ERROR = "{ message causes { message causes { message } } }"
_SELECTOR = {"repositoryLocationName": LOCATION, "repositoryName": "__repository__"}

Row = dict[str, Any]


class DagsterDev:
    """``home`` becomes the DAGSTER_HOME, ``study`` is the folder of the study with its lake."""

    def __init__(self, home: Path, study: Path) -> None:
        self._home, self._study = home, study
        self._process: psutil.Popen | None = None
        self.url = ""

    def start(self, **environment: str) -> None:
        """Start it and wait until the code location is served; the environment is added to."""
        port = _free_port()
        self.url = f"http://127.0.0.1:{port}"
        given = {
            "DAGSTER_HOME": str(self._home),
            "LATENTLAKE_STUDY": str(self._study / "study.yaml"),
            "LATENTLAKE_LAKE": str(self._study / "lake"),
            "LATENTLAKE_NIGHTLY": "* * * * *",
            "LATENTLAKE_LOOK_SECONDS": "5",
            "OMP_NUM_THREADS": "1",
            "PYTHONWARNINGS": "ignore",
        }
        with (self._home / "dev.log").open("a") as log:
            self._process = psutil.Popen(
                [sys.executable, "-m", "dagster", "dev", "-m", LOCATION, "-p", str(port)],
                cwd=ROOT, env={**os.environ, **given, **environment}, stdout=log, stderr=subprocess.STDOUT,
            )  # fmt: skip
        self.wait(self._is_serving, "dagster dev serves")

    def kill(self) -> None:
        """As ``kill -9`` of every process of it, runs under way included."""
        if self._process is None:
            return
        family = [*self._process.children(recursive=True), self._process]
        for each in family:  # no parent gets to see its child die
            with suppress(psutil.NoSuchProcess):
                each.suspend()
        for each in family:
            with suppress(psutil.NoSuchProcess):
                each.kill()
        psutil.wait_procs(family, timeout=60)
        self._process = None

    def query(self, graphql: str, **variables: Any) -> Row:
        """The answer to a GraphQL query."""
        body = json.dumps({"query": graphql, "variables": variables}).encode()
        request = urllib.request.Request(f"{self.url}/graphql", body, {"Content-Type": "application/json"})
        with urllib.request.urlopen(request, timeout=120) as response:
            answer = json.load(response)
        assert "errors" not in answer, answer["errors"]
        data: Row = answer["data"]
        return data

    def switch_on(self) -> None:
        """Start the schedule and the sensor, as the switches in the UI do."""
        schedule = """mutation($s: ScheduleSelector!) { startSchedule(scheduleSelector: $s) { __typename } }"""
        sensor = """mutation($s: SensorSelector!) { startSensor(sensorSelector: $s) { __typename } }"""
        started = self.query(schedule, s={**_SELECTOR, "scheduleName": "nightly"})["startSchedule"]
        assert started == {"__typename": "ScheduleStateResult"}
        started = self.query(sensor, s={**_SELECTOR, "sensorName": "new_shards"})["startSensor"]
        assert started == {"__typename": "Sensor"}

    def reload(self) -> None:
        """Reload the code location, as the button in the UI does."""
        reload = """mutation($name: String!) { reloadRepositoryLocation(repositoryLocationName: $name) {
            __typename ... on WorkspaceLocationEntry { locationOrLoadError { __typename } } } }"""
        answer = self.query(reload, name=LOCATION)["reloadRepositoryLocation"]
        assert answer["locationOrLoadError"] == {"__typename": "RepositoryLocation"}, answer

    def runs(self) -> list[Row]:
        """All runs, newest first."""
        query = """{ runsOrError { ... on Runs { results {
            runId status creationTime startTime endTime assetSelection { path } tags { key value } } } } }"""
        runs: list[Row] = self.query(query)["runsOrError"]["results"]
        return runs

    def ticks(self, name: str, last: int = 20) -> list[Row]:
        """The last ticks of the schedule or a sensor, newest first."""
        query = f"""query($s: InstigationSelector!) {{ instigationStateOrError(instigationSelector: $s) {{
            ... on InstigationState {{ ticks(limit: {last}) {{
                timestamp endTimestamp status skipReason runIds error {_ERROR} }} }} }} }}"""
        answer = self.query(query, s={**_SELECTOR, "name": name})["instigationStateOrError"]
        ticks: list[Row] = answer["ticks"]
        return ticks

    def wait(self, is_done: Callable[[], bool], what: str, seconds: float = 600) -> None:
        """Wait until something is so.

        Raises:
            TimeoutError: it is not so in time; says what Dagster did instead.
        """
        end = time.monotonic() + seconds
        while not is_done():
            if time.monotonic() > end:
                raise TimeoutError(f"waited {seconds:.0f} s for this: {what}\n{self.report()}")
            time.sleep(1)

    def report(self) -> str:
        """Runs and ticks with their errors, and the end of the log, as far as they can be had."""
        parts = [(self._home / "dev.log").read_text()[-3000:]]
        with suppress(OSError, KeyError, AssertionError):
            parts += [json.dumps(each) for each in self.runs()[:12]]
            parts += [f"{name}: {json.dumps(self.ticks(name, 5))}" for name in ("nightly", "new_shards", "next_stage")]
        return "\n".join(parts)

    def _is_serving(self) -> bool:
        query = f"""{{ workspaceOrError {{ ... on Workspace {{ locationEntries {{
            locationOrLoadError {{ __typename ... on PythonError {_ERROR} }} }} }} }} }}"""
        try:
            entries = self.query(query)["workspaceOrError"]["locationEntries"]
        except OSError:
            return False
        loaded = [each["locationOrLoadError"] for each in entries]
        assert all(each is None or each == {"__typename": "RepositoryLocation"} for each in loaded), loaded
        return bool(loaded) and all(loaded)


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
    return port
