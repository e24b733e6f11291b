"""Sparse coders of `sparsify` (EleutherAI): ``cfg.json`` beside ``sae.safetensors``.

Encoding, after the format's own code: subtract ``b_dec`` (not for a transcoder), encoder, ReLU, then the k largest, or with
``groupmax`` the largest of each of k groups of neighbours. A transcoder may have a linear skip connection.
"""

from __future__ import annotations

from pathlib import Path

from latentlake.coders.opening import Source
from latentlake.coders.parameters import Parameters, Stated
from latentlake.coders.reading import Config, read_json, read_safetensors, require_k
from latentlake.coders.rules import GroupMax, Rule, TopK
from latentlake.errors import InputError
from latentlake.registry import CODERS


@CODERS.register("sparsify")
class Sparsify:
    """TopK and GroupMax autoencoders and transcoders."""

    version = "1"

    @staticmethod
    def files(path: Path) -> list[Path]:
        """Weights and configuration."""
        return [path / "sae.safetensors", path / "cfg.json"]

    @staticmethod
    def read(source: Source) -> tuple[Parameters, Stated]:
        """Parameters [num_latents, d_in]; ``num_latents`` of 0 means d_in times ``expansion_factor``."""
        weights, cfg = Sparsify.files(source.path)
        config = read_json(cfg)
        config.refuse("signed", "only activations above 0 are stored.")
        d_in = config.whole("d_in")
        width = config.whole("num_latents", 0) if config.get("num_latents") else d_in * config.whole("expansion_factor")
        rule, tensors = _rule(config, width), read_safetensors(weights)
        is_transcoder = config.flag("transcode")
        decoder_bias = tensors.take("b_dec", d_in)
        skip = tensors.take("W_skip", d_in, d_in) if config.flag("skip_connection") else None
        parameters = Parameters(
            rule,
            encoder=tensors.take("encoder.weight", width, d_in),
            bias=tensors.take("encoder.bias", width),
            decoder=tensors.take("W_dec", width, d_in),
            decoder_bias=decoder_bias,
            centre=None if is_transcoder else decoder_bias,
            skip=skip,
        )
        kind = ("skip transcoder" if skip is not None else "transcoder") if is_transcoder else "sae"
        return parameters, Stated(kind=kind)


def _rule(config: Config, width: int) -> Rule:
    k = require_k(config.whole("k", 0), width, config.file)
    if config.choice("activation", ("topk", "groupmax"), default="topk") == "topk":
        return TopK(k)
    if width % k:
        raise InputError(
            f"{config.file}: groupmax divides {width:,} latents into k = {k} equal groups, which cannot be."
        )
    return GroupMax(k, width // k)
