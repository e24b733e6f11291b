"""Sparse coders against their format's formula, on checkpoints made here; none of them is square."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from latentlake.coders import sparsify
from latentlake.coders.sparsify import CoderShape, SparsifyCoder
from latentlake.errors import InputError

D, L, K = 12, 40, 5


def checkpoint(directory: Path, **settings: Any) -> Path:
    """A sparsify checkpoint of random weights; settings override what ``cfg.json`` says."""
    directory.mkdir(parents=True, exist_ok=True)
    random = torch.Generator().manual_seed(7)
    shapes = {"encoder.weight": (L, D), "encoder.bias": (L,), "W_dec": (L, D), "b_dec": (D,)}
    tensors = {name: torch.randn(shape, generator=random) for name, shape in shapes.items()}
    save_file(tensors, directory / "sae.safetensors")
    config = {"activation": "topk", "d_in": D, "num_latents": L, "expansion_factor": 99, "k": K, "transcode": False}
    (directory / "cfg.json").write_text(json.dumps(config | settings))
    return directory


def formula(directory: Path, inputs: torch.Tensor, is_transcoder: bool = False) -> torch.Tensor:
    """Dense activations [n, L], as the format defines them."""
    tensors = load_file(directory / "sae.safetensors")
    centred = inputs if is_transcoder else inputs - tensors["b_dec"]
    before = (centred @ tensors["encoder.weight"].T + tensors["encoder.bias"]).relu()
    top = before.topk(K)
    return torch.zeros_like(before).scatter(1, top.indices, top.values)


def dense(values: torch.Tensor, latents: torch.Tensor) -> torch.Tensor:
    """Dense activations [n, L] out of a coder's answer."""
    return torch.zeros(len(values), L).scatter(1, latents, values)


@pytest.fixture
def inputs() -> torch.Tensor:
    """Inputs of which some leave fewer than k latents above 0."""
    return torch.randn(33, D, generator=torch.Generator().manual_seed(3)) * torch.linspace(0, 3, 33)[:, None]


@pytest.mark.parametrize("is_transcoder", [False, True])
def test_encode_is_the_formula(tmp_path: Path, inputs: torch.Tensor, is_transcoder: bool) -> None:
    coder = SparsifyCoder(checkpoint(tmp_path, transcode=is_transcoder))
    values, latents = coder.encode(inputs)
    assert values.shape == latents.shape == (33, K)
    assert latents.dtype == torch.int64
    torch.testing.assert_close(dense(values, latents), formula(tmp_path, inputs, is_transcoder))


def test_latents_that_do_not_fire_are_zero(tmp_path: Path, inputs: torch.Tensor) -> None:
    directory = checkpoint(tmp_path)
    tensors = load_file(directory / "sae.safetensors")
    tensors["encoder.bias"] -= 8
    save_file(tensors, directory / "sae.safetensors")
    values, latents = SparsifyCoder(directory).encode(inputs)
    assert (values == 0).any()
    assert (values >= 0).all()
    torch.testing.assert_close(dense(values, latents), formula(directory, inputs))


def test_blocks_do_not_show(tmp_path: Path, inputs: torch.Tensor, monkeypatch: pytest.MonkeyPatch) -> None:
    coder = SparsifyCoder(checkpoint(tmp_path))
    whole = dense(*coder.encode(inputs))
    monkeypatch.setattr(sparsify, "_BLOCK", 4 * L)
    torch.testing.assert_close(dense(*coder.encode(inputs)), whole)


def test_half_precision_is_encoded_in_float32(tmp_path: Path, inputs: torch.Tensor) -> None:
    coder = SparsifyCoder(checkpoint(tmp_path))
    values, latents = coder.encode(inputs.half())
    assert values.dtype == torch.float32
    torch.testing.assert_close(dense(values, latents), formula(tmp_path, inputs.half().float()))


def test_no_inputs_give_no_rows(tmp_path: Path) -> None:
    values, latents = SparsifyCoder(checkpoint(tmp_path)).encode(torch.zeros(0, D))
    assert values.shape == latents.shape == (0, K)
    assert latents.dtype == torch.int64


def test_inputs_of_another_width_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="width 12, and these have 13"):
        SparsifyCoder(checkpoint(tmp_path)).encode(torch.zeros(2, 13))


def test_inspect_reads_the_shape(tmp_path: Path) -> None:
    assert sparsify.inspect(checkpoint(tmp_path)) == CoderShape(width=L, d_in=D, k=K)


def test_width_follows_from_the_expansion_factor(tmp_path: Path) -> None:
    directory = checkpoint(tmp_path, num_latents=0, expansion_factor=3)
    with pytest.raises(InputError, match=r"\[36, 12\]"):
        sparsify.inspect(directory)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"num_latents": L + 1}, "encoder.weight"),
        ({"d_in": D + 1}, "encoder.weight"),
        ({"d_in": L, "num_latents": D}, "transposed"),
        ({"k": 0}, "k = 0"),
        ({"k": L + 1}, "k = 41"),
        ({"activation": "groupmax"}, "groupmax"),
    ],
)
def test_a_configuration_that_disagrees_is_refused(tmp_path: Path, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        sparsify.inspect(checkpoint(tmp_path, **settings))


def test_a_configuration_without_k_is_refused(tmp_path: Path) -> None:
    directory = checkpoint(tmp_path)
    (directory / "cfg.json").write_text(json.dumps({"d_in": D, "num_latents": L}))
    with pytest.raises(InputError, match="does not state 'k'"):
        sparsify.inspect(directory)


@pytest.mark.parametrize("size", [0, 4, 30, 1000])
def test_a_truncated_file_is_refused(tmp_path: Path, size: int) -> None:
    weights = checkpoint(tmp_path) / "sae.safetensors"
    weights.write_bytes(weights.read_bytes()[:size])
    with pytest.raises(InputError, match="Fetch it again"):
        sparsify.inspect(tmp_path)


@pytest.mark.parametrize("name", ["cfg.json", "sae.safetensors"])
def test_a_missing_file_is_named(tmp_path: Path, name: str) -> None:
    (checkpoint(tmp_path) / name).unlink()
    with pytest.raises(InputError, match=name):
        sparsify.inspect(tmp_path)


def test_inspecting_loads_no_torch(tmp_path: Path) -> None:
    code = "import sys; from pathlib import Path; from latentlake.coders import sparsify;"
    code += f"sparsify.inspect(Path({str(checkpoint(tmp_path))!r})); print('torch' in sys.modules)"
    root = Path(__file__).resolve().parents[1]
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=root)
    assert done.stdout.strip() == "False"
