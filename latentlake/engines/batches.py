"""How items of different lengths are cut into batches, by nothing but their lengths and their order, and laid side by side."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor


def cut(lengths: Sequence[int], fits: Callable[[int, int], bool], rows: Sequence[int] | None = None) -> list[list[int]]:
    """Indices of the items, longest first and otherwise in order, cut greedily into batches of at least one item.

    The longest come first so that a batch too large for the memory fails at once and not after hours. The cut
    remembers nothing: without the items of the first batches, the later batches are the same.

    Args:
        lengths: length of each item, in tokens.
        fits: whether a batch of so many rows, the longest of this length, is small enough.
        rows: rows that each item takes; one where not given.
    """
    batches: list[list[int]] = []
    taken = longest = 0
    for index in sorted(range(len(lengths)), key=lambda item: -lengths[item]):
        more = rows[index] if rows else 1
        if not batches or not fits(taken + more, longest):
            batches.append([])
            taken, longest = 0, lengths[index]
        batches[-1].append(index)
        taken += more
    return batches


def runs(lengths: Sequence[int], fits: Callable[[int, int], bool]) -> Iterator[slice]:
    """The items in their order, cut greedily into batches of at least one item; ``fits`` as for `cut`."""
    start = longest = 0
    for index, length in enumerate(lengths):
        longest = max(longest, length)
        if index > start and not fits(index - start + 1, longest):
            yield slice(start, index)
            start, longest = index, length
    if lengths:
        yield slice(start, len(lengths))


def padded(contexts: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor]:
    """Tokens of contexts, padded on the right, and where they are, both [contexts, longest]."""
    lengths = torch.tensor([len(context) for context in contexts])
    is_token = torch.arange(int(lengths.max())) < lengths[:, None]
    tokens = torch.zeros(is_token.shape, dtype=torch.long)
    tokens[is_token] = torch.tensor([token for context in contexts for token in context])
    return tokens, is_token
