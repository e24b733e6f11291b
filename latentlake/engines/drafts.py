"""Text in the making: how tokens are drawn, and when a completion ends."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from latentlake.engines.seeds import seed_of
from latentlake.protocols import Call, Generate

Decode = Callable[[list[int]], str]


def generator(call: Call) -> torch.Generator:
    """A source of randomness for a call's draw."""
    return torch.Generator().manual_seed(seed_of(call))


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


@dataclass
class Draft:
    """One completion as it grows, ended by a token of ``ends``, a string of ``sampling.stop`` or its length."""

    sampling: Generate
    ends: Collection[int]
    decode: Decode
    tokens: list[int] = field(default_factory=list)
    finish: str | None = None

    def add(self, token: int) -> None:
        """Take the next token, and note where it ends the completion."""
        self.tokens.append(token)
        if token in self.ends or self._stop_at(self._decoded()) is not None:
            self.finish = "stop"
        elif len(self.tokens) >= self.sampling.max_tokens:
            self.finish = "length"

    @property
    def text(self) -> str:
        """The completion up to its first stop string."""
        text = self._decoded()
        return text[: self._stop_at(text)]

    def _decoded(self) -> str:
        return self.decode([token for token in self.tokens if token not in self.ends])

    def _stop_at(self, text: str) -> int | None:
        return min((text.index(stop) for stop in self.sampling.stop if stop in text), default=None)
