"""Small checkpoints of sparse coders in every format, each beside the formula of the library that its format comes from.

A variant is built from parts that know no format. `VARIANTS` are of random parts, none square, so that a wrong axis, sign or
order shows. `perfect` builds the same variants of parts that reconstruct any input: encoder and decoder [Q, -Q] of an
orthogonal Q, beside latents that never fire. Formulas read the tensors under their stored names, in plain torch.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass, replace
from functools import cached_property, reduce
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor

Tensors = dict[str, Tensor]
Config = dict[str, Any]

D_IN, D_OUT, WIDTH, K = 12, 9, 40, 5
QWEN_WIDTH = 1024


@dataclass(frozen=True)
class Parts:
    """What a coder is made of. encoder: [width, d_in]; decoder: [width, d_out]; skip: [d_out, d_in]; others vectors.

    ``bias``: of pre-activations, of a gated coder the gate's; ``log_gain``, ``magnitude``: the gated coder's other two.
    ``threshold``: one for each latent; ``one_threshold``: for all of them, where a format has but one. ``norms``: mean norms of
    inputs and outputs where a format states them.
    """

    encoder: Tensor
    bias: Tensor
    decoder: Tensor
    decoder_bias: Tensor
    skip: Tensor
    threshold: Tensor
    one_threshold: float
    log_gain: Tensor
    magnitude: Tensor
    k: int
    norms: tuple[float, float]

    @property
    def sizes(self) -> tuple[int, int, int]:
        """d_in, width, d_out."""
        return self.encoder.shape[1], self.encoder.shape[0], self.decoder.shape[1]


@dataclass(frozen=True)
class Traits:
    """What the parts of a variant depend on; the rest is how they are stored.

    ``is_centred``: the decoder's bias is subtracted from inputs. ``norms``: as in `Parts`. ``has_thresholds``: one a latent.
    """

    width: int = WIDTH
    d_out: int = D_IN
    is_centred: bool = False
    is_gated: bool = False
    is_grouped: bool = False
    skips: bool = False
    has_thresholds: bool = False
    norms: tuple[float, float] = (7.0, 7.0)


@dataclass(frozen=True)
class Variant:
    """A checkpoint in one format.

    ``needs``: entries of the configuration that may not be missing; ``sizes``: those that state d_in and the width; ``k_at``:
    the one that states k; all of them dotted. ``encode``: (tensors, configuration, inputs) → dense activations [n, width];
    ``decode``: (tensors, configuration, activations, inputs) → outputs [n, d_out].
    """

    name: str
    format: str
    family: str
    kind: str | None
    traits: Traits
    lay_out: Callable[[Parts], tuple[Tensors, Config]]
    encode: Callable[[Tensors, Config, Tensor], Tensor]
    decode: Callable[[Tensors, Config, Tensor, Tensor], Tensor]
    save: Callable[[Path, Tensors, Config], Path]
    weights: str
    config_file: str | None = None
    needs: tuple[str, ...] = ()
    sizes: tuple[str, ...] = ()
    k_at: str | None = None
    unused: tuple[str, ...] = ()
    model: str | None = None
    hookpoint: str | None = None
    l0: float | None = None
    parts: Parts | None = None

    @property
    def tensors(self) -> Tensors:
        """Tensors under their stored names."""
        return self._stored[0]

    @property
    def config(self) -> Config:
        """The configuration, or what stands in its place."""
        return self._stored[1]

    @property
    def k(self) -> int | None:
        """How many latents fire at most, where the rule fixes it."""
        return self._made.k if self.family in ("topk", "groupmax") else None

    @property
    def shape(self) -> tuple[int, int, int]:
        """d_in, width, d_out."""
        return self._made.sizes

    def write(self, folder: Path, tensors: Tensors | None = None, config: Config | None = None) -> Path:
        """Write the checkpoint, or one of other tensors or another configuration; the path is what a study would name."""
        stored = {name: each.contiguous().clone() for name, each in (tensors or self.tensors).items()}
        return self.save(folder, stored, self.config if config is None else config)

    def formula(self, x: Tensor) -> Tensor:
        """Dense activations [n, width]."""
        return self.encode(self.tensors, self.config, x)

    def reconstruct(self, x: Tensor) -> Tensor:
        """Outputs [n, d_out]."""
        return self.decode(self.tensors, self.config, self.formula(x), x)

    @cached_property
    def _made(self) -> Parts:
        return _random_parts(self.traits) if self.parts is None else self.parts

    @cached_property
    def _stored(self) -> tuple[Tensors, Config]:
        return self.lay_out(self._made)


def perfect(variant: Variant, folder: Path, d_in: int) -> Path:
    """Write a coder of a variant that reconstructs inputs of a width; a transcoder's outputs are its inputs too."""
    return perfected(variant, d_in).write(folder)


