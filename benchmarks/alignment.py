"""What aligning latents costs: ``python -m benchmarks.alignment [--exact N] [--rounds N] [--latents N]``.

Exactly: cosines of all pairs and their assignment, over the plain product and scipy's own assignment of it, in turns in one
process; half of the latents of one side are noisy copies of the other's. `--exact 16384` takes a minute a round.

Among candidates: the assignment of N latents of either side, and of half as many, three times over, each in a process of its own:
half have a copy, and one in four another candidate, so that groups are small, as they are above a cosine of .5. Seconds by
candidates say whether time is linear. The candidates themselves are looked for in all N for the first block of 4,096 latents
alone, with directions of 64 numbers: a whole pass costs N² times these numbers, whatever comes after it. Memory is the most
that the process held.
"""

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment

from latentlake.coders.nearest import Directions
from latentlake.measures.alignment import aligned, aligned_candidates

BLOCK, D, K, SIZES = 4096, 64, 10, 4


def directions(latents: int, d: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Two sets of directions: half of the second are noisy copies of the first, in another order."""
    drawn = torch.Generator().manual_seed(0)
    one, other = (torch.nn.functional.normalize(torch.randn(latents, d, generator=drawn)) for _ in range(2))
    order = torch.randperm(latents, generator=drawn)
    other[order[: latents // 2]] = one[: latents // 2] + 0.5 * d**-0.5 * torch.randn(latents // 2, d, generator=drawn)
    return one, torch.nn.functional.normalize(other)


def exactly(latents: int, rounds: int) -> None:
    """Print what all pairs cost, over scipy on the plain product."""
    one, other = directions(latents, D)

    def plain() -> None:
        linear_sum_assignment((one @ other.T).numpy(), maximize=True)

    def ours() -> None:
        aligned(Directions(one, "cpu").all_cosines(Directions(other, "cpu")))

    best = {"plain": np.inf, "ours": np.inf}
    for round_ in range(rounds):
        for name, way in list({"plain": plain, "ours": ours}.items())[:: 1 if round_ % 2 else -1]:
            start = time.process_time()
            way()
            best[name] = min(best[name], time.process_time() - start)
    print(
        f"{latents:,} × {latents:,} exactly: {best['ours']:.2f} CPU-seconds, over product and scipy's assignment "
        f"{best['ours'] / best['plain']:.2f}",
        flush=True,
    )


def among_candidates(latents: int) -> dict[str, float]:
    """CPU-seconds of the assignment and of one block of the search, and peak memory in MB."""
    draws = np.random.default_rng(0)
    order, far = draws.permutation(latents), draws.integers(latents, size=(latents, K - 1))
    column = np.concatenate([order[:, None], far], axis=1)
    cosine = np.concatenate(
        [
            np.where(np.arange(latents) % 2, 0.3, draws.uniform(0.6, 1, latents))[:, None],
            np.where(draws.random((latents, K - 1)) < 0.25 / (K - 1), draws.uniform(0.5, 0.7, (latents, K - 1)), 0.3),
        ],
        axis=1,
    )
    row = np.repeat(np.arange(latents), K)
    start = time.process_time()
    partner = aligned_candidates(row, column.ravel(), cosine.ravel(), latents, latents, 0.5)
    found = {"assignment": time.process_time() - start, "paired": float((partner >= 0).mean())}
    one, other = (Directions(each, "cpu") for each in directions(latents, D))
    start = time.process_time()
    one.nearest(range(min(BLOCK, latents)), K, other)
    lines = Path("/proc/self/status").read_text().splitlines()
    peak = next(int(line.split()[1]) for line in lines if line.startswith("VmHWM"))
    return {**found, "block": time.process_time() - start, "peak": peak / 1e3}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--exact", type=int, default=4096, help="latents of either side that are aligned exactly")
    parser.add_argument("--rounds", type=int, default=3, help="turns of which the quickest count")
    parser.add_argument("--latents", type=int, default=131_072, help="latents of either side that have candidates")
    parser.add_argument("--one", type=int, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.one:
        print(json.dumps(among_candidates(given.one)))
        return
    exactly(given.exact, given.rounds)
    for latents in (given.latents >> halved for halved in reversed(range(SIZES))):
        command = [sys.executable, "-m", "benchmarks.alignment", "--one", str(latents)]
        found = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
        print(
            f"{latents:,} × {latents:,} among {latents * K:,} candidates: {found['assignment']:.2f} CPU-seconds, "
            f"{found['assignment'] / (latents * K) * 1e6:.2f} a million candidates; {found['paired']:.2f} paired; a block's "
            f"candidates {found['block']:.1f} CPU-seconds; peak {found['peak']:,.0f} MB",
            flush=True,
        )


if __name__ == "__main__":
    main()
