"""Which directions are nearest to some of them, by cosine."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from torch import Tensor

_CHUNK = 2**22  # cosines held at once
_DIGITS = 5  # of a cosine: the ones that do not depend on how the work is divided
_MOST = 2**14  # directions compared at once: so many times 10^5, twice, fit into 32 bits


class Directions:
    """Directions of unit length.

    Args:
        rows: [n, d].
        device: where they are compared.
    """

    def __init__(self, rows: Tensor, device: str) -> None:
        import torch

        self._unit = torch.nn.functional.normalize(rows.to(device, torch.float32), dim=1)

    def __len__(self) -> int:
        return len(self._unit)

    @property
    def width(self) -> int:
        """Numbers of a direction."""
        return self._unit.shape[1]

    def nearest(self, own: range, k: int, among: Directions | None = None) -> np.ndarray:
        """The k nearest to each of some rows, nearest first: int64 [rows, k], of fewer fewer columns.

        ``among``: other directions; None: the same, each itself left out.
        """
        import torch

        others, rows = (among or self)._unit, self._unit[own.start : own.stop]
        n = len(others)
        k, step = max(0, min(k, n - (among is None))), max(1, min(_MOST, _CHUNK // max(1, len(own))))
        best = torch.empty((len(own), 0), dtype=torch.int64, device=rows.device)
        itself = torch.arange(own.start, own.stop, device=rows.device)
        for first in range(0, n, step):
            cosines = rows @ others[first : first + step].T
            size = cosines.shape[1]
            number = torch.arange(size, dtype=torch.int32, device=rows.device)
            # In whole numbers that differ, so that which of equal ones are kept does not depend on the chunks; in place, for
            # memory that is fetched anew takes longer than the products.
            keys = cosines.mul_(10**_DIGITS).round_().int().mul_(size).add_(size - 1 - number)
            if among is None:
                keys.masked_fill_(first + number == itself[:, None], torch.iinfo(torch.int32).min)
            near = keys.topk(min(k, size)).values.long()
            near = near.div(size, rounding_mode="floor") * n + n - first - size + near % size
            best = torch.cat([best, near], dim=1)
            best = best.topk(min(k, best.shape[1])).values
        found: np.ndarray = (n - 1 - best % n).cpu().numpy()
        return found

    def all_cosines(self, among: Directions) -> np.ndarray:
        """Cosine of each with each of others, float32 [n, others]."""
        cosines: np.ndarray = (self._unit @ among._unit.T).cpu().numpy().round(_DIGITS)
        return cosines

    def cosines(self, one: np.ndarray, other: np.ndarray, among: Directions | None = None) -> np.ndarray:
        """Cosine of each of some pairs, float64 [pairs]. ``among``: what the second are numbers of; None: the same ones."""
        import torch

        parts = [np.zeros(0)]
        step = max(1, _CHUNK // self._unit.shape[1])
        for first in range(0, len(one), step):
            sides = (torch.from_numpy(each[first : first + step]).to(self._unit.device) for each in (one, other))
            left, right = (unit[each] for unit, each in zip((self._unit, (among or self)._unit), sides, strict=True))
            parts.append((left * right).sum(1).cpu().numpy().astype(np.float64).round(_DIGITS))
        return np.concatenate(parts)
