"""Prompts that are read once, but for their last tokens, and continued with a push: what steering asks of a subject.

A push begins at a prompt's last token, so that the keys and values of those before it are the same without it and with any: a
search over strengths costs a pass of one token each.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import kl_div
from transformers import DynamicCache

from latentlake.engines.batches import cut, runs
from latentlake.engines.drafts import draw, rounded
from latentlake.engines.modules import Place, UnknownArchitectureError, replace
from latentlake.engines.reading import Fed, Reader
from latentlake.engines.skeleton import decoder_of
from latentlake.errors import InputError
from latentlake.protocols import Continuation, Generate

# Numbers that the head gives at once: 256 MiB in double precision, of which several copies are made.
_LOGITS = 2**25
# Tokens whose keys and values are kept of prompts, and as many of their continuations, in multiples of `batch_tokens`.
_KEPT = 2

# Keys and values by turns, of each block [prompts, heads, tokens, width]; None of a block that uses another's.
_States = list[Tensor | None]


@dataclass(frozen=True)
class Steered:
    """The model with its head whose prompts are read, and what bounds a batch.

    ``place``: where a hookpoint lies; ``ends``: tokens that end a text; ``longest``: positions that the model has.
    """

    model: Any
    place: Callable[[str], Place]
    ends: Collection[int]
    batch_tokens: int
    longest: int | None

    def reads(self, rows: int, longest: int) -> bool:
        """Whether so many prompts are read in one pass."""
        return rows * longest <= self.batch_tokens

    def keeps(self, rows: int, longest: int) -> bool:
        """Whether there is room for keys, values and logits of so many rows."""
        vocabulary = self.model.get_input_embeddings().weight.shape[0]
        return rows * longest <= _KEPT * self.batch_tokens and rows * vocabulary <= _LOGITS


def require_able(decoder: Any, prompts: Sequence[Sequence[int]]) -> None:
    """Refuse, before any work, what could not be continued."""
    if getattr(decoder, "_is_stateful", False):
        raise UnknownArchitectureError(
            f"unknown architecture: a {type(decoder).__name__} keeps a state in the place of keys and values, which is not known "
            "for each token; leave interventions out of the study"
        )
    empty = next((number for number, prompt in enumerate(prompts) if not prompt), None)
    if empty is not None:
        raise InputError(
            f"Prompt {empty} of {len(prompts)} has no token. Give it one, such as the one that opens a text."
        )


def together(
    prompts: Sequence[Sequence[int]], groups: Sequence[int], fits: Callable[[int, int], bool]
) -> Iterator[list[int]]:
    """Indices of prompts in batches of whole groups, as many as fit, and of one at least. Equal prompts count once."""
    batch: list[int] = []
    distinct: set[tuple[int, ...]] = set()
    for _, members in groupby(range(len(prompts)), key=groups.__getitem__):
        group = list(members)
        own = {tuple(prompts[index]) for index in group}
        if batch and not fits(len(distinct | own), max(map(len, distinct | own))):
            yield batch
            batch, distinct = [], set()
        batch += group
        distinct |= own
    if batch:
        yield batch


class HookedPrompts:
    """A batch of prompts that are read; implements `latentlake.protocols.Prompted`."""

    def __init__(self, steered: Steered, prompts: Sequence[Sequence[int]]) -> None:
        self._steered = steered
        self._reader = Reader(steered.model)
        distinct = sorted(set(map(tuple, prompts)), key=lambda own: (-len(own), own))
        number = {own: place for place, own in enumerate(distinct)}
        self._numbers = torch.tensor([number[tuple(prompt)] for prompt in prompts])
        self._lengths = torch.tensor([len(own) for own in distinct])
        self._last = torch.tensor([own[-1] for own in distinct])
        self._states, self._clean = self._read(distinct)

    def let_go(self) -> None:
        """Forget what was read."""
        del self._states, self._clean

    @torch.inference_mode()
    def _read(self, prompts: Sequence[Sequence[int]]) -> tuple[_States, Tensor]:
        """Keys and values of all tokens but the last, padded on the left, and the logits [prompts, vocabulary] after that."""
        parts: list[_States] = []
        clean: list[Tensor] = []
        for batch in cut([len(prompt) for prompt in prompts], self._steered.reads):  # in order, the longest being first
            cache, logits = self._reader.whole([prompts[index] for index in batch])
            parts.append(_left(cache, self._lengths[batch] - 1, len(prompts[0]) - 1))
            clean.append(logits)
        states = [None if some[0] is None else torch.cat(some) for some in zip(*parts, strict=True)]
        return states, torch.cat(clean)

    def next_tokens(self, of: Sequence[int], hookpoint: str, pushes: Tensor) -> Iterator[tuple[slice, Tensor, Tensor]]:
        """Log-probabilities of the next token, float64; as `latentlake.protocols.Prompted`.

        Raises:
            InputError: a hookpoint that the model does not have, or one of another width.
        """
        return self._next_tokens(self._numbers[list(of)], self._push(hookpoint, pushes))

    @torch.inference_mode()
    def _next_tokens(self, own: Tensor, push: _Push) -> Iterator[tuple[slice, Tensor, Tensor]]:
        for rows in runs(self._lengths[own].tolist(), self._steered.keeps):
            some = push.of(rows)
            with self._held(some):
                fed = self._fed(own[rows])
            yield rows, *self._logprobs(fed, own[rows], some)

    def continuations(
        self,
        of: Sequence[int],
        hookpoint: str,
        pushes: Tensor,
        max_tokens: int,
        temperature: float,
        seeds: Sequence[int],
    ) -> Iterator[list[tuple[int, Continuation]]]:
        """Texts drawn with the push held at every token; as `latentlake.protocols.Prompted`.

        Raises:
            InputError: a hookpoint that the model does not have, or one of another width, or more tokens than the model reads.
        """
        own, push, most = self._numbers[list(of)], self._push(hookpoint, pushes), self._steered.longest
        longest = max(self._lengths[own].tolist(), default=0)
        if most is not None and longest + max_tokens > most:
            raise InputError(
                f"A prompt of {longest} tokens goes on for {max_tokens}, but the subject reads {most} at most."
            )
        return self._continuations(own, push, Generate(max_tokens, temperature), seeds)

    @torch.inference_mode()
    def _continuations(
        self, own: Tensor, push: _Push, sampling: Generate, seeds: Sequence[int]
    ) -> Iterator[list[tuple[int, Continuation]]]:
        for rows in runs((self._lengths[own] + sampling.max_tokens).tolist(), self._steered.keeps):
            texts = [_Text(torch.Generator().manual_seed(seed)) for seed in seeds[rows]]
            some = push.of(rows)
            with self._held(some):
                fed = self._fed(own[rows])
                clean, pushed = self._logprobs(fed, own[rows], some)
                kls = kl_div(pushed, clean, reduction="none", log_target=True).sum(1).clamp(min=0).tolist()
                self._complete(fed, some, sampling, texts)
            found = [Continuation(text.tokens, rounded(kl)) for text, kl in zip(texts, kls, strict=True)]
            yield list(zip(range(rows.start, rows.stop), found, strict=True))

    def _fed(self, own: Tensor) -> Fed:
        """Prompts by their numbers, the last token read with whatever is held."""
        kept = self._lengths[own] - 1
        longest = int(kept.max())
        device = self._steered.model.device
        states = [None if some is None else some[:, :, some.shape[2] - longest :][own] for some in self._states]
        mask = torch.arange(longest) >= longest - kept[:, None]
        fed = Fed(
            DynamicCache(zip(states[::2], states[1::2], strict=True)), mask.to(device), kept.to(device), torch.empty(0)
        )
        self._reader.step(fed, self._last[own].to(device))
        return fed

    def _logprobs(self, fed: Fed, own: Tensor, push: _Push) -> tuple[Tensor, Tensor]:
        """Of the next token, without the push and with it; the same where that is 0, whatever the pass was rounded to."""
        clean = self._clean[own].double().log_softmax(-1)
        is_none = ~push.vectors.any(1, keepdim=True).to(clean.device)
        return clean, clean.where(is_none, fed.logits.double().log_softmax(-1))

    def _complete(self, fed: Fed, push: _Push, sampling: Generate, texts: list[_Text]) -> None:
        """Extend the texts, a token at a time, until all have ended; ended ones leave once they are half."""
        while True:
            tokens = draw(fed.logits, sampling, [text.generator for text in texts])
            for text, token in zip(texts, tokens.tolist(), strict=True):
                text.add(token, sampling.max_tokens, self._steered.ends)
            going = [row for row, text in enumerate(texts) if not text.is_ended]
            if not going:
                return
            if 2 * len(going) <= len(texts):
                rows = torch.tensor(going)  # on the CPU it is an index into what lies on any device
                fed.select(rows)
                push.vectors = push.vectors[rows]
                tokens, texts = tokens[rows], [texts[row] for row in going]
            self._reader.step(fed, tokens)

    def _push(self, hookpoint: str, vectors: Tensor) -> _Push:
        return _Push(hookpoint, self._steered.place(hookpoint), vectors)

    @contextmanager
    def _held(self, push: _Push) -> Iterator[None]:
        handle = replace(decoder_of(self._steered.model), push.place, push)
        try:
            yield
        finally:
            handle.remove()


@dataclass
class _Push:
    """What is added to a hookpoint's state in passes of one token a row; ``vectors``: [rows, width]."""

    hookpoint: str
    place: Place
    vectors: Tensor

    def of(self, rows: slice) -> _Push:
        """For some rows alone."""
        return _Push(self.hookpoint, self.place, self.vectors[rows])

    def __call__(self, state: Tensor) -> Tensor:
        if state.numel() != self.vectors.numel():
            raise InputError(
                f"{self.hookpoint} gives states {list(state.shape)} for one token of each row, to which pushes "
                f"{list(self.vectors.shape)} cannot be added. Name the hookpoint that the coder writes."
            )
        return state + self.vectors.to(state).reshape(state.shape)


@dataclass
class _Text:
    """A text as it grows, and its source of randomness."""

    generator: torch.Generator
    tokens: list[int] = field(default_factory=list)
    is_ended: bool = False

    def add(self, token: int, most: int, ends: Collection[int]) -> None:
        """Take the next token, unless the text has ended."""
        if self.is_ended:
            return
        if token not in ends:
            self.tokens.append(token)
        self.is_ended = token in ends or len(self.tokens) >= most


def _left(cache: DynamicCache, kept: Tensor, width: int) -> _States:
    """The first ``kept`` [prompts] tokens of each row of a cache, padded on the left to a width.

    On the left, since blocks that see a window of so many tokens count what is between two, padding too. What stands there is
    some token's, and not looked at.
    """
    places = (torch.arange(width) - (width - kept)[:, None]).clamp(min=0)[:, None, :, None]
    layers: list[Any] = cache.layers
    pairs = [(layer.keys, layer.values) if layer.is_initialized else (None, None) for layer in layers]
    return [None if some is None else some.take_along_dim(places.to(some.device), 2) for pair in pairs for some in pair]
