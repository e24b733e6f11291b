"""Qwen Scope: TopK autoencoders, ``layerN.sae.pt``. How many latents fire stands in the name of the repository alone.

Encoding, after the model cards: the encoder, with nothing subtracted, and the k largest.
"""

from __future__ import annotations

import re
from pathlib import Path

from latentlake.coders.opening import Source
from latentlake.coders.parameters import Parameters, Stated
from latentlake.coders.reading import read_pt, require_k
from latentlake.coders.rules import TopK
from latentlake.errors import InputError
from latentlake.registry import CODERS

_LAYER = re.compile(r"layer(\d+)\.sae\.pt")
_REPOSITORY = re.compile(r"SAE-Res-(?P<model>.+)-W(?P<width>\d+)K-L0_(?P<k>\d+)")


@CODERS.register("qwen_scope")
class QwenScope:
    """TopK autoencoders of the residual stream."""

    version = "1"

    @staticmethod
    def files(path: Path) -> list[Path]:
        """The file itself."""
        return [path] if _LAYER.fullmatch(path.name) else []

    @staticmethod
    def read(source: Source) -> tuple[Parameters, Stated]:
        """Parameters from W_enc [width, d] and W_dec [d, width]; k from the repository's name, or else from the study."""
        tensors, _ = read_pt(source.path)
        width, d = tensors.length("b_enc"), tensors.length("b_dec")
        name = _REPOSITORY.search(source.reference)
        parameters = Parameters(
            TopK(_k(source, name, width)),
            encoder=tensors.take("W_enc", width, d),
            bias=tensors.take("b_enc", width),
            decoder=tensors.take("W_dec", d, width).T,
            decoder_bias=tensors.take("b_dec", d),
        )
        layer = _LAYER.fullmatch(source.path.name)
        model = f"Qwen/{name['model']}" if name else None
        return parameters, Stated(kind="sae", model=model, hookpoint=f"layers.{layer[1]}" if layer else None)


def _k(source: Source, name: re.Match[str] | None, width: int) -> int:
    stated = int(name["k"]) if name else None
    if name and int(name["width"]) * 1024 != width:
        raise InputError(f"{source.path} has {width:,} latents, and {source.reference} is called W{name['width']}K.")
    if stated is None and source.k is None:
        raise InputError(
            f"{source.path} does not say how many latents fire. Give the dictionary a `k` (the L0 in the repository's name)."
        )
    if stated is not None and source.k not in (None, stated) and not source.is_control:
        raise InputError(
            f"Coder {source.reference}: k = {source.k} in the study, and {stated} in the repository's name."
        )
    k = stated if stated is not None else source.k
    assert k is not None
    return require_k(k, width, source.path)
