"""Find latents by words in their explanations and top tokens, or by what their explanations mean.

All of the words must be there, in any case and as parts of longer ones; nothing in them has a special meaning. With `--meaning`
explanations come in the order of their cosine with the text, as the embedder of the study's `search` sees it. In JSON lines
`found_in` says whether the explanation holds all words.
"""

import argparse

import polars as pl

from latentlake.console import as_text
from latentlake.opened import Opened
from latentlake.reading.search import Within, by_meaning, by_words


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's own arguments."""
    parser.add_argument("words", nargs="+", help="what to look for")
    parser.add_argument("--meaning", action="store_true", help="explanations that mean something like it")
    parser.add_argument("--dictionary", help="in this dictionary alone")
    parser.add_argument("--explainer", help="in the explanations of this explainer alone")
    parser.add_argument("--triage", help="among latents of this triage alone (`ok`, `dense`, …)")
    parser.add_argument("--scorer", help="among what this scorer has a score of, which is shown")
    parser.add_argument("--least", type=float, help="and no less than this")
    parser.add_argument("--n", type=int, default=20, help="how many, the best first (20)")
    parser.add_argument("--json", action="store_true", help="all columns as JSON lines")


def run(options: argparse.Namespace, opened: Opened) -> None:
    """Print what is found."""
    within = Within(options.dictionary, options.explainer, options.triage, options.scorer, options.least)
    text = " ".join(options.words)
    if options.meaning:
        found = by_meaning(opened.view, text, opened.embedder, within, options.n)
    else:
        found = by_words(opened.view, text, within, options.n)
    if options.json:
        print(found.write_ndjson(), end="")
    elif found.is_empty():
        print(
            "nothing is found"
            if options.meaning
            else "nothing is found; fewer words find more, and --meaning what they mean"
        )
    else:
        print(as_text(shown(found)))


def shown(found: pl.DataFrame) -> pl.DataFrame:
    """What fits a terminal, on one line each."""
    said = pl.col("explanation").fill_null("")
    tokens = pl.col("tokens").list.head(5).list.join(" · ")
    lines = [
        text.str.replace_all(r"\s+", " ").alias(name) for name, text in (("explanation", said), ("tokens", tokens))
    ]
    rows = found.with_columns(pl.col("explainer").fill_null(""), *lines)
    return rows.drop("found_in", strict=False)
