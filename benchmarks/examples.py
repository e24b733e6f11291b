"""What sampling costs: ``python -m benchmarks.examples [--tokens N …] [--latents N …]``.

Drawn activations, of several numbers of tokens and latents, in blocks of 4,096 latents. Side by side in one run, block by block
in turns: reading a block's activations with Polars; computing `latents`; and building two samples down to the rows of the table,
texts included: 40 windows to show, and 50 to judge with 50 others. All latents with enough windows are sampled. CPU time over
that of reading, CPU time a million activations, and the largest memory of the process.
"""

import argparse
import resource
import subprocess
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa

from benchmarks.corpus import Drawn, draw
from latentlake.stages import examples, latents
from latentlake.work import Shared, block_range

SAMPLES = {
    "shown": {"split": "explain", "windows": 40},
    "judged": {"split": "score", "windows": 50, "negatives": 50},
}


def cpu(run: Callable[[], Any]) -> tuple[float, Any]:
    """CPU-seconds of the process, all threads, and what came out."""
    began = time.process_time()
    found = run()
    return time.process_time() - began, found


def read(drawn: Drawn, block: int) -> int:
    """The activations of a block, by Polars alone; how many they are."""
    own = block_range(block, drawn.blocks, drawn.latents)
    rows = drawn.lake.scan("activations", {"shard": list(drawn.shards)})
    rows = rows.filter(pl.col("latent").is_between(own.start, own.stop - 1))
    return rows.select("latent", "position", "activation").collect().height


def measured(drawn: Drawn) -> tuple[dict[str, float], Counter[str]]:
    """CPU-seconds and rows of each step, over all blocks."""
    seconds: dict[str, float] = defaultdict(float)
    rows: Counter[str] = Counter()
    shared = {name: Shared() for name in ("latents", *SAMPLES)}
    for block in range(drawn.blocks):
        spent, found = cpu(lambda block=block: read(drawn, block))  # type: ignore[misc]
        seconds["read"] += spent
        rows["read"] += found
        work = drawn.work("latents", block, shared["latents"])
        spent, tables = cpu(lambda work=work: latents.compute(work))  # type: ignore[misc]
        seconds["latents"] += spent
        table = tables["latents"]
        rows["latents"] += int(table["is_chosen"].sum())
        for name in SAMPLES:
            work = drawn.work(f"examples/{name}", block, shared[name], latents=table.lazy())
            spent, tables = cpu(lambda work=work: examples.compute(work))  # type: ignore[misc]
            seconds[name] += spent
            rows[name] += len(tables["examples"])
            assert isinstance(tables["examples"], pa.Table)
    return seconds, rows


def report(tokens: int, width: int) -> None:
    """One size."""
    with tempfile.TemporaryDirectory() as folder:
        measured(
            draw(Path(folder) / "few", 50_000, 1024, SAMPLES)
        )  # kernels are compiled once a machine, then remembered
        drawn = draw(Path(folder) / "all", tokens, width, SAMPLES)
        seconds, rows = measured(drawn)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    print(
        f"{tokens / 1e6:.0f} M tokens, {width:,} latents, {rows['read'] / 1e6:.1f} M activations, {rows['latents']:,} latents "
        f"sampled; {rows['read'] / seconds['read'] / 1e6:.1f} M a CPU-second read; peak {peak:.1f} GB"
    )
    for name in ("latents", *SAMPLES):
        million = rows["read"] / 1e6
        windows = f", {rows[name]:,} windows" if name in SAMPLES else ""
        print(
            f"  {name:8} {seconds[name] / seconds['read']:6.2f} × reading; {seconds[name] / million * 1000:6.1f} cpu-ms a million"
            f" activations{windows}",
            flush=True,
        )


def main() -> None:
    """Measure and print, each size in a process of its own."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokens", type=int, nargs="+", default=[1_000_000, 3_000_000])
    parser.add_argument("--latents", type=int, nargs="+", default=[8_192, 32_768, 131_072])
    given = parser.parse_args()
    sizes = [(tokens, width) for tokens in given.tokens for width in given.latents]
    if len(sizes) == 1:
        report(*sizes[0])
        return
    for tokens, width in sizes:
        command = [sys.executable, "-m", "benchmarks.examples", "--tokens", str(tokens), "--latents", str(width)]
        subprocess.run(command, check=True)


if __name__ == "__main__":
    main()
