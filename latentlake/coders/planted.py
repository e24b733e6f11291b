"""Planted dictionaries: latents whose meaning is known, since they fire by rules on the texts and not by what a model computes.

A file holds the rules, one a latent, in their order: a JSON list of objects with a ``kind`` and what it asks for. What a judge
makes of true and of false explanations of such latents says what it is worth (compare FIND, arXiv 2309.03886).
"""

import json
import re
from abc import abstractmethod
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import polars as pl
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError, field_validator

from latentlake.digest import mix, seed_of
from latentlake.errors import InputError

VERSION = "1"  # raised by hand whenever the same rules would fire elsewhere, or otherwise
FIRES = "fires"  # the group of a pattern on which its latent fires

Word = Annotated[str, Field(pattern=r"^\w.*\w$|^\w$")]
Span = tuple[int, int]


class _Rule(BaseModel):
    """A rule. ``spans``: from which character on, and up to which, it fires in a document."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    @abstractmethod
    def spans(self, document: str, text: str) -> Iterator[Span]: ...


class _Words(_Rule):
    """Fires on whole words, in capitals or not."""

    @property
    @abstractmethod
    def all(self) -> Sequence[str]: ...

    def spans(self, document: str, text: str) -> Iterator[Span]:
        return (match.span() for match in self._pattern.finditer(text))

    @cached_property
    def _pattern(self) -> re.Pattern[str]:
        longest_first = sorted(self.all, key=len, reverse=True)
        return re.compile(rf"\b(?:{'|'.join(map(re.escape, longest_first))})\b", re.IGNORECASE)


class TokenRule(_Words):
    """A word."""

    kind: Literal["token"]
    word: Word

    @property
    def all(self) -> Sequence[str]:
        """The word."""
        return (self.word,)


class ClassRule(_Words):
    """Words of a class."""

    kind: Literal["class"]
    words: Annotated[tuple[Word, ...], Field(min_length=2)]

    @property
    def all(self) -> Sequence[str]:
        """The words."""
        return self.words


class ContextRule(_Rule):
    """What stands in the group ``fires`` of a regular expression: ``(?:Battle|Siege) (?P<fires>of)``."""

    kind: Literal["context"]
    pattern: str

    @field_validator("pattern")
    @classmethod
    def _has_a_marked_group(cls, pattern: str) -> str:
        try:
            groups = re.compile(pattern).groupindex
        except re.error as error:
            raise ValueError(f"{pattern!r} is no regular expression: {error}") from error
        if FIRES not in groups:
            raise ValueError(f"{pattern!r} has no group (?P<{FIRES}>…), which says on what the latent fires")
        return pattern

    def spans(self, document: str, text: str) -> Iterator[Span]:
        """The marked groups."""
        return (match.span(FIRES) for match in re.finditer(self.pattern, text) if match[FIRES])


class TopicRule(_Rule):
    """Whole documents of a topic, which is what the corpus calls them (``id`` of its sources)."""

    kind: Literal["topic"]
    topic: Annotated[str, Field(min_length=1)]

    def spans(self, document: str, text: str) -> Iterator[Span]:
        """All or nothing."""
        return iter([(0, len(text))] if document == self.topic else [])


Rule = TokenRule | ClassRule | ContextRule | TopicRule
_RULE: TypeAdapter[Rule] = TypeAdapter(Annotated[Rule, Field(discriminator="kind")])


def read_rules(path: Path) -> list[Rule]:
    """The rules of a file, by latent.

    Raises:
        InputError: the file cannot be read, holds no list, or a rule is none.
    """
    try:
        entries = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{path} cannot be read as rules: {error}") from error
    if not isinstance(entries, list) or not entries:
        raise InputError(
            f'{path} holds no latent; it must be a JSON list of rules, like {{"kind": "token", "word": "river"}}'
        )
    return [_rule(path, latent, entry) for latent, entry in enumerate(entries)]


def _rule(path: Path, latent: int, entry: Any) -> Rule:
    try:
        return _RULE.validate_python(entry)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"][1:])
        said = first["msg"].removeprefix("Value error, ")
        raise InputError(f"{path}, latent {latent}{f', {place}' if place else ''}: {said}") from error


def fire(rules: Sequence[Rule], documents: pl.DataFrame, tokens: pl.DataFrame) -> tuple[np.ndarray, np.ndarray]:
    """Where latents fire in a shard: latents and positions, int64 [firings], by latent and position.

    A latent fires on every token that holds a character of what its rule says. ``documents``: number, document and text.
    ``tokens``: number of its document, begin and end in characters of it, and position of each token, as
    `latentlake.sampling.texts.tokens_of` gives them.
    """
    number, begin, end, position = (tokens[name].to_numpy() for name in ("number", "begin", "end", "position"))
    found: list[list[np.ndarray]] = [[np.zeros(0, np.int64)] for _ in rules]
    for own, document, text in documents.select("number", "document", "text").iter_rows():
        here = slice(*np.searchsorted(number, [own, own + 1]))
        for latent, rule in enumerate(rules):
            for first, last in rule.spans(document, text):
                reached = slice(np.searchsorted(end[here], first, "right"), np.searchsorted(begin[here], last, "left"))
                found[latent].append(position[here][reached])
    positions = [np.unique(np.concatenate(each)) for each in found]
    latents = np.repeat(np.arange(len(rules)), [len(each) for each in positions])
    return latents, np.concatenate(positions)


def strengths(latents: np.ndarray, positions: np.ndarray, shard: str) -> np.ndarray:
    """How strongly they fire: 1 and a fraction, by a hash of latent and place, so that there are deciles; float32 like both."""
    hashes = mix(positions, seed_of("planted", shard)) ^ mix(latents, seed_of("planted latent"))
    drawn: np.ndarray = (1 + mix(hashes, np.uint64(1)) / np.float64(2**64)).astype(np.float32)
    return drawn
