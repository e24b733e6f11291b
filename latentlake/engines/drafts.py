"""Text in the making: how tokens are drawn, and when a completion ends."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from latentlake.engines.seeds import seed_of
from latentlake.protocols import Call, Generate, Likely

Decode = Callable[[list[int]], str]


def generator(call: Call) -> torch.Generator:
    """A source of randomness for a call's draw."""
    return torch.Generator().manual_seed(seed_of(call))


def ends_of(model: Any, tokenizer: Any) -> frozenset[int]:
    """Tokens that end a completion."""
    named = model.generation_config.eos_token_id
    tokens = named if isinstance(named, list) else [named]
    return frozenset(token for token in [*tokens, tokenizer.eos_token_id] if token is not None)


def draw(logits: Tensor, sampling: Generate, generators: Sequence[torch.Generator]) -> Tensor:
    """The next token of each row, int64 [rows], from logits [rows, vocabulary], with one random number a row.

    By inversion in the order of the vocabulary, not of the likelihood: rounding that differs between batches then
    changes a token only where the random number falls on an edge.
    """
    if sampling.temperature == 0:
        return logits.argmax(-1)
    weights = (logits.double() / sampling.temperature).softmax(-1).cpu()
    if sampling.top_p < 1:
        weights = _nucleus(weights, sampling.top_p)
    heights = weights.cumsum(-1)
    random = torch.cat([torch.rand(1, dtype=torch.float64, generator=each) for each in generators])
    aim = (random * heights[:, -1])[:, None]
    chosen = torch.searchsorted(heights, aim, right=True).squeeze(1)
    return chosen.clamp(max=logits.shape[-1] - 1).to(logits.device)


def _nucleus(weights: Tensor, top_p: float) -> Tensor:
    """The fewest likeliest tokens whose probabilities reach ``top_p``; 0 elsewhere."""
    # Tokens so unlikely that all of the vocabulary like them would make up the rest are outside; sorting them too
    # would take a fifth of a small model's step.
    candidates = int((weights >= (1 - top_p) / weights.shape[-1]).sum(-1).max())
    ordered = weights.topk(candidates).values
    is_inside = ordered.cumsum(-1) - ordered < top_p
    least = ordered.masked_fill(~is_inside, 1.0).amin(-1, keepdim=True)
    return weights.where(weights >= least, 0.0)


@dataclass(frozen=True)
class Form:
    """The strings of which a completion is to be one, as tokens; ``ends``: tokens that end it."""

    choices: Sequence[Sequence[int]]
    ends: Collection[int]

    def next(self, tokens: Sequence[int]) -> set[int]:
        """Tokens that may follow some tokens."""
        begun = [each for each in self.choices if list(each[: len(tokens)]) == list(tokens)]
        following = {each[len(tokens)] for each in begun if len(each) > len(tokens)}
        is_whole = any(len(each) == len(tokens) for each in begun)
        return following | set(self.ends) if is_whole and following else following

    def is_ended(self, tokens: Sequence[int]) -> bool:
        """Whether nothing may follow."""
        return not self.next(tokens)


def allowed(logits: Tensor, drafts: Sequence[Draft]) -> Tensor:
    """Logits [rows, vocabulary] with those tokens left out that a draft's form does not allow next."""
    rows = [(row, draft.form.next(draft.tokens)) for row, draft in enumerate(drafts) if draft.form and not draft.finish]
    if not rows:
        return logits
    kept = torch.full_like(logits, -torch.inf)
    for row, tokens in rows:
        own = sorted(tokens)
        kept[row, own] = logits[row, own]
    ended = [row for row, draft in enumerate(drafts) if draft.finish]
    kept[ended] = logits[ended]
    return kept


Places = list[tuple[float, list[tuple[int, float]]]]


def likeliest(logits: Tensor, tokens: Tensor, number: int) -> Places:
    """For each row of logits the log-probability of its token, and the likeliest tokens with theirs, in nats."""
    logprobs = logits.float().log_softmax(-1)
    own = logprobs.gather(1, tokens[:, None])[:, 0].tolist()
    values, tops = logprobs.topk(number)
    pairs = [list(zip(*row, strict=True)) for row in zip(tops.tolist(), values.tolist(), strict=True)]
    return list(zip(own, pairs, strict=True))


@dataclass
class Draft:
    """One completion as it grows, ended by a token of ``ends``, a string of ``sampling.stop``, its form or its length.

    ``places``: log-probabilities at each token that was added, as `likeliest` gives them.
    """

    sampling: Generate
    ends: Collection[int]
    decode: Decode
    form: Form | None = None
    tokens: list[int] = field(default_factory=list)
    finish: str | None = None
    places: Places = field(default_factory=list)

    def add(self, token: int, place: tuple[float, list[tuple[int, float]]] | None = None) -> None:
        """Take the next token, and note where it ends the completion."""
        self.tokens.append(token)
        if place is not None:
            self.places.append(place)
        is_formed = self.form is not None and self.form.is_ended(self.tokens)
        if is_formed or token in self.ends or self._stop_at(self._decoded()) is not None:
            self.finish = "stop"
        elif len(self.tokens) >= self.sampling.max_tokens:
            self.finish = "length"

    @property
    def text(self) -> str:
        """The completion up to its first stop string."""
        text = self._decoded()
        return text[: self._stop_at(text)]

    @property
    def logprobs(self) -> tuple[float, ...] | None:
        """Log-probability of each token, in nats."""
        return tuple(rounded(own) for own, _ in self.places) if self.sampling.likeliest else None

    @property
    def likeliest(self) -> tuple[tuple[Likely, ...], ...] | None:
        """The likeliest tokens at the place of each."""
        if not self.sampling.likeliest:
            return None
        return tuple(
            tuple(Likely(self.decode([token]), rounded(value)) for token, value in tops) for _, tops in self.places
        )

    def _decoded(self) -> str:
        return self.decode([token for token in self.tokens if token not in self.ends])

    def _stop_at(self, text: str) -> int | None:
        return min((text.index(stop) for stop in self.sampling.stop if stop in text), default=None)


def rounded(nats: float) -> float:
    """To 6 significant digits, which are what batches of different sizes agree on."""
    return float(f"{nats:.6g}")
