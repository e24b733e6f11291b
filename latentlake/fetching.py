"""Between a device and the host: results are fetched without the device waiting for it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from latentlake.protocols import Firings

if TYPE_CHECKING:
    from torch import Tensor


class Fetched:
    """What fires in a batch, on its way to the host.

    From a CUDA device they are copied into pinned memory behind what the device is doing, and waited for when they are asked
    for; what is on the host stays where it is.
    """

    def __init__(self, firings: Firings) -> None:
        import torch

        self._done = None
        self._tensors = [firings.rows.int(), firings.latents.int(), firings.values.float()]
        if firings.values.is_cuda:
            pinned = [torch.empty(each.shape, dtype=each.dtype, pin_memory=True) for each in self._tensors]
            for target, each in zip(pinned, self._tensors, strict=True):
                target.copy_(each, non_blocking=True)
            self._tensors, self._done = pinned, torch.cuda.Event()  # type: ignore[no-untyped-call]
            self._done.record(torch.cuda.current_stream(firings.values.device))

    def arrays(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Rows and latents, int32, and values, float32; one entry each."""
        if self._done is not None:
            self._done.synchronize()
        rows, latents, values = (each.cpu().numpy() for each in self._tensors)
        return rows, latents, values


def rows_at(states: Tensor, rows: np.ndarray) -> Tensor:
    """Some rows of a tensor. A mask would make the device wait until it is counted; numbers do not."""
    import torch

    if len(rows) == len(states):
        return states
    return states.index_select(0, torch.from_numpy(rows).to(states.device, non_blocking=True))
