"""What search costs: ``python -m benchmarks.search [--latents N]``.

A lake of a million explained latents with vectors of 384 numbers, in blocks of 4,096. Each way in a process of its own: Polars
reading the vectors; the nearest explanations to a vector, everywhere and in one triage; Polars reading explanations and top
tokens; the latents that hold two words. CPU time of the best of some rounds, time on the clock, and peak memory.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import yaml

from latentlake.catalog import PUBLISHED, Catalog, Publication
from latentlake.flow import Flow
from latentlake.lake import Lake
from latentlake.reading.search import Within, by_vector, by_words
from latentlake.reading.view import View
from latentlake.study import load_study
from latentlake.tables import TABLES

WIDTH, BLOCK, CHUNK, ROUNDS = 384, 4096, 8, 3
VOCABULARY = [f"{first}{second}" for first in "bcdfghklmnprstvwz" for second in ("ade", "ell", "ight", "one", "ush")]
STUDY: dict[str, Any] = {
    "name": "bench",
    "corpus": {"sources": {"docs": {"path": "*.jsonl"}}},
    "subject": {"model": "model"},
    "dictionaries": {"one": {"hookpoint": "layers.1", "coder": "coder"}},
    "llms": {"embedder": {"model": "embedder", "engine": "sentence_transformers"}},
    "explainers": {"tokens": {"method": "tokens"}},
    "search": {"embedder": "embedder"},
}


def fill(folder: Path, latents: int) -> None:
    """A lake of so many latents, each with an explanation of eight words, its vector and ten top tokens."""
    path, blocks = folder / "study.yaml", -(-latents // BLOCK)
    path.write_text(yaml.safe_dump({**STUDY, "blocks": blocks}))
    study = load_study(path)
    lake, flow, draws = Lake(str(folder / "lake"), study.name), Flow(study), np.random.default_rng(0)
    for first in range(0, blocks, CHUNK):
        own = np.arange(first * BLOCK, min((first + CHUNK) * BLOCK, latents))
        for table, rows in chunk(own, draws).items():
            declared = TABLES[table].empty().schema
            lacking = [pl.lit(_zero(declared[name])).alias(name) for name in declared if name not in rows.columns]
            whole = rows.with_columns(lacking).select(pl.col(name).cast(kind) for name, kind in declared.items())
            lake.append(table, TABLES[table].conform(whole))
    catalog = Catalog(lake)
    catalog.register(study, list(flow.stages), {})
    published = []
    for name in ("latents", "explanations/tokens", "embeddings/tokens"):
        stage = flow[name]
        for key in flow.partitions(stage, []):
            made = Publication(name, key, 1, PUBLISHED, "", "", "", BLOCK, 0, study.digest, "run", datetime.now(UTC))
            where = [{"column": c, "value": str(v)} for c, v in stage.columns(stage.values(key)).items()]
            versions = [{"table": table, "version": 1, "files": ""} for table in stage.tables]
            published.append({**made._asdict(), "inputs": [], "where": where, "table_versions": versions})
    lake.append("partitions", pa.Table.from_pylist(published, schema=TABLES["partitions"].schema))


def chunk(latents: np.ndarray, draws: np.random.Generator) -> dict[str, pl.DataFrame]:
    """Rows of some latents."""
    n, words = len(latents), pl.Series(VOCABULARY)
    place = {"dictionary": ["one"] * n, "block": latents // BLOCK, "latent": latents}
    vectors = draws.normal(size=(n, WIDTH)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)

    def drawn(number: int) -> pl.Series:
        return words.gather(draws.integers(len(words), size=n * number)).reshape((n, number))

    token = pl.struct(token=pl.lit(1), text=pl.element(), count=pl.lit(1), mass=pl.lit(1.0))
    said, tokens = pl.col("explanation").arr.join(" "), pl.col("top_tokens").arr.to_list().list.eval(token)
    triage = np.where(latents % 10 == 0, "dense", "ok")
    return {
        "latents": pl.DataFrame({**place, "top_tokens": drawn(10), "triage": triage}).with_columns(tokens),
        "explanations": pl.DataFrame({**place, "explainer": ["tokens"] * n, "explanation": drawn(8)}).with_columns(
            said
        ),
        "embeddings": pl.DataFrame({**place, "explainer": ["tokens"] * n, "vector": vectors}).with_columns(
            pl.col("vector").arr.to_list()
        ),
    }


def _zero(kind: pl.DataType) -> Any:
    return [] if isinstance(kind, pl.List) else False if kind == pl.Boolean else "" if kind == pl.String else 0


def ways(lake: Lake) -> dict[str, Callable[[], Any]]:
    """What is measured, by name."""
    vector, view = np.random.default_rng(1).normal(size=WIDTH), View(lake)

    def read(table: str, number: pl.Expr) -> Any:
        return lake.scan(table).select(number.sum()).collect(engine="streaming").item()

    return {
        "read vectors": lambda: read("embeddings", pl.col("vector").list.first()),
        "by meaning": lambda: by_vector(view, vector),
        "by meaning, of one triage": lambda: by_vector(view, vector, Within(triage="dense")),
        "read words": lambda: (
            read("explanations", pl.col("explanation").str.len_bytes()),
            read("latents", pl.col("top_tokens").list.len()),
        ),
        "by words": lambda: by_words(view, f"{VOCABULARY[0]} {VOCABULARY[7]}"),
    }


def measure(lake: Lake, way: str) -> dict[str, float]:
    """CPU-seconds and seconds of the best round, and the most memory that the process held, in MB."""
    look, best = ways(lake)[way], {"cpu": np.inf, "wall": np.inf}
    for _ in range(ROUNDS):
        cpu, wall = time.process_time(), time.perf_counter()
        look()
        spent = {"cpu": time.process_time() - cpu, "wall": time.perf_counter() - wall}
        best = {name: min(value, spent[name]) for name, value in best.items()}
    lines = Path("/proc/self/status").read_text().splitlines()  # what getrusage says holds for the parent as well
    peak = next(int(line.split()[1]) for line in lines if line.startswith("VmHWM"))
    return {**best, "peak": peak / 1e3}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--latents", type=int, default=1_000_000)
    parser.add_argument("--way", help=argparse.SUPPRESS)
    parser.add_argument("--lake", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.way:
        print(json.dumps(measure(Lake(given.lake, STUDY["name"]), given.way)))
        return
    with tempfile.TemporaryDirectory() as folder:
        fill(Path(folder), given.latents)
        lake = Lake(str(Path(folder) / "lake"), STUDY["name"])
        print(f"{given.latents:,} latents, vectors of {lake.bytes('embeddings') / 1e6:,.0f} MB")
        floor = np.nan
        for way in ways(lake):
            command = [sys.executable, "-m", "benchmarks.search", "--way", way, "--lake", lake.uri]
            found = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
            floor = found["cpu"] if way.startswith("read") else floor
            print(
                f"  {way:26} {found['cpu']:6.2f} CPU-seconds, {found['cpu'] / floor:4.2f} of reading; {found['wall']:6.2f} s; "
                f"peak {found['peak']:,.0f} MB",
                flush=True,
            )


if __name__ == "__main__":
    main()
