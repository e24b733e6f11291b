"""Keys and values of a prompt's shared beginning, computed once for all the prompts that open with it."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import torch
from transformers import DynamicCache

# Tokens a forward pass takes of a prefix. What is kept from one prefix to the next is whole chunks, so that the keys
# of a token come from the same computation, bit for bit, whatever prefixes were answered before it: a run that
# resumes in the middle gets the numbers it would have got. Below 32 the weights' bandwidth bounds the pass.
CHUNK = 64


class SharedPrefix:
    """The cache of the latest prefix of a causal language model; the next one reuses what they have in common."""

    def __init__(self, model: Any) -> None:
        self._model = model
        self._tokens: list[int] = []
        self._cache = DynamicCache()

    def expanded(self, tokens: Sequence[int], rows: int) -> DynamicCache:
        """A cache of so many rows, each holding the keys and values of ``tokens``; the caller's to extend."""
        if list(tokens) != self._tokens:
            self._move(list(tokens))
        cache = copy.deepcopy(self._cache)
        cache.batch_select_indices(torch.zeros(rows, dtype=torch.long, device=self._model.device))
        return cache

    @torch.inference_mode()
    def _move(self, tokens: list[int]) -> None:
        kept = _common(self._tokens, tokens) // CHUNK * CHUNK
        if kept:
            self._cache.crop(kept - len(self._tokens))
        else:
            self._cache = DynamicCache()
        for start in range(kept, len(tokens), CHUNK):
            chunk = torch.tensor([tokens[start : start + CHUNK]], device=self._model.device)
            self._model.base_model(input_ids=chunk, past_key_values=self._cache, use_cache=True)
        self._tokens = tokens


def _common(one: Sequence[int], other: Sequence[int]) -> int:
    """How many tokens two sequences have in common at their beginning."""
    pairs = zip(one, other, strict=False)
    return next((place for place, (left, right) in enumerate(pairs) if left != right), min(len(one), len(other)))
