"""Sparse coders of SAELens: ``cfg.json`` beside ``sae_weights.safetensors``, of all its versions.

Before version 6 the configuration is flat (``hook_point``, ``activation_fn_str``); since then the model and the hookpoint are
under ``metadata``. Encoding, after the format's own code: normalize where ``normalize_activations`` says so, subtract ``b_dec``
where ``apply_b_dec_to_input`` does, encoder, then by ``architecture``.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from latentlake.coders.opening import Source
from latentlake.coders.parameters import TINY, Parameters, Stated
from latentlake.coders.reading import Config, Tensors, read_json, read_safetensors, require_k
from latentlake.coders.rules import Rule, Threshold, TopK
from latentlake.coders.scaling import Constant, LayerNorm, OneWay, Scaling, UnitNorm
from latentlake.errors import InputError
from latentlake.registry import CODERS

if TYPE_CHECKING:
    from torch import Tensor

# architecture → family; those trained by a choice over batches are saved as jumprelu, under either name
_ARCHITECTURES = {
    "standard": "relu",
    "topk": "topk",
    "gated": "gated",
    "jumprelu": "jumprelu",
    "batchtopk": "batchtopk",
    "matryoshka_batchtopk": "batchtopk",
    "transcoder": "relu",
    "skip_transcoder": "relu",
    "jumprelu_transcoder": "jumprelu",
    "jumprelu_skip_transcoder": "jumprelu",
}
_NORMALIZATIONS: dict[str, Scaling] = {
    "none": Constant(),
    "false": Constant(),
    "layer_norm": LayerNorm(),
    "constant_norm_rescale": UnitNorm(),
}


@CODERS.register("saelens")
class SaeLens:
    """Standard, TopK, JumpReLU, gated and BatchTopK autoencoders, and transcoders."""

    version = "1"

    @staticmethod
    def files(path: Path) -> list[Path]:
        """Weights and configuration."""
        return [path / "sae_weights.safetensors", path / "cfg.json"]

    @staticmethod
    def read(source: Source) -> tuple[Parameters, Stated]:
        """Parameters from W_enc [d_in, width] and W_dec [width, d_out]."""
        weights, cfg = SaeLens.files(source.path)
        config, tensors = read_json(cfg), read_safetensors(weights)
        family = _family(config)
        d_in, width, d_out = _sizes(config)
        architecture = config.choice("architecture", _ARCHITECTURES, default="standard")
        is_transcoder = "transcoder" in architecture
        decoder = tensors.take("W_dec", width, d_out)
        decoder_bias = tensors.take("b_dec", d_out)
        is_centred = config.flag("apply_b_dec_to_input", not is_transcoder)
        if is_centred and is_transcoder:
            raise InputError(f"{cfg}: apply_b_dec_to_input of a transcoder, whose b_dec is of its outputs, cannot be.")
        encoder = tensors.take("W_enc", d_in, width).T
        bias, gain, offset = _biases(tensors, width, family)
        if family == "topk" and config.flag("rescale_acts_by_decoder_norm"):
            norms = decoder.float().norm(dim=1)
            encoder, bias = encoder.float() * norms[:, None], bias.float() * norms
            decoder = decoder.float() / norms.clamp(min=TINY)[:, None]
        factor = _finetuned(config, tensors, width)
        if factor is not None:
            decoder = decoder * factor[:, None]
        skip = tensors.take("W_skip", d_out, d_in) if "skip" in architecture else None
        parameters = Parameters(
            _rule(config, tensors, width, family),
            encoder=encoder,
            bias=bias,
            decoder=decoder,
            decoder_bias=decoder_bias,
            centre=decoder_bias if is_centred else None,
            gain=gain,
            offset=offset,
            skip=skip,
            scaling=OneWay(_scaling(config)) if is_transcoder else _scaling(config),
        )
        return parameters, _stated(config, is_transcoder, skip is not None)


def _family(config: Config) -> str:
    for name in ("hook_head_index", "hook_point_head_index"):
        for where in (config, config.section("metadata")):
            where.refuse(name, "a coder of one head cannot be used.")
    family = _ARCHITECTURES[config.choice("architecture", _ARCHITECTURES, default="standard")]
    key = "activation_fn_str" if config.get("activation_fn_str") else "activation_fn"
    if config.get(key) is not None and config.choice(key, ("relu", "topk")) == "topk":
        return "topk"
    return family


def _sizes(config: Config) -> tuple[int, int, int]:
    d_in = config.whole("d_in")
    width = config.whole("d_sae") if config.get("d_sae") else d_in * config.whole("expansion_factor")
    return d_in, width, config.whole("d_out") if config.get("d_out") else d_in


def _biases(tensors: Tensors, width: int, family: str) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """Bias of the encoder; of a gated coder the gate's, and gain and offset that make the magnitude of what the gate saw."""
    if family != "gated":
        return tensors.take("b_enc", width), None, None
    gate, gain = tensors.take("b_gate", width).float(), tensors.take("r_mag", width).float().exp()
    return gate, gain, tensors.take("b_mag", width).float() - gain * gate


def _finetuned(config: Config, tensors: Tensors, width: int) -> Tensor | None:
    """Factors of activations that fine-tuning found, which only decoding knows; old files have ones where there were none."""
    name = "finetuning_scaling_factor" if "finetuning_scaling_factor" in tensors.names else "scaling_factor"
    if config.flag("finetuning_scaling_factor"):
        return tensors.take(name, width)
    factor = tensors.maybe(name, width)
    if factor is not None and not bool((factor == 1).all()):
        raise InputError(f"{tensors.file} has a {name}, and {config.file.name} says that there is none.")
    return None


def _rule(config: Config, tensors: Tensors, width: int, family: str) -> Rule:
    import torch

    if family == "topk":
        is_flat = config.get("k") is None and config.get("activation_fn_kwargs") is not None
        stated = config.section("activation_fn_kwargs") if is_flat else config
        return TopK(require_k(stated.whole("k", 0), width, config.file))
    if family not in ("jumprelu", "batchtopk"):
        if tensors.names & {"threshold", "log_threshold"}:
            raise InputError(f"{tensors.file} has thresholds, and {config.file.name} does not say that it is jumprelu.")
        return Threshold(torch.zeros(1), family)
    if "log_threshold" in tensors.names:
        return Threshold(tensors.take("log_threshold", width).float().exp(), family)
    return Threshold(tensors.take("threshold", width).float().clamp(min=0), family)


def _scaling(config: Config) -> Scaling:
    name = str(config.get("normalize_activations", "none")).lower()
    if name in ("expected_average_only_in", "covariance_whitening", "true"):
        raise InputError(
            f"{config.file}: normalize_activations {name!r} needs statistics of the activations that the checkpoint does not "
            "hold. Fold them into the weights (SAELens does so when it saves after training), and save it again."
        )
    return _NORMALIZATIONS[config.choice("normalize_activations", _NORMALIZATIONS, default="none")]


def _stated(config: Config, is_transcoder: bool, skips: bool) -> Stated:
    where = config.section("metadata") if config.get("metadata") else config
    return Stated(
        kind=("skip transcoder" if skips else "transcoder") if is_transcoder else "sae",
        model=where.text("model_name"),
        hookpoint=where.text("hook_name") or where.text("hook_point"),
    )
