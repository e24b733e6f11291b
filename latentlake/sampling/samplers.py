"""Which of the windows in which latents fire are drawn, and to which place of the sample: the rank.

Windows are drawn by their hashes under the latent: whatever other latents there are, in whatever order windows come. A place
keeps its window, as far as it can, while windows come and go (`rings`); and what is drawn first does not depend on how many are
drawn, ``mix`` excepted.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from latentlake.digest import mix, seed_of
from latentlake.sampling import kernels
from latentlake.sampling.firings import Activating
from latentlake.sampling.rings import point_seeds
from latentlake.sections.samples import Sample

DECILES = 10


@dataclass(frozen=True)
class Candidates:
    """The activating windows of some latents.

    ``hashes``: uint64 [windows], of each under its latent. ``seeds``: uint64 [latents].
    """

    windows: Activating
    hashes: np.ndarray
    seeds: np.ndarray

    @property
    def most(self) -> int:
        """Windows of the latent that has most, at least one."""
        return int(np.diff(self.windows.bounds).max(initial=1))

    @cached_property
    def deciles(self) -> np.ndarray:
        """Decile of each window by strength among its latent's, 0 the weakest, ties by hash; int8. None is left out."""
        rows, bounds = self.windows.rows, self.windows.bounds
        decile = np.empty(len(rows), dtype=np.int8)
        place = np.arange(len(rows)) - bounds[rows]
        decile[self.by_strength(descending=False)] = place * DECILES // np.diff(bounds)[rows]
        return decile

    def by_strength(self, descending: bool) -> np.ndarray:
        """Indices that sort by latent, then strength, ties by hash."""
        bits = self.windows.strength.view(np.uint32)
        order: np.ndarray = kernels.by_strength(self.windows.bounds, bits, self.hashes, descending)
        return order

    def only(self, kept: np.ndarray) -> "Candidates":
        """Some of the windows."""
        return replace(self, windows=self.windows.only(kept), hashes=self.hashes[kept])


def seeds_of(latents: np.ndarray, seed: int) -> np.ndarray:
    """A seed for each latent, uint64."""
    return mix(latents, seed_of("latent", seed))


def candidates_of(windows: Activating, seeds: np.ndarray) -> Candidates:
    """Activating windows with their hashes. ``seeds``: uint64, of the latent of each row."""
    return Candidates(windows, mix(windows.places, seeds[windows.rows]), seeds)


def draw(sample: Sample, candidates: Candidates) -> np.ndarray:
    """Indices of the windows that a sample draws, by latent, then rank."""
    return SAMPLERS[sample.sampler](candidates, sample.windows, sample.top)


def _top(candidates: Candidates, n: int, share: float) -> np.ndarray:
    """The strongest first."""
    order, first = candidates.by_strength(descending=True), candidates.windows.bounds[candidates.windows.rows]
    strongest: np.ndarray = order[np.arange(len(order)) - first < n]
    return strongest


def _random(candidates: Candidates, n: int, share: float) -> np.ndarray:
    """Uniformly."""
    windows, one_ring = candidates.windows, np.zeros(len(candidates.hashes), dtype=np.int8)
    drawn: np.ndarray = kernels.turns(
        windows.bounds, one_ring, candidates.hashes, candidates.seeds[:, None], point_seeds(min(n, candidates.most))
    )
    return drawn[drawn >= 0]


def _quantiles(candidates: Candidates, n: int, share: float) -> np.ndarray:
    """Round the deciles, in an order by hash, so that any first n windows spread over them evenly."""
    windows, rounds = candidates.windows, -(-min(n, candidates.most) // DECILES)
    within = np.array([seed_of("decile", decile) for decile in range(DECILES)], dtype=np.uint64)
    seeds = mix(candidates.seeds[:, None] ^ within, np.uint64(0))
    given = kernels.turns(windows.bounds, candidates.deciles, candidates.hashes, seeds, point_seeds(rounds))
    given = np.take_along_axis(given, np.argsort(seeds, axis=1)[:, :, None], axis=1)
    drawn: np.ndarray = given.transpose(0, 2, 1).reshape(len(seeds), DECILES * rounds)
    kept = drawn >= 0
    kept &= np.cumsum(kept, axis=1) <= n
    return drawn[kept]


def _mix(candidates: Candidates, n: int, share: float) -> np.ndarray:
    """A share of the strongest, the rest by quantiles of the others; both spread over the ranks."""
    n_top = round(n * share)
    top, is_left = _top(candidates, n_top, share), np.ones(len(candidates.hashes), dtype=bool)
    is_left[top] = False
    others = np.flatnonzero(is_left)
    rest = others[_quantiles(candidates.only(others), n - n_top, share)]
    drawn, rows = np.concatenate([top, rest]), candidates.windows.rows
    places = [(_ranks(rows[top]) + 0.25) / max(1, n_top), (_ranks(rows[rest]) + 0.75) / max(1, n - n_top)]
    return drawn[np.lexsort((np.concatenate(places), rows[drawn]))]


SAMPLERS: dict[str, Callable[[Candidates, int, float], np.ndarray]] = {
    "quantiles": _quantiles,
    "top": _top,
    "random": _random,
    "mix": _mix,
}


def _ranks(rows: np.ndarray) -> np.ndarray:
    """Place of each entry among those of its row, the rows standing together in ascending order; int64."""
    ranks: np.ndarray = np.arange(len(rows)) - np.searchsorted(rows, rows)
    return ranks
