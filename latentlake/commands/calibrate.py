"""Show what judges are worth: their ranking of true and false explanations of planted latents, and their calibration.

Of a study with planted latents (studies/planted.yaml): the mean AUROC of the explainers `true`, `near_miss` and `false`, and how
often one comes before the other. Of any study: whether the probabilities that scorers give hold, and how far two scorers agree
that judged the same windows by the same explanations.
"""

import argparse
import json

import polars as pl

from latentlake.console import as_text
from latentlake.errors import LakeError
from latentlake.measures import calibration, planted
from latentlake.opened import Opened

_TITLES = {
    "means": "mean AUROC of explanations of planted latents",
    "orders": "share of latents of which the first has the higher AUROC than the second (95 % interval)",
    "calibration": "probabilities: expected calibration error and Brier score",
    "reliability": "windows by the probability that they were given, and how often the latent fires in them",
    "agreement": "agreement of two scorers: Cohen's kappa of labels, Spearman's correlation of probabilities or measures",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's own arguments."""
    parser.add_argument("--json", action="store_true", help="all tables, as JSON")


def run(options: argparse.Namespace, opened: Opened) -> None:
    """Print the tables that the lake has something for.

    Raises:
        LakeError: nothing was judged, or planted latents lack one of the explainers.
    """
    ranked, judged = planted.ranked(opened.view), calibration.judged(opened.view)
    if judged.is_empty():
        raise LakeError(
            f"nothing is judged in {opened.uri}; run a study first (studies/planted.yaml says what judges are worth)"
        )
    tables = {
        "means": planted.means(ranked),
        "orders": planted.orders(ranked),
        "calibration": calibration.calibration(judged),
        "reliability": calibration.reliability(judged),
        "agreement": calibration.agreement(judged),
    }
    if options.json:
        print(json.dumps({name: frame.to_dicts() for name, frame in tables.items()}, indent=1))
        return
    shown = tables | {"orders": _wide(tables["orders"])}
    print("\n\n".join(f"{_TITLES[name]}\n{as_text(frame)}" for name, frame in shown.items() if not frame.is_empty()))


def _wide(orders: pl.DataFrame) -> pl.DataFrame:
    """A row a scorer and kind, a column two explanations."""
    share, low, high = (
        pl.col(name).cast(pl.Decimal(10, 2)).cast(pl.String).fill_null("–") for name in ("share", "low", "high")
    )
    shown = orders.with_columns(
        pair=pl.format("{} > {}", "better", "worse"), said=pl.format("{} ({} to {})", share, low, high)
    )
    return shown.pivot("pair", index=["scorer", "kind"], values="said")
