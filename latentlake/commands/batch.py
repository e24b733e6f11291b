"""Put pending calls into a file that batch APIs take, and their results into the ledger.

`latentlake batch out FILE` writes what the study's models on servers would be asked now, a line of JSON a call; `latentlake batch
in FILE` reads what came back, in any order. Then `make run` goes on with it, and asks for the rest.
"""

import argparse
from pathlib import Path

from latentlake.calls.batch import Batch
from latentlake.calls.ledger import Ledger
from latentlake.calls.pending import Pending
from latentlake.errors import InputError
from latentlake.opened import Opened


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's own arguments."""
    parser.add_argument("direction", choices=["out", "in"], help="write pending calls, or read results")
    parser.add_argument("--llm", help="of this model of the study alone: many APIs take a file for each")
    parser.add_argument("file", type=Path, help="the file of JSON lines")


def run(options: argparse.Namespace, opened: Opened) -> None:
    """Write or read a batch."""
    pending = Pending(opened.plan, opened.flow, opened.lake, opened.origins)
    batch = Batch(opened.study, opened.origins, pending, Ledger(opened.lake), options.llm)
    if options.direction == "out":
        lines = list(batch.requests())
        options.file.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
        print(f"{len(lines)} calls are pending; {options.file} has them")
        return
    if not options.file.is_file():
        raise InputError(f"there is no file {options.file}")
    with options.file.open(encoding="utf-8") as results:
        taken = batch.take(line for line in results if line.strip())
    print(
        f"{taken.answered} calls answered, {taken.failed} failed, {taken.unknown} lines that no pending call waits for"
    )
