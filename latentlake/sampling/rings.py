"""Drawing by hash so that little moves when candidates come and go.

Candidates lie on rings, each at its hash. A draw has a point on a ring and takes the first candidate from there on that is not
refused. So a draw knows nothing of other draws' points, of the order of candidates, or of other rings; a candidate that is
added changes the draws whose point lies just before it, and no others. (Consistent hashing, of Karger et al. 1997.)
"""

from collections.abc import Callable

import numpy as np

from latentlake.digest import mix, seed_of

# Refusals after which a draw gives up: such as a token of which a latent is fond in nearly all places.
PATIENCE = 256

Refuse = Callable[[np.ndarray, np.ndarray], np.ndarray]


def point_seeds(n: int) -> np.ndarray:
    """What the points of the first n draws are mixed with, uint64 [n]."""
    return np.array([seed_of("point", number) for number in range(n)], dtype=np.uint64)


def points(seeds: np.ndarray, number: int) -> np.ndarray:
    """The points of draws by number. ``seeds``: uint64, one for each row that draws."""
    return mix(seeds, seed_of("point", number))


class Rings:
    """Candidates on rings.

    Args:
        ring: int [candidates], which ring each is on.
        hashes: uint64 [candidates], where.
        rings: number of rings.
    """

    def __init__(self, ring: np.ndarray, hashes: np.ndarray, rings: int) -> None:
        self._bits = bits_of(rings)
        self.order = ordered(ring, hashes, rings)
        self._keys = self._key(ring[self.order], hashes[self.order])
        self.bounds = np.concatenate([[0], np.cumsum(np.bincount(ring, minlength=rings))]).astype(np.int64)

    def draw(self, ring: np.ndarray, point: np.ndarray, refuse: Refuse, patience: int | None = PATIENCE) -> np.ndarray:
        """The candidate that each of some rows draws, int64 [rows]; -1 where all were refused, or ``patience`` ended.

        ``ring``, ``point``: of each row; ring -1 for none. ``refuse(rows, candidates)``: whether rows, by number, refuse what
        they came upon.
        """
        found = np.full(len(ring), -1, dtype=np.int64)
        begin, end = self.bounds[ring], self.bounds[ring + 1]
        at = np.searchsorted(self._keys, self._key(ring, point))
        at = np.where(at == end, begin, at)
        left = np.minimum(end - begin, end - begin if patience is None else patience)
        pending = np.flatnonzero((ring >= 0) & (left > 0))
        while len(pending):
            candidates = self.order[at[pending]]
            is_refused = refuse(pending, candidates)
            found[pending[~is_refused]] = candidates[~is_refused]
            pending = pending[is_refused]
            at[pending] += 1
            left[pending] -= 1
            at[pending] = np.where(at[pending] == end[pending], begin[pending], at[pending])
            pending = pending[left[pending] > 0]
        return found

    def _key(self, ring: np.ndarray, hashes: np.ndarray) -> np.ndarray:
        """Ring and hash in one number, as far as it holds them."""
        key: np.ndarray = ring.astype(np.uint64) << np.uint64(64 - self._bits) | hashes >> np.uint64(self._bits)
        return key


def bits_of(groups: int) -> int:
    """Bits that hold the number of any of so many groups."""
    return max(1, (groups - 1).bit_length())


def ordered(group: np.ndarray, keys: np.ndarray, groups: int) -> np.ndarray:
    """Indices that sort by group, of so many, then by key, uint64; a fifth of the time of `numpy.lexsort`.

    Sorted by 16 bits at a time, which numpy does by radix, of the key by its first; where these are equal, by all of it.
    """
    first = (keys >> np.uint64(48)).astype(np.uint16)
    order = np.argsort(first, kind="stable")
    for shift in range(0, bits_of(groups), 16):
        digit = (group >> shift).astype(np.uint16)
        order = order[np.argsort(digit[order], kind="stable")]
    group, first = group[order], first[order]
    is_tied = np.zeros(len(order) + 1, dtype=bool)
    is_tied[1:-1] = (first[1:] == first[:-1]) & (group[1:] == group[:-1])
    tied = np.flatnonzero(is_tied[1:] | is_tied[:-1])
    order[tied] = order[tied][np.lexsort((keys[order[tied]], group[tied]))]
    return order