def perfected(variant: Variant, d_in: int) -> Variant:
    """The variant of which `perfect` writes the checkpoint."""
    return replace(variant, parts=_perfect_parts(variant.traits, d_in))


def changed(config: Config, at: str, value: Any) -> Config:
    """A copy of a configuration with the value at a dotted name replaced."""
    own = deepcopy(config)
    *above, last = at.split(".")
    reduce(lambda inner, name: inner[name], above, own)[last] = value
    return own


def inputs(d_in: int = D_IN, n: int = 33) -> Tensor:
    """Inputs of small and of large norm, none of mean 0."""
    drawn = torch.randn(n, d_in, generator=torch.Generator().manual_seed(3))
    return drawn * torch.linspace(0.1, 3, n)[:, None] + 0.3


# Parts


def _random_parts(traits: Traits) -> Parts:
    random = torch.Generator().manual_seed(7)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=random)

    width = traits.width
    lengths = torch.rand(width, 1, generator=random) * 2 + 0.2
    decoder = torch.nn.functional.normalize(normal(width, traits.d_out)) * lengths
    threshold = normal(width).abs()
    threshold[::7] = 50.0
    return Parts(
        encoder=normal(width, D_IN) / 2,
        bias=normal(width) / 2 - 2.5,  # so that on some inputs fewer than k are above 0
        decoder=decoder,
        decoder_bias=normal(traits.d_out),
        skip=normal(traits.d_out, D_IN),
        threshold=threshold,
        one_threshold=0.9,
        log_gain=normal(width) / 2,
        magnitude=normal(width),
        k=K,
        norms=traits.norms,
    )


def _perfect_parts(traits: Traits, d: int) -> Parts:
    """Latents (q, -q) of an orthogonal Q, as neighbours, then some that are dead."""
    random = torch.Generator().manual_seed(11)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=random)

    width = QWEN_WIDTH if traits.width == QWEN_WIDTH else 2 * d + 8
    dead = width - 2 * d
    q = torch.linalg.qr(normal(d, d)).Q
    both = torch.stack([q, -q], 1).flatten(0, 1)
    skip = normal(d, d) / (2 * d**0.5)
    target = torch.eye(d) - skip if traits.skips else torch.eye(d)
    stretch = traits.norms[0] / traits.norms[1]  # outputs are scaled down by another factor than inputs are scaled up
    lengths = torch.rand(2 * d, 1, generator=random) + 0.5
    log_gain, offset = normal(width) / 2, normal(d)
    gain = log_gain[: 2 * d, None].exp() if traits.is_gated else 1
    bias = torch.zeros(2 * d) if traits.is_centred else -(both / lengths @ offset)
    dead_bias = torch.zeros(dead) if traits.has_thresholds else torch.full((dead,), -1e4)
    magnitude = torch.cat([log_gain[: 2 * d].exp() * bias, torch.full((dead,), 5.0)])
    return Parts(
        encoder=torch.cat([both @ target / lengths, normal(dead, d) / 100]),
        bias=torch.cat([bias, dead_bias]),
        decoder=torch.cat([both * lengths / gain * stretch, normal(dead, d)]),
        decoder_bias=offset * stretch,
        skip=skip,
        threshold=torch.cat([torch.zeros(2 * d), torch.full((dead,), 1e6)]),
        one_threshold=0.0,
        log_gain=log_gain,
        magnitude=magnitude,
        k=width // 2 if traits.is_grouped else d,
        norms=traits.norms,
    )


# What formulas are made of


def _top(before: Tensor, k: int) -> Tensor:
    """Zeros but for the k largest of each row."""
    kept = before.topk(k, dim=-1).indices
    return torch.where(torch.zeros_like(before).scatter(-1, kept, 1) > 0, before, 0)


def _jump(before: Tensor, threshold: Tensor | float) -> Tensor:
    return before.relu() * (before > threshold)


def _write_json(file: Path, config: Config) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(config))


# sparsify


def _sparsify(activation: str = "topk", transcode: bool = False, skips: bool = False) -> dict[str, Any]:
    def lay_out(parts: Parts) -> tuple[Tensors, Config]:
        d_in, width, _ = parts.sizes
        tensors = {"encoder.weight": parts.encoder, "encoder.bias": parts.bias, "W_dec": parts.decoder}
        tensors |= {"b_dec": parts.decoder_bias} | ({"W_skip": parts.skip} if skips else {})
        config = {"activation": activation, "d_in": d_in, "num_latents": width, "expansion_factor": 99, "k": parts.k}
        more = {"normalize_decoder": True, "multi_topk": False, "skip_connection": skips, "transcode": transcode}
        return tensors, config | more

    return {
        "format": "sparsify",
        "family": activation,
        "kind": ("skip transcoder" if skips else "transcoder") if transcode else "sae",
        "traits": Traits(is_centred=not transcode, skips=skips, is_grouped=activation == "groupmax"),
        "lay_out": lay_out,
        "encode": _encode_sparsify,
        "decode": _decode_sparsify,
        "save": _save_sparsify,
        "weights": "sae.safetensors",
        "config_file": "cfg.json",
        "needs": ("d_in", "k"),
        "sizes": ("d_in", "num_latents"),
        "k_at": "k",
    }


