"""Gemma Scope: JumpReLU coders of Gemma 2, ``params.npz`` in ``layer_N/width_W/average_l0_M``.

Encoding, after the release's tutorial: the encoder, with nothing subtracted, and ReLU where the pre-activation is above the
latent's threshold. Its transcoders have the same files.
"""

from __future__ import annotations

import re
from pathlib import Path

from latentlake.coders.opening import Source
from latentlake.coders.parameters import Parameters, Stated
from latentlake.coders.reading import Tensors, read_npz
from latentlake.coders.rules import Threshold
from latentlake.errors import InputError
from latentlake.registry import CODERS


@CODERS.register("gemma_scope")
class GemmaScope:
    """JumpReLU autoencoders and transcoders."""

    version = "1"

    @staticmethod
    def files(path: Path) -> list[Path]:
        """The arrays; there is no configuration."""
        return [path / "params.npz"]

    @staticmethod
    def read(source: Source) -> tuple[Parameters, Stated]:
        """Parameters from W_enc [d_in, width] and W_dec [width, d_out]; the sizes are those of the biases."""
        (file,) = GemmaScope.files(source.path)
        if "embedding" in source.reference.split("/"):
            raise InputError(
                f"{file}: the scale of the embeddings that it was trained on is not stated; it cannot be used."
            )
        return parameters_of(read_npz(file), "W"), stated_of(source.reference)


def parameters_of(tensors: Tensors, w: str) -> Parameters:
    """A JumpReLU coder in Gemma Scope's names. ``w``: the letter of matrices, which may be of the other case."""
    weight = w.swapcase() if f"{w.swapcase()}_enc" in tensors.names else w
    width, d_out = tensors.length("b_enc"), tensors.length("b_dec")
    skipped = tensors.shape("affine_skip_connection") if "affine_skip_connection" in tensors.names else ()
    d_in = skipped[0] if skipped else d_out
    skip = tensors.maybe("affine_skip_connection", d_in, d_out)
    return Parameters(
        Threshold(tensors.take("threshold", width).float().clamp(min=0), "jumprelu"),
        encoder=tensors.take(f"{weight}_enc", d_in, width).T,
        bias=tensors.take("b_enc", width),
        decoder=tensors.take(f"{weight}_dec", width, d_out),
        decoder_bias=tensors.take("b_dec", d_out),
        skip=None if skip is None else skip.T,
    )


def stated_of(reference: str) -> Stated:
    """What the name of a checkpoint of the release says of it: model, hookpoint, and mean number of latents that fire."""
    l0 = re.search(r"average_l0_(\d+)", reference)
    model = re.search(r"gemma-scope-(\d+b-(?:pt|it))", reference)
    place = re.search(r"gemma-scope-[\w.-]+-(?:res|mlp|att|transcoders)/layer_\d+", reference)
    return Stated(
        model=f"google/gemma-2-{model[1].removesuffix('-pt')}" if model else None,
        hookpoint=place[0] if place else None,
        l0=float(l0[1]) if l0 else None,
    )
