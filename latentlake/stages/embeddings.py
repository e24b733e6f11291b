"""Explanations of a block as vectors, for search by meaning."""

import numpy as np
import polars as pl
import pyarrow as pa

from latentlake.tables import TABLES
from latentlake.work import Tables, Work


def compute(work: Work) -> Tables:
    """A row for each latent that one explainer explains; equal explanations are embedded once."""
    search = work.study.search
    assert search is not None
    said = pl.col("explanation")
    explained = (
        work.frame(f"explanations/{work.stage.constants['explainer']}")
        .filter(said.str.strip_chars() != "")
        .select("latent", said)
        .sort("latent")
        .collect()
    )
    texts = explained["explanation"].unique().sort()
    # without texts nothing is loaded: half of the blocks of a few latents have none
    vectors = work.handles.embedder(search.embedder).embed(texts.to_list()) if len(texts) else np.zeros((0, 0))
    own = vectors[texts.search_sorted(explained["explanation"]).to_numpy()] if len(texts) else vectors
    columns = {**work.columns(len(explained)), "latent": explained["latent"]}
    rows: pa.Table = pl.DataFrame(columns).to_arrow().append_column("vector", _lists(own))
    return {"embeddings": rows.select(TABLES["embeddings"].schema.names)}


def _lists(vectors: np.ndarray) -> pa.Array:
    """The rows of an array as lists, copied once."""
    n, width = vectors.shape
    offsets = np.arange(0, n * width + 1, max(width, 1), dtype=np.int64)[: n + 1]
    return pa.LargeListArray.from_arrays(offsets, vectors.astype(np.float32, copy=False).ravel())
