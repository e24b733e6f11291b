"""Which latents of a coder fire, given their pre-activations.

A rule is given pre-activations in chunks of latents, so that none of them ever lie side by side for all the latents of a wide
coder, and gives what fires as (rows, latents, pre-activations), one entry each. Entries that are not above 0 may be among
them; they do not fire.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from torch import Tensor

    # first latent of a chunk, and pre-activations [n, latents of the chunk], in memory that the next chunk takes over
    Chunks = Iterator[tuple[int, Tensor]]
    Entries = tuple[Tensor, Tensor, Tensor]


class Rule(Protocol):
    """Chooses what fires."""

    @property
    def family(self) -> str:
        """What the field calls coders that choose so."""
        ...

    @property
    def k(self) -> int | None:
        """How many latents fire on an input at most, where that is fixed."""
        ...

    def chunk(self, width: int, wanted: int) -> int:
        """How many latents a chunk of about ``wanted`` is to have, of a coder of ``width`` latents."""
        ...

    def __call__(self, chunks: Chunks) -> Entries:
        """Rows, latents (int64) and pre-activations of what fires."""
        ...


@dataclass(frozen=True)
class TopK:
    """The k latents of largest pre-activation fire; where chunks are several, the k largest so far are carried along."""

    k: int
    family: str = "topk"

    def chunk(self, width: int, wanted: int) -> int:
        """As wanted, but no fewer than k."""
        return min(width, max(wanted, self.k))

    def __call__(self, chunks: Chunks) -> Entries:
        """Of each row the k largest, in no order."""
        import torch

        _, before = next(chunks)
        values, latents = before.topk(self.k, sorted=False)
        for first, before in chunks:
            more, at = before.topk(min(self.k, before.shape[1]), sorted=False)
            values, kept = torch.cat([values, more], 1).topk(self.k, sorted=False)
            latents = torch.cat([latents, at + first], 1).gather(1, kept)
        rows = torch.arange(len(values), device=values.device).repeat_interleave(self.k, output_size=values.numel())
        return rows, latents.flatten(), values.flatten()


@dataclass(frozen=True)
class GroupMax:
    """Latents stand in k groups of ``size`` neighbours, and in each group the one of largest pre-activation fires."""

    k: int
    size: int
    family: str = "groupmax"

    def chunk(self, width: int, wanted: int) -> int:
        """Whole groups."""
        return max(1, wanted // self.size) * self.size

    def __call__(self, chunks: Chunks) -> Entries:
        """Of each row one entry for each group."""
        import torch

        parts: list[Entries] = []
        for first, before in chunks:
            values, at = before.reshape(len(before), before.shape[1] // self.size, self.size).max(2)
            groups = torch.arange(first, first + before.shape[1], self.size, device=before.device)
            rows = torch.arange(len(values), device=values.device).repeat_interleave(
                len(groups), output_size=values.numel()
            )
            parts.append((rows, (at + groups).flatten(), values.flatten()))
        return _joined(parts)


@dataclass(frozen=True)
class Threshold:
    """Latents fire whose pre-activation is above a threshold: one for each of them, [width], or one for all, [1].

    ``family``: ``relu`` (of threshold 0), ``jumprelu``, ``batchtopk`` or ``gated``.
    """

    threshold: Tensor
    family: str
    k: int | None = None

    def chunk(self, width: int, wanted: int) -> int:
        """As wanted."""
        return min(width, wanted)

    def __call__(self, chunks: Chunks) -> Entries:
        """However many there are on each row; of what does not fire nothing is kept."""
        parts: list[Entries] = []
        for first, before in chunks:
            own = self.threshold if len(self.threshold) == 1 else self.threshold[first : first + before.shape[1]]
            rows, at = (~(before <= own.to(before))).nonzero(as_tuple=True)  # so that NaN is not lost
            parts.append((rows, at + first, before[rows, at]))
        return _joined(parts)


def _joined(parts: list[Entries]) -> Entries:
    import torch

    rows, latents, values = (torch.cat(each) for each in zip(*parts, strict=True))
    return rows, latents, values
