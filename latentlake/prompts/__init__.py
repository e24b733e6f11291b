"""What is shown to a language model: text files, one a prompt.

What belongs here: the texts. What does not: what they are filled with (explainers and scorers) or how they are sent (engines). A
file has two parts, divided by a line that holds only ``%%``: the prefix, which many calls share and engines compute once, and
the suffix. The line breaks before and after that line belong to neither. ``$name`` stands for what is filled in (``$$`` for a
dollar sign).

A prompt may be a chat: lines that hold only ``[system]``, ``[user]`` or ``[assistant]`` say who speaks. The divider stands in
what the user says last; a last ``[assistant]`` after it holds the cue, with which a reply begins. A model that chats is given the
messages, and no cues, since there the roles say who speaks; any other reads it all as one text that ends with the cue.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from string import Template
from typing import cast

from latentlake.digest import digest
from latentlake.protocols import Call, Message, Role, Sampling

_PACKAGED = Path(__file__).parent
_DIVIDER = "\n%%\n"
_ROLE = re.compile(r"^\[(system|user|assistant)\]\n", re.MULTILINE)


@dataclass(frozen=True)
class Prompt:
    """A prompt's two parts, with places to fill in. ``said``: of a chat the messages before; ``cue``: how replies begin."""

    prefix: str
    suffix: str
    said: tuple[Message, ...] = ()
    cue: str = ""

    @property
    def digest(self) -> str:
        """Digest of all parts; it belongs to the recipe of whatever uses the prompt."""
        return digest(
            [self.prefix, self.suffix, *([[list(each) for each in self.said], self.cue] if self.said else [])]
        )

    def require_places(self, places: tuple[Sequence[str], Sequence[str]]) -> None:
        """Refuse a prompt that has other places than ``places`` (of prefix and suffix).

        Raises:
            ValueError: a place is missing, or one would not be filled.
        """
        before = "".join(each.text for each in self.said) + self.prefix
        for part, text, wanted in zip(("prefix", "suffix"), (before, self.suffix), places, strict=True):
            found = set(Template(text).get_identifiers())
            if found != set(wanted):
                names = ", ".join(f"${name}" for name in wanted) or "no places"
                raise ValueError(f"its {part} must have {names} and has {', '.join(sorted(found)) or 'none'}")

    def call(self, sampling: Sampling, is_chat: bool, values: Mapping[str, str], draw: int = 0) -> Call:
        """The call that asks with this prompt; every place must be given.

        ``is_chat``: whether the model chats. A prompt without roles is then what the user says.
        """
        known = tuple((name, values[name]) for name in self._places)
        prefix, said = _beginning(self, is_chat, known)
        suffix = Template(self.suffix).substitute(values)
        cue = f"\n{self.cue}" if self.cue and said is None else ""
        return Call(prefix, suffix + cue, sampling, draw, said)

    def between(self, one: str, other: str) -> str:
        """What stands in the suffix between two places, without spaces at its end: behind it, and up to the end, the other is
        scored.

        Raises:
            ValueError: they do not follow one another there, with words between them, or something comes after them.
        """
        found = re.search(rf"\${one}\b([^$]*?)\s*\${other}$", self.suffix)
        if found is None or not found[1].strip() or self.cue:
            raise ValueError(
                f"it must end with ${one}, words of its own and ${other}, in this order, and its suffix is "
                f"{self.suffix + self.cue!r}"
            )
        return found[1]

    @cached_property
    def _places(self) -> list[str]:
        """Places before the suffix."""
        return Template("".join(each.text for each in self.said) + self.prefix).get_identifiers()


def read_prompt(name: str, home: Path) -> Prompt:
    """A prompt by name: one of this folder's, or a ``.txt`` file relative to ``home``.

    Raises:
        OSError: there is no such file, it is not divided into prefix and suffix, or its roles are in no such order.
    """
    path = home / name if name.endswith(".txt") else _PACKAGED / f"{name}.txt"
    text = path.read_text(encoding="utf-8")
    if text.count(_DIVIDER) != 1:
        raise OSError(
            f"{path}: a prompt has one line '%%' between prefix and suffix, this one has {text.count(_DIVIDER)}"
        )
    before, suffix = text.removesuffix("\n").split(_DIVIDER)
    _, *roles = _ROLE.split(before)
    if not roles:
        return Prompt(before, suffix)
    *said, (last, prefix) = zip(roles[::2], roles[1::2], strict=True)
    suffix, *cue = _ROLE.split(suffix)
    if not _ROLE.match(before) or last != "user" or (cue and (len(cue) != 2 or cue[0] != "assistant")):
        raise OSError(
            f"{path}: a chat begins with who speaks, what the user says last is divided, and only [assistant] may follow it"
        )
    messages = tuple(Message(cast(Role, role), words.removesuffix("\n")) for role, words in said)
    return Prompt(prefix, suffix.removesuffix("\n") if cue else suffix, messages, cue[1] if cue else "")


@lru_cache(maxsize=1024)
def _beginning(
    prompt: Prompt, is_chat: bool, values: tuple[tuple[str, str], ...]
) -> tuple[str, tuple[Message, ...] | None]:
    """What comes before the suffix, filled once for the many calls that have it in common: prefix, and messages of a chat."""
    prefix = Template(prompt.prefix).substitute(dict(values))
    said = [Message(each.role, Template(each.text).substitute(dict(values))) for each in prompt.said]
    if not said:
        return prefix, None
    if not is_chat:
        return _as_text(said) + prefix, None
    return prefix, tuple(_without_cue(each, prompt.cue) for each in said)


def _without_cue(message: Message, cue: str) -> Message:
    return message._replace(text=message.text.removeprefix(cue).lstrip()) if message.role == "assistant" else message


def _as_text(said: Sequence[Message]) -> str:
    """A chat as the beginning of a text: a reply follows in the next line, what is said after it a line further down."""
    follows = {"system": "\n\n", "user": "\n", "assistant": "\n\n"}
    return "".join(each.text + follows[each.role] for each in said)
