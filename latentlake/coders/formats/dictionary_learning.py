"""Dictionaries of `dictionary_learning`: ``ae.pt`` beside ``config.json``, whose ``trainer.dict_class`` names the class.

Encoding by class, after the library's own code: all but ``AutoEncoderNew`` and ``JumpReluAutoEncoder`` subtract the decoder's
bias first. ``AutoEncoder`` is used as the library loads it, with decoder directions of length 1 and activations scaled to fit.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from latentlake.coders.opening import Source
from latentlake.coders.parameters import TINY, Parameters, Stated
from latentlake.coders.reading import Config, Tensors, read_json, read_pt, require_k
from latentlake.coders.rules import Threshold, TopK
from latentlake.errors import InputError
from latentlake.registry import CODERS

if TYPE_CHECKING:
    from torch import Tensor


@CODERS.register("dictionary_learning")
class DictionaryLearning:
    """ReLU, gated, TopK, BatchTopK, JumpReLU and Matryoshka autoencoders."""

    version = "1"

    @staticmethod
    def files(path: Path) -> list[Path]:
        """Weights and configuration."""
        return [path / "ae.pt", path / "config.json"]

    @staticmethod
    def read(source: Source) -> tuple[Parameters, Stated]:
        """Parameters; nn.Linear weights are stored [out, in], W_enc [activation_dim, dict_size]."""
        weights, file = DictionaryLearning.files(source.path)
        config = read_json(file).section("trainer")
        name = str(config["dict_class"])
        if name not in _CLASSES:
            raise InputError(f"{file}: dict_class {name!r} is not supported; supported are {', '.join(_CLASSES)}.")
        tensors, _ = read_pt(weights)
        parameters = _CLASSES[name](tensors, config, config.whole("activation_dim"), config.whole("dict_size"))
        return parameters, Stated(kind="sae", model=config.text("lm_name"), hookpoint=_hookpoint(config))


def _hookpoint(config: Config) -> str | None:
    """The residual stream after a layer, where the configuration says that it is that."""
    is_residual = "resid_post" in str(config.get("submodule_name", ""))
    return f"layers.{config.get('layer')}" if is_residual and config.get("layer") is not None else None


def _linear(tensors: Tensors, d: int, width: int) -> tuple[Tensor, Tensor]:
    """Encoder and decoder of the classes that are made of linear layers, both [width, d]."""
    return tensors.take("encoder.weight", width, d), tensors.take("decoder.weight", d, width).T


def _relu(tensors: Tensors, config: Config, d: int, width: int) -> Parameters:
    import torch

    encoder, decoder = _linear(tensors, d, width)
    bias, centre = tensors.take("encoder.bias", width), tensors.take("bias", d)
    norms = decoder.float().norm(dim=1)
    if not torch.allclose(norms, torch.ones_like(norms)):
        encoder, bias = encoder.float() * norms[:, None], bias.float() * norms
        decoder = decoder.float() / norms.clamp(min=TINY)[:, None]
    return Parameters(Threshold(torch.zeros(1), "relu"), encoder, bias, decoder, centre, centre=centre)


def _relu_new(tensors: Tensors, config: Config, d: int, width: int) -> Parameters:
    import torch

    encoder, decoder = _linear(tensors, d, width)
    bias, decoder_bias = tensors.take("encoder.bias", width), tensors.take("decoder.bias", d)
    return Parameters(Threshold(torch.zeros(1), "relu"), encoder, bias, decoder, decoder_bias)


def _gated(tensors: Tensors, config: Config, d: int, width: int) -> Parameters:
    import torch

    encoder, decoder = _linear(tensors, d, width)
    gate, gain = tensors.take("gate_bias", width).float(), tensors.take("r_mag", width).float().exp()
    offset, centre = tensors.take("mag_bias", width).float() - gain * gate, tensors.take("decoder_bias", d)
    rule = Threshold(torch.zeros(1), "gated")
    return Parameters(rule, encoder, gate, decoder, centre, centre=centre, gain=gain, offset=offset)


def _topk(tensors: Tensors, config: Config, d: int, width: int) -> Parameters:
    encoder, decoder = _linear(tensors, d, width)
    bias, centre = tensors.take("encoder.bias", width), tensors.take("b_dec", d)
    return Parameters(TopK(_k(tensors, config, width)), encoder, bias, decoder, centre, centre=centre)


def _batch_topk(tensors: Tensors, config: Config, d: int, width: int) -> Parameters:
    encoder, decoder = _linear(tensors, d, width)
    bias, centre = tensors.take("encoder.bias", width), tensors.take("b_dec", d)
    _k(tensors, config, width)
    return Parameters(_one_threshold(tensors), encoder, bias, decoder, centre, centre=centre)


def _matryoshka(tensors: Tensors, config: Config, d: int, width: int) -> Parameters:
    encoder, decoder = tensors.take("W_enc", d, width).T, tensors.take("W_dec", width, d)
    bias, centre = tensors.take("b_enc", width), tensors.take("b_dec", d)
    _k(tensors, config, width)
    return Parameters(_one_threshold(tensors), encoder, bias, decoder, centre, centre=centre)


def _jumprelu(tensors: Tensors, config: Config, d: int, width: int) -> Parameters:
    encoder, decoder = tensors.take("W_enc", d, width).T, tensors.take("W_dec", width, d)
    rule = Threshold(tensors.take("threshold", width).float().clamp(min=0), "jumprelu")
    return Parameters(rule, encoder, tensors.take("b_enc", width), decoder, tensors.take("b_dec", d))


def _one_threshold(tensors: Tensors) -> Threshold:
    """One threshold for all latents; below 0 it was never set, and whatever is above 0 fires."""
    return Threshold(tensors.take("threshold").float().clamp(min=0).reshape(1), "batchtopk")


def _k(tensors: Tensors, config: Config, width: int) -> int:
    k = require_k(config.whole("k", 0), width, config.file)
    if "k" in tensors.names and tensors.number("k") != k:
        raise InputError(f"{config.file} states k = {k}, and {tensors.file.name} holds k = {tensors.number('k'):g}.")
    return k


_CLASSES: dict[str, Callable[[Tensors, Config, int, int], Parameters]] = {
    "AutoEncoder": _relu,
    "AutoEncoderNew": _relu_new,
    "GatedAutoEncoder": _gated,
    "AutoEncoderTopK": _topk,
    "BatchTopKSAE": _batch_topk,
    "MatryoshkaBatchTopKSAE": _matryoshka,
    "JumpReluAutoEncoder": _jumprelu,
}