def _encode_sparsify(tensors: Tensors, config: Config, x: Tensor) -> Tensor:
    centred = x if config["transcode"] else x - tensors["b_dec"]
    before = (centred @ tensors["encoder.weight"].T + tensors["encoder.bias"]).relu()
    if config["activation"] == "topk":
        return _top(before, config["k"])
    groups = before.reshape(len(x), config["k"], -1)
    return torch.cat([_top(groups[:, i], 1) for i in range(config["k"])], 1)


def _decode_sparsify(tensors: Tensors, config: Config, active: Tensor, x: Tensor) -> Tensor:
    outputs = active @ tensors["W_dec"] + tensors["b_dec"]
    return outputs + x @ tensors["W_skip"].T if config["skip_connection"] else outputs


def _save_sparsify(folder: Path, tensors: Tensors, config: Config) -> Path:
    _write_json(folder / "cfg.json", config)
    save_file(tensors, folder / "sae.safetensors")
    return folder


# SAELens


def _saelens(
    architecture: str = "standard",
    is_centred: bool = False,
    is_old: bool = False,
    has_log_threshold: bool = False,
    settings: Config | None = None,
) -> dict[str, Any]:
    is_topk = architecture == "topk"
    is_transcoder, skips = "transcoder" in architecture, "skip" in architecture
    has_thresholds = architecture.startswith("jumprelu") or architecture == "batchtopk"

    def lay_out(parts: Parts) -> tuple[Tensors, Config]:
        d_in, width, d_out = parts.sizes
        tensors = {"W_enc": parts.encoder.T, "W_dec": parts.decoder, "b_dec": parts.decoder_bias}
        if architecture == "gated":
            tensors |= {"b_gate": parts.bias, "r_mag": parts.log_gain, "b_mag": parts.magnitude}
        else:
            tensors["b_enc"] = parts.bias
        if has_log_threshold:
            tensors["log_threshold"] = parts.threshold.clamp(min=1e-9).log()
        elif has_thresholds:
            tensors["threshold"] = parts.threshold
        tensors |= {"W_skip": parts.skip} if skips else {}
        config: Config = {"d_in": d_in, "d_sae": width, "dtype": "float32", "apply_b_dec_to_input": is_centred}
        config |= {"d_out": d_out} if is_transcoder else {}
        config |= _flat(architecture, parts.k) if is_old else _nested(architecture, parts.k)
        return tensors, config | (settings or {})

    return {
        "format": "saelens",
        "family": "relu" if architecture in ("standard", "transcoder") else architecture.split("_")[0],
        "kind": ("skip transcoder" if skips else "transcoder") if is_transcoder else "sae",
        "traits": Traits(
            is_centred=is_centred,
            is_gated=architecture == "gated",
            skips=skips,
            has_thresholds=has_thresholds,
            d_out=D_OUT if is_transcoder else D_IN,
        ),
        "lay_out": lay_out,
        "encode": _encode_saelens,
        "decode": _decode_saelens,
        "save": _save_saelens,
        "weights": "sae_weights.safetensors",
        "config_file": "cfg.json",
        "needs": ("d_in", *(("activation_fn_kwargs.k" if is_old else "k",) if is_topk else ())),
        "sizes": ("d_in", "d_sae", *(("d_out",) if is_transcoder else ())),
        "k_at": ("activation_fn_kwargs.k" if is_old else "k") if is_topk else None,
        "model": "tiny",
        "hookpoint": "blocks.1.hook_resid_post",
    }


def _flat(architecture: str, k: int) -> Config:
    """A configuration as it was before version 6."""
    config: Config = {"model_name": "tiny", "hook_point": "blocks.1.hook_resid_post", "hook_point_layer": 1}
    config |= {"hook_point_head_index": None, "prepend_bos": True, "normalize_activations": "none"}
    if architecture == "topk":
        return config | {"activation_fn_str": "topk", "activation_fn_kwargs": {"k": k}}
    config |= {"activation_fn_str": "relu", "activation_fn_kwargs": {}}
    return config if architecture == "standard" else config | {"architecture": architecture}


def _nested(architecture: str, k: int) -> Config:
    """A configuration as it is since version 6."""
    metadata = {"model_name": "tiny", "hook_name": "blocks.1.hook_resid_post", "hook_head_index": None}
    config: Config = {"architecture": architecture, "metadata": metadata | {"sae_lens_version": "6.54.12"}}
    config |= {"device": "cpu", "normalize_activations": "none", "reshape_activations": "none"}
    return config | {"k": k, "rescale_acts_by_decoder_norm": False} if architecture == "topk" else config


