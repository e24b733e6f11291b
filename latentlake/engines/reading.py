"""Reading prompts with a causal language model: what of a batch is computed, and what is kept of it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from inspect import signature
from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache

from latentlake.engines.batches import padded
from latentlake.engines.prefix import SharedPrefix


@dataclass
class Fed:
    """Where a batch stands: keys and values, mask [rows, tokens], next positions [rows], float32 logits."""

    cache: DynamicCache
    mask: Tensor
    positions: Tensor
    logits: Tensor

    def select(self, rows: Tensor) -> None:
        """Keep these rows, in this order; a row may be named more than once."""
        self.cache.batch_select_indices(rows)
        self.mask, self.positions, self.logits = self.mask[rows], self.positions[rows], self.logits[rows]


class Reader:
    """Feeds prompts to a model from `AutoModelForCausalLM`; to be used within inference mode."""

    def __init__(self, model: Any) -> None:
        self._model = model
        self._takes_positions = (
            "position_ids" in signature(type(model).forward).parameters
        )  # others read them off the mask
        self._shared = SharedPrefix(model)

    def read(self, prefix: Sequence[int], suffixes: Sequence[Sequence[int]], places: Sequence[Sequence[int]]) -> Fed:
        """Read the prefix's last token and each suffix, after the keys and values of the rest of the prefix.

        ``places``: after how many tokens of each suffix logits are wanted, in order; 0 is after the prefix. Logits: [places of
        all suffixes end to end, vocabulary].
        """
        device = self._model.device
        cached = len(prefix) - 1
        fed = [[prefix[-1], *suffix] for suffix in suffixes]
        lengths = torch.tensor([len(row) for row in fed], device=device)
        columns = torch.arange(int(lengths.max()), device=device)
        is_token = columns < lengths[:, None]
        tokens = torch.zeros(is_token.shape, dtype=torch.long, device=device)
        tokens[is_token] = torch.tensor([token for row in fed for token in row], device=device)
        mask = torch.cat([is_token.new_ones(len(fed), cached), is_token], 1)
        cache = self._shared.expanded(prefix[:-1], len(fed))
        is_wanted = torch.zeros_like(is_token)
        wanted = [(row, place) for row, own in enumerate(places) for place in own]
        is_wanted[tuple(torch.tensor(wanted, dtype=torch.long, device=device).reshape(-1, 2).T)] = True
        with self._head_at(is_wanted):
            logits = self._forward(tokens, mask, (cached + columns).expand(len(fed), -1), cache)
        return Fed(cache, mask, cached + lengths, logits)

    def whole(self, prompts: Sequence[Sequence[int]]) -> tuple[DynamicCache, Tensor]:
        """Read prompts from their beginnings: keys and values of their tokens, which padding follows, and float32 logits
        [prompts, vocabulary] after their last ones.

        Padding on the right is never attended to by what precedes it, and without a mask attention is faster.
        """
        tokens, is_token = padded(prompts)
        places = torch.arange(tokens.shape[1])
        cache = DynamicCache()
        with self._head_at(places == is_token.sum(1, keepdim=True) - 1):
            output = self._model(input_ids=tokens.to(self._model.device), past_key_values=cache, use_cache=True)
        logits: Tensor = output.logits.float()
        return cache, logits

    def step(self, fed: Fed, tokens: Tensor) -> None:
        """Read one more token a row, [rows]."""
        fed.mask = torch.cat([fed.mask, fed.mask.new_ones(len(tokens), 1)], 1)
        fed.logits = self._forward(tokens[:, None], fed.mask, fed.positions[:, None], fed.cache)[:, -1]
        fed.positions = fed.positions + 1

    def _forward(self, tokens: Tensor, mask: Tensor, positions: Tensor, cache: DynamicCache) -> Tensor:
        output = self._model(
            input_ids=tokens,
            attention_mask=mask.long(),
            past_key_values=cache,
            use_cache=True,
            **({"position_ids": positions} if self._takes_positions else {}),
        )
        logits: Tensor = output.logits.float()
        return logits

    @contextmanager
    def _head_at(self, is_wanted: Tensor) -> Iterator[None]:
        """Let the model compute logits at these places only, end to end: the head is a fifth of a small model's work,
        and its output over all places would be its largest tensor."""
        head = self._model.get_output_embeddings()
        handle = head.register_forward_pre_hook(lambda _, inputs: (inputs[0][is_wanted.to(inputs[0].device)],))
        try:
            yield
        finally:
            handle.remove()
