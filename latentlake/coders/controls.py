"""Controls: what a coder would be whose directions mean nothing. What is found in a coder must not be found in them.

`directions` keeps everything of a coder but where its latents point: encoder and decoder directions are drawn uniformly, with
the norms that they have. `initialised` is a coder of the same shape before training, as sparsify makes
autoencoders: uniform encoder weights, no bias, decoder directions equal to the encoder's and of length 1 (those of a transcoder,
which it begins at 0, are drawn). It keeps the coder's centre, which training begins
with as the mean of the activations, and its decoder bias. The third control, a subject of random weights, changes no coder.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from latentlake.coders.parameters import Parameters
from latentlake.coders.rules import Rule, TopK
from latentlake.digest import seed_of
from latentlake.errors import InputError

if TYPE_CHECKING:
    from torch import Generator, Tensor

KINDS = ("directions", "initialised")


def controlled(parameters: Parameters, kind: str, seed: int, k: int | None) -> Parameters:
    """The control of a coder. ``kind``: one of `KINDS`. ``k``: how many latents fire, in place of the coder's own rule.

    Raises:
        InputError: neurons, which have no directions, or a coder of thresholds, made for its own directions, without a ``k``.
    """
    import torch

    if parameters.encoder is None or parameters.decoder is None:
        raise InputError(f"neurons have no control {kind!r}; draw one of a coder, or use the control 'model'")
    rule = _rule(parameters, kind, k)
    drawn = torch.Generator().manual_seed(int(seed_of("control", kind, seed) >> 1))
    make = _directions if kind == "directions" else _initialised
    return replace(make(parameters, drawn), rule=rule)


def _rule(parameters: Parameters, kind: str, k: int | None) -> Rule:
    if k is not None:
        return TopK(k)
    if parameters.rule.k is None:
        raise InputError(needs_k(kind, parameters.rule.family))
    return parameters.rule


def needs_k(kind: str, family: str) -> str:
    """Why a control cannot be drawn without being told how many latents fire."""
    return (
        f"the control {kind!r} of a {family} coder needs a `k`: its thresholds were made for its own directions. Give about as "
        "many as fire of the coder itself"
    )


def _directions(parameters: Parameters, drawn: Generator) -> Parameters:
    assert parameters.encoder is not None
    assert parameters.decoder is not None
    encoder = _unit(parameters.encoder.shape, drawn)
    is_same_space = parameters.encoder.shape == parameters.decoder.shape
    decoder = encoder if is_same_space else _unit(parameters.decoder.shape, drawn)
    return replace(
        parameters,
        encoder=encoder * parameters.encoder.float().norm(dim=1, keepdim=True),
        decoder=decoder * parameters.decoder.float().norm(dim=1, keepdim=True),
    )


def _initialised(parameters: Parameters, drawn: Generator) -> Parameters:
    import torch

    assert parameters.encoder is not None
    assert parameters.decoder is not None
    encoder = (torch.rand(parameters.encoder.shape, generator=drawn) * 2 - 1) / parameters.d_in**0.5
    is_same_space = parameters.encoder.shape == parameters.decoder.shape
    decoder = torch.nn.functional.normalize(encoder) if is_same_space else _unit(parameters.decoder.shape, drawn)
    return replace(parameters, encoder=encoder, bias=None, decoder=decoder, gain=None, offset=None, skip=None)


def _unit(shape: tuple[int, ...], drawn: Generator) -> Tensor:
    """Directions drawn uniformly, one a row, of length 1."""
    import torch

    return torch.nn.functional.normalize(torch.randn(shape, generator=drawn))
