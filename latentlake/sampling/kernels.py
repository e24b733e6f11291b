"""The loops over windows of latents that numpy has no fast way for, compiled by numba when first called and kept beside this
file.

Each works latent by latent, on that one's own alone. ``bounds``: int64 [latents + 1], a latent's first firing, or window.
"""

import numpy as np
from numba import njit

_STEP = np.uint64(0x9E3779B97F4A7C15)
_FIRST, _SECOND = np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)


@njit(cache=True, nogil=True)
def find(bounds: np.ndarray, positions: np.ndarray, rows: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """Of each of some rows its first firing at a position or after it, int64; the next row's first where there is none."""
    found = np.empty(len(rows), np.int64)
    for place in range(len(rows)):
        low, high = bounds[rows[place]], bounds[rows[place] + 1]
        while low < high:
            middle = (low + high) // 2
            if positions[middle] < wanted[place]:
                low = middle + 1
            else:
                high = middle
        found[place] = low
    return found


@njit(cache=True, nogil=True)
def within(
    bounds: np.ndarray,
    positions: np.ndarray,
    activations: np.ndarray,
    rows: np.ndarray,
    starts: np.ndarray,
    length: int,
) -> np.ndarray:
    """Activation of rows on each token of windows, float32 [windows, length]; 0 where they do not fire."""
    found = np.zeros((len(rows), length), np.float32)
    first = find(bounds, positions, rows, starts)
    for window in range(len(rows)):
        for firing in range(first[window], bounds[rows[window] + 1]):
            place = positions[firing] - starts[window]
            if place >= length:
                break
            found[window, place] = activations[firing]
    return found


@njit(cache=True, nogil=True)
def merged(bounds: np.ndarray, window: np.ndarray, activations: np.ndarray) -> tuple[np.ndarray, ...]:
    """Of firings the windows that they lie in, each once for a latent, with its largest activation.

    ``window``: int32 [firings], ascending for a latent, -1 for none. Returns bounds of windows, windows, strengths.
    """
    found, strength = np.empty(len(window), np.int32), np.empty(len(window), np.float32)
    ends = np.zeros(len(bounds), np.int64)
    n = 0
    for row in range(len(bounds) - 1):
        last = np.int32(-1)
        for firing in range(bounds[row], bounds[row + 1]):
            here = window[firing]
            if here < 0:
                continue
            if here != last:
                found[n], strength[n], last = here, activations[firing], here
                n += 1
            elif activations[firing] > strength[n - 1]:
                strength[n - 1] = activations[firing]
        ends[row + 1] = n
    return ends, found[:n].copy(), strength[:n].copy()


@njit(cache=True, nogil=True)
def by_strength(bounds: np.ndarray, strength: np.ndarray, hashes: np.ndarray, descending: bool) -> np.ndarray:
    """Indices that sort each latent's windows by strength, uint32 (the bits of a float32 above 0), ties by hash; int64."""
    order = np.empty(len(strength), np.int64)
    for row in range(len(bounds) - 1):
        first, size = bounds[row], bounds[row + 1] - bounds[row]
        bits = np.uint64(0)  # of a number among the latent's windows, which stands in the last ones of a key
        while size >> bits:
            bits += np.uint64(1)
        keys = np.empty(size, np.uint64)
        for place in range(size):
            key = np.uint64(strength[first + place])
            key = np.uint64(0xFFFFFFFF) - key if descending else key
            key = (key << np.uint64(32)) | (hashes[first + place] >> np.uint64(32))
            keys[place] = ((key >> bits) << bits) | np.uint64(place)
        keys.sort()
        last = (np.uint64(1) << bits) - np.uint64(1)
        for place in range(size):
            own = first + np.int64(keys[place] & last)
            at = first + place
            # where what there was room for of two hashes is the same
            while (
                at > first
                and keys[at - first - 1] >> bits == keys[place] >> bits
                and hashes[own] < hashes[order[at - 1]]
            ):
                order[at] = order[at - 1]
                at -= 1
            order[at] = own
    return order


@njit(cache=True, nogil=True)
def turns(
    bounds: np.ndarray, ring: np.ndarray, hashes: np.ndarray, seeds: np.ndarray, numbers: np.ndarray
) -> np.ndarray:
    """What each ring of each latent gives in some turns, no window twice: the first from the turn's point on.

    ``ring``: int [windows], the latent's ring that each is on. ``seeds``: uint64 [latents, rings], of the points. ``numbers``:
    uint64 [turns], what `points` mixes a seed with. Returns int64 [latents, rings, turns], -1 where a ring is empty.
    """
    latents, rings = seeds.shape
    drawn = np.full((latents, rings, len(numbers)), -1, np.int64)
    for row in range(latents):
        members, starts = _by_ring(ring[bounds[row] : bounds[row + 1]], rings)
        for each in range(rings):
            own = members[starts[each] : starts[each + 1]] + bounds[row]
            for turn in range(min(len(numbers), len(own))):
                left = own[: len(own) - turn]
                point, nearest = _mix(seeds[row, each] ^ numbers[turn]), 0
                for place in range(1, len(left)):
                    if hashes[left[place]] - point < hashes[left[nearest]] - point:  # both wrap round
                        nearest = place
                drawn[row, each, turn] = left[nearest]
                left[nearest] = left[-1]  # makes room for the last, which then falls off
    return drawn


@njit(cache=True, nogil=True)
def heaviest(
    bounds: np.ndarray, tokens: np.ndarray, activations: np.ndarray, top: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The tokens on which each latent has most activation in all, heaviest first, of equals the smaller: token int64, how often
    int64, and activation float64, each [latents, top]; -1, 0 and 0 where there are fewer.

    ``tokens``: uint64 [firings], below 2^32.
    """
    latents = len(bounds) - 1
    token = np.full((latents, top), -1, np.int64)
    count, mass = np.zeros((latents, top), np.int64), np.zeros((latents, top), np.float64)
    for row in range(latents):
        own = slice(bounds[row], bounds[row + 1])
        keys = (tokens[own] << np.uint64(32)) | np.arange(bounds[row + 1] - bounds[row]).astype(np.uint64)
        keys.sort()
        values, first = activations[own], 0
        while first < len(keys):
            each, last, total = keys[first] >> np.uint64(32), first, 0.0
            while last < len(keys) and keys[last] >> np.uint64(32) == each:
                total += values[keys[last] & np.uint64(0xFFFFFFFF)]
                last += 1
            place = top  # smaller tokens came before, and stay before their equals
            while place and total > mass[row, place - 1]:
                place -= 1
            if place < top:
                for column, value in ((token, np.int64(each)), (count, np.int64(last - first))):
                    column[row, place + 1 :] = column[row, place:-1].copy()
                    column[row, place] = value
                mass[row, place + 1 :] = mass[row, place:-1].copy()
                mass[row, place] = total
            first = last
    return token, count, mass


@njit(cache=True, nogil=True)
def _by_ring(ring: np.ndarray, rings: int) -> tuple[np.ndarray, np.ndarray]:
    """The members of each ring, those of a ring together, and where each ring's begin."""
    starts = np.zeros(rings + 1, np.int64)
    for member in range(len(ring)):
        starts[ring[member] + 1] += 1
    starts = np.cumsum(starts)
    members, filled = np.empty(len(ring), np.int64), starts.copy()
    for member in range(len(ring)):
        members[filled[ring[member]]] = member
        filled[ring[member]] += 1
    return members, starts


@njit(cache=True, nogil=True)
def _mix(value: np.uint64) -> np.uint64:
    """`latentlake.digest.mix` of a value that was mixed with its seed."""
    value += _STEP
    value = (value ^ (value >> np.uint64(30))) * _FIRST
    value = (value ^ (value >> np.uint64(27))) * _SECOND
    return value ^ (value >> np.uint64(31))
