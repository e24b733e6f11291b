"""Stages computed from frames made by hand, every call of a model answered by the test."""

import json
from collections.abc import Callable, Sequence
from functools import cache
from itertools import accumulate
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, cast

import polars as pl
import yaml

from latentlake.calls.ledger import call_key
from latentlake.fakes import FakeHandles, FakeLLM, FakeSubject
from latentlake.flow import Flow
from latentlake.protocols import Answer, Asked, Call, Reply
from latentlake.study import Study, load_study
from latentlake.tables import TABLES
from latentlake.work import Work

STUDY: dict[str, Any] = {
    "name": "tiny",
    "blocks": 1,
    "corpus": {"sources": {"d": {"path": "*"}}},
    "subject": {"model": "m"},
    "dictionaries": {"one": {"hookpoint": "h", "coder": "c"}},
    "samples": {
        "strong": {"split": "explain", "sampler": "top", "windows": 3},
        "select": {"split": "select", "windows": 4, "negatives": 4},
        "test": {"split": "score", "windows": 8, "negatives": 8},
    },
    "llms": {
        "judge": {"model": "m", "engine": "transformers"},
        "chat": {"model": "m", "engine": "transformers", "chat": True},
        "server": {"model": "m", "engine": "openai", "chat": True},
        "embedder": {"model": "e", "engine": "sentence_transformers"},
    },
    "explainers": {
        "tokens": {"method": "tokens", "n": 3},
        "default": {
            "method": "pattern", "llm": "judge", "sample": "strong", "select_sample": "select", "embedder": "embedder",
        },
    },
    "scorers": {
        "detection": {
            "method": "detection", "explainers": ["default"], "sample": "test", "windows": 4, "together": 1, "llm": "judge",
        },
        "surprisal": {"method": "surprisal", "explainers": ["default"], "sample": "test", "windows": 4, "llm": "judge"},
        "embedding": {
            "method": "embedding", "explainers": ["default"], "sample": "test", "windows": 4, "embedder": "embedder",
        },
    },
}  # fmt: skip

Answering = Callable[[Call], Reply]


def study(**sections: dict[str, Any]) -> Study:
    """The study of these tests, read from a file as any other, with more entries in its sections."""
    return _study(json.dumps({name: {**STUDY.get(name, {}), **more} for name, more in sections.items()}))


@cache
def _study(changes: str) -> Study:
    with TemporaryDirectory() as folder:
        path = Path(folder) / "study.yaml"
        path.write_text(yaml.safe_dump(STUDY | json.loads(changes)))
        return load_study(path)


def reply(text: str | None = None, logprobs: tuple[float, ...] | None = None, **more: Any) -> Reply:
    return Reply(**{**vars(Reply(text, logprobs, 1, 0, 1, "stop", 0.0)), **more})


TIMEOUT = reply(error="timeout", is_retryable=True)


class Quiet:
    """A progress that tells nobody."""

    def share(self, share: float) -> None:
        """Of what is done."""


class Stub:
    """What a stage is given: frames by input, and an answer for every call; ``asked`` remembers the calls."""

    def __init__(self, answering: Answering | None = None, study: Study | None = None, **frames: pl.DataFrame) -> None:
        self.study = study or _study("{}")
        self.frames = {name.replace("__", "/"): frame for name, frame in frames.items()}
        self.answering = answering
        self.asked: list[Asked] = []

    def work(self, stage: str) -> Work:
        """One partition of a stage."""
        return Work(
            study=self.study,
            stage=Flow(self.study)[stage],
            values={"dictionary": "one", "block": "0"},
            shards=("s",),
            origins=cast(Any, None),
            handles=FakeHandles(cast(Any, None), FakeSubject(), FakeLLM()),
            progress=cast(Any, Quiet()),
            read=lambda name, table: self.frames[name].lazy(),
            ask=self.ask,
            steer=cast(Any, None),
            keep=cast(Any, None),
            put=cast(Any, None),
        )

    def ask(self, llm: str, asked: Sequence[Asked]) -> list[Answer]:
        """Answers in the order of the calls."""
        assert llm in self.study.llms
        assert self.answering is not None
        self.asked += asked
        return [Answer(call_key("rev", each.call), self.answering(each.call)) for each in asked]


def rows_of(table: str, rows: Any) -> list[dict[str, Any]]:
    """What a stage gave, as the table takes it."""
    return TABLES[table].conform(rows).to_pylist()


def latents_frame(**tokens: Sequence[str]) -> pl.DataFrame:
    """Latents by number (``l3``) with their top tokens; l0 is not chosen."""
    rows = [
        {
            "latent": int(name[1:]),
            "is_chosen": name != "l0",
            "top_tokens": [{"token": n, "text": text, "count": 1, "mass": 1.0} for n, text in enumerate(texts)],
        }
        for name, texts in tokens.items()
    ]
    schema = TABLES["latents"].empty().schema
    return pl.DataFrame(rows, schema={name: schema[name] for name in ("latent", "is_chosen", "top_tokens")})


def examples_frame(sample: str, rows: Sequence[tuple[int, bool, Sequence[str], Sequence[float]]]) -> pl.DataFrame:
    """Windows as (latent, whether it fires, pieces, activations), ranked in order; one context a window."""
    ranks: dict[tuple[int, bool], int] = {}
    full = []
    for context, (latent, is_activating, pieces, activations) in enumerate(rows):
        rank = ranks[latent, is_activating] = ranks.get((latent, is_activating), -1) + 1
        full.append(
            {
                "sample": sample, "dictionary": "one", "block": 0, "latent": latent, "rank": rank,
                "is_activating": is_activating, "source": "quantiles" if is_activating else "random",
                "decile": 1 if is_activating else None, "shard": "s", "context": context, "start": 0,
                "tokens": [1] * len(pieces), "activations": list(activations), "text": "".join(pieces),
                "offsets": list(accumulate(map(len, pieces[:-1]), initial=0)),
            }
        )  # fmt: skip
    return pl.DataFrame(full, schema=TABLES["examples"].empty().schema)


def explanations_frame(texts: dict[int, str | None]) -> pl.DataFrame:
    rows = [
        {"explainer": "default", "dictionary": "one", "block": 0, "latent": latent, "explanation": text}
        for latent, text in texts.items()
    ]
    return pl.DataFrame(rows, schema=TABLES["explanations"].empty().schema)
