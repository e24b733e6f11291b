"""Show what model calls cost: calls, tokens, time and price, by asset, latent, launch, model or day.

All calls of the lake's ledger count, those of its other studies too, each where it was first made.
"""

import argparse

import polars as pl

from latentlake.calls.costs import BY, costs
from latentlake.console import as_text
from latentlake.opened import Opened


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's own arguments."""
    parser.add_argument("--by", choices=BY, default="asset", help="what a row is of (asset)")
    parser.add_argument("--first", type=int, default=20, help="how many rows, the dearest first (20)")
    parser.add_argument("--json", action="store_true", help="all rows as JSON lines")


def run(options: argparse.Namespace, opened: Opened) -> None:
    """Print the table, and the sum."""
    rows = costs(opened.view, options.by)
    if options.json:
        print(rows.write_ndjson(), end="")
        return
    shown = rows.rename({name: name.replace("tokens_", "") for name in ("tokens_in", "tokens_cached", "tokens_out")})
    print(as_text(shown.drop("attempts", "first").with_columns(pl.col("last").dt.truncate("1s")).head(options.first)))
    if len(rows) > options.first:
        print(f"… and {len(rows) - options.first} more; --first shows them")
    fresh, cached, out = (rows[name].sum() for name in ("tokens_in", "tokens_cached", "tokens_out"))
    priced = "" if rows["price"].count() == 0 else f", {rows['price'].sum():.2f} in money"
    print(
        f"{rows['calls'].sum():,} calls, {rows['failed'].sum():,} without an answer; {fresh:,} tokens in, "
        f"of them {cached:,} cached, {out:,} out{priced}"
    )
