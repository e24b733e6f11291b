"""Runs the small study in a process that may kill itself: ``python -m tests.killed FOLDER never|calls:N|publish:ASSET``.

Every call that reaches the engine is written to ``engine.log``, which outlives the process.
"""

import os
import signal
import sys
from pathlib import Path

from latentlake.calls.ledger import call_key
from latentlake.catalog import Catalog, Made, Publication
from latentlake.fakes import FakeLLM
from latentlake.protocols import Call, Reply
from tests.workbench import Workbench, open_instance


class LoggedLLM(FakeLLM):
    """A fake that writes down what it answers, and dies at a number of calls."""

    def __init__(self, log: Path, last: int | None) -> None:
        super().__init__(before=lambda answered: die() if last is not None and answered >= last else None)
        self._log = log

    def _reply(self, call: Call) -> Reply:
        with self._log.open("a") as log:
            log.write(call_key("", call) + "\n")
        return super()._reply(call)


def die() -> None:
    """As ``kill -9``."""
    os.kill(os.getpid(), signal.SIGKILL)


def main(folder: Path, when: str) -> None:
    """Run the study, dying when asked to."""
    kind, _, at = when.partition(":")
    if kind == "publish":
        publish = Catalog.publish

        def publish_or_die(catalog: Catalog, made: Made) -> Publication:
            if made.publication.asset == at:
                die()
            return publish(catalog, made)

        Catalog.publish = publish_or_die  # type: ignore[method-assign]
    (folder / "instance").mkdir(parents=True, exist_ok=True)
    with open_instance(folder / "instance") as instance:
        bench = Workbench(folder / "study", instance)
        bench.llm = LoggedLLM(folder / "engine.log", int(at) if kind == "calls" else None)
        bench.run()


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
