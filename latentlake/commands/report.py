"""Make the report of a study: one HTML file of whatever is in the lake now, also of a study that is not finished.

The finished one is made by the run, beside the tables of the study (`<lake>/<study>/report.html`).
"""

import argparse
import sys
from pathlib import Path

from latentlake.errors import LakeError
from latentlake.keeping.reported import FILE
from latentlake.opened import Opened
from latentlake.pages.report import report
from latentlake.reading.view import View


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's own arguments."""
    parser.add_argument("--out", type=Path, default=Path(FILE), help=f"the file to write ({FILE})")


def run(options: argparse.Namespace, opened: Opened) -> None:
    """Write the file, and say what is missing.

    Raises:
        LakeError: there is no such study, or the file cannot be written.
    """
    made = report(_view(opened))
    try:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_bytes(made.html.encode())
    except OSError as error:
        raise LakeError(f"cannot write {options.out}: {error}; name another file with --out") from error
    print(f"{options.out}: {made.shown} of {made.latents:,} latents in full, {made.listed:,} in the list")
    if made.missing:
        print(f"the study is not finished, nothing is there yet of {', '.join(made.missing)}", file=sys.stderr)


def _view(opened: Opened) -> View:
    """The study in the lake; where none is named and there are none or several, that of the study file."""
    try:
        return opened.view
    except LakeError:
        if opened.name is not None or not Path(opened.study_file).is_file():
            raise
        return View(opened.lake)
