"""Autoencoders of OpenAI's `sparse_autoencoder`: one ``.pt`` file that names its activation function.

Encoding: subtract ``pre_bias``, encoder, add ``latent_bias``, activation. Those of TopK normalize the input first, and undo it
on what they decode.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from latentlake.coders.opening import Source
from latentlake.coders.parameters import Parameters, Stated
from latentlake.coders.reading import Tensors, read_pt, require_k
from latentlake.coders.rules import Rule, Threshold, TopK
from latentlake.coders.scaling import Constant, LayerNorm
from latentlake.errors import InputError
from latentlake.registry import CODERS

_ACTIVATIONS = ("ReLU", "TopK")


@CODERS.register("openai")
class OpenAi:
    """ReLU and TopK autoencoders."""

    version = "1"

    @staticmethod
    def files(path: Path) -> list[Path]:
        """The file itself: any ``.pt`` that is not named as Qwen Scope's are."""
        return [path] if path.suffix == ".pt" and not path.name.endswith(".sae.pt") else []

    @staticmethod
    def read(source: Source) -> tuple[Parameters, Stated]:
        """Parameters from encoder.weight [n_latents, n_inputs] and decoder.weight [n_inputs, n_latents], which may be tied."""
        tensors, beside = read_pt(source.path)
        width, d = tensors.length("latent_bias"), tensors.length("pre_bias")
        rule, centre = _rule(tensors, beside, width), tensors.take("pre_bias", d)
        encoder = tensors.take("encoder.weight", width, d)
        is_tied = "decoder.weight" not in tensors.names and "decoder.linear.weight" in tensors.names
        parameters = Parameters(
            rule,
            encoder=encoder,
            bias=tensors.take("latent_bias", width),
            decoder=encoder if is_tied else tensors.take("decoder.weight", d, width).T,
            decoder_bias=centre,
            centre=centre,
            scaling=LayerNorm() if isinstance(rule, TopK) else Constant(),
        )
        return parameters, Stated(kind="sae")


def _rule(tensors: Tensors, beside: dict[str, Any], width: int) -> Rule:
    import torch

    name, settings = beside.get("activation", "ReLU"), beside.get("activation_state_dict", {})
    if name not in _ACTIVATIONS:
        raise InputError(
            f"{tensors.file}: activation {name!r} is not supported; supported are {', '.join(_ACTIVATIONS)}."
        )
    if name == "ReLU":
        return Threshold(torch.zeros(1), "relu")
    if not isinstance(settings, dict):
        raise InputError(f"{tensors.file}: activation_state_dict is {settings!r}; it must be a mapping.")
    if settings.get("postact_fn", "ReLU") != "ReLU":
        raise InputError(f"{tensors.file}: postact_fn {settings['postact_fn']!r} is not supported; supported is ReLU.")
    if isinstance(settings.get("k"), bool) or not isinstance(settings.get("k"), int):
        raise InputError(f"{tensors.file} does not state the k of its TopK (activation_state_dict).")
    return TopK(require_k(settings["k"], width, tensors.file))
