"""The quickstart's coder, saved into every format that can hold it, and loaded back: the same activations, bit for bit.

A format can hold it that has TopK coders whose inputs are taken as they are. Where nothing is subtracted from inputs, the centre
is folded into the bias before it is saved.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from latentlake.coders.coder import SparseCoder
from latentlake.coders.opening import Source, format_of, open_coder
from latentlake.protocols import Firings
from tests import coder_fixtures
from tests.coder_fixtures import VARIANTS, Parts

CODER = Path(__file__).parents[1] / "data" / "coder" / "layers.9"
HOLD = [
    "sparsify", "saelens_topk_old", "saelens_topk", "llama_scope_topk_plain", "dictionary_learning_topk", "qwen_scope",
]  # fmt: skip


@pytest.fixture(scope="module")
def quickstart() -> SparseCoder:
    """As it is in data/."""
    return open_coder("sparsify", Source(CODER, "quickstart"), "cpu")


def sorted_firings(firings: Firings) -> Firings:
    """What fires, in the order of rows and latents."""
    fires = firings.values > 0
    kept = Firings(*(each[fires] for each in firings))
    order = (kept.rows * 10**6 + kept.latents).argsort()
    return Firings(*(each[order] for each in kept))


def parts_of(coder: SparseCoder, is_centred: bool) -> Parts:
    """What the quickstart's coder is made of."""
    own = coder._parameters
    assert own.encoder is not None
    assert own.bias is not None
    assert own.decoder is not None
    assert own.centre is not None
    encoder, bias, centre = own.encoder.float(), own.bias.float(), own.centre.float()
    nothing = torch.zeros(0)
    return Parts(
        encoder=encoder,
        bias=bias if is_centred else bias - encoder @ centre,
        decoder=own.decoder.float(),
        decoder_bias=centre,
        skip=nothing,
        threshold=nothing,
        one_threshold=0.0,
        log_gain=nothing,
        magnitude=nothing,
        k=32,
        norms=(1.0, 1.0),
    )


@pytest.mark.parametrize("name", HOLD)
def test_activations_are_the_same(
    quickstart: SparseCoder, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(coder_fixtures, "QWEN_WIDTH", quickstart.width)
    variant = VARIANTS[name]
    path = replace(variant, parts=parts_of(quickstart, variant.traits.is_centred)).write(tmp_path)
    assert format_of(path, name) == variant.format
    loaded = open_coder(variant.format, Source(path, path.as_posix()), "cpu")
    inputs = quickstart._parameters.decoder_bias.float() + 3 * torch.randn(  # type: ignore[union-attr]
        200, quickstart.d_in, generator=torch.Generator().manual_seed(5)
    )
    wanted, found = (sorted_firings(coder.encode(inputs)) for coder in (quickstart, loaded))
    assert len(wanted.values) > 200 * 20
    for one, other in zip(wanted, found, strict=True):
        assert torch.equal(one, other)
    torch.testing.assert_close(loaded.decode(found, inputs), quickstart.decode(wanted, inputs))
