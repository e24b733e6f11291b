"""Write a first study: from a model and the checkpoint of a sparse coder, with a comment on each choice.

MODEL is a folder, a GGUF file, `package://name/file` or a repository id of the Hugging Face hub; CHECKPOINT a file, a folder, a
folder of several coders, or ORGANISATION/NAME/FOLDER of the hub. Format, width and hookpoint are seen by its files and its path.
"""

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path

from latentlake.draft import Draft, Wanted, begin
from latentlake.opened import Opened

_USUAL = "study.yaml"  # the study that commands read where none is named


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's own arguments."""
    parser.add_argument("model", help="the language model")
    parser.add_argument("checkpoint", help="its sparse coder, or a folder of several")
    parser.add_argument("--revision", help="of a checkpoint on the hub: a branch, tag or commit")
    parser.add_argument("--corpus", nargs="+", default=[], metavar="FILES", help="texts: files, or globs in quotes")
    parser.add_argument("--hookpoint", help="what the coder reads (layers.9, layers.9.mlp, …), if nothing else says it")
    parser.add_argument("--llm", help="explains and judges: openai:NAME, of a server, or a model that runs here")
    parser.add_argument("--latents", type=int, default=24, help="how many of each coder are asked about (24)")
    parser.add_argument("--name", help="name of the study")
    parser.add_argument("--out", type=Path, default=Path(_USUAL), help=f"the file ({_USUAL})")
    parser.add_argument("--force", action="store_true", help="overwrite it")


def run(options: argparse.Namespace, opened: Opened) -> None:
    """Write the file, and say what comes next."""
    own = ("model", "checkpoint", "revision", "corpus", "hookpoint", "llm", "latents", "name")
    draft = begin(
        Wanted(**{name: getattr(options, name) for name in own}), options.out, Path(opened.cache), options.force
    )
    for note in draft.notes:
        print(f"note: {note}", file=sys.stderr)
    print("\n".join(_said(draft, options.out)))


def _said(draft: Draft, out: Path) -> Iterator[str]:
    yield f"{out} is a study of {', '.join(draft.coders)}, to be read and changed. Then:"
    named = "" if out.as_posix() == _USUAL else f"LATENTLAKE_STUDY={out} "
    first = next(iter(draft.coders))
    yield ""
    for command, what in (
        ("latentlake plan", "what a run would do, and cost"),
        (f"latentlake try {first} 0", "one latent, explained and scored; writes nothing"),
        ("python -m jobs.run", "all of it (`make run`)"),
        ("latentlake explore", "the results in a browser"),
    ):
        yield f"    {named}{command:<28} # {what}"
