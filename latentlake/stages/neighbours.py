"""Which latents of a dictionary are near to those of a block: by what they write, by what they read, and by when they fire."""

from typing import Any

import numpy as np
import polars as pl
from scipy import sparse

from latentlake.coders.nearest import Directions
from latentlake.protocols import Coder
from latentlake.work import Tables, Work, block_range

KINDS = ("decoder", "encoder", "co_occurrence")


def compute(work: Work) -> Tables:
    """A row for each latent of the block and each latent that is among its k nearest in any way."""
    assert work.study.neighbours is not None
    width, k = int(work.frame("dictionaries").select("width").collect().item()), work.study.neighbours.k
    own = block_range(work.block, work.study.blocks, width)
    is_planted = work.study.dictionaries[work.dictionary].planted is not None
    sides = {} if is_planted else _directions(work.handles.coder(work.dictionary))  # rules have no directions
    near = {side: directions.nearest(own, k) for side, directions in sides.items()}
    work.progress.share(0.3)
    together, counts = _together(work, own, width)
    near["co_occurrence"] = _most_together(together, counts, own, k)
    work.progress.share(0.9)
    rows = _pairs(near, own)
    one, other = rows["latent"].to_numpy().astype(np.int64), rows["neighbour"].to_numpy().astype(np.int64)
    both = np.asarray(together[one - own.start, other]).ravel().astype(np.int64) if len(one) else np.zeros(0, np.int64)
    either = counts[one] + counts[other] - both
    cosines = {side: directions.cosines(one, other) for side, directions in sides.items()}
    rows = rows.with_columns(
        *(pl.Series(f"{side}_cosine", cosines.get(side, [None] * len(one)), dtype=pl.Float64) for side in KINDS[:2]),
        pl.Series("n_together", both),
        pl.Series("jaccard", np.divide(both, either, out=np.full(len(one), np.nan), where=either > 0)).fill_nan(None),
        **work.columns(len(one)),
    )
    return {"neighbours": rows}


def _directions(coder: Coder) -> dict[str, Directions]:
    """What latents write and read; nothing of neurons, which are no directions. Made anew for each block: that costs little
    beside comparing them, and those of many dictionaries are not held at once."""
    read = coder.encoder_directions
    sides = {} if read is None else {"decoder": coder.directions, "encoder": read}
    return {side: Directions(rows, coder.device) for side, rows in sides.items()}


def _together(work: Work, own: range, width: int) -> tuple[sparse.csr_matrix, np.ndarray]:
    """On how many tokens latents of the block fire together with any: sparse int32 [block, width]; and any alone: int64 [width].

    One shard at a time: what is held grows with the pairs that occur, not with tokens.
    """
    together, counts = sparse.csr_matrix((len(own), width), dtype=np.int32), np.zeros(width, dtype=np.int64)
    for shard in work.shards:
        rows = work.frame("activations").filter(shard=shard).select("latent", "position").sort("latent").collect()
        latent, position = rows["latent"].to_numpy(), rows["position"].to_numpy()
        bounds = np.searchsorted(latent, np.arange(width + 1))
        ones = np.ones(len(latent), dtype=np.int32)
        fires = sparse.csc_matrix((ones, position, bounds), shape=(int(position.max(initial=0)) + 1, width))
        together = together + fires[:, own.start : own.stop].T @ fires.tocsr()
        counts += np.diff(bounds)
    return together, counts


def _most_together(together: sparse.csr_matrix, counts: np.ndarray, own: range, k: int) -> np.ndarray:
    """The k latents with which each of the block fires together most, as a share of the tokens on which either does: int64
    [block, k], -1 for none."""
    pairs, bounds = together.tocoo(), together.indptr
    jaccard = pairs.data / (counts[pairs.row + own.start] + counts[pairs.col] - pairs.data)
    jaccard[pairs.col == pairs.row + own.start] = -1.0  # itself
    least = np.zeros(len(own))
    for row in range(len(own)):  # few of all pairs are near enough to be put in order
        shares = jaccard[bounds[row] : bounds[row + 1]]
        if len(shares) > k:
            least[row] = max(0.0, np.partition(shares, -k)[-k])
    kept = jaccard >= least[pairs.row]
    row, col, jaccard = pairs.row[kept], pairs.col[kept], jaccard[kept]
    order = np.lexsort((col, -jaccard, row))
    row, col = row[order], col[order]
    rank = np.arange(len(row)) - np.searchsorted(row, row)
    found = np.full((len(own), k), -1, dtype=np.int64)
    found[row[rank < k], rank[rank < k]] = col[rank < k]
    return found


def _pairs(near: dict[str, np.ndarray], own: range) -> pl.DataFrame:
    """The pairs that are in any of the lists, with the rank in each."""
    schema: dict[str, Any] = {"latent": pl.Int32, "neighbour": pl.Int32, "rank": pl.Int32, "kind": pl.String}
    lists = [pl.DataFrame(schema=schema)]
    for kind, found in near.items():
        row, rank = np.nonzero(found >= 0)
        columns = {"latent": row + own.start, "neighbour": found[row, rank], "rank": rank, "kind": [kind] * len(row)}
        lists.append(pl.DataFrame(columns, schema=schema, strict=False))
    ranks = [pl.col("rank").filter(kind=kind).first().alias(f"{kind}_rank") for kind in KINDS]
    return pl.concat(lists).group_by("latent", "neighbour").agg(ranks).sort("latent", "neighbour")