def _encode_saelens(tensors: Tensors, config: Config, x: Tensor) -> Tensor:
    if config["normalize_activations"] == "layer_norm":
        x = (x - x.mean(-1, keepdim=True)) / (x.std(-1, keepdim=True) + 1e-5)
    if config["normalize_activations"] == "constant_norm_rescale":
        x = x / x.norm(dim=-1, keepdim=True) * x.shape[-1] ** 0.5
    shared = (x - tensors["b_dec"] if config["apply_b_dec_to_input"] else x) @ tensors["W_enc"]
    if "b_gate" in tensors:
        magnitude = (shared * tensors["r_mag"].exp() + tensors["b_mag"]).relu()
        return magnitude * (shared + tensors["b_gate"] > 0)
    before = shared + tensors["b_enc"]
    k = config.get("k") or config.get("activation_fn_kwargs", {}).get("k")
    if k:
        rescaled = before * tensors["W_dec"].norm(dim=1) if config.get("rescale_acts_by_decoder_norm") else before
        return _top(rescaled, k).relu()
    if "log_threshold" in tensors:
        return _jump(before, tensors["log_threshold"].exp())
    return _jump(before, tensors.get("threshold", 0.0))


def _decode_saelens(tensors: Tensors, config: Config, active: Tensor, x: Tensor) -> Tensor:
    if config.get("rescale_acts_by_decoder_norm"):
        active = active / tensors["W_dec"].norm(dim=1)
    outputs = active @ tensors["W_dec"] + tensors["b_dec"]
    if config["normalize_activations"] == "layer_norm":
        outputs = outputs * x.std(-1, keepdim=True) + x.mean(-1, keepdim=True)
    if config["normalize_activations"] == "constant_norm_rescale":
        outputs = outputs * x.norm(dim=-1, keepdim=True) / x.shape[-1] ** 0.5
    return outputs + x @ tensors["W_skip"].T if "W_skip" in tensors else outputs


def _save_saelens(folder: Path, tensors: Tensors, config: Config) -> Path:
    _write_json(folder / "cfg.json", config)
    save_file(tensors, folder / "sae_weights.safetensors")
    return folder


# Gemma Scope


def _gemma_scope() -> dict[str, Any]:
    def lay_out(parts: Parts) -> tuple[Tensors, Config]:
        tensors = {"W_enc": parts.encoder.T, "W_dec": parts.decoder, "b_enc": parts.bias, "b_dec": parts.decoder_bias}
        return tensors | {"threshold": parts.threshold}, {}

    return {
        "format": "gemma_scope",
        "family": "jumprelu",
        "kind": None,
        "traits": Traits(has_thresholds=True),
        "lay_out": lay_out,
        "encode": lambda t, config, x: _jump(x @ t["W_enc"] + t["b_enc"], t["threshold"]),
        "decode": lambda t, config, active, x: active @ t["W_dec"] + t["b_dec"],
        "save": _save_gemma_scope,
        "weights": "params.npz",
        "l0": 82.0,
    }


def _save_gemma_scope(folder: Path, tensors: Tensors, config: Config) -> Path:
    inside = folder / "layer_1" / "width_16k" / "average_l0_82"
    inside.mkdir(parents=True, exist_ok=True)
    np.savez(inside / "params.npz", **{name: each.numpy() for name, each in tensors.items()})
    return inside


def _gemma_scope_2(has_config: bool = True, skips: bool = False) -> dict[str, Any]:
    read, written = "model.layers.1.output", "model.layers.1.post_feedforward_layernorm.output"

    def lay_out(parts: Parts) -> tuple[Tensors, Config]:
        tensors = {"w_enc": parts.encoder.T, "w_dec": parts.decoder, "b_enc": parts.bias, "b_dec": parts.decoder_bias}
        tensors |= {"threshold": parts.threshold} | ({"affine_skip_connection": parts.skip.T} if skips else {})
        config = {"architecture": "jump_relu", "model_name": "gemma-v3-270m-pt", "hf_hook_point_in": read, "l0": 20}
        config |= {"affine_connection": skips} | ({"hf_hook_point_out": written} if skips else {})
        return tensors, config if has_config else {}

    return {
        "format": "gemma_scope_2",
        "family": "jumprelu",
        "kind": "skip transcoder" if skips else "sae" if has_config else None,
        "traits": Traits(d_out=D_OUT if skips else D_IN, skips=skips, has_thresholds=True),
        "lay_out": lay_out,
        "encode": lambda t, config, x: _jump(x @ t["w_enc"] + t["b_enc"], t["threshold"]),
        "decode": _decode_gemma_scope_2,
        "save": _save_gemma_scope_2,
        "weights": "params.safetensors",
        "config_file": "config.json" if has_config else None,
        "model": "gemma-v3-270m-pt" if has_config else None,
        "hookpoint": read if has_config else None,
        "l0": 20 if has_config else None,
    }


