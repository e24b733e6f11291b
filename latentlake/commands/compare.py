"""Show how near dictionaries are: latents aligned one to one, how many are similar, how alike their explanations are.

By decoder and by encoder directions apart, and by both where these give the same partner: the similar ones of these are the
shared latents. cosine: mean over pairs with its 95 % interval; similar: pairs at the comparison's `shared` cosine or more, as a
share of the latents of the smaller dictionary, and of those that fire in the corpus; explanations: mean cosine of those of
aligned latents; exchanged: the same after partners were exchanged for one another. `≈`: only the nearest of each latent were
considered, and pairs below the comparison's `least` have none.
"""

import argparse

import polars as pl

from latentlake.console import as_text, two_digits, with_interval
from latentlake.errors import LakeError
from latentlake.measures.comparing import comparisons_of, explainers_compared
from latentlake.opened import Opened
from latentlake.reading.moments import moment
from latentlake.reading.view import View


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's own arguments."""
    parser.add_argument("comparison", nargs="?", help="this comparison alone")
    parser.add_argument(
        "--explainers", nargs=2, metavar=("ONE", "OTHER"), help="what two explainers say of the same latents"
    )
    parser.add_argument(
        "--from", dest="since", metavar="MOMENT", help="those of the first as they were then: a date, a time or a run"
    )
    parser.add_argument("--json", action="store_true", help="all columns, as JSON lines")


def run(options: argparse.Namespace, opened: Opened) -> None:
    """Print a row for each pair of dictionaries and way of aligning them.

    Raises:
        LakeError: nothing is compared, or there is no such comparison, explainer or moment.
    """
    if options.explainers:
        view, since = opened.view, options.since
        before = View(view.lake, moment(view, since)) if since else None
        one, other = options.explainers
        rows = explainers_compared(view, one, other, before)
    elif options.since:
        raise LakeError("whose explanations as they were? Name two --explainers, which may be the same")
    else:
        rows = comparisons_of(opened.view, options.comparison)
    if options.json:
        print(rows.write_ndjson(), end="")
    elif options.explainers:
        print(as_text(said(rows)))
    else:
        own = rows.partition_by("comparison", as_dict=True, maintain_order=True)
        print("\n\n".join(f"{name}\n{as_text(shown(each))}" for (name,), each in own.items()))


def shown(rows: pl.DataFrame) -> pl.DataFrame:
    """What fits a terminal."""
    about = pl.when(~pl.col("is_exact") & pl.col("error").is_null()).then(pl.lit("≈")).otherwise(pl.lit(""))
    wide = rows.select(
        "pair",
        "by",
        pl.format("{}{}", about, "pairs").alias("pairs"),
        pl.coalesce(with_interval("mean", "low", "high"), "error").alias("cosine"),
        two_digits("median"),
        "similar",
        two_digits("share"),
        two_digits("share_firing").alias("of firing"),
        "explainer",
        "explained",
        *_likeness(),
    )
    return _plain(wide)


def said(rows: pl.DataFrame) -> pl.DataFrame:
    """The same of two explainers."""
    return _plain(rows.select("dictionary", "explainer", "other", "explained", *_likeness()))


def _likeness() -> list[pl.Expr]:
    own = with_interval("explanations", "explanations_low", "explanations_high")
    return [own, two_digits("explanations_shuffled").alias("exchanged")]


def _plain(rows: pl.DataFrame) -> pl.DataFrame:
    """Without the columns in which nothing stands."""
    there = [name for name in rows.columns if rows[name].count()]
    return rows.select(pl.col(there).cast(pl.String).fill_null(""))
