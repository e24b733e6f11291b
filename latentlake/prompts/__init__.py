"""What is shown to a language model: text files, one a prompt.

What belongs here: the texts. What does not: how they are filled (explainers and scorers) or sent (engines). A file has
two parts, divided by a line that holds only ``%%``: the prefix, which many calls share and engines compute once, and the
suffix. The line breaks before and after that line belong to neither. ``$name`` stands for what is filled in (``$$`` for
a dollar sign).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from string import Template

from latentlake.digest import digest

_PACKAGED = Path(__file__).parent
_DIVIDER = "\n%%\n"


@dataclass(frozen=True)
class Prompt:
    """A prompt's two parts, with places to fill in."""

    prefix: str
    suffix: str

    @property
    def digest(self) -> str:
        """Digest of both parts; it belongs to the recipe of whatever uses the prompt."""
        return digest([self.prefix, self.suffix])

    def require_places(self, places: tuple[Sequence[str], Sequence[str]]) -> None:
        """Refuse a prompt that has other places than ``places`` (of prefix and suffix).

        Raises:
            ValueError: a place is missing, or one would not be filled.
        """
        for part, text, wanted in zip(("prefix", "suffix"), (self.prefix, self.suffix), places, strict=True):
            found = set(Template(text).get_identifiers())
            if found != set(wanted):
                names = ", ".join(f"${name}" for name in wanted) or "no places"
                raise ValueError(f"its {part} must have {names} and has {', '.join(sorted(found)) or 'none'}")

    def fill_prefix(self, **values: str) -> str:
        """The shared part; every place must be given."""
        return Template(self.prefix).substitute(values)

    def fill_suffix(self, **values: str) -> str:
        """The part of one call; every place must be given."""
        return Template(self.suffix).substitute(values)


def read_prompt(name: str, home: Path) -> Prompt:
    """A prompt by name: one of this folder's, or a ``.txt`` file relative to ``home``.

    Raises:
        OSError: there is no such file, or it is not divided into prefix and suffix.
    """
    path = home / name if name.endswith(".txt") else _PACKAGED / f"{name}.txt"
    text = path.read_text(encoding="utf-8")
    if text.count(_DIVIDER) != 1:
        raise OSError(
            f"{path}: a prompt has one line '%%' between prefix and suffix, this one has {text.count(_DIVIDER)}"
        )
    prefix, suffix = text.split(_DIVIDER)
    return Prompt(prefix, suffix.removesuffix("\n"))
