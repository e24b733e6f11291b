"""Pin an explanation to a latent: what somebody says of it holds, until it is taken back with `--remove`.

It is kept in a file beside the study, which the explainer `pinned` reads. Without a text, shows what is pinned.
"""

import argparse
from pathlib import Path

from latentlake.errors import InputError
from latentlake.opened import Opened
from latentlake.pins import Pin, file_of, pin, read_pins, unpin


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's own arguments."""
    parser.add_argument("dictionary", help="name of the dictionary")
    parser.add_argument("latent", type=int, nargs="?", help="index of the latent")
    parser.add_argument("explanation", nargs="?", help="what is said of it")
    parser.add_argument("--by", help="who says so")
    parser.add_argument("--at", help="when, as a date")
    parser.add_argument("--remove", action="store_true", help="take the pin back")
    parser.add_argument("--explainer", help="where several explainers read pins of the dictionary: which")


def run(options: argparse.Namespace, opened: Opened) -> None:
    """Write the pin, or show what is there."""
    path, is_named = file_of(opened.study, options.dictionary, options.explainer)
    if options.remove:
        if options.latent is None or options.explanation is not None:
            raise InputError("--remove takes a latent, and no text")
        print(f"no longer pinned: {_line(unpin(path, options.latent))}")
    elif options.explanation is None:
        pins = read_pins(path).values()
        shown = [each for each in pins if options.latent in (None, each.latent)]
        print("\n".join(map(_line, shown)) or "nothing is pinned")
        return
    else:
        _require_latent(opened, options.dictionary, options.latent)
        pin(path, Pin(options.latent, options.explanation, options.by, options.at))
        print(f"{path} says now: {_line(read_pins(path)[options.latent])}")
    print(_next(opened, options.dictionary, path, is_named))


def _require_latent(opened: Opened, dictionary: str, latent: int) -> None:
    width = opened.origins.dictionary(dictionary).facts.width
    if not 0 <= latent < width:
        raise InputError(f"dictionaries.{dictionary} has no latent {latent}; its latents are 0 to {width - 1:,}")


def _line(found: Pin) -> str:
    said = ", ".join(filter(None, (found.by, found.at)))
    return f"{found.latent} {found.explanation}{f' ({said})' if said else ''}"


def _next(opened: Opened, dictionary: str, path: Path, is_named: bool) -> str:
    if is_named:
        return "the next run explains the latent so; `latentlake plan` shows what else that changes"
    base = next((name for name in opened.study.explainers), None)
    otherwise = f", otherwise: {base}" if base else ""
    file = path.relative_to(opened.study.home).as_posix()
    return (
        f"no explainer of the study reads this file yet; add to `explainers`, and to the `explainers` of scorers:\n\n"
        f"  people: {{method: pinned, files: {{{dictionary}: {file}}}{otherwise}}}\n"
    )
