"""The small study with a language model on a server; in a process of its own ``python -m tests.served FOLDER URL``."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from latentlake.dictionaries import coder_of
from latentlake.engines.openai import OpenAILLM, Traffic
from latentlake.engines.replay import Replay
from latentlake.fakes import FakeHandles, FakeLLM, FakeSubject
from latentlake.lake import Lake
from latentlake.origins import Origins
from latentlake.protocols import LLM, Handles
from latentlake.study import Study
from tests.servers import MODEL
from tests.workbench import WIDTH, Workbench, open_instance

CONCURRENCY = 8
JUDGE = {"model": MODEL, "engine": "openai", "revision": "1", "price": {"input": 1.0, "output": 2.0}}


class _Handles(FakeHandles):
    """Fakes, but for the language model."""

    def __init__(self, coder: Callable[[str], object], llm: Callable[[str], LLM], is_replay: bool) -> None:
        self.is_replay = is_replay
        super().__init__(coder, FakeSubject(WIDTH), FakeLLM())  # type: ignore[arg-type]
        self._make = llm

    def llm(self, name: str) -> LLM:
        """The real engine."""
        return self._make(name)


class ServedModels:
    """In the place of `resources.models.ModelsResource`: a fake subject, and a model on a server; without one a replay."""

    def __init__(self, cache: Path, url: str | None) -> None:
        self._cache, self._url = cache, url

    def origins(self, study: Study) -> Origins:
        """The files that the study names, and where its server is."""
        return Origins(study, self._cache, {"judge": [self._url] if self._url else []} if self._url else None)

    def handles(self, study: Study, origins: Origins, lake: Lake) -> Handles:
        """Doors of which one is real."""
        traffic = Traffic(concurrency=CONCURRENCY, timeout=5.0, attempts=3, patience=0.05)

        def llm(name: str) -> LLM:
            return OpenAILLM(MODEL, [self._url], None, traffic) if self._url else Replay(name)

        return _Handles(lambda name: coder_of(name, origins, lake), llm, is_replay=self._url is None)


class ServedBench(Workbench):
    """The small study, whose language model a server has. ``url``: its address; None replays the ledger."""

    url: str | None = None

    def models(self) -> ServedModels:
        """The doors."""
        return ServedModels(self.folder / "cache", self.url)


@contextmanager
def loaded(folder: Path, url: str) -> Iterator[ServedBench]:
    """The study of a folder, with all of its latents: a few thousand calls."""
    (folder / "instance").mkdir(parents=True, exist_ok=True)
    with open_instance(folder / "instance") as instance:
        bench = ServedBench(folder / "study", instance)
        bench.study["llms"]["judge"] = JUDGE
        bench.study["dictionaries"]["one"]["latents"] = "all"
        bench.url = url
        yield bench


def main(folder: Path, url: str) -> None:
    """Run the study of a folder."""
    with loaded(folder, url) as bench:
        bench.run()


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
