"""Take over what others say of latents: explanations and scores in a form that `latentlake export` writes too.

Read whole and checked, they are written into the folder `imported/NAME` beside the study file, as files that the explainer
`imported` and the scorer `ratings` read; what else the form says of them is kept there. The lines for the study file are printed:
add them, and what is imported stands beside your own, in scores, agreements and reports. Explanations that are to be judged by
your own scorers are named in their `explainers`.
"""

import argparse
import sys
from pathlib import Path

from latentlake.commands.export import FORMS
from latentlake.errors import LakeError
from latentlake.importing import bring_in
from latentlake.opened import Opened


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's own arguments."""
    parser.add_argument("form", choices=FORMS, metavar="FORM", help=f"one of {', '.join(FORMS)}")
    parser.add_argument("path", metavar="PATH", type=Path, help="the file or folder")
    parser.add_argument("--as", dest="name", metavar="NAME", required=True, help="what the explainer is to be called")
    parser.add_argument(
        "--dictionary",
        metavar="SOURCE=NAME",
        action="append",
        default=[],
        help="which dictionary of the study a coder of the form is (the one of its name, or of its hookpoint); may be repeated",
    )
    parser.add_argument("--overwrite", action="store_true", help="in the place of an import that is there")


def run(options: argparse.Namespace, opened: Opened) -> None:
    """Write the files, print the lines, and say what was left out."""
    sources = {}
    for each in options.dictionary:
        source, sign, name = each.rpartition("=")
        if not sign:
            raise LakeError(f"--dictionary {each} must be like SOURCE=NAME")
        sources[source] = name
    taken = bring_in(
        opened.study,
        options.form,
        options.path,
        options.name,
        sources,
        options.overwrite,
        lambda dictionary: opened.origins.dictionary(dictionary).facts.width,
    )
    print(f"# into {taken.folder}: {_counts(taken.explanations, 'explanations')}{_counts(taken.scores, 'scores')}")
    print(taken.lines, end="")
    for what, n in sorted(taken.left_out.items()):
        print(f"left out: {n:,} {what}", file=sys.stderr)


def _counts(counts: dict[str, int], what: str) -> str:
    return f" {sum(counts.values()):,} {what};" if counts else ""
