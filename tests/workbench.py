"""A small study in a folder of its own, run through Dagster on fakes, and changed at will."""

import copy
import gzip
import json
import random
import shutil
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache, cached_property
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import dagster as dg
import yaml
from dagster._core.storage.event_log import ConsolidatedSqliteEventLogStorage
from dagster._core.storage.runs import SqliteRunStorage
from sqlalchemy import Connection, Engine, create_engine, inspect
from sqlalchemy.event import listen

from jobs.progress import TerminalProgress
from jobs.run import Models, Run
from latentlake.catalog import Catalog
from latentlake.dictionaries import coder_of
from latentlake.fakes import FakeHandles, FakeLLM, FakeSubject, write_coder
from latentlake.lake import Lake
from latentlake.origins import Origins
from latentlake.plan import State
from latentlake.protocols import Handles
from latentlake.reading.view import View
from latentlake.study import Study
from resources.lake import LakeResource
from tests.staleness import dagster_stale, is_published

WIDTH, LATENTS = 16, 64
WORDS = [
    "river",
    "mountain",
    "city",
    "war",
    "king",
    "music",
    "cell",
    "number",
    "theory",
    "church",
    "island",
    "language",
    "bird",
    "film",
    "law",
    "sea",
    "art",
    "tree",
]

STUDY: dict[str, Any] = {
    "name": "tiny",
    "blocks": 2,
    "corpus": {"sources": {"docs": {"path": "docs/*.jsonl*", "id": "title"}}, "context_length": 65},
    "subject": {"model": "model"},
    "dictionaries": {"one": {"hookpoint": "layers.1", "coder": "coders/one", "latents": 6}},
    "reconstruction": None,
    "neighbours": None,
    "logits": None,
    "report": None,
    "selection": {"window": 8, "min_windows": {"explain": 4, "select": 2, "score": 4}},
    "samples": {
        "strong": {"split": "explain", "sampler": "top", "windows": 3},
        "select": {"split": "select", "windows": 4, "negatives": 4},
        "test": {"split": "score", "windows": 8, "negatives": 8},
    },
    "llms": {
        "judge": {"model": "model", "engine": "transformers"},
        "embedder": {"model": "embedder", "engine": "sentence_transformers"},
    },
    "explainers": {
        "tokens": {"method": "tokens"},
        "default": {
            "method": "pattern", "llm": "judge", "sample": "strong", "prompt": "pattern.txt", "select_sample": "select",
            "embedder": "embedder",
        },
    },
    "scorers": {
        "embedding": {
            "method": "embedding", "explainers": ["tokens", "default"], "sample": "test", "windows": 8, "embedder": "embedder",
        },
        "surprisal": {"method": "surprisal", "explainers": ["default"], "sample": "test", "windows": 4, "llm": "judge"},
        "detection": {
            "method": "detection", "explainers": ["default"], "sample": "test", "windows": 4, "together": 1, "llm": "judge",
            "prompt": "detection.txt",
        },
    },
}  # fmt: skip


# partitions computed by a first run, by asset
EVERYTHING = {
    "subject": 1, "llms": 2, "dictionaries": 1, "selections": 1, "contexts": 2, "activations": 2, "latents": 2,
    "examples/strong": 2, "examples/select": 2, "examples/test": 2, "explanations/tokens": 2, "explanations/default": 2,
    "scores/tokens/embedding": 2, "scores/default/embedding": 2, "scores/default/surprisal": 2,
    "scores/default/detection": 2, "agreements": 1,
}  # fmt: skip


class _OneEngine:
    """In the place of an engine for each statement one for all; what is written is not waited for until it is on the disk."""

    _conn_string: str

    @cached_property
    def _engine(self) -> Engine:
        engine = create_engine(self._conn_string, connect_args={"timeout": 60})
        listen(engine, "connect", lambda connection, _: connection.execute("PRAGMA synchronous=OFF"))
        return engine

    @contextmanager
    def connect(self) -> Iterator[Connection]:
        with self._engine.connect() as connection, connection.begin():
            yield connection


class Events(_OneEngine, ConsolidatedSqliteEventLogStorage):
    """Dagster's events in one database, which is asked once for the names of its tables."""

    _connect = _OneEngine.connect

    @cached_property
    def _tables(self) -> list[str]:
        return inspect(self._engine).get_table_names()

    def has_table(self, table_name: str) -> bool:
        """Whether there is a table."""
        return table_name in self._tables


class Runs(_OneEngine, SqliteRunStorage):
    """Dagster's runs."""

    @classmethod
    def from_config_value(cls, inst_data: Any, config_value: Any) -> "Runs":
        """As Dagster makes it of its configuration."""
        return cls.from_local(inst_data=inst_data, **config_value)


def open_instance(folder: Path) -> dg.DagsterInstance:
    """A Dagster instance on disk, without what takes processes of its own (copies of what steps print) or a network."""
    if not folder.exists():
        shutil.copytree(_empty_instance().name, folder)
    return _instance(folder)