def _decode_gemma_scope_2(tensors: Tensors, config: Config, active: Tensor, x: Tensor) -> Tensor:
    outputs = active @ tensors["w_dec"] + tensors["b_dec"]
    return outputs + x @ tensors["affine_skip_connection"] if "affine_skip_connection" in tensors else outputs


def _save_gemma_scope_2(folder: Path, tensors: Tensors, config: Config) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    if config:
        _write_json(folder / "config.json", config)
    save_file(tensors, folder / "params.safetensors")
    return folder


# Llama Scope


def _llama_scope(
    activation: str = "jumprelu",
    norm_activation: str = "dataset-wise",
    norms: tuple[float, float] = (7.0, 7.0),
    is_centred: bool = False,
    counts_norms: bool = True,
) -> dict[str, Any]:
    read = "blocks.1.hook_resid_post"
    is_transcoder = norms[0] != norms[1]
    k_at = "top_k" if activation == "topk" else None
    measured = ("dataset_average_activation_norm.in", "dataset_average_activation_norm.out")

    def lay_out(parts: Parts) -> tuple[Tensors, Config]:
        d, width, _ = parts.sizes
        tensors = {"encoder.weight": parts.encoder, "encoder.bias": parts.bias}
        tensors |= {"decoder.weight": parts.decoder.T, "decoder.bias": parts.decoder_bias}
        config = {"d_model": d, "d_sae": width, "expansion_factor": 3, "act_fn": activation, "top_k": parts.k}
        config |= {"jump_relu_threshold": parts.one_threshold, "use_decoder_bias": True}
        config |= {"norm_activation": norm_activation, "sparsity_include_decoder_norm": counts_norms}
        config |= {"dataset_average_activation_norm": {"in": parts.norms[0], "out": parts.norms[1]}}
        config |= {"apply_decoder_bias_to_pre_encoder": is_centred, "use_glu_encoder": False, "hook_point_in": read}
        return tensors, config | {"hook_point_out": "blocks.1.hook_mlp_out" if is_transcoder else read}

    return {
        "format": "llama_scope",
        "family": activation,
        "kind": "transcoder" if is_transcoder else "sae",
        "traits": Traits(is_centred=is_centred, norms=norms),
        "lay_out": lay_out,
        "encode": _encode_llama_scope,
        "decode": _decode_llama_scope,
        "save": _save_llama_scope,
        "weights": "final.safetensors",
        "config_file": "hyperparams.json",
        "needs": (
            *("d_model", "norm_activation", "act_fn"),
            *(("jump_relu_threshold",) if activation == "jumprelu" else ()),
            *(measured if norm_activation == "dataset-wise" else ()),
            *((k_at,) if k_at else ()),
        ),
        "sizes": ("d_model", "d_sae"),
        "k_at": k_at,
        "hookpoint": read,
    }


def _factors(config: Config, x: Tensor) -> tuple[Tensor, Tensor]:
    """By what inputs are multiplied, and outputs divided."""
    if config["norm_activation"] == "token-wise":
        own = config["d_model"] ** 0.5 / x.norm(dim=-1, keepdim=True)
        return own, own
    if config["norm_activation"] == "inference":
        return torch.tensor(1.0), torch.tensor(1.0)
    norms = config["dataset_average_activation_norm"]
    return torch.tensor(config["d_model"] ** 0.5 / norms["in"]), torch.tensor(config["d_model"] ** 0.5 / norms["out"])


def _encode_llama_scope(tensors: Tensors, config: Config, x: Tensor) -> Tensor:
    """Values as the encoder gives them; which latents fire, as once the scaling is folded into the weights."""
    read, written = _factors(config, x)
    scaled = x * read - (tensors["decoder.bias"] if config["apply_decoder_bias_to_pre_encoder"] else 0)
    before = scaled @ tensors["encoder.weight"].T + tensors["encoder.bias"]
    seen = before
    if config["norm_activation"] == "dataset-wise":
        seen = before / read
        lengths = (tensors["decoder.weight"] * read / written).norm(dim=0)
    else:
        lengths = tensors["decoder.weight"].norm(dim=0)
    seen = seen * lengths if config["sparsity_include_decoder_norm"] else seen
    if config["act_fn"] == "topk":
        return before * (_top(seen, config["top_k"]) > 0)
    return before.relu() * (seen > (config["jump_relu_threshold"] if config["act_fn"] == "jumprelu" else 0))


def _decode_llama_scope(tensors: Tensors, config: Config, active: Tensor, x: Tensor) -> Tensor:
    _, written = _factors(config, x)
    return (active @ tensors["decoder.weight"].T + tensors["decoder.bias"]) / written


