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
        prefix, suffix = (Template(each).substitute(values) for each in (self.prefix, self.suffix))
        said = [Message(each.role, Template(each.text).substitute(values)) for each in self.said]
        if not self.said:
            return Call(prefix, suffix, sampling, draw)
        if is_chat:
            return Call(prefix, suffix, sampling, draw, tuple(self._without_cue(each) for each in said))
        return Call(_as_text(said) + prefix, f"{suffix}\n{self.cue}" if self.cue else suffix, sampling, draw)

    def _without_cue(self, message: Message) -> Message:
        is_reply = message.role == "assistant"
        return Message(message.role, message.text.removeprefix(self.cue).lstrip() if is_reply else message.text)


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


def _as_text(said: Sequence[Message]) -> str:
    """A chat as the beginning of a text: a reply follows in the next line, what is said after it a line further down."""
    follows = {"system": "\n\n", "user": "\n", "assistant": "\n\n"}
    return "".join(each.text + follows[each.role] for each in said)
