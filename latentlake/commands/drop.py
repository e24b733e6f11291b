"""Delete activations to save room; what was made of them stays up to date, and they are derived again when they are needed.

Without --yes only lists them. No run should go on meanwhile: what it makes of dropped rows is refused. Files stay until the
table is vacuumed, by the job `maintenance` or at once with --vacuum.
"""

import argparse

from latentlake.errors import LakeError, nearest
from latentlake.keeping.drop import drop, droppable
from latentlake.opened import Opened
from latentlake.plan import name_of


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's own arguments."""
    parser.add_argument("--dictionary", help="of this dictionary alone")
    parser.add_argument("--shard", help="of this shard alone")
    parser.add_argument("--yes", action="store_true", help="delete them")
    parser.add_argument(
        "--vacuum",
        action="store_true",
        help="also delete the files, and all others that the table no longer names; no run may go on",
    )


def run(options: argparse.Namespace, opened: Opened) -> None:
    """List activations, and drop them if told to."""
    stage, shards = opened.flow["activations"], opened.plan.shards
    for name, known in (("dictionary", tuple(opened.study.dictionaries)), ("shard", shards)):
        given = getattr(options, name)
        if given is not None and given not in known:
            raise LakeError(f"there is no {name} {given!r}{nearest(given, known)}")
    wanted = [
        key
        for key in droppable(opened.lake, stage)
        if all(getattr(options, name) in (None, value) for name, value in stage.values(key).items())
    ]
    for key in wanted:
        print(name_of(stage.name, key))
    if not wanted:
        print("no activations are there to be dropped")
    elif not options.yes:
        print(f"{len(wanted)} partitions could be dropped; --yes drops them")
    else:
        before = opened.lake.bytes("activations")
        drop(opened.lake, stage, wanted)
        freed = (before - opened.lake.bytes("activations")) / 1e6
        if options.vacuum:
            opened.lake.vacuum("activations", 0)
        print(
            f"dropped {len(wanted)} partitions, {freed:,.1f} MB{'' if options.vacuum else ' once the table is vacuumed'}"
        )
