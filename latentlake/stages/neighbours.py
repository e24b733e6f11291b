"""Which latents of a dictionary are near to those of a block: by what they write, by what they read, and by when they fire."""

from typing import Any

import numpy as np
import polars as pl

from latentlake.coders.nearest import Directions
from latentlake.measures.cooccurrence import Fires, together
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
    fires = together(work.shards, own, Fires(work.frame("activations"), width))
    near["co_occurrence"] = fires.most(k, own.start)
    work.progress.share(0.9)
    rows = _pairs(near, own)
    one, other = rows["latent"].to_numpy().astype(np.int64), rows["neighbour"].to_numpy().astype(np.int64)
    cosines = {side: directions.cosines(one, other) for side, directions in sides.items()}
    rows = rows.with_columns(
        *(pl.Series(f"{side}_cosine", cosines.get(side, [None] * len(one)), dtype=pl.Float64) for side in KINDS[:2]),
        pl.Series("n_together", fires.both_of(one - own.start, other)),
        pl.Series("jaccard", fires.jaccard(one - own.start, other)).fill_nan(None),
        **work.columns(len(one)),
    )
    return {"neighbours": rows}


def _directions(coder: Coder) -> dict[str, Directions]:
    """What latents write and read; nothing of neurons, which are no directions. Made anew for each block: that costs little
    beside comparing them, and those of many dictionaries are not held at once."""
    read = coder.encoder_directions
    sides = {} if read is None else {"decoder": coder.directions, "encoder": read}
    return {side: Directions(rows, coder.device) for side, rows in sides.items()}


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
