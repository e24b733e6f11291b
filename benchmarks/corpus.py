"""What benchmarks of sampling have in common: a corpus and activations that are drawn, as skewed as real ones.

Tokens and latents are drawn by Zipf's law, 32 latents a token; the texts are words, one a token.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa

from latentlake.fakes import FakeHandles, FakeLLM, FakeSubject
from latentlake.flow import Flow
from latentlake.lake import Lake
from latentlake.sections.corpus import Split
from latentlake.stages.activations import round_mantissa, rows_of
from latentlake.stages.contexts import assign_splits
from latentlake.study import Study
from latentlake.tables import TABLES
from latentlake.work import Shared, Work

K, CONTEXT, VOCABULARY = 32, 128, 30_000
SHARD = 1 << 18  # tokens
BLOCK = 4_096  # latents


class Silent:
    """Progress that nobody hears of."""

    def __getattr__(self, name: str) -> Any:
        return lambda *given, **named: None


@dataclass(frozen=True)
class Drawn:
    """A lake with drawn contexts and activations. ``latents``: width of the dictionary."""

    lake: Lake
    study: Study
    shards: tuple[str, ...]
    latents: int

    @property
    def blocks(self) -> int:
        """Blocks of the dictionary."""
        return self.study.blocks

    def work(self, stage: str, block: int, shared: Shared, shards: int | None = None, **frames: pl.LazyFrame) -> Work:
        """A partition of a stage, of the first so many shards. ``frames``: inputs that are not in the lake."""
        used = self.shards[:shards]
        given = {
            "dictionaries": pl.LazyFrame({"width": [self.latents]}),
            "selections": pl.LazyFrame({"choose": ["all"], "n": [None], "latents": [None]}),
            **frames,
        }
        where = {"shard": list(used)}

        def read(name: str, table: str | None) -> pl.LazyFrame:
            return given[name] if name in given else self.lake.scan(table or name, where)

        return Work(
            study=self.study,
            stage=Flow(self.study)[stage],
            values={"dictionary": "drawn", "block": str(block)},
            shards=used,
            origins=None,  # type: ignore[arg-type]
            handles=FakeHandles(None, Words(), FakeLLM()),  # type: ignore[arg-type]
            progress=Silent(),
            read=read,
            ask=None,  # type: ignore[arg-type]
            steer=None,  # type: ignore[arg-type]
            keep=None,  # type: ignore[arg-type]
            put=None,  # type: ignore[arg-type]
            shared=shared,
        )


class Words(FakeSubject):
    """A tokenizer whose tokens are words."""

    def detokenize(self, tokens: Any) -> list[str]:
        """The words."""
        return [" ".join(f"w{token}" for token in each) for each in tokens]


def draw(folder: Path, tokens: int, latents: int, samples: Mapping[str, Any], seed: int = 0) -> Drawn:
    """A lake of so many tokens and latents in a folder."""
    study = Study.model_validate(
        {
            "name": "drawn",
            "blocks": max(1, latents // BLOCK),
            "corpus": {"sources": {"drawn": {"path": "*"}}, "context_length": CONTEXT, "bos": "none"},
            "subject": {"model": "none"},
            "dictionaries": {"drawn": {"hookpoint": "layers.0", "coder": "none", "latents": "all"}},
            "neighbours": None,
            "samples": dict(samples),
        }
    )
    drawn, lake = np.random.default_rng(seed), Lake(str(folder), study.name)
    shards = tuple(f"drawn-{number:04d}" for number in range(-(-tokens // SHARD)))
    cumulated = np.cumsum(1 / (np.arange(latents) + 20.0))
    order = drawn.permutation(latents)  # so that blocks are alike
    for number, shard in enumerate(shards):
        size = min(SHARD, tokens - number * SHARD) // CONTEXT * CONTEXT
        _write_contexts(lake, shard, drawn.zipf(1.2, size).astype(np.int64) % VOCABULARY)
        _write_activations(lake, shard, size, cumulated, order, drawn)
    return Drawn(lake, study, shards, latents)


def _write_contexts(lake: Lake, shard: str, tokens: np.ndarray) -> None:
    """Contexts of which each is a document of words."""
    contexts = tokens.reshape(-1, CONTEXT)
    words = [[f"w{token} " for token in context] for context in contexts.tolist()]
    lengths = np.array([[len(word) for word in context] for context in words])
    ends = np.cumsum(lengths, axis=1)
    begins = ends - lengths
    rows = {
        "shard": [shard] * len(contexts),
        "context": range(len(contexts)),
        "tokens": contexts.tolist(),
        "excluded": [[]] * len(contexts),
        "offsets": begins.tolist(),
        "documents": [
            [{"document": f"d{number}", "number": number, "start": 0, "end_offset": int(end)}]
            for number, end in enumerate(ends[:, -1])
        ],
        "split": assign_splits(contexts.tolist(), Split()),
    }
    texts = {
        "shard": rows["shard"],
        "number": rows["context"],
        "document": [f"d{number}" for number in range(len(contexts))],
        "text": ["".join(context) for context in words],
        "n_tokens": [CONTEXT] * len(contexts),
    }
    for table, columns in (("contexts", rows), ("documents", texts)):
        arrow = TABLES[table].conform(pa.Table.from_pydict(columns, schema=TABLES[table].schema))
        lake.replace(table, arrow, {"shard": shard}, {})


def _write_activations(
    lake: Lake, shard: str, size: int, cumulated: np.ndarray, order: np.ndarray, drawn: np.random.Generator
) -> None:
    """K latents a token, those drawn twice left out."""
    latent = order[np.searchsorted(cumulated, drawn.random(size * K) * cumulated[-1])].astype(np.uint64)
    position = np.repeat(np.arange(size, dtype=np.uint64), K)
    places = np.unique(latent << np.uint64(23) | position)
    values = round_mantissa(drawn.lognormal(0, 1, len(places)), 13).view(np.uint32) >> np.uint32(13)
    where: dict[str, str | int] = {"dictionary": "drawn", "shard": shard}
    rows = rows_of(places << np.uint64(19) | values.astype(np.uint64), where)
    lake.replace("activations", TABLES["activations"].conform(rows), where, {})
