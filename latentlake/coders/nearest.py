"""Which directions are nearest to some of them, by cosine."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from torch import Tensor

_CHUNK = 2**24  # cosines held at once
_DIGITS = 5  # of a cosine: the ones that do not depend on how the work is divided


class Directions:
    """Directions of unit length.

    Args:
        rows: [n, d].
        device: where they are compared.
    """

    def __init__(self, rows: Tensor, device: str) -> None:
        import torch

        self._unit = torch.nn.functional.normalize(rows.to(device, torch.float32), dim=1)

    def nearest(self, own: range, k: int) -> np.ndarray:
        """The k nearest to each of some rows, itself left out, nearest first: int64 [rows, k], of fewer fewer columns."""
        import torch

        n, rows = len(self._unit), self._unit[own.start : own.stop]
        k, step = min(k, n - 1), max(1, _CHUNK // max(1, len(own)))
        best, where = rows.new_full((len(own), k), -2.0), torch.full((len(own), k), -1, device=rows.device)
        itself = torch.arange(own.start, own.stop, device=rows.device)
        for first in range(0, n, step):
            cosines = rows @ self._unit[first : first + step].T
            number = torch.arange(first, first + cosines.shape[1], device=rows.device)
            cosines.masked_fill_(number == itself[:, None], -2.0)
            chunk, place = cosines.topk(min(k, cosines.shape[1]))
            best, kept = torch.cat([best, chunk], dim=1).topk(k)
            where = torch.cat([where, place + first], dim=1).gather(1, kept)
        found = where.cpu().numpy()
        order = np.lexsort((found, -best.cpu().numpy().round(_DIGITS)), axis=1)
        return np.take_along_axis(found, order, axis=1)

    def cosines(self, one: np.ndarray, other: np.ndarray) -> np.ndarray:
        """Cosine of each of some pairs, float64 [pairs]."""
        import torch

        parts = [np.zeros(0)]
        step = max(1, _CHUNK // self._unit.shape[1])
        for first in range(0, len(one), step):
            sides = (torch.from_numpy(each[first : first + step]).to(self._unit.device) for each in (one, other))
            left, right = (self._unit[each] for each in sides)
            parts.append((left * right).sum(1).cpu().numpy().astype(np.float64).round(_DIGITS))
        return np.concatenate(parts)
