"""Sparse coders in the format of `sparsify` (EleutherAI): ``cfg.json`` beside ``sae.safetensors``.

Encoding, after the format's own code: subtract ``b_dec`` (not for a transcoder), encoder, ReLU, the k largest.
"""

from __future__ import annotations

import json
import struct
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from latentlake.errors import InputError
from latentlake.registry import CODERS

if TYPE_CHECKING:
    from torch import Tensor

# Rows times latents encoded at once, whatever the width of the coder: of pre-activations in float32, 64 MiB on a CPU (what a
# cache can still help with) and 1 GiB on a GPU (some thousand rows of a million latents, enough to keep it busy).
_BLOCK, _BLOCK_OF_GPU = 2**24, 2**28


@dataclass(frozen=True)
class CoderShape:
    """What a checkpoint says of itself: ``width`` latents over ``d_in`` dimensions, of which ``k`` fire at most."""

    width: int
    d_in: int
    k: int


def inspect(directory: Path) -> CoderShape:
    """Shape of a checkpoint, from ``cfg.json`` and the header of the weights alone; loads no weights and no torch.

    Raises:
        InputError: a file is missing or cut short, the two disagree, or the activation is not ``topk``.
    """
    config = _config(directory)
    shapes = _tensor_shapes(directory / "sae.safetensors")
    shape = _stated_shape(directory, config)
    expected = {
        "encoder.weight": [shape.width, shape.d_in],
        "encoder.bias": [shape.width],
    }
    if not config.get("transcode", False):
        expected["b_dec"] = [shape.d_in]
    for name, wanted in expected.items():
        if shapes.get(name) != wanted:
            raise InputError(
                f"{directory / 'sae.safetensors'}: tensor {name} is {shapes.get(name, 'missing')}, but cfg.json asks"
                f" for {wanted} (num_latents, d_in). The two are not of one checkpoint, or a tensor is transposed."
            )
    return shape


def _config(directory: Path) -> dict[str, Any]:
    path = directory / "cfg.json"
    try:
        config: dict[str, Any] = json.loads(path.read_text())
    except FileNotFoundError as error:
        raise InputError(f"No sparsify coder in {directory}: it has no cfg.json. Correct the path.") from error
    except ValueError as error:
        raise InputError(f"{path} is not JSON ({error}). Fetch the checkpoint again.") from error
    activation = config.get("activation", "topk")
    if activation != "topk":
        raise InputError(f"{path}: activation {activation!r} is not supported; only 'topk' coders can be used.")
    return config


def _stated_shape(directory: Path, config: dict[str, Any]) -> CoderShape:
    try:
        d_in, k = int(config["d_in"]), int(config["k"])
        width = int(config.get("num_latents", 0)) or d_in * int(config["expansion_factor"])
    except KeyError as error:
        raise InputError(f"{directory / 'cfg.json'} does not state {error}. Is it a sparsify checkpoint?") from error
    if not 0 < k <= width:
        raise InputError(f"{directory / 'cfg.json'}: k = {k} is not between 1 and the {width} latents.")
    return CoderShape(width, d_in, k)


def _tensor_shapes(path: Path) -> dict[str, list[int]]:
    """Shapes by name, from the header of a safetensors file whose size agrees with it."""
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            (length,) = struct.unpack("<Q", file.read(8))
            header = json.loads(file.read(min(length, size)))
    except FileNotFoundError as error:
        raise InputError(f"No sparsify coder in {path.parent}: it has no {path.name}. Correct the path.") from error
    except (struct.error, ValueError) as error:
        raise InputError(f"{path} is cut short or damaged: its header cannot be read. Fetch it again.") from error
    header.pop("__metadata__", None)
    whole = 8 + length + max((tensor["data_offsets"][1] for tensor in header.values()), default=0)
    if size != whole:
        raise InputError(f"{path} has {size:,} bytes where its header says {whole:,}. Fetch it again.")
    return {name: tensor["shape"] for name, tensor in header.items()}


@CODERS.register("sparsify")
class SparsifyCoder:
    """A top-k sparse autoencoder or transcoder; implements `latentlake.protocols.Coder`.

    Args:
        directory: holds ``cfg.json`` and ``sae.safetensors``; the weights load at the first `encode`.
        device: where it runs; always in float32.

    Raises:
        InputError: as `inspect`.
    """

    format = "sparsify"
    inspect = staticmethod(inspect)

    def __init__(self, directory: Path, device: str = "cpu") -> None:
        shape = inspect(directory)
        self.width, self.d_in, self.k = shape.width, shape.d_in, shape.k
        self._directory = directory
        self._device = device

    @cached_property
    def _weights(self) -> tuple[Tensor, Tensor]:
        """Weight [width, d_in] and bias [width] of ``W (x - b_dec) + b``, with ``b_dec`` folded into the bias."""
        from safetensors.torch import load_file

        tensors = load_file(self._directory / "sae.safetensors", device=self._device)
        weight, bias = tensors["encoder.weight"].float(), tensors["encoder.bias"].float()
        if not _config(self._directory).get("transcode", False):
            bias = bias - weight @ tensors["b_dec"].float()
        return weight, bias

    def encode(self, inputs: Tensor) -> tuple[Tensor, Tensor]:
        """Activations [n, k], float32, 0 where fewer fire, and their latents [n, k], int64, for inputs [n, d_in].

        Computed in blocks of rows, so that the memory it takes does not grow with n.

        Raises:
            InputError: inputs of another width.
        """
        import torch

        if inputs.shape[-1] != self.d_in:
            raise InputError(
                f"Coder {self._directory} takes inputs of width {self.d_in}, and these have {inputs.shape[-1]}."
                " Its hookpoint or its model is not the one that it was trained on."
            )
        with torch.inference_mode():
            size = max(1, (_BLOCK_OF_GPU if self._device.startswith("cuda") else _BLOCK) // self.width)
            starts = range(0, max(1, len(inputs)), size)
            blocks = [self._encode_block(inputs[start : start + size]) for start in starts]
            return torch.cat([values for values, _ in blocks]), torch.cat([latents for _, latents in blocks])

    def _encode_block(self, inputs: Tensor) -> tuple[Tensor, Tensor]:
        import torch

        weight, bias = self._weights
        values, latents = torch.addmm(bias, inputs.to(weight), weight.T).topk(self.k, sorted=False)
        # ReLU after the choice: what it sets to 0 would have been chosen last, and the pass over all latents is saved.
        return values.relu_(), latents
