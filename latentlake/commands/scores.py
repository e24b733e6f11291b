"""Show what scores come to over latents: means with intervals, beside the controls; by decile, source or target if asked for.

A control is another latent's explanation (`shuffled`), or an empty one. Differences are of the latents' own scores from the
control's, paired over latents. Deciles are of activation, from 0, the weakest; sources, how silent windows were drawn; targets,
how far an intervention was to go. Scorers that judge no explanation have the explainer `none` and no controls. Chance is .5 of an
AUROC, and .2 of the intruder's accuracy. Where judging stops when a score is decided, `saved` is the share of windows that needed
no judgement.
"""

import argparse

import polars as pl

from latentlake.console import as_text, two_digits, with_interval
from latentlake.errors import LakeError
from latentlake.measures.aggregates import BY, MAIN, aggregates, judged
from latentlake.opened import Opened


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's own arguments."""
    parser.add_argument(
        "--by", choices=BY, help="apart by decile of activation, source of silent windows, or target of an intervention"
    )
    parser.add_argument("--metric", default=MAIN, help="which metric, `all`, or `main`: each scorer's main one (main)")
    parser.add_argument("--explainer", help="of this explainer alone")
    parser.add_argument("--scorer", help="of this scorer alone")
    parser.add_argument("--json", action="store_true", help="all columns, the distribution among them, as JSON lines")


def run(options: argparse.Namespace, opened: Opened) -> None:
    """Print the table.

    Raises:
        LakeError: there are no such scores.
    """
    metric = None if options.metric == "all" else options.metric
    rows = aggregates(opened.view, options.by, metric, options.explainer, options.scorer)
    if rows.is_empty():
        apart = f" by {options.by}" if options.by else ""
        raise LakeError(f"there are no scores{apart}; run the study, with scorers that give some")
    if options.json:
        print(rows.write_ndjson(), end="")
        return
    print(as_text(shown(rows)))


def shown(rows: pl.DataFrame) -> pl.DataFrame:
    """What fits a terminal; of several metrics less of each."""
    by = [name for name in BY if name in rows.columns]
    apart = [*(["metric"] if rows["metric"].n_unique() > 1 else []), *by]
    more = [] if "metric" in apart else [pl.col("firing_weighted").alias("weighted"), pl.col("median")]
    difference = with_interval("difference", "difference_low", "difference_high").alias("own less it")
    groups = ["dictionary", "explainer", "scorer", *apart]
    figures = [with_interval("mean", "low", "high"), *more, pl.col("latents"), difference, two_digits("above")]
    saved = [two_digits("saved")] if "saved" in rows.columns else []
    return rows.select(*groups, judged(), *figures, "failed", *saved).with_columns(pl.col(pl.String).fill_null(""))
