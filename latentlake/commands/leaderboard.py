"""Show sparse coders side by side, the best explained first: what they are, how they reconstruct, how they score.

FVU: share of the variance that is not reconstructed; +CE: cross-entropy added, nats; latents: those that are explained, or, where
no explanation is judged, that have a score; firing: the mean with latents counted by the tokens on which they fire; over
shuffled: how far scores lie above those of other latents' explanations, paired over latents. The control `directions`,
`initialised` or `model` is what the coder itself is a control for.
"""

import argparse

import polars as pl

from latentlake.console import as_text, two_digits, with_interval
from latentlake.errors import LakeError
from latentlake.measures.aggregates import MAIN
from latentlake.measures.leaderboard import leaderboard
from latentlake.opened import Opened
from latentlake.scorers import NONE


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's own arguments."""
    parser.add_argument("--metric", default=MAIN, help="which metric, or `main`: each scorer's main one (main)")
    parser.add_argument("--explainer", help="of this explainer alone")
    parser.add_argument("--scorer", help="of this scorer alone")
    parser.add_argument("--json", action="store_true", help="all columns, as JSON lines")


def run(options: argparse.Namespace, opened: Opened) -> None:
    """Print a table for each explainer and scorer.

    Raises:
        LakeError: there are no such scores.
    """
    rows = leaderboard(opened.view, options.metric, options.explainer, options.scorer)
    if rows.is_empty():
        raise LakeError("there are no scores; run the study, with scorers that give some")
    if options.json:
        print(rows.write_ndjson(), end="")
        return
    for (metric, explainer, scorer), board in rows.partition_by(
        "metric", "explainer", "scorer", as_dict=True, maintain_order=True
    ).items():
        print(
            f"{metric}, scorer {scorer}" if explainer == NONE else f"{metric}, explainer {explainer}, scorer {scorer}"
        )
        print(as_text(shown(board)))


def shown(board: pl.DataFrame) -> pl.DataFrame:
    """What fits a terminal."""
    over = [name for name in board.columns if f"{name}_low" in board.columns]
    figures = {"l0": "L0", "variance_unexplained": "FVU", "cross_entropy_added": "+CE"}
    shown = board.select(
        *("dictionary", "hookpoint", "width", pl.col("k").cast(pl.String)),
        *(two_digits(name).alias(title) for name, title in figures.items()),
        *("control", pl.coalesce("explained", "latents").alias("latents"), with_interval("mean", "low", "high")),
        two_digits("firing_weighted").alias("firing"),
        *(with_interval(name, f"{name}_low", f"{name}_high").alias(name.replace("_", " ")) for name in over),
    )
    return shown.with_columns(pl.col(pl.String).fill_null(""))
