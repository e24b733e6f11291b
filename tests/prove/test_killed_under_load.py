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

from tests.served import CONCURRENCY, loaded
from tests.servers import Canned, serving
from tests.test_killed import FLUSH

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


def versions(folder: Path, server: Canned) -> dict[tuple[str, str], str | None]:
    """Data versions once the study was run to its end."""
    assert started(folder, server).wait(900) == 0
    with loaded(folder, server.url) as bench:
        assert bench.stale() == {}
        return bench.data_versions()


def test_ten_kills_under_load(tmp_path: Path, server: Canned, capsys: pytest.CaptureFixture[str]) -> None:
    """Killed when the server has had so many more requests, drawn at random."""
    whole = versions(tmp_path / "whole", server)
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
    after = versions(folder, server)

    asked = Counter(str(body["prompt"]) + str(body.get("seed")) + str(body.get("echo")) for body in server.asked)
    repeats = sum(asked.values()) - len(asked)
    assert asked.keys() == wanted.keys()
    assert after == whole
    with capsys.disabled():
        print("\n" + "\n".join(lines))
        print(f"{len(wanted)} calls wanted, {sum(asked.values())} asked, {repeats} of them again after {KILLS} kills")
        print(f"allowed: {KILLS} x (concurrency {CONCURRENCY} + one batch of {FLUSH}); data versions are equal")
    assert repeats <= KILLS * (CONCURRENCY + FLUSH)
