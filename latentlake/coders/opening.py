"""From what a study says of a dictionary's coder to its files, its format, its facts, and the coder itself."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from latentlake.coders.coder import SparseCoder
from latentlake.coders.controls import controlled
from latentlake.coders.parameters import Facts, Parameters, Stated, facts_of
from latentlake.errors import InputError
from latentlake.hub import snapshot
from latentlake.registry import CODERS

_ON_HUB = re.compile(r"(?P<repository>[\w-][\w.-]*/[\w-][\w.-]*)(?:/(?P<inside>.+))?")


@dataclass(frozen=True)
class Source:
    """A checkpoint: where it lies, as what the study names it, and the ``k`` that the study gives, if any; where a control is
    made of it (``is_control``), that is the control's if the checkpoint has its own."""

    path: Path
    reference: str
    k: int | None = None
    is_control: bool = False


class Format(Protocol):
    """A checkpoint format; `latentlake.coders.formats` has one class each.

    ``version``: raised by hand whenever it would read a checkpoint otherwise than before; activations are then computed anew.
    """

    version: str

    @staticmethod
    def files(path: Path) -> list[Path]:
        """The files that make up a checkpoint at a path, there or not, weights first; none where a path cannot be one."""
        ...

    @staticmethod
    def read(source: Source) -> tuple[Parameters, Stated]:
        """A checkpoint's parameters, on the CPU, and what it says of itself.

        Raises:
            InputError: it is not complete, or disagrees with itself.
        """
        ...


@dataclass(frozen=True)
class Control:
    """A control of a coder (`latentlake.coders.controls`): its kind, what is drawn, and ``k`` in place of the coder's rule."""

    kind: str
    seed: int
    k: int | None = None


def locate(reference: str, base: Path, revision: str | None = None) -> Path:
    """Where a coder lies: a path relative to ``base``, or ``ORGANISATION/NAME[/FOLDER OR FILE]`` of the Hugging Face hub.

    Raises:
        InputError: there is nothing at that path, or the hub does not give it.
    """
    path = base / reference
    if path.exists():
        if revision is not None:
            raise InputError(f"Coder {reference!r} lies on the disk and has no revisions. Leave out `revision`.")
        return path
    on_hub = _ON_HUB.fullmatch(reference)
    if on_hub is None or reference.startswith("."):
        raise InputError(f"Coder {reference!r}: there is nothing at {path}. Correct the path in the study.")
    inside, names = on_hub["inside"], _names()
    # of this coder alone: a repository may hold hundreds
    wanted = [inside, *(f"{inside}/{name}" for name in names)] if inside else names
    folder = snapshot(on_hub["repository"], revision, wanted, "Coder")
    if inside and not (folder / inside).exists():
        raise InputError(f"Coder {reference!r}: the repository has no {inside!r}. Correct the folder in the study.")
    return folder / inside if inside else folder


def _names() -> list[str]:
    """What files of a coder are called in its folder, in any format."""
    formats: dict[str, type[Format]] = CODERS.classes()
    return sorted({file.as_posix() for each in formats.values() for file in each.files(Path())} | {"config.json"})


def format_of(path: Path, reference: str) -> str:
    """The format of a checkpoint, by its files.

    Raises:
        InputError: it is none that is known; the message names what each has.
    """
    formats: dict[str, type[Format]] = CODERS.classes()
    for name, each in formats.items():
        files = each.files(path)
        if files and all(file.is_file() for file in files):
            return name
    wanted = {
        name: " and ".join(file.relative_to(path).as_posix() if file != path else "a file" for file in each.files(path))
        for name, each in formats.items()
    }
    listed = "; ".join(f"{name}: {files}" for name, files in wanted.items() if files)
    raise InputError(f"Coder {reference!r}: the format of {path} is not known. Expected are, of {listed}.")


def facts(kind: str, source: Source) -> Facts:
    """Facts of a checkpoint of a format, which is read in full and verified.

    Raises:
        InputError: as `Format.read`.
    """
    return facts_of(*_read(kind, source))


def _read(kind: str, source: Source) -> tuple[Parameters, Stated]:
    reader: type[Format] = CODERS[kind]
    try:
        return reader.read(source)
    except InputError as error:
        raise InputError(f"{error} (read as {kind})") from error


def open_coder(kind: str, source: Source, device: str, control: Control | None = None) -> SparseCoder:
    """The coder of a checkpoint of a format, or a control of it.

    Raises:
        InputError: as `Format.read`.
    """
    parameters, _ = _read(kind, source)
    if control is not None:
        parameters = controlled(parameters, control.kind, control.seed, control.k)
    return SparseCoder(parameters, source.reference, device)