def _save_llama_scope(folder: Path, tensors: Tensors, config: Config) -> Path:
    _write_json(folder / "hyperparams.json", config)
    (folder / "checkpoints").mkdir(exist_ok=True)
    save_file(tensors, folder / "checkpoints" / "final.safetensors")
    return folder


# dictionary_learning


def _dictionary_learning(
    dict_class: str,
    family: str,
    lay_out: Callable[[Parts], Tensors],
    encode: Callable[[Tensors, Config, Tensor], Tensor],
    decode: Callable[[Tensors, Config, Tensor, Tensor], Tensor],
    traits: Traits,
    unused: tuple[str, ...] = (),
) -> dict[str, Any]:
    has_k = family in ("topk", "batchtopk")

    def lay_out_all(parts: Parts) -> tuple[Tensors, Config]:
        d, width, _ = parts.sizes
        trainer = {"dict_class": dict_class, "activation_dim": d, "dict_size": width, "layer": 1, "lm_name": "lab/tiny"}
        trainer |= {"submodule_name": "resid_post_layer_1"} | ({"k": parts.k} if has_k else {})
        tensors = lay_out(parts) | ({"k": torch.tensor(parts.k, dtype=torch.int)} if has_k else {})
        return tensors, {"trainer": trainer, "buffer": {"ctx_len": 128}}

    return {
        "format": "dictionary_learning",
        "family": family,
        "kind": "sae",
        "traits": traits,
        "lay_out": lay_out_all,
        "encode": encode,
        "decode": decode,
        "save": _save_dictionary_learning,
        "weights": "ae.pt",
        "config_file": "config.json",
        "needs": (
            "trainer.dict_class",
            "trainer.activation_dim",
            "trainer.dict_size",
            *(("trainer.k",) if has_k else ()),
        ),
        "sizes": ("trainer.activation_dim", "trainer.dict_size"),
        "k_at": "trainer.k" if has_k else None,
        "unused": (*unused, *(("k",) if has_k else ())),
        "model": "lab/tiny",
        "hookpoint": "layers.1",
    }


def _save_dictionary_learning(folder: Path, tensors: Tensors, config: Config) -> Path:
    _write_json(folder / "config.json", config)
    torch.save(tensors, folder / "ae.pt")
    return folder


def _linear(parts: Parts, bias: str | None, centre: str) -> Tensors:
    """Weights of linear layers."""
    tensors = {"encoder.weight": parts.encoder, "decoder.weight": parts.decoder.T, centre: parts.decoder_bias}
    return tensors if bias is None else tensors | {bias: parts.bias}


def _matrices(parts: Parts) -> Tensors:
    """Weights as the classes have them that are not made of layers."""
    tensors = {"W_enc": parts.encoder.T, "b_enc": parts.bias, "W_dec": parts.decoder, "b_dec": parts.decoder_bias}
    return {name: each.contiguous() for name, each in tensors.items()}


def _relu() -> dict[str, Any]:
    """As the library loads it: directions of the decoder of length 1."""

    def encode(t: Tensors, config: Config, x: Tensor) -> Tensor:
        before = (x - t["bias"]) @ t["encoder.weight"].T + t["encoder.bias"]
        return before.relu() * t["decoder.weight"].norm(dim=0)

    def decode(t: Tensors, config: Config, active: Tensor, x: Tensor) -> Tensor:
        return active @ torch.nn.functional.normalize(t["decoder.weight"], dim=0).T + t["bias"]

    traits = Traits(is_centred=True)
    return _dictionary_learning(
        "AutoEncoder", "relu", lambda p: _linear(p, "encoder.bias", "bias"), encode, decode, traits
    )


def _relu_new() -> dict[str, Any]:
    def encode(t: Tensors, config: Config, x: Tensor) -> Tensor:
        return torch.nn.functional.linear(x, t["encoder.weight"], t["encoder.bias"]).relu()

    def decode(t: Tensors, config: Config, active: Tensor, x: Tensor) -> Tensor:
        return torch.nn.functional.linear(active, t["decoder.weight"], t["decoder.bias"])

    def lay_out(parts: Parts) -> Tensors:
        return _linear(parts, "encoder.bias", "decoder.bias")

    return _dictionary_learning("AutoEncoderNew", "relu", lay_out, encode, decode, Traits())


