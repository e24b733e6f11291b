"""Gemma Scope 2: JumpReLU coders of Gemma 3, ``params.safetensors`` and, where there is one, ``config.json``.

Encoding as in Gemma Scope. Transcoders may have an affine skip connection, stored [d_in, d_out]. Cross-layer transcoders are
refused: their latents write at many layers.
"""

from __future__ import annotations

from pathlib import Path

from latentlake.coders.formats.gemma_scope import parameters_of
from latentlake.coders.opening import Source
from latentlake.coders.parameters import Parameters, Stated
from latentlake.coders.reading import Config, read_json, read_safetensors
from latentlake.errors import InputError
from latentlake.registry import CODERS


@CODERS.register("gemma_scope_2")
class GemmaScope2:
    """JumpReLU autoencoders and transcoders."""

    version = "1"

    @staticmethod
    def files(path: Path) -> list[Path]:
        """Weights, and the configuration where there is one."""
        config = path / "config.json"
        return [path / "params.safetensors", *([config] if config.is_file() else [])]

    @staticmethod
    def read(source: Source) -> tuple[Parameters, Stated]:
        """Parameters from w_enc [d_in, width] and w_dec [width, d_out]; the sizes are those of the biases."""
        files = GemmaScope2.files(source.path)
        tensors = read_safetensors(files[0])
        if len(tensors.shape("w_dec")) != 2:
            raise InputError(
                f"{files[0]} is a cross-layer transcoder, whose latents write at many layers; it cannot be used."
            )
        config = read_json(files[1]) if len(files) > 1 else Config(files[0], {})
        config.choice("architecture", ("jump_relu",), default="jump_relu")
        if config.flag("affine_connection") and "affine_skip_connection" not in tensors.names:
            raise InputError(
                f"{files[1]} states an affine connection, and {files[0].name} has no affine_skip_connection."
            )
        parameters = parameters_of(tensors, "w")
        return parameters, _stated(config, parameters)


def _stated(config: Config, parameters: Parameters) -> Stated:
    read, written = config.text("hf_hook_point_in"), config.text("hf_hook_point_out")
    kind = None if read is None else "sae" if written in (None, read) else "transcoder"
    if parameters.skip is not None:
        kind = "skip transcoder"
    return Stated(
        kind=kind, model=config.text("model_name"), hookpoint=read, l0=config.number("l0") if config.get("l0") else None
    )
