"""Prompts out of windows: each up to the first token on which its latent fires."""

from itertools import pairwise

import polars as pl

_SCHEMA: dict[str, type[pl.DataType] | pl.DataType] = {
    "latent": pl.Int32,
    "rank": pl.Int32,
    "decile": pl.Int32,
    "source": pl.String,
    "shard": pl.String,
    "context": pl.Int32,
    "start": pl.Int32,
    "tokens": pl.List(pl.Int32),
    "prompt": pl.String,
}


def prompts_of(windows: pl.LazyFrame, bos: int | None, shortest: int) -> pl.DataFrame:
    """A row for each window in which a latent fires and which makes a prompt, by latent and rank.

    ``windows``: of `examples`. ``bos``: the token that opens a context, put before prompts that do not have it; None for none.
    ``shortest``: tokens that a prompt has at least, BOS not among them: of fewer the subject knows too little to go on with, and
    of a window whose first token the latent fires on nothing comes before what is pushed. Columns: latent, rank, decile, source,
    place of the window, ``tokens``, and ``prompt``, their text.
    """
    names = [name for name in _SCHEMA if name not in ("tokens", "prompt")]
    columns = [*names, "tokens", "activations", "text", "offsets"]
    rows = windows.filter("is_activating").select(columns).sort("latent", "rank").collect()
    made = []
    for row in rows.iter_rows(named=True):
        end = 1 + next(place for place, each in enumerate(row["activations"]) if each > 0)
        spoken = row["tokens"][row["tokens"][0] == bos : end]  # at its beginning only: separators may be the same token
        if len(spoken) >= shortest:
            stops = [stop for _, stop in pairwise([*row["offsets"], len(row["text"])])]
            opened = spoken if bos is None else [bos, *spoken]
            made.append(
                {**{name: row[name] for name in names}, "tokens": opened, "prompt": row["text"][: stops[end - 1]]}
            )
    return pl.DataFrame(made, schema=_SCHEMA)