def _gated() -> dict[str, Any]:
    def lay_out(parts: Parts) -> Tensors:
        gates = {"gate_bias": parts.bias, "r_mag": parts.log_gain, "mag_bias": parts.magnitude}
        return _linear(parts, None, "decoder_bias") | gates

    def encode(t: Tensors, config: Config, x: Tensor) -> Tensor:
        shared = (x - t["decoder_bias"]) @ t["encoder.weight"].T
        opened = (shared + t["gate_bias"] > 0).float()
        return opened * (t["r_mag"].exp() * shared + t["mag_bias"]).relu()

    def decode(t: Tensors, config: Config, active: Tensor, x: Tensor) -> Tensor:
        return active @ t["decoder.weight"].T + t["decoder_bias"]

    traits = Traits(is_centred=True, is_gated=True)
    return _dictionary_learning("GatedAutoEncoder", "gated", lay_out, encode, decode, traits)


def _topk() -> dict[str, Any]:
    def lay_out(parts: Parts) -> Tensors:
        return _linear(parts, "encoder.bias", "b_dec") | {"threshold": torch.tensor(-1.0)}

    def encode(t: Tensors, config: Config, x: Tensor) -> Tensor:
        before = (x - t["b_dec"]) @ t["encoder.weight"].T + t["encoder.bias"]
        return _top(before.relu(), int(t["k"]))

    traits = Traits(is_centred=True)
    return _dictionary_learning(
        "AutoEncoderTopK", "topk", lay_out, encode, _decode_linear, traits, unused=("threshold",)
    )


def _batch_topk() -> dict[str, Any]:
    def lay_out(parts: Parts) -> Tensors:
        return _linear(parts, "encoder.bias", "b_dec") | {"threshold": torch.tensor(parts.one_threshold)}

    def encode(t: Tensors, config: Config, x: Tensor) -> Tensor:
        before = (x - t["b_dec"]) @ t["encoder.weight"].T + t["encoder.bias"]
        return _jump(before, t["threshold"])

    traits = Traits(is_centred=True)
    return _dictionary_learning("BatchTopKSAE", "batchtopk", lay_out, encode, _decode_linear, traits)


def _decode_linear(tensors: Tensors, config: Config, active: Tensor, x: Tensor) -> Tensor:
    return active @ tensors["decoder.weight"].T + tensors["b_dec"]


def _matryoshka() -> dict[str, Any]:
    def lay_out(parts: Parts) -> Tensors:
        sizes = torch.tensor([8, len(parts.bias) - 8])
        return _matrices(parts) | {"threshold": torch.tensor(parts.one_threshold), "group_sizes": sizes}

    def encode(t: Tensors, config: Config, x: Tensor) -> Tensor:
        return _jump((x - t["b_dec"]) @ t["W_enc"] + t["b_enc"], t["threshold"])

    traits = Traits(is_centred=True)
    return _dictionary_learning(
        "MatryoshkaBatchTopKSAE", "batchtopk", lay_out, encode, _decode_matrices, traits, unused=("group_sizes",)
    )


def _jumprelu() -> dict[str, Any]:
    def encode(t: Tensors, config: Config, x: Tensor) -> Tensor:
        return _jump(x @ t["W_enc"] + t["b_enc"], t["threshold"])

    def lay_out(parts: Parts) -> Tensors:
        return _matrices(parts) | {"threshold": parts.threshold}

    traits = Traits(has_thresholds=True)
    return _dictionary_learning("JumpReluAutoEncoder", "jumprelu", lay_out, encode, _decode_matrices, traits)


def _decode_matrices(tensors: Tensors, config: Config, active: Tensor, x: Tensor) -> Tensor:
    return active @ tensors["W_dec"] + tensors["b_dec"]


# OpenAI


def _openai(activation: str) -> dict[str, Any]:
    is_topk = activation == "TopK"

    def lay_out(parts: Parts) -> tuple[Tensors, Config]:
        tensors = {"pre_bias": parts.decoder_bias, "latent_bias": parts.bias, "encoder.weight": parts.encoder}
        tensors |= {"decoder.weight": parts.decoder.T, "stats_last_nonzero": torch.zeros(len(parts.bias)).long()}
        settings = {"k": parts.k, "postact_fn": "ReLU"} if is_topk else {}
        return tensors, {"activation": activation, "activation_state_dict": settings}

    return {
        "format": "openai",
        "family": activation.lower(),
        "kind": "sae",
        "traits": Traits(is_centred=True),
        "lay_out": lay_out,
        "encode": _encode_openai,
        "decode": _decode_openai,
        "save": _save_openai,
        "weights": "1.pt",
        "k_at": "activation_state_dict.k" if is_topk else None,
        "unused": ("stats_last_nonzero",),
    }


def _encode_openai(tensors: Tensors, config: Config, x: Tensor) -> Tensor:
    if config["activation"] == "TopK":
        x = x - x.mean(-1, keepdim=True)
        x = x / (x.std(-1, keepdim=True) + 1e-5)
    before = (x - tensors["pre_bias"]) @ tensors["encoder.weight"].T + tensors["latent_bias"]
    k = config["activation_state_dict"].get("k")
    return _top(before, k).relu() if k else before.relu()


