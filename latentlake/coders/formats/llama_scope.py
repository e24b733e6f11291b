"""Llama Scope: ``hyperparams.json`` and ``checkpoints/final.safetensors``, as the library lm_saes wrote them.

Encoding: the input is scaled by √d_in over the mean norm of the activations, then the encoder; a latent fires where its
pre-activation, times the norm of its decoder direction (``sparsity_include_decoder_norm``), is above one threshold for all.
The threshold was found after the scaling had been folded into the weights, so it is in units of what the decoder writes: here,
where pre-activations are left as they are, it is multiplied by √d over the mean norm of the *output*. For autoencoders, whose
input is their output, that is the scaling of the input (docs/decisions/009-llama-scope-thresholds.md).
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from latentlake.coders.opening import Source
from latentlake.coders.parameters import TINY, Parameters, Stated
from latentlake.coders.reading import Config, read_json, read_safetensors, require_k
from latentlake.coders.rules import Rule, Threshold, TopK
from latentlake.coders.scaling import Constant, Scaling, UnitNorm
from latentlake.errors import InputError
from latentlake.registry import CODERS

if TYPE_CHECKING:
    from torch import Tensor


@CODERS.register("llama_scope")
class LlamaScope:
    """JumpReLU, TopK and ReLU autoencoders and transcoders."""

    version = "1"

    @staticmethod
    def files(path: Path) -> list[Path]:
        """Weights and configuration."""
        return [path / "checkpoints" / "final.safetensors", path / "hyperparams.json"]

    @staticmethod
    def read(source: Source) -> tuple[Parameters, Stated]:
        """Parameters from encoder.weight [d_sae, d_model] and decoder.weight [d_model, d_sae]."""
        weights, hyperparams = LlamaScope.files(source.path)
        config, tensors = read_json(hyperparams), read_safetensors(weights)
        config.refuse("use_glu_encoder", "the encoder has a gate.")
        d = config.whole("d_model")
        width = config.whole("d_sae") if config.get("d_sae") else d * config.whole("expansion_factor")
        encoder, bias = tensors.take("encoder.weight", width, d), tensors.take("encoder.bias", width)
        decoder = tensors.take("decoder.weight", d, width).T
        decoder_bias = tensors.take("decoder.bias", d) if config.flag("use_decoder_bias", True) else None
        norms = decoder.float().norm(dim=1) if config.flag("sparsity_include_decoder_norm", True) else None
        is_centred = config.flag("apply_decoder_bias_to_pre_encoder")
        centre, scaling = decoder_bias if is_centred else None, _scaling(config, d)
        family = config.choice("act_fn", ("jumprelu", "topk", "relu"))
        gain = None
        rule: Rule = (
            TopK(require_k(config.whole("top_k", 0), width, hyperparams))
            if family == "topk"
            else _threshold(config, family, scaling, norms)
        )
        if family == "topk" and norms is not None:  # the choice is among pre-activations times norms
            encoder, bias, gain = encoder.float() * norms[:, None], bias.float() * norms, 1 / norms.clamp(min=TINY)
        parameters = Parameters(rule, encoder, bias, decoder, decoder_bias, centre, gain, scaling=scaling)
        return parameters, _stated(config)


def _threshold(config: Config, family: str, scaling: Scaling, norms: Tensor | None) -> Threshold:
    """Thresholds of pre-activations as they are here, one for all where decoder norms do not count."""
    import torch

    stated = config.number("jump_relu_threshold") if family == "jumprelu" else 0.0
    inputs, outputs = (scaling.inputs, scaling.outputs) if isinstance(scaling, Constant) else (1.0, 1.0)
    if norms is None:
        return Threshold(torch.tensor([stated * inputs]), family)
    # of a direction of length 0 no pre-activation is above any threshold
    return Threshold(torch.where(norms > 0, stated * outputs / norms.clamp(min=TINY), torch.inf), family)


def _scaling(config: Config, d: int) -> Scaling:
    kind = config.choice("norm_activation", ("dataset-wise", "token-wise", "inference"))
    if kind == "token-wise":
        return UnitNorm()
    if kind == "inference":
        return Constant()
    config["dataset_average_activation_norm"]  # which must be there
    norms = config.section("dataset_average_activation_norm")
    sizes = [norms.number(side) for side in ("in", "out")]
    if min(sizes) <= 0:
        raise InputError(f"{config.file}: dataset_average_activation_norm must be above 0, and is {sizes}.")
    return Constant(d**0.5 / sizes[0], d**0.5 / sizes[1])


def _stated(config: Config) -> Stated:
    read, written = config.text("hook_point_in"), config.text("hook_point_out")
    kind = None if read is None else "sae" if written in (None, read) else "transcoder"
    return Stated(kind=kind, hookpoint=read)
