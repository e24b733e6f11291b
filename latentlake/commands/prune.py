"""Delete what is no longer in the study: published partitions of removed scorers, explainers, dictionaries, shards.

Without --yes only lists them. Model calls stay in the ledger. Files stay until the lake is vacuumed.
"""

import argparse

from latentlake.commands.opening import open_plan
from latentlake.prune import prune


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's own arguments."""
    parser.add_argument("--yes", action="store_true", help="delete them")


def run(options: argparse.Namespace) -> None:
    """List orphans, and delete them if told to."""
    plan, lake = open_plan(options)
    for asset, partition in plan.orphans:
        print(f"{asset}[{partition}]" if partition else asset)
    if not plan.orphans:
        print("nothing in the lake is outside the study")
    elif options.yes:
        prune(lake, plan.orphans)
        print(f"deleted {len(plan.orphans)} partitions")
    else:
        print(f"{len(plan.orphans)} partitions are no longer in the study; --yes deletes them")
