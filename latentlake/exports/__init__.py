"""Forms in which results travel to and from other tools: one file each, with one registered class.

What belongs here: how a form's files are laid out, what of a lake stands where in them, and how they are read. What does not:
what is exported, and when it counts (``exporting.py``), what an import becomes in a study (``importing.py``).

To add one: a file with a subclass of `Form`, registered in `latentlake.registry.EXPORTS`.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

if TYPE_CHECKING:
    from latentlake.exports.given import Given

PROVENANCE = "provenance.json"  # what the files beside it were made from


@dataclass(frozen=True)
class Said:
    """An explanation that a file holds.

    ``source``: what the form calls the coder. ``explainer``: what it says of where the explanation is from, empty where it says
    nothing. ``place``: file and line, for messages. ``extra``: whatever else the form says of it.
    """

    source: str
    explainer: str
    latent: int
    explanation: str | None
    place: str
    extra: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Rated:
    """A score that a file holds; ``scorer`` is named after it and its metric. The rest as in `Said`."""

    source: str
    explainer: str
    scorer: str
    latent: int
    value: float
    place: str
    extra: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class LeftOut:
    """Something in a file that is not taken over. ``what``: in words, the same for all of a kind."""

    what: str


Entry = Said | Rated | LeftOut


class Form(ABC):
    """A form. ``title``: whose it is, for messages. Beside its files `latentlake.exporting` puts ``provenance.json``."""

    title: ClassVar[str]

    @abstractmethod
    def write(self, given: "Given", folder: Path) -> None:
        """Write what is given into an empty folder, a part at a time. The same results give the same bytes."""

    @abstractmethod
    def read(self, path: Path) -> Iterator[Entry]:
        """What files of the form say, in an order that does not depend on the file system.

        Raises:
            InputError: something is not of the form; the message names file, line and field.
        """
