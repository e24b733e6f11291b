"""Calls as token ids, for the engines that feed a model themselves: where BOS goes, and how a chat is written out."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from itertools import accumulate, pairwise
from pathlib import Path
from typing import Any, NamedTuple

from latentlake.engines.loading import load_tokenizer
from latentlake.engines.places import places_of, reads_prompt
from latentlake.errors import InputError
from latentlake.protocols import Call, Choose, Message, Sampling, Score

# Parts a chat that has been written out; no text holds it.
_MARK = "\x00latentlake\x00"


class Prompt(NamedTuple):
    """What a model is fed: token ids of what many calls share, never none, and of what is a call's own.

    ``places``: after how many tokens of the suffix the next one's log-probabilities are wanted.
    """

    prefix: list[int]
    suffix: list[int]
    places: Sequence[int]


class _Parts(NamedTuple):
    """A prompt as texts, its suffix in pieces, and whether the prefix is a chat's beginning, which holds its special tokens
    already.
    """

    prefix: str
    pieces: list[str]
    is_chat: bool


class Prompts:
    """Turns calls into token ids with the tokenizer of a model's directory.

    Prefix and suffix are tokenized apart, and so are the parts of a suffix between the places that its sampling names; what
    stands behind the last place of a `Choose` is not read. The token that opens a text (BOS) is put before a prefix that has no
    token, or where the tokenizer itself would put it, and never twice. A chat is written out by the tokenizer's template with the
    prompt as the user's last message; what comes before the suffix is the prefix then, and the suffix goes on to where the
    reply begins, but where its own tokens are wanted: there it is the call's suffix alone.
    """

    def __init__(self, path: Path, tokenizer: Any = None) -> None:
        self._path = path
        self.tokenizer = load_tokenizer(path) if tokenizer is None else tokenizer
        self._prefixes: dict[tuple[str, bool], list[int]] = {}

    def of(self, calls: Sequence[Call]) -> list[Prompt]:
        """The prompts of calls, in their order; quickest where calls that share a prefix follow one another.

        Raises:
            InputError: a chat, and the tokenizer has no template for it; an empty prefix, and it has no BOS.
        """
        parts = [self._parts(call) for call in calls]
        tokens = iter(self.encode([piece for each in parts for piece in each.pieces]))
        return [
            self._prompt(call.sampling, each, [next(tokens) for _ in each.pieces])
            for call, each in zip(calls, parts, strict=True)
        ]

    def firsts(self, sampling: Choose, is_chat: bool) -> list[int]:
        """The first token of each choice. A chat's reply begins without a space.

        Raises:
            InputError: a choice has no token, or the same first one as another.
        """
        is_reply = is_chat and not sampling.after
        choices = [choice.strip() if is_reply else choice for choice in sampling.choices]
        tokens = self.encode(choices)
        if not all(tokens):
            raise InputError(f"A choice of {sampling.choices} has no token. Leave the empty string out.")
        known: dict[int, str] = {}
        for choice, (first, *_) in zip(choices, tokens, strict=True):
            if known.setdefault(first, choice) != choice:
                raise InputError(
                    f"Model {self._path}: the choices {known[first]!r} and {choice!r} begin with the same token, by which they "
                    "cannot be told apart. Name other choices, or another model."
                )
        return [each[0] for each in tokens]

    def encode(self, texts: Iterable[str]) -> list[list[int]]:
        """Token ids of texts, with nothing added."""
        listed = list(texts)
        if not listed:
            return []
        tokens: list[list[int]] = self.tokenizer(listed, add_special_tokens=False, verbose=False)["input_ids"]
        return tokens

    def _prompt(self, sampling: Sampling, parts: _Parts, pieces: list[list[int]]) -> Prompt:
        suffix, ends = [token for piece in pieces for token in piece], list(accumulate(map(len, pieces)))
        places = range(len(suffix) - len(pieces[-1]), len(suffix)) if isinstance(sampling, Score) else ends
        return Prompt(self._prefix(parts), suffix, places)

    def _parts(self, call: Call) -> _Parts:
        if call.chat is None:
            return _Parts(call.prefix, _pieces(call), is_chat=False)
        end = _MARK if reads_prompt(call.sampling) else ""
        text = self._written(call.chat, call.prefix + _MARK + call.suffix + end)
        parts = text.split(_MARK)
        if len(parts) != (3 if end else 2):
            raise InputError(
                f"Model {self._path}: its chat template does not give the user's message back once and whole."
            )
        return _Parts(parts[0], _pieces(replace(call, suffix=parts[1])), is_chat=True)

    def _written(self, chat: Sequence[Message], said: str) -> str:
        """A chat as text, up to where the reply begins. Where a template knows no system message, the user says it first."""
        if not self.tokenizer.chat_template:
            raise InputError(f"Model {self._path} has no chat template. Name a model that is made for chats.")
        everything = [*chat, Message("user", said)]
        messages = [{"role": each.role, "content": each.text} for each in everything]
        try:
            text: str = self.tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
        except Exception as error:  # templates raise what they like, such as that they know no system message
            if [each.role for each in everything[:2]] == ["system", "user"]:
                *before, last = _said_first(everything)
                return self._written(before, last.text)
            raise InputError(f"Model {self._path}: its chat template refuses the chat ({error}).") from error
        return text

    def _prefix(self, parts: _Parts) -> list[int]:
        """Tokens of a prefix; those of the last one are kept, since prefixes are long and come many times in a row."""
        key = (parts.prefix, parts.is_chat)
        if key not in self._prefixes:
            [tokens] = self.encode([parts.prefix])
            self._prefixes = {key: self._opened(tokens, parts.is_chat)}
        return self._prefixes[key]

    def _opened(self, tokens: list[int], is_chat: bool) -> list[int]:
        """A prefix with BOS before it where that is due."""
        opening = self.tokenizer.bos_token_id
        is_usual = not is_chat and self.tokenizer("")["input_ids"][:1] == [opening]
        if opening is not None and (not tokens or is_usual) and tokens[:1] != [opening]:
            tokens = [opening, *tokens]
        if not tokens:
            raise InputError(f"Model {self._path}: an empty prefix needs a BOS token, and its tokenizer has none.")
        return tokens


def _pieces(call: Call) -> list[str]:
    """A suffix, cut at the places that its sampling names."""
    places = places_of(call)
    ends = [*places, len(call.suffix)] if isinstance(call.sampling, Score) else places
    return [call.suffix[begin:end] for begin, end in pairwise([0, *ends])]


def _said_first(chat: Sequence[Message]) -> list[Message]:
    """A chat in which the user says what its system message says."""
    system, first, *others = chat
    return [Message("user", f"{system.text}\n\n{first.text}"), *others]
