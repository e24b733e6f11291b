"""Show how far scorers agree: correlations of their scores over latents, a matrix for each dictionary and explainer.

Below the diagonal Spearman's rank correlation, above it Pearson's, with 95 % intervals, of the latents' own explanations and each
scorer's main metric. A scorer that judges no explanation stands in the matrix of every explainer. `few_latents`: fewer than
4 have both scores; `constant`: one of the two scorers gives all the same.
"""

import argparse

import polars as pl

from latentlake.console import as_text, with_interval
from latentlake.measures.agreement import agreements_of, cells
from latentlake.opened import Opened


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's own arguments."""
    parser.add_argument("--explainer", help="of this explainer alone")
    parser.add_argument("--dictionary", help="of this dictionary alone")
    parser.add_argument("--json", action="store_true", help="a row two scorers, as JSON lines")


def run(options: argparse.Namespace, opened: Opened) -> None:
    """Print a matrix for each dictionary and explainer.

    Raises:
        LakeError: no two scorers share latents, or none of that explainer or dictionary.
    """
    rows = agreements_of(opened.view, options.explainer, options.dictionary)
    if options.json:
        print(rows.write_ndjson(), end="")
        return
    matrices = cells(rows).partition_by("dictionary", "explainer", maintain_order=True)
    print("\n\n".join(f"{_title(own)}\n{as_text(shown(own))}" for own in matrices))


def _title(own: pl.DataFrame) -> str:
    dictionary, explainer = own.row(0)[:2]
    latents = " to ".join(dict.fromkeys(map(str, own["latents"].sort().gather([0, -1]))))
    return (
        f"{dictionary}, explanations of {explainer}, {latents} latents (below the diagonal Spearman's, above Pearson's)"
    )


def shown(own: pl.DataFrame) -> pl.DataFrame:
    """The matrix of one dictionary and explainer."""
    said = own.select("row", "column", value=pl.coalesce(with_interval("value", "low", "high"), "error"))
    wide = said.pivot("column", index="row", values="value").sort("row")
    return wide.select(pl.col("row").alias("scorer"), *wide["row"]).with_columns(pl.col(pl.String).fill_null(""))
