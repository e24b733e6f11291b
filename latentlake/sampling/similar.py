"""Which windows are nearest to others by embedding."""

from collections.abc import Callable
from importlib.util import find_spec

import numpy as np

from latentlake.digest import mix, seed_of
from latentlake.errors import InputError
from latentlake.protocols import Embedder
from latentlake.sampling.contexts import Grid
from latentlake.sampling.texts import Texts

NEAR = 32  # windows that are looked at for each of a latent's own; where it fires in all of them, the next one's are
_EXACT = 100_000  # windows up to which all are compared
_PROBED = 16  # of the lists of a larger index
_BATCH = 1024


def require_index() -> None:
    """Refuse to look for similar windows where faiss is not installed."""
    if find_spec("faiss") is None:
        raise InputError("negatives that are `similar` need the extra `similar`: pip install 'latentlake[similar]'")


class Similar:
    """The windows of a grid by embedding, in a vector index of faiss: exact, or of many windows an inverted file, whose lists
    are made of windows in the order of their hashes and so do not depend on the order of shards.
    """

    def __init__(self, grid: Grid, texts: Texts, embedder: Embedder, report: Callable[[float], None]) -> None:
        require_index()
        import faiss

        self._embedder, self._texts, self._length = embedder, texts, grid.length
        self._starts = grid.starts[np.argsort(mix(grid.places, seed_of("similar")))]
        self._by_start = np.argsort(self._starts)
        if not len(self._starts):
            return
        vectors = self._embed(self._starts, report)
        n, width = vectors.shape
        lists = f"IVF{round(4 * n**0.5)}" if n > _EXACT else None
        self._index = faiss.index_factory(width, f"{lists},Flat" if lists else "Flat", faiss.METRIC_INNER_PRODUCT)
        if lists:
            self._index.train(vectors)
            faiss.extract_index_ivf(self._index).nprobe = _PROBED
        self._index.add(vectors)
        if lists:
            faiss.extract_index_ivf(self._index).make_direct_map()

    def nearest(self, starts: np.ndarray) -> np.ndarray:
        """Starts of the windows nearest to some, of the same length, nearest first: int64 [windows, NEAR]; -1 where there are
        fewer. A window of the grid is among its own nearest."""
        if not len(starts) or not len(self._starts):
            return np.full((len(starts), NEAR), -1, dtype=np.int64)
        cosines, found = self._index.search(self._vectors(starts), NEAR)
        cosines[found < 0] = -2.0
        # in an order that the last bits, which are those of batches, do not decide
        order = np.lexsort((found, -np.round(cosines, 4)), axis=1)
        nearest: np.ndarray = np.append(self._starts, -1)[np.take_along_axis(found, order, axis=1)]
        return nearest

    def _vectors(self, starts: np.ndarray) -> np.ndarray:
        """Embeddings of windows: those of the grid have been made."""
        place = np.minimum(np.searchsorted(self._starts, starts, sorter=self._by_start), len(self._starts) - 1)
        number = self._by_start[place]
        is_known = self._starts[number] == starts
        vectors = np.empty((len(starts), self._index.d), dtype=np.float32)
        vectors[is_known] = self._index.reconstruct_batch(number[is_known])
        if not is_known.all():
            vectors[~is_known] = self._embed(starts[~is_known], lambda share: None)
        return vectors

    def _embed(self, starts: np.ndarray, report: Callable[[float], None]) -> np.ndarray:
        parts = []
        for begin in range(0, len(starts), _BATCH):
            texts = self._texts.windows(starts[begin : begin + _BATCH], self._length)
            parts.append(self._embedder.embed(texts.to_list()))
            report(min(1.0, (begin + _BATCH) / len(starts)))
        return np.ascontiguousarray(np.concatenate(parts), dtype=np.float32)