def _decode_openai(tensors: Tensors, config: Config, active: Tensor, x: Tensor) -> Tensor:
    outputs = active @ tensors["decoder.weight"].T + tensors["pre_bias"]
    if config["activation"] == "TopK":
        outputs = outputs * x.std(-1, keepdim=True) + x.mean(-1, keepdim=True)
    return outputs


def _save_openai(folder: Path, tensors: Tensors, config: Config) -> Path:
    file = folder / "resid_post_mlp" / "autoencoders" / "1.pt"
    file.parent.mkdir(parents=True, exist_ok=True)
    torch.save({**tensors, **config}, file)
    return file


# Qwen Scope


def _qwen_scope() -> dict[str, Any]:
    def lay_out(parts: Parts) -> tuple[Tensors, Config]:
        tensors = {"W_enc": parts.encoder, "W_dec": parts.decoder.T, "b_enc": parts.bias, "b_dec": parts.decoder_bias}
        return tensors, {"k": parts.k}

    return {
        "format": "qwen_scope",
        "family": "topk",
        "kind": "sae",
        "traits": Traits(width=QWEN_WIDTH),
        "lay_out": lay_out,
        "encode": lambda t, config, x: _top(x @ t["W_enc"].T + t["b_enc"], config["k"]).relu(),
        "decode": lambda t, config, active, x: active @ t["W_dec"].T + t["b_dec"],
        "save": _save_qwen_scope,
        "weights": "layer3.sae.pt",
        "k_at": "k",
        "model": "Qwen/Tiny",
        "hookpoint": "layers.3",
    }


def _save_qwen_scope(folder: Path, tensors: Tensors, config: Config) -> Path:
    """Under the name of a repository, which alone says k."""
    file = folder / f"SAE-Res-Tiny-W{QWEN_WIDTH // 1024}K-L0_{config['k']}" / "layer3.sae.pt"
    file.parent.mkdir(parents=True, exist_ok=True)
    torch.save(tensors, file)
    return file


_BUILT: dict[str, dict[str, Any]] = {
    "sparsify": _sparsify(),
    "sparsify_groupmax": _sparsify(activation="groupmax"),
    "sparsify_transcoder": _sparsify(transcode=True),
    "sparsify_skip": _sparsify(transcode=True, skips=True),
    "saelens_standard_old": _saelens(is_old=True, is_centred=True),
    "saelens_topk_old": _saelens("topk", is_old=True, is_centred=True),
    "saelens_standard": _saelens(is_centred=True),
    "saelens_topk": _saelens("topk"),
    "saelens_topk_rescaled": _saelens("topk", is_centred=True, settings={"rescale_acts_by_decoder_norm": True}),
    "saelens_jumprelu": _saelens("jumprelu"),
    "saelens_jumprelu_old": _saelens("jumprelu", is_old=True, is_centred=True, has_log_threshold=True),
    "saelens_gated": _saelens("gated", is_centred=True),
    "saelens_batchtopk": _saelens("batchtopk", is_centred=True),
    "saelens_layer_norm": _saelens(is_centred=True, settings={"normalize_activations": "layer_norm"}),
    "saelens_unit_norm": _saelens(settings={"normalize_activations": "constant_norm_rescale"}),
    "saelens_transcoder": _saelens("transcoder"),
    "saelens_skip": _saelens("jumprelu_skip_transcoder"),
    "gemma_scope": _gemma_scope(),
    "gemma_scope_2": _gemma_scope_2(),
    "gemma_scope_2_bare": _gemma_scope_2(has_config=False),
    "gemma_scope_2_skip": _gemma_scope_2(skips=True),
    "llama_scope": _llama_scope(),
    "llama_scope_transcoder": _llama_scope(norms=(7.0, 2.0)),
    "llama_scope_topk": _llama_scope("topk"),
    "llama_scope_topk_plain": _llama_scope("topk", norm_activation="inference", is_centred=True, counts_norms=False),
    "llama_scope_token_wise": _llama_scope(norm_activation="token-wise", is_centred=True),
    "llama_scope_relu": _llama_scope("relu", counts_norms=False),
    "llama_scope_no_norms": _llama_scope(norms=(7.0, 2.0), counts_norms=False),
    "dictionary_learning_relu": _relu(),
    "dictionary_learning_relu_new": _relu_new(),
    "dictionary_learning_gated": _gated(),
    "dictionary_learning_topk": _topk(),
    "dictionary_learning_batch_topk": _batch_topk(),
    "dictionary_learning_matryoshka": _matryoshka(),
    "dictionary_learning_jumprelu": _jumprelu(),
    "openai_relu": _openai("ReLU"),
    "openai_topk": _openai("TopK"),
    "qwen_scope": _qwen_scope(),
}

VARIANTS: dict[str, Variant] = {name: Variant(name=name, **built) for name, built in _BUILT.items()}
