"""Explanations that people pin to latents, kept in a file of JSON lines beside the study: ``latent``, ``explanation``, and where
it is said ``by`` whom and ``at`` what time. The explainer `pinned` reads it.
"""

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from latentlake.errors import InputError, nearest
from latentlake.explainers.pinned import Pinned
from latentlake.imported import PIN, parse
from latentlake.study import Study

LONGEST = 1000  # characters; a text with more is taken for something else
_TRIES, _WAIT = 100, 0.1  # how often, and after how many seconds, one's turn to write is looked for


@dataclass(frozen=True)
class Pin:
    """What somebody says of a latent."""

    latent: int
    explanation: str
    by: str | None = None
    at: str | None = None


def file_of(study: Study, dictionary: str, explainer: str | None = None) -> tuple[Path, bool]:
    """The file of a dictionary's pins, and whether the study names it; where no explainer has one, ``pins/DICTIONARY.jsonl``.

    Raises:
        InputError: there is no such dictionary or explainer, or several have such a file and none is named.
    """
    if dictionary not in study.dictionaries:
        raise InputError(f"the study has no dictionaries.{dictionary}{nearest(dictionary, study.dictionaries)}")
    pinned = {name: each for name, each in study.explainers.items() if isinstance(each, Pinned)}
    if explainer is not None and explainer not in pinned:
        raise InputError(f"the study has no explainer {explainer!r} of the method pinned{nearest(explainer, pinned)}")
    named = {
        name: each.files[dictionary]
        for name, each in pinned.items()
        if dictionary in each.files and explainer in (None, name)
    }
    if len(set(named.values())) > 1:
        raise InputError(f"pins of {dictionary} are read by {', '.join(named)}; say which with --explainer")
    return study.home / next(iter(named.values()), f"pins/{dictionary}.jsonl"), bool(named)


def read_pins(path: Path) -> dict[int, Pin]:
    """The pins of a file, by latent; none where there is no file yet.

    Raises:
        InputError: it holds something else.
    """
    if not path.exists():
        return {}
    return {row["latent"]: Pin(**row) for row in parse(path, PIN, path.read_bytes()).iter_rows(named=True)}


def pin(path: Path, new: Pin) -> None:
    """Put a pin into a file, in the place of the one that the latent had.

    Raises:
        InputError: it says nothing, or too much; or the file holds something else.
    """
    text = " ".join(new.explanation.split())
    if not any(character.isalnum() for character in text) or len(text) > LONGEST:
        raise InputError(f"an explanation has from one letter to {LONGEST:,} characters, and this one is {text!r:.50}")
    with _turn(path) as aside:
        _write(aside, read_pins(path) | {new.latent: Pin(new.latent, text, new.by, new.at)})


def unpin(path: Path, latent: int) -> Pin:
    """Take a pin out of a file; returns what it was.

    Raises:
        InputError: the latent has none.
    """
    with _turn(path) as aside:
        pins = read_pins(path)
        if latent not in pins:
            raise InputError(f"{path} has no pin of the latent {latent}")
        removed = pins.pop(latent)
        _write(aside, pins)
    return removed


@contextmanager
def _turn(path: Path) -> Iterator[IO[str]]:
    """A file beside a file of pins, which takes its place at the end. While it is there, whoever else pins waits.

    Raises:
        InputError: it stays there, or cannot be written.
    """
    aside = path.with_name(f".{path.name}.new")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = _created(aside)
        try:
            with file:
                yield file
            aside.replace(path)
        except BaseException:
            aside.unlink(missing_ok=True)
            raise
    except OSError as error:
        raise InputError(f"cannot write {path}: {error}; see to the room and the rights there") from error


def _created(path: Path) -> IO[str]:
    for _ in range(_TRIES):
        try:
            return path.open("x", encoding="utf-8", newline="")
        except FileExistsError:
            time.sleep(_WAIT)
    raise InputError(f"somebody else has been pinning for {_TRIES * _WAIT:.0f} s; if nobody is, remove {path}")


def _write(file: IO[str], pins: dict[int, Pin]) -> None:
    """In the order of latents: the same pins are the same file."""
    for latent in sorted(pins):
        said = {name: value for name, value in vars(pins[latent]).items() if value is not None}
        file.write(f"{json.dumps(said, ensure_ascii=False)}\n")
