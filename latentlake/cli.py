"""The command line: ``latentlake COMMAND``. Each command is a module of ``commands``."""

import argparse
import importlib
import os
import pkgutil
import sys
from collections.abc import Sequence

from latentlake import commands
from latentlake.errors import LatentlakeError
from latentlake.opened import Opened


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; returns the exit status. An error is one line, and a status that is not 0."""
    options = _parser().parse_args(arguments)
    opened = Opened(options.lake, options.study_file, options.study, os.environ.get("LATENTLAKE_CACHE", ".cache"))
    try:
        options.run(options, opened)
        return 0
    except LatentlakeError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except BrokenPipeError:  # the reader (`head`) has had enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="latentlake", description="Looks into a lake and at what a run would do.")
    parser.add_argument(
        "--lake",
        default=os.environ.get("LATENTLAKE_LAKE", "lake"),
        help="folder or address of the lake (LATENTLAKE_LAKE)",
    )
    parser.add_argument(
        "--study-file",
        default=os.environ.get("LATENTLAKE_STUDY", "study.yaml"),
        help="the study file (LATENTLAKE_STUDY); commands that only read the lake need none",
    )
    parser.add_argument("--study", help="name of the study to read, where the lake holds several")
    under = parser.add_subparsers(required=True, metavar="COMMAND")
    for found in pkgutil.iter_modules(commands.__path__):
        module = importlib.import_module(f"latentlake.commands.{found.name}")
        said = (module.__doc__ or "").strip()
        name = found.name.removesuffix("_")  # of a module that Python's own word would be the name of
        command = under.add_parser(name, help=said.splitlines()[0], description=said)
        module.add_arguments(command)
        command.set_defaults(run=module.run)
    return parser


if __name__ == "__main__":
    sys.exit(main())
