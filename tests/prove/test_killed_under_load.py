"""A run that is killed ten times while a server answers it pays for next to nothing twice, and ends where it would have ended."""

import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.served import CONCURRENCY, JUDGE, ServedBench
from tests.servers import Canned, serving
from tests.test_killed import FLUSH
from tests.workbench import Workbench, open_instance

KILLS = 10
ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def server() -> Iterator[Canned]:
    with serving() as found:
        found.pause = 0.05  # an answer takes as long as this
        yield found


def started(folder: Path, server: Canned) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-W", "ignore", "-m", "tests.served", str(folder), server.url]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def finished(folder: Path, server: Canned) -> Workbench:
    assert started(folder, server).wait(600) == 0
    with open_instance(folder / "instance") as instance:
        bench = ServedBench(folder / "study", instance)
        bench.study["llms"]["judge"] = JUDGE
        assert bench.stale() == {}
        return bench


def test_ten_kills_under_load(tmp_path: Path, server: Canned, capsys: pytest.CaptureFixture[str]) -> None:
    """Killed when the server has had so many more requests, drawn at random."""
    whole = finished(tmp_path / "whole", server)
    wanted = Counter(str(body["prompt"]) + str(body.get("seed")) + str(body.get("echo")) for body in server.asked)
    assert set(wanted.values()) == {1}
    server.asked.clear()

    moments, lines = random.Random(0), []
    folder = tmp_path / "killed"
    for number in range(KILLS):
        before, more = len(server.asked), moments.randint(1, 2 * len(wanted) // KILLS)
        run = started(folder, server)
        while len(server.asked) < before + more and run.poll() is None:
            time.sleep(0.005)
        run.send_signal(signal.SIGKILL)
        lines.append(f"kill {number + 1}: after {more} requests, {run.wait()}")
        time.sleep(2 * server.pause)  # what was under way is answered into the void
    bench = finished(folder, server)

    asked = Counter(str(body["prompt"]) + str(body.get("seed")) + str(body.get("echo")) for body in server.asked)
    repeats = sum(asked.values()) - len(asked)
    assert asked.keys() == wanted.keys()
    assert bench.data_versions() == whole.data_versions()
    with capsys.disabled():
        print("\n" + "\n".join(lines))
        print(f"{len(wanted)} calls wanted, {sum(asked.values())} asked, {repeats} of them again after {KILLS} kills")
        print(f"allowed: {KILLS} x (concurrency {CONCURRENCY} + one batch of {FLUSH}); data versions are equal")
    assert repeats <= KILLS * (CONCURRENCY + FLUSH)
