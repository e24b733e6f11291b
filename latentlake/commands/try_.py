"""Explain and score one latent, and print it: before a study is run, or beside it. Nothing is written to a lake.

The first documents of the study's corpus are read, or those of a file. Of the same documents the study would make the same
windows, explanation and scores.
"""

import argparse
import sys
from pathlib import Path

from latentlake.commands.trace import about, show
from latentlake.opened import Opened
from latentlake.trying import DOCUMENTS, try_latent
from latentlake.work import Silent


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's own arguments."""
    parser.add_argument("dictionary", help="name of the dictionary")
    parser.add_argument("latent", type=int, help="index of the latent")
    parser.add_argument(
        "--documents", type=int, default=DOCUMENTS, help=f"how many are read, from the first ({DOCUMENTS:,})"
    )
    parser.add_argument("--text", type=Path, help="read the documents of this file instead")
    parser.add_argument("--explainer", help="only this one")
    parser.add_argument("--scorer", help="only this one")
    parser.add_argument("--all", action="store_true", help="every window, not the first of each sample")


def run(options: argparse.Namespace, opened: Opened) -> None:
    """Try the latent, say on standard error how far that is, and print what came out."""
    trial = try_latent(
        opened.study,
        options.dictionary,
        options.latent,
        documents=options.documents,
        text=options.text,
        explainer=options.explainer,
        scorer=options.scorer,
        progress=_Telling(),
        cache=Path(opened.cache),
    )
    print(f"read {trial.documents:,} documents, {trial.tokens:,} tokens\n")
    show(about(trial, None) if options.all else about(trial))


class _Telling(Silent):
    """A line on standard error for each stage."""

    def begin(self, stage: str, partitions: int) -> None:
        """A stage starts."""
        print(f"{stage} …", file=sys.stderr, flush=True)

    def calls(self, made: int, remembered: int) -> None:
        """Model calls were made."""
        if made:
            print(f"    {made} model calls more", file=sys.stderr, flush=True)
