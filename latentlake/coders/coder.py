"""A sparse coder at work: inputs encoded into what fires, and decoded again."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property
from typing import TYPE_CHECKING

from latentlake.coders.parameters import Parameters
from latentlake.errors import InputError
from latentlake.protocols import Firings

if TYPE_CHECKING:
    from torch import Tensor

# Pre-activations held at once, in float32: 64 MiB on a CPU (what a cache can still help with), 1 GiB on a GPU.
_BLOCK, _BLOCK_OF_GPU = 2**24, 2**28
# Latents in a chunk; measured by `benchmarks.encode`. With fewer the choice among chunks costs more than it saves, with more
# rows of a block become few, and the weights are read again for each block.
_CHUNK, _CHUNK_OF_GPU = 2**13, 2**16


class SparseCoder:
    """Any sparse coder, from its parameters; implements `latentlake.protocols.Coder`. Works in float32.

    Args:
        parameters: what it is made of; the encoder is moved to the device at the first `encode`, the decoder at the first
            `decode`.
        name: what messages call it.
        device: where it runs.
    """

    def __init__(self, parameters: Parameters, name: str, device: str = "cpu") -> None:
        self.width, self.d_in, self.d_out = parameters.width, parameters.d_in, parameters.d_out
        self.k = parameters.rule.k
        self._parameters, self._name, self.device = parameters, name, device

    @property
    def directions(self) -> Tensor:
        """What each latent writes, one decoder direction a row, float32 [width, d_out], in the coder's scaled space."""
        import torch

        decoder = self._parameters.decoder
        return torch.eye(self.width) if decoder is None else decoder.float()

    @property
    def encoder_directions(self) -> Tensor | None:
        """What each latent reads, a row each, float32 [width, d_in]; None for neurons."""
        return None if self._parameters.encoder is None else self._parameters.encoder.float()

    def encode(self, inputs: Tensor) -> Firings:
        """What fires on inputs [n, d_in].

        Computed in blocks of rows and chunks of latents, so that memory grows neither with n nor with the width.

        Raises:
            InputError: inputs of another width.
        """
        import torch

        if inputs.shape[-1] != self.d_in:
            raise InputError(
                f"Coder {self._name} takes inputs of width {self.d_in}, and these have {inputs.shape[-1]}."
                " Its hookpoint or its model is not the one that it was trained on."
            )
        with torch.inference_mode():
            starts = range(0, max(1, len(inputs)), self._rows)
            parts = [self._encode_block(inputs[start : start + self._rows], start) for start in starts]
            return parts[0] if len(parts) == 1 else Firings(*(torch.cat(each) for each in zip(*parts, strict=True)))

    def decode(self, firings: Firings, inputs: Tensor) -> Tensor:
        """What a coder makes of inputs [n, d_in] out of what fires on them: float32 [n, d_out]."""
        import torch

        decoder, bias, skip = self._decoder
        with torch.inference_mode():
            inputs = self._taken(inputs)
            places = torch.stack([firings.rows, firings.latents])
            active = torch.sparse_coo_tensor(places, firings.values, (len(inputs), self.width), check_invariants=False)
            outputs = active.to_dense() if decoder is None else torch.sparse.mm(active, decoder)
            outputs = self._parameters.scaling.undo(outputs if bias is None else outputs + bias, inputs)
            return outputs if skip is None else outputs + inputs @ skip.T

    @cached_property
    def _rows(self) -> int:
        return max(1, (_BLOCK_OF_GPU if self._on_gpu else _BLOCK) // self._chunk)

    @cached_property
    def _chunk(self) -> int:
        return self._parameters.rule.chunk(self.width, _CHUNK_OF_GPU if self._on_gpu else _CHUNK)

    @property
    def _on_gpu(self) -> bool:
        return self.device.startswith("cuda")

    @cached_property
    def _encoder(self) -> tuple[Tensor | None, Tensor | None]:
        """Weight and bias of the encoder, the centre folded into the bias."""
        own = self._parameters
        weight, bias, centre = (self._moved(each) for each in (own.encoder, own.bias, own.centre))
        if weight is not None and centre is not None:
            bias = -(weight @ centre) if bias is None else bias - weight @ centre
        return weight, bias

    @cached_property
    def _decoder(self) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        own = self._parameters
        return self._moved(own.decoder), self._moved(own.decoder_bias), self._moved(own.skip)

    @cached_property
    def _gain(self) -> tuple[Tensor | None, Tensor | None]:
        return self._moved(self._parameters.gain), self._moved(self._parameters.offset)

    def _taken(self, inputs: Tensor) -> Tensor:
        """Inputs as they are computed with: in float32, on the coder's device, wherever the subject's block was."""
        import torch

        return inputs.to(self.device, torch.float32)

    def _moved(self, tensor: Tensor | None) -> Tensor | None:
        """A tensor in float32 on the device, in memory of its own: strides and alignment, which differ from file to file, say in
        which order sums are formed, and the same weights are to give the same bits in every format."""
        import torch

        return None if tensor is None else torch.empty(tensor.shape, device=self.device).copy_(tensor)

    def _encode_block(self, inputs: Tensor, start: int) -> Firings:
        gain, offset = self._gain
        scaled = self._parameters.scaling(self._taken(inputs))
        rows, latents, values = self._parameters.rule(self._chunks(scaled))
        if gain is not None:
            values = values * gain[latents]
        if offset is not None:
            values = values + offset[latents]
        return Firings(rows + start if start else rows, latents, values.relu())

    def _chunks(self, scaled: Tensor) -> Iterator[tuple[int, Tensor]]:
        import torch

        weight, bias = self._encoder
        if weight is None:
            yield 0, scaled
            return
        memory = scaled.new_empty(len(scaled), self._chunk)
        for first in range(0, self.width, self._chunk):
            own = slice(first, first + self._chunk)
            out = memory[:, : len(weight[own])]
            if bias is None:
                yield first, torch.mm(scaled, weight[own].T, out=out)
            else:
                yield first, torch.addmm(bias[own], scaled, weight[own].T, out=out)
