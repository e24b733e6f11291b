"""What a new shard changes of samples under ``refresh: all``: ``python -m benchmarks.growth [--shards N]``.

Drawn activations of a block of 4,096 latents in N shards, and in one more. For a sample to show, of which a prompt holds all
windows of a latent, and one to judge: the share of windows that are new, of places whose window is another, and of prompts
that are to be asked again, of one, five and all windows.
"""

import argparse
import tempfile
from pathlib import Path

import polars as pl

from benchmarks.corpus import BLOCK, SHARD, Drawn, draw
from latentlake.stages import examples, latents
from latentlake.work import Shared

SAMPLES = {
    "shown": {"split": "explain", "windows": 40},
    "judged": {"split": "score", "windows": 50, "negatives": 50},
    "uniform": {"split": "score", "windows": 50, "sampler": "random"},
}
PLACE = ["latent", "is_activating", "rank"]
WINDOW = ["shard", "context", "start"]


def windows(drawn: Drawn, sample: str, shards: int) -> pl.DataFrame:
    """Which window stands in each place of a sample, of the first so many shards."""
    chosen = latents.compute(drawn.work("latents", 0, Shared()))["latents"]
    assert isinstance(chosen, pl.DataFrame)
    work = drawn.work(f"examples/{sample}", 0, Shared(), shards, latents=chosen.lazy())
    rows = pl.DataFrame(examples.compute(work)["examples"])
    return rows.select(*PLACE, *WINDOW)


def changed(before: pl.DataFrame, after: pl.DataFrame, prompt: int) -> float:
    """Share of the prompts of so many places that hold another window than before."""
    both = after.join(before, on=PLACE, how="left", suffix="_before")
    is_new = pl.any_horizontal(pl.col(name).ne_missing(pl.col(f"{name}_before")) for name in WINDOW)
    prompts = both.group_by("latent", "is_activating", pl.col("rank") // prompt).agg(is_new.any().alias("is_new"))
    return float(prompts["is_new"].mean())  # type: ignore[arg-type]


def report(name: str, before: pl.DataFrame, after: pl.DataFrame) -> None:
    """One sample."""
    shares = [changed(before, after, prompt) for prompt in (1, 5, 100_000)]
    print(f"  {name:34} {shares[0]:.3f} {shares[1]:19.3f} {shares[2]:19.3f}", flush=True)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shards", type=int, default=8)
    n = parser.parse_args().shards
    with tempfile.TemporaryDirectory() as folder:
        drawn = draw(Path(folder), (n + 1) * SHARD, BLOCK, SAMPLES)
        print(f"from {n} shards to {n + 1}: {1 / (n + 1):.3f} of the windows are new")
        print("  share of places, or of prompts, anew    1 window   5 windows of a latent   all of them")
        for name in ("shown", "judged", "uniform"):
            report(name, windows(drawn, name, n), windows(drawn, name, n + 1))


if __name__ == "__main__":
    main()
