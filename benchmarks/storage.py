"""What activations cost on the disk, and what it costs to look one latent up: ``python -m benchmarks.storage [--tokens N]``.

Real activations of the quickstart's coder on contexts of the quickstart, written as the stage writes them, in both precisions:
bytes of the table's files for each activation. Then, with the same rows as 20 shards, CPU time of one latent's rows over all
shards by `pl.scan_delta`, against reading one row group of one shard, in turns; the median of rounds.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow.parquet as pq

from benchmarks.quickstart import open_quickstart
from latentlake.lake import Lake
from latentlake.stages.activations import rows_of
from latentlake.tables import TABLES

SHARDS, ROUNDS = 20, 15


def commit(lake: Lake, keys: np.ndarray, shard: str) -> None:
    """Rows as the stage commits them."""
    where: dict[str, str | int] = {"dictionary": "layer9", "shard": shard}
    lake.replace("activations", TABLES["activations"].conform(rows_of(keys, where)), where, {})


def cpu(run: Callable[[], object]) -> float:
    """CPU-seconds of the process, all threads."""
    began = time.process_time()
    run()
    return time.process_time() - began


def look_up(folder: Path, keys: np.ndarray) -> None:
    """One latent over all shards, against one row group of one shard."""
    lake = Lake(str(folder), "shards")
    for number in range(SHARDS):
        commit(lake, keys, f"shard-{number:02d}")
    address = lake.path("activations")
    file = next(Path(address).rglob("shard=shard-00/*.parquet"))
    groups = pq.ParquetFile(file).num_row_groups
    latent = int(rows_of(keys, {"dictionary": "layer9", "shard": "s"})["latent"][len(keys) // 2].as_py())

    def over_all() -> pl.DataFrame:
        return pl.scan_delta(address).filter(dictionary="layer9", latent=latent).collect()

    def one_group() -> object:
        return pq.ParquetFile(file).read_row_group(groups // 2)

    def one_shard() -> pl.DataFrame:
        return pl.scan_delta(address).filter(dictionary="layer9", shard="shard-00", latent=latent).collect()

    ways = {
        "one latent, 20 shards, scan_delta": over_all,
        "one shard, scan_delta": one_shard,
        "one row group, pyarrow": one_group,
    }
    taken: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(ROUNDS):
        for name, way in ways.items():
            taken[name].append(cpu(way))
    medians = {name: statistics.median(each) for name, each in taken.items()}
    print(
        f"{SHARDS} shards of {len(keys):,} activations in {groups} row groups; latent {latent}: {over_all().height:,} rows"
    )
    for name, median in medians.items():
        print(f"  {name:34} {median * 1000:7.1f} cpu-ms")
    first, shard, group = medians.values()
    print(f"  ratio to one shard's {first / shard:.2f}, to one row group {first / group:.2f}")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokens", type=int, default=98_304)
    quickstart = open_quickstart(parser.parse_args().tokens)
    with tempfile.TemporaryDirectory() as folder:
        for precision in ("bfloat16", "half"):
            keys = quickstart.encode(quickstart.contexts, {"it": quickstart.coder}, {"it": "layers.9"}, precision)["it"]
            lake = Lake(folder, precision)
            commit(lake, keys, "one")
            size = lake.bytes("activations")
            print(f"{precision:9} {size / len(keys):.3f} bytes an activation ({len(keys):,} activations)", flush=True)
        look_up(Path(folder), keys)


if __name__ == "__main__":
    main()
