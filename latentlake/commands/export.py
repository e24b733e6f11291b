"""Write results in a form that other tools read: Neuronpedia's, delphi's, the paper's, Parquet, a Hugging Face data set.

The folder must be empty, or not there: it is whole once the command ends, or not there at all. In it `provenance.json` says what
the results were made from: digests of the study, models and coders, versions, runs. The same lake gives the same bytes.
"""

import argparse
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from tqdm import tqdm

from latentlake.exporting import export
from latentlake.opened import Opened
from latentlake.registry import EXPORTS

FORMS = tuple(EXPORTS.classes())


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's own arguments."""
    parser.add_argument("form", choices=FORMS, metavar="FORM", help=f"one of {', '.join(FORMS)}")
    parser.add_argument("folder", metavar="FOLDER", type=Path, help="where to write it")
    parser.add_argument("--dictionary", action="append", default=[], help="of this dictionary alone; may be repeated")
    parser.add_argument("--explainer", action="append", default=[], help="by this explainer alone; may be repeated")
    parser.add_argument("--model", help="what the subject is called there (the end of its reference)")
    parser.add_argument("--licence", default="unknown", help="of the data set, as the hub names it (unknown)")
    parser.add_argument("--overwrite", action="store_true", help="in the place of an export that is there")


def run(options: argparse.Namespace, opened: Opened) -> None:
    """Write, and say where what lies."""
    folder = export(
        opened.view,
        options.form,
        options.folder,
        options.dictionary,
        options.explainer,
        options.model,
        options.licence,
        options.overwrite,
        _watched,
    )
    files = [path for path in folder.rglob("*") if path.is_file()]
    print(f"{folder}: {len(files):,} files, {sum(path.stat().st_size for path in files) / 1e6:,.1f} MB")


def _watched(parts: Iterable[Any]) -> Iterable[Any]:
    """Progress on a terminal, with the time left."""
    bar: Iterable[Any] = tqdm(parts, desc="latents", unit="part", disable=None, leave=False)
    return bar
