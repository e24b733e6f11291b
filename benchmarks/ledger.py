"""What looking calls up in a large ledger costs: ``python -m benchmarks.ledger [--rows N]``.

Side by side in one run, in turns: Polars' own semi-join of the column of keys; which of the keys the ledger holds; and their
replies. Once for keys of which none is there, once for keys from all over the ledger, once for the keys of one stretch, as a
block's are that was asked together. CPU time of the process, and its peak memory.
"""

import argparse
import hashlib
import resource
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime

import numpy as np
import polars as pl

from latentlake.calls.ledger import Ledger
from latentlake.lake import Lake
from latentlake.tables import TABLES

ROUNDS, BATCH = 3, 50_000


def key_of(number: int) -> str:
    """A key as the ledger has them: a digest."""
    return hashlib.sha256(str(number).encode()).hexdigest()[:32]


def fill(lake: Lake, rows: int) -> None:
    """A ledger of so many calls, with replies of some words and log-probabilities of two choices."""
    draws, schema = np.random.default_rng(0), TABLES["calls"].schema
    words = np.array([f"word{n:04}" for n in range(5000)])
    for start in range(0, rows, BATCH):
        n = min(BATCH, rows - start)
        said = words[draws.integers(len(words), size=(n, 12))]
        frame = pl.DataFrame(
            {
                "key": [key_of(start + number) for number in range(n)],
                "prompt": [key_of(-start - number - 1) for number in range(n)],
                "reply": [" ".join(each) for each in said],
                "logprobs": draws.normal(size=(n, 2)).tolist(),
                "latent": (start + np.arange(n)) // 100,
                "tokens_in": draws.integers(200, 400, n),
            }
        ).with_columns(
            draw=0, model=pl.lit("judge"), revision=pl.lit("r"), sampling=pl.lit('{"kind": "generate"}'), engine=pl.lit("vllm"),
            asset=pl.lit("scores/x"), dictionary=pl.lit("one"), likeliest=None, tokens_cached=150, tokens_out=12,
            finish_reason=pl.lit("stop"), error=None, is_retryable=False, attempts=1, seconds=0.1, price=None,
            created_at=datetime.now(UTC), launch=pl.lit("bench"),
        )  # fmt: skip
        lake.append("calls", frame.select(schema.names).to_arrow().cast(schema))


def semi_join(lake: Lake, keys: list[str]) -> int:
    """How many of some keys are there, by Polars."""
    wanted = pl.LazyFrame({"key": keys})
    return lake.scan("calls").select("key").join(wanted, on="key", how="semi").collect(engine="streaming").height


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--keys", type=int, default=10_000)
    given = parser.parse_args()
    draws = np.random.default_rng(1)
    with tempfile.TemporaryDirectory() as folder:
        lake = Lake(folder, "bench")
        fill(lake, given.rows)
        print(
            f"{given.rows:,} calls in {lake.files('calls')} files of {lake.bytes('calls') / 1e6:.0f} MB, {given.keys:,} keys"
        )
        kinds = {
            "none there": range(given.rows, given.rows + given.keys),
            "from all over": draws.choice(given.rows, given.keys, replace=False).tolist(),
            "of one stretch": range(given.rows // 2, given.rows // 2 + given.keys),
        }
        for kind, numbers in kinds.items():
            compare(lake, kind, [key_of(number) for number in numbers])


def compare(lake: Lake, kind: str, keys: list[str]) -> None:
    """One kind of keys."""
    ledger = Ledger(lake)
    ways: dict[str, Callable[[], int]] = {
        "semi-join": lambda: semi_join(lake, keys),
        "held": lambda: len(ledger.held(keys)),
        "replies": lambda: len(ledger.replies(keys)),
    }
    seconds, found = dict.fromkeys(ways, 0.0), dict.fromkeys(ways, 0)
    for number in range(ROUNDS + 1):
        for name in list(ways)[:: 1 if number % 2 else -1]:
            began = time.process_time()
            found[name] = ways[name]()
            seconds[name] += (time.process_time() - began) if number else 0.0
    assert len(set(found.values())) == 1
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    held, replies = (seconds[name] / seconds["semi-join"] for name in ("held", "replies"))
    print(
        f"  {kind:15} {found['held']:6,} found; which are held / semi-join {held:5.2f}; their replies {replies:5.2f}; "
        f"peak {peak:.2f} GB",
        flush=True,
    )


if __name__ == "__main__":
    main()