@cache
def _empty_instance() -> TemporaryDirectory[str]:
    """An instance's databases, which take a second to make: made once a process, and copied."""
    folder = TemporaryDirectory()
    _instance(Path(folder.name)).dispose()
    return folder


def _instance(folder: Path) -> dg.DagsterInstance:
    events, runs = (
        {"module": __name__, "class": name, "config": {"base_dir": str(folder / name.lower())}}
        for name in ("Events", "Runs")
    )
    silent = {"module": "dagster._core.storage.noop_compute_log_manager", "class": "NoOpComputeLogManager"}
    return dg.DagsterInstance.local_temp(
        str(folder),
        overrides={
            "event_log_storage": events, "run_storage": runs, "compute_logs": silent, "telemetry": {"enabled": False},
        },
    )  # fmt: skip


class FakeModels:
    """In the place of `resources.models.ModelsResource`: doors to one subject and one language model, both fakes."""

    def __init__(self, cache: Path, subject: FakeSubject, llm: FakeLLM) -> None:
        self._cache, self._subject, self._llm = cache, subject, llm

    def origins(self, study: Study) -> Origins:
        """The files that the study names; these are real."""
        return Origins(study, self._cache)

    def handles(self, study: Study, origins: Origins, lake: Lake) -> Handles:
        """The fakes, and the real coders of the study."""
        return FakeHandles(lambda name: coder_of(name, origins, lake), self._subject, self._llm)


class Workbench:
    """A study in ``folder``; ``study`` may be changed and is written before each run."""

    def __init__(self, folder: Path, instance: dg.DagsterInstance) -> None:
        self.folder, self.instance = folder, instance
        self.study = copy.deepcopy(STUDY)
        self.subject, self.llm = FakeSubject(WIDTH), FakeLLM()
        self.lake = LakeResource(uri=str(folder / "lake"))
        self.comment = ""
        self._write_inputs()

    @property
    def path(self) -> Path:
        """The study file."""
        return self.folder / "study.yaml"

    def write_shard(self, name: str, seed: int, documents: int = 30) -> None:
        """A file of random documents."""
        chosen = random.Random(seed)
        lines = [
            json.dumps({"title": f"{name} {n}", "text": " ".join(chosen.choices(WORDS, k=30))})
            for n in range(documents)
        ]
        path = self.folder / "docs" / f"{name}.jsonl.gz"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(gzip.compress("\n".join(lines).encode(), mtime=0))

    def prepare(self) -> Run:
        """Write the study file and make a run of it."""
        self.path.write_text(self.comment + yaml.safe_dump(self.study, sort_keys=False))
        return Run(str(self.path), self.instance, self.lake, self.models(), TerminalProgress())

    def models(self) -> Models:
        """The doors that a run is given."""
        return FakeModels(self.folder / "cache", self.subject, self.llm)

    def run(self) -> dict[str, int]:
        """Run the study; returns the number of partitions computed, by asset, without the ones that had none."""
        run = self.prepare()
        run.execute()
        return {name: n for name, n in run.progress.computed.items() if n}

    def stale(self) -> Counter[str]:
        """By asset, the partitions that are not up to date by themselves: their own recipe changed, or they are new.

        A partition that is published by the same code and only waits for what comes of another is not counted.
        """
        plan = self.prepare().plan()
        return Counter(
            each.stage.name
            for each in plan.all
            if each.state is State.STALE or (each.state is State.WAITING and not is_published(plan, each))
        )

    def dagster_stale(self) -> Counter[str]:
        """By asset, the partitions that the Dagster UI marks as missing or out of date."""
        run = self.prepare()
        found = dagster_stale(self.instance, run.definitions, run.flow, run.plan().shards)
        return Counter(asset for asset, _ in found)

    def data_versions(self) -> dict[tuple[str, str], str | None]:
        """Data version of each published partition."""
        publications = Catalog(self.lake.open("tiny")).publications()
        return {key: each.data_version for key, each in publications.items() if each.is_published}

    def view(self) -> View:
        """The lake, as readers see it."""
        return View(self.lake.open("tiny"))

    def _write_inputs(self) -> None:
        model, prompts = self.folder / "model", Path(__file__).parents[1] / "latentlake" / "prompts"
        model.mkdir(parents=True, exist_ok=True)
        config = {"num_hidden_layers": 4, "hidden_size": WIDTH, "num_attention_heads": 4, "model_type": "llama"}
        (model / "config.json").write_text(json.dumps(config))
        (self.folder / "embedder").mkdir(exist_ok=True)
        (self.folder / "embedder" / "config.json").write_text("{}")
        write_coder(self.folder / "coders" / "one", WIDTH, LATENTS, k=8, seed=1)
        for prompt in ("pattern.txt", "detection.txt"):
            if not (self.folder / prompt).exists():
                (self.folder / prompt).write_text((prompts / prompt).read_text())
        self.write_shard("a", 1)
        self.write_shard("b", 2)


@contextmanager
def opened(folder: Path) -> Iterator[Workbench]:
    """The small study of a folder, with its Dagster instance."""
    with open_instance(folder / "instance") as instance:
        yield Workbench(folder / "study", instance)
