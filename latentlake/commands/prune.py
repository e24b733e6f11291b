"""Delete what is no longer in the study: published partitions of removed scorers, explainers, dictionaries, shards.

Without --yes only lists them. Model calls stay in the ledger. Files stay until the lake is vacuumed.
"""

import argparse

from latentlake.keeping.prune import prune
from latentlake.opened import Opened
from latentlake.plan import name_of


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's own arguments."""
    parser.add_argument("--yes", action="store_true", help="delete them")


def run(options: argparse.Namespace, opened: Opened) -> None:
    """List orphans, and delete them if told to."""
    orphans = opened.plan.orphans
    for asset, partition in orphans:
        print(name_of(asset, partition))
    if not orphans:
        print("nothing in the lake is outside the study")
    elif options.yes:
        prune(opened.lake, orphans)
        print(f"deleted {len(orphans)} partitions")
    else:
        print(f"{len(orphans)} partitions are no longer in the study; --yes deletes them")
