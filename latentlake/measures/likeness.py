"""How alike explanations are, as cosines of their vectors, beside those of latents that have nothing to do with one another."""

from typing import Any, NamedTuple

import numpy as np
import polars as pl

from latentlake.digest import mix
from latentlake.measures.metrics import mean_interval

_DIGITS = 5  # of a cosine: those that do not depend on how texts were batched


class Vectors(NamedTuple):
    """Explanations of a dictionary: its latents that have one, in order, and their vectors, float32 [latents, numbers]."""

    latents: np.ndarray
    vectors: np.ndarray


def vectors_of(embeddings: pl.LazyFrame) -> Vectors:
    """Rows of `embeddings` of one dictionary and explainer."""
    rows = embeddings.select("latent", "vector").sort("latent").collect()
    vectors = rows["vector"].explode().to_numpy().reshape(len(rows), -1) if len(rows) else np.zeros((0, 0), np.float32)
    return Vectors(rows["latent"].to_numpy(), vectors)


def likeness(one: Vectors, other: Vectors, latent: np.ndarray, partner: np.ndarray, seed: np.uint64) -> dict[str, Any]:
    """How alike explanations of latents and of their partners are, all of which have one: ``pairs``, ``mean`` with its interval
    (``low``, ``high``), ``shuffled``, the mean with partners exchanged, and the mean ``difference`` with its interval.

    Partners are exchanged by hash: each goes to the next latent in the order of these. Of fewer than two nothing is.
    """
    own = np.zeros(0)
    order = np.argsort(mix(latent, seed))
    left = np.searchsorted(one.latents, latent[order])
    right = np.searchsorted(other.latents, partner[order])
    if len(order):  # of no explanations it is not known how wide vectors are
        own = _cosines(one.vectors[left], other.vectors[right])
    figures = {"pairs": len(own), **dict(zip(("mean", "low", "high"), mean_interval(own), strict=True))}
    if len(own) < 2:
        return figures
    exchanged = _cosines(one.vectors[left], other.vectors[np.roll(right, 1)])
    names = ("difference", "difference_low", "difference_high")
    between = dict(zip(names, mean_interval(own - exchanged), strict=True))
    return {**figures, "shuffled": float(exchanged.mean()), **between}


def _cosines(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Of vectors of length 1, one by one: float64."""
    cosines: np.ndarray = (one * other).sum(1).astype(np.float64).round(_DIGITS)
    return cosines
