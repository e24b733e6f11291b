"""What model calls cost, out of the ledger."""

from typing import Literal, get_args

import polars as pl

from latentlake.reading.view import View

By = Literal["asset", "latent", "launch", "model", "day"]
BY: tuple[str, ...] = get_args(By)

_COLUMNS: dict[str, list[pl.Expr]] = {
    "asset": [pl.col("asset"), pl.col("model")],
    "latent": [pl.col("dictionary"), pl.col("latent")],
    "launch": [pl.col("launch")],
    "model": [pl.col("model"), pl.col("engine"), pl.col("revision")],
    "day": [pl.col("created_at").dt.date().alias("day"), pl.col("model")],
}


def costs(view: View, by: By = "asset") -> pl.DataFrame:
    """What the calls of a lake cost, a row for each asset, latent, launch, model or day.

    A call is counted where it was first made: it costs nothing to whoever asks again, in whatever study. After maintenance, which
    leaves one row a call, one that was made twice (two runs raced for it) counts once. Columns beside the
    groups: ``calls``; ``failed``, without an answer; ``attempts``; ``tokens_in``, of them ``tokens_cached``, ``tokens_out``;
    ``seconds``, summed over calls that may have been under way together; ``price``, in the study's currency, null where nothing
    is charged; ``first`` and ``last``, when replies came. The dearest come first, by price, then tokens.
    """
    calls = view.past_calls()
    tokens = pl.col("tokens_in") + pl.col("tokens_out")
    sums = ["attempts", "tokens_in", "tokens_cached", "tokens_out", "seconds"]
    rows = calls.group_by(_COLUMNS[by]).agg(
        calls=pl.len(),
        failed=pl.col("error").count(),
        **{name: pl.sum(name) for name in sums},
        price=pl.when(pl.col("price").count() > 0).then(pl.sum("price")),
        first=pl.min("created_at"),
        last=pl.max("created_at"),
        tokens=tokens.sum(),
    )
    return (
        rows.sort("price", "tokens", "first", descending=[True, True, False], nulls_last=True).drop("tokens").collect()
    )
