"""Show sparse coders side by side, the best explained first: what they are, how they reconstruct, how they score.

The control `directions`, `initialised` or `model` is the coder's own kind; `over shuffled` is how far scores lie above those of
other latents' explanations, paired over latents.
"""

import argparse

import polars as pl

from latentlake.console import as_text, two_digits, with_interval
from latentlake.leaderboard import leaderboard
from latentlake.opened import Opened


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's own arguments."""
    parser.add_argument("--metric", default="auroc", help="which metric (auroc)")
    parser.add_argument("--explainer", help="of this explainer alone")
    parser.add_argument("--scorer", help="of this scorer alone")
    parser.add_argument("--json", action="store_true", help="all columns, as JSON lines")


def run(options: argparse.Namespace, opened: Opened) -> None:
    """Print a table for each explainer and scorer.

    Raises:
        LakeError: there are no such scores.
    """
    rows = leaderboard(opened.view, options.metric, options.explainer, options.scorer)
    if options.json:
        print(rows.write_ndjson(), end="")
        return
    for (explainer, scorer), board in rows.partition_by(
        "explainer", "scorer", as_dict=True, maintain_order=True
    ).items():
        print(f"{options.metric}, explainer {explainer}, scorer {scorer}")
        print(as_text(shown(board)))


def shown(board: pl.DataFrame) -> pl.DataFrame:
    """What fits a terminal. FVU: share of the variance that is not reconstructed."""
    over = [name for name in board.columns if f"{name}_low" in board.columns]
    figures = {
        "l0": "L0",
        "variance_unexplained": "FVU",
        "cross_entropy_added": "CE added",
        "firing_weighted": "weighted",
    }
    numbers = {name: two_digits(name).alias(title) for name, title in figures.items()}
    weighted = numbers.pop("firing_weighted")
    return board.select(
        "dictionary", "hookpoint", "width", pl.col("k").cast(pl.String), *numbers.values(), "control", "explained",
        with_interval("mean", "low", "high"), weighted,
        *(with_interval(name, f"{name}_low", f"{name}_high").alias(name.replace("_", " ")) for name in over),
    ).with_columns(pl.col(pl.String).fill_null(""))  # fmt: skip
