"""Every checkpoint format against the formula of the library that it comes from, and against checkpoints that are not whole."""

from __future__ import annotations

import os
import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from latentlake.coders.coder import SparseCoder
from latentlake.coders.opening import Source, facts, format_of, open_coder
from latentlake.coders.parameters import Facts
from latentlake.errors import InputError
from latentlake.protocols import Firings
from latentlake.registry import CODERS
from tests.coder_fixtures import VARIANTS, WIDTH, K, Variant, changed, inputs, perfect, perfected

ALL = [pytest.param(each, id=name) for name, each in VARIANTS.items()]
TENSORS = [
    pytest.param(each, tensor, id=f"{name}-{tensor}")
    for name, each in VARIANTS.items()
    for tensor in each.tensors
    if tensor not in each.unused
]
CONFIGURED = [pytest.param(each, id=name) for name, each in VARIANTS.items() if each.config_file]
COUNTED = [pytest.param(each, id=name) for name, each in VARIANTS.items() if each.k_at]
PICKLED = [pytest.param(each, id=name) for name, each in VARIANTS.items() if each.weights.endswith(".pt")]
MATRICES = ("encoder.weight", "W_enc", "w_enc")


def source(path: Path, k: int | None = None) -> Source:
    """A checkpoint that is named by its whole path."""
    return Source(path, str(path), k)


def opened(variant: Variant, path: Path) -> SparseCoder:
    """The coder of a checkpoint."""
    return open_coder(variant.format, source(path), "cpu")


def look(variant: Variant, path: Path, k: int | None = None) -> Facts:
    """The facts of a checkpoint."""
    return facts(variant.format, source(path, k))


def weights(variant: Variant, folder: Path) -> Path:
    """The file of weights of a checkpoint that was written to a folder."""
    (file,) = folder.rglob(variant.weights)
    return file


def dense(firings: Firings, n: int, width: int) -> Tensor:
    """Activations [n, width] of what fires."""
    active = torch.zeros(n, width)
    active[firings.rows, firings.latents] = firings.values
    return active


def unexplained(outputs: Tensor, x: Tensor) -> float:
    """Share of the inputs' variance that outputs do not explain."""
    return float((outputs - x).square().sum() / (x - x.mean(0)).square().sum())


def without(config: dict[str, Any], at: str) -> dict[str, Any]:
    """A configuration without the entry at a dotted name."""
    own = changed(config, at, None)
    *above, last = at.split(".")
    inner = own
    for name in above:
        inner = inner[name]
    del inner[last]
    return own


# What a coder computes


def test_every_registered_format_has_a_variant() -> None:
    assert {each.format for each in VARIANTS.values()} == set(CODERS.classes())


@pytest.mark.parametrize("variant", ALL)
def test_the_format_is_told_by_its_files(variant: Variant, tmp_path: Path) -> None:
    assert format_of(variant.write(tmp_path), "coders/one") == variant.format


@pytest.mark.parametrize("variant", ALL)
def test_encode_and_decode_are_the_formula(variant: Variant, tmp_path: Path) -> None:
    x, coder = inputs(), opened(variant, variant.write(tmp_path))
    firings, wanted = coder.encode(x), variant.formula(x)
    found = dense(firings, len(x), coder.width)
    assert 0 < (wanted > 0).float().mean() < 0.5
    assert torch.equal(found > 0, wanted > 0)
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(coder.decode(firings, x), variant.reconstruct(x), rtol=1e-4, atol=1e-4)
    assert coder.directions.shape == (coder.width, coder.d_out)


@pytest.mark.parametrize("variant", COUNTED)
def test_where_fewer_than_k_are_above_0_fewer_fire(variant: Variant, tmp_path: Path) -> None:
    x, coder = inputs(), opened(variant, variant.write(tmp_path))
    fires = (dense(coder.encode(x), len(x), coder.width) > 0).sum(1)
    assert fires.max() == variant.k if variant.k else fires.max() > K
    assert fires.min() < K


@pytest.mark.parametrize("variant", ALL)
def test_facts_are_what_the_checkpoint_says(variant: Variant, tmp_path: Path) -> None:
    d_in, width, d_out = variant.shape
    assert look(variant, variant.write(tmp_path)) == Facts(
        width=width,
        d_in=d_in,
        d_out=d_out,
        family=variant.family,
        k=variant.k,
        kind=variant.kind,
        model=variant.model,
        hookpoint=variant.hookpoint,
        l0=variant.l0,
    )


@pytest.mark.parametrize("d_in", [12, 16])
@pytest.mark.parametrize("variant", ALL)
def test_a_perfect_coder_reconstructs(variant: Variant, d_in: int, tmp_path: Path) -> None:
    x, coder = inputs(d_in), opened(variant, perfect(variant, tmp_path, d_in))
    firings = coder.encode(x)
    assert unexplained(perfected(variant, d_in).reconstruct(x), x) < 1e-6
    assert unexplained(coder.decode(firings, x), x) < 1e-6
    assert (dense(firings, len(x), coder.width) > 0).any(0).sum() <= 2 * d_in < coder.width


@pytest.mark.parametrize(("name", "dtype"), [("sparsify", torch.bfloat16), ("gemma_scope", torch.float16)])
def test_weights_of_half_precision_are_used_in_float32(name: str, dtype: torch.dtype, tmp_path: Path) -> None:
    variant, x = VARIANTS[name], inputs()
    halves = {tensor: each.to(dtype) for tensor, each in variant.tensors.items()}
    coder = opened(variant, variant.write(tmp_path, halves))
    wanted = variant.encode({tensor: each.float() for tensor, each in halves.items()}, variant.config, x)
    torch.testing.assert_close(dense(coder.encode(x), len(x), WIDTH), wanted, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("architecture", ["batchtopk", "matryoshka_batchtopk"])
def test_saelens_coders_of_a_choice_over_batches_are_saved_as_jumprelu(architecture: str, tmp_path: Path) -> None:
    variant, x = VARIANTS["saelens_jumprelu"], inputs()
    path = variant.write(tmp_path, config=changed(variant.config, "architecture", architecture))
    found = dense(opened(variant, path).encode(x), len(x), WIDTH)
    torch.testing.assert_close(found, variant.formula(x), rtol=1e-4, atol=1e-4)
    assert look(variant, path).family == "batchtopk"


def test_saelens_scaling_factors_are_part_of_the_directions(tmp_path: Path) -> None:
    variant, x = VARIANTS["saelens_standard_old"], inputs()
    factor = torch.linspace(0.5, 2, WIDTH)
    config = variant.config | {"finetuning_scaling_factor": True}
    coder = opened(variant, variant.write(tmp_path, variant.tensors | {"scaling_factor": factor}, config))
    outputs = variant.decode(variant.tensors, config, variant.formula(x) * factor, x)
    torch.testing.assert_close(coder.decode(coder.encode(x), x), outputs, rtol=1e-4, atol=1e-4)


def test_openai_decoders_may_be_tied(tmp_path: Path) -> None:
    variant, x = VARIANTS["openai_relu"], inputs()
    tied = variant.tensors | {"decoder.weight": variant.tensors["encoder.weight"].T}
    stored = {name: each for name, each in tied.items() if name != "decoder.weight"}
    coder = opened(variant, variant.write(tmp_path, stored | {"decoder.linear.weight": tied["encoder.weight"]}))
    outputs = variant.decode(tied, variant.config, variant.encode(tied, variant.config, x), x)
    torch.testing.assert_close(coder.decode(coder.encode(x), x), outputs, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", ["dictionary_learning_batch_topk", "dictionary_learning_matryoshka"])
def test_with_a_threshold_that_was_never_set_whatever_is_above_0_fires(name: str, tmp_path: Path) -> None:
    variant, x = VARIANTS[name], inputs()
    unset = variant.tensors | {"threshold": torch.tensor(-1.0)}
    found = dense(opened(variant, variant.write(tmp_path, unset)).encode(x), len(x), WIDTH)
    torch.testing.assert_close(found, variant.encode(unset, variant.config, x), rtol=1e-4, atol=1e-4)
    assert (found > 0).sum() > (variant.formula(x) > 0).sum()


@pytest.mark.parametrize("name", ["sparsify", "saelens_standard"])
def test_the_width_may_follow_from_the_expansion_factor(name: str, tmp_path: Path) -> None:
    variant = perfected(VARIANTS[name], 8)  # 24 latents
    stated = "num_latents" if name == "sparsify" else "d_sae"
    config = changed(variant.config, stated, 0) | {"expansion_factor": 3}
    assert look(variant, variant.write(tmp_path, config=config)).width == 24
    with pytest.raises(InputError, match=r"\[32, 8\]|\[32\]|\[8, 32\]|\[32, 8\]"):
        look(variant, variant.write(tmp_path, config=config | {"expansion_factor": 4}))
    with pytest.raises(InputError, match="does not state 'expansion_factor'"):
        look(variant, variant.write(tmp_path, config=without(config, "expansion_factor")))


# What is refused


@pytest.mark.parametrize(("variant", "tensor"), TENSORS)
def test_a_missing_tensor_is_named(variant: Variant, tensor: str, tmp_path: Path) -> None:
    left = {name: each for name, each in variant.tensors.items() if name != tensor}
    named = {"log_threshold": "threshold", "affine_skip_connection": "w_enc|affine_skip_connection"}.get(tensor, tensor)
    with pytest.raises(InputError, match=named) as refused:
        look(variant, variant.write(tmp_path, left))
    assert variant.weights in str(refused.value)


def test_a_skip_connection_that_is_stated_has_to_be_there(tmp_path: Path) -> None:
    variant = perfected(VARIANTS["gemma_scope_2_skip"], 12)
    left = {name: each for name, each in variant.tensors.items() if name != "affine_skip_connection"}
    with pytest.raises(
        InputError, match=r"config.json states an affine connection, and params.safetensors has no affine"
    ):
        look(variant, variant.write(tmp_path, left))


@pytest.mark.parametrize("variant", ALL)
def test_a_transposed_encoder_is_refused(variant: Variant, tmp_path: Path) -> None:
    (name,) = set(variant.tensors) & set(MATRICES)
    turned = variant.tensors | {name: variant.tensors[name].T}
    with pytest.raises(InputError, match=rf"{variant.weights}: tensor {name} is .* It is transposed"):
        look(variant, variant.write(tmp_path, turned))


@pytest.mark.parametrize("variant", ALL)
def test_whole_numbers_are_no_weights(variant: Variant, tmp_path: Path) -> None:
    for tensor in set(variant.tensors) - set(variant.unused):
        rounded = variant.tensors | {tensor: variant.tensors[tensor].to(torch.int32)}
        with pytest.raises(InputError, match=rf"{variant.weights}: tensor {tensor} is torch.int32"):
            look(variant, variant.write(tmp_path, rounded))


@pytest.mark.parametrize("value", [float("nan"), float("-inf")])
@pytest.mark.parametrize("variant", ALL)
def test_not_a_number_is_no_weight(variant: Variant, value: float, tmp_path: Path) -> None:
    for tensor in set(variant.tensors) - set(variant.unused):
        spoilt = variant.tensors[tensor].clone(memory_format=torch.contiguous_format)
        spoilt.view(-1)[-1] = value
        with pytest.raises(InputError, match=rf"{variant.weights}: tensor {tensor} holds NaN or infinity"):
            look(variant, variant.write(tmp_path, variant.tensors | {tensor: spoilt}))


@pytest.mark.parametrize("variant", ALL)
def test_a_file_cut_short_is_refused(variant: Variant, tmp_path: Path) -> None:
    path, file = variant.write(tmp_path), weights(variant, tmp_path)
    whole = file.read_bytes()
    for size in (0, 1, 4, 30, 200, len(whole) // 2, len(whole) - 1):
        file.write_bytes(whole[:size])
        with pytest.raises(InputError, match=rf"{variant.weights}.*(cut short|holds more than|bytes where)"):
            look(variant, path)
    file.write_bytes(whole)
    assert look(variant, path).width == variant.shape[1]


@pytest.mark.parametrize("variant", ALL)
def test_a_missing_file_is_named(variant: Variant, tmp_path: Path) -> None:
    path = variant.write(tmp_path)
    weights(variant, tmp_path).unlink()
    with pytest.raises(InputError, match=variant.weights):
        look(variant, path)


@pytest.mark.parametrize("variant", CONFIGURED)
def test_a_configuration_that_is_not_json_is_refused(variant: Variant, tmp_path: Path) -> None:
    path = variant.write(tmp_path)
    (file,) = tmp_path.rglob(str(variant.config_file))
    for text, message in [(b"{'k': 5", "is not JSON"), (b"\xff\xfe", "is not JSON"), (b"[5]", "holds no mapping")]:
        file.write_bytes(text)
        with pytest.raises(InputError, match=rf"{file.name} {message}"):
            look(variant, path)


@pytest.mark.parametrize(
    ("variant", "at"),
    [pytest.param(each, at, id=f"{name}-{at}") for name, each in VARIANTS.items() for at in each.needs],
)
def test_a_missing_entry_of_the_configuration_is_named(variant: Variant, at: str, tmp_path: Path) -> None:
    for config in (without(variant.config, at), changed(variant.config, at, None)):
        with pytest.raises(InputError, match=rf"{variant.config_file} does not state '{at}'"):
            look(variant, variant.write(tmp_path, config=config))


@pytest.mark.parametrize(
    ("variant", "at"),
    [pytest.param(each, at, id=f"{name}-{at}") for name, each in VARIANTS.items() for at in each.sizes],
)
def test_sizes_that_disagree_with_the_tensors_are_refused(variant: Variant, at: str, tmp_path: Path) -> None:
    stated = variant.config
    for name in at.split("."):
        stated = stated[name]
    with pytest.raises(InputError, match=rf"{variant.weights}: tensor .* where the configuration"):
        look(variant, variant.write(tmp_path, config=changed(variant.config, at, 2 * int(str(stated)))))


@pytest.mark.parametrize(
    ("variant", "at"),
    [pytest.param(each, at, id=f"{name}-{at}") for name, each in VARIANTS.items() for at in each.sizes],
)
def test_sizes_are_whole_numbers(variant: Variant, at: str, tmp_path: Path) -> None:
    for value in ("12", 12.5, True, -12):
        with pytest.raises(InputError, match=rf"{variant.config_file}: {at} = .*; it must be a whole number"):
            look(variant, variant.write(tmp_path, config=changed(variant.config, at, value)))


@pytest.mark.parametrize("variant", COUNTED)
def test_k_is_between_1_and_the_width(variant: Variant, tmp_path: Path) -> None:
    file = variant.config_file or variant.weights
    for k in (0, variant.shape[1] + 1):
        path = variant.write(tmp_path / str(k), config=changed(variant.config, str(variant.k_at), k))
        with pytest.raises(InputError, match=rf"{file}: k = {k} is not between 1 and the"):
            look(variant, path)


@pytest.mark.parametrize(
    ("name", "at", "supported"),
    [
        ("sparsify", "activation", "topk, groupmax"),
        ("saelens_standard", "architecture", "standard, topk, gated, jumprelu"),
        ("saelens_standard_old", "activation_fn_str", "relu, topk"),
        ("saelens_standard", "normalize_activations", "none, false, layer_norm, constant_norm_rescale"),
        ("gemma_scope_2", "architecture", "jump_relu"),
        ("llama_scope", "act_fn", "jumprelu, topk, relu"),
        ("llama_scope", "norm_activation", "dataset-wise, token-wise, inference"),
        ("dictionary_learning_relu", "trainer.dict_class", "AutoEncoder, AutoEncoderNew, GatedAutoEncoder"),
        ("openai_topk", "activation", "ReLU, TopK"),
        ("openai_topk", "activation_state_dict.postact_fn", "ReLU"),
    ],
)
def test_what_is_not_supported_is_refused_with_what_is(name: str, at: str, supported: str, tmp_path: Path) -> None:
    variant = VARIANTS[name]
    path = variant.write(tmp_path, config=changed(variant.config, at, "Softplus"))
    file, entry = variant.config_file or variant.weights, at.rpartition(".")[2]
    with pytest.raises(InputError, match=rf"(?i){file}: {entry} 'softplus' is not supported; supported .* {supported}"):
        look(variant, path)


@pytest.mark.parametrize(
    ("name", "more"),
    [
        ("sparsify", {"signed": True}),
        ("saelens_standard", {"hook_head_index": 3}),
        ("saelens_standard", {"metadata": {"hook_head_index": 3}}),
        ("llama_scope", {"use_glu_encoder": True}),
    ],
)
def test_settings_that_change_the_formula_are_refused(name: str, more: dict[str, Any], tmp_path: Path) -> None:
    variant = VARIANTS[name]
    with pytest.raises(InputError, match=rf"{variant.config_file}: .* is not supported"):
        look(variant, variant.write(tmp_path, config=variant.config | more))


@pytest.mark.parametrize("kind", ["expected_average_only_in", "covariance_whitening", True])
def test_saelens_coders_that_need_statistics_are_refused(kind: Any, tmp_path: Path) -> None:
    variant = VARIANTS["saelens_standard"]
    path = variant.write(tmp_path, config=variant.config | {"normalize_activations": kind})
    with pytest.raises(InputError, match=rf"(?i)cfg.json: normalize_activations '{kind}' needs statistics"):
        look(variant, path)


@pytest.mark.parametrize("name", ["gemma_scope_2", "gemma_scope_2_bare"])
def test_cross_layer_transcoders_are_refused(name: str, tmp_path: Path) -> None:
    variant = VARIANTS[name]
    wide = variant.tensors["w_dec"][:, None].expand(-1, 3, -1)
    with pytest.raises(InputError, match=r"params.safetensors is a cross-layer transcoder"):
        look(variant, variant.write(tmp_path, variant.tensors | {"w_dec": wide}))


def test_groupmax_needs_equal_groups(tmp_path: Path) -> None:
    variant = VARIANTS["sparsify_groupmax"]
    with pytest.raises(InputError, match=r"cfg.json: groupmax divides 40 latents into k = 7 equal groups"):
        look(variant, variant.write(tmp_path, config=variant.config | {"k": 7}))


@pytest.mark.parametrize("side", ["in", "out"])
@pytest.mark.parametrize("norm", [0, -3.0])
def test_mean_norms_are_above_0(side: str, norm: float, tmp_path: Path) -> None:
    variant = VARIANTS["llama_scope"]
    config = changed(variant.config, f"dataset_average_activation_norm.{side}", norm)
    with pytest.raises(InputError, match=r"hyperparams.json: dataset_average_activation_norm must be above 0"):
        look(variant, variant.write(tmp_path, config=config))


@pytest.mark.parametrize(
    "name", ["dictionary_learning_topk", "dictionary_learning_batch_topk", "dictionary_learning_matryoshka"]
)
def test_a_k_that_disagrees_with_the_weights_is_refused(name: str, tmp_path: Path) -> None:
    variant = VARIANTS[name]
    with pytest.raises(InputError, match=r"config.json states k = 6, and ae.pt holds k = 5"):
        look(variant, variant.write(tmp_path, config=changed(variant.config, "trainer.k", 6)))


@pytest.fixture
def nameless(tmp_path: Path) -> Path:
    """A checkpoint of Qwen Scope in a folder that says nothing."""
    path = VARIANTS["qwen_scope"].write(tmp_path / "made")
    (tmp_path / "plain").mkdir()
    return path.rename(tmp_path / "plain" / path.name)


def test_a_qwen_coder_without_a_name_takes_its_k_from_the_study(nameless: Path) -> None:
    variant, x = VARIANTS["qwen_scope"], inputs()
    with pytest.raises(
        InputError, match=r"layer3.sae.pt does not say how many latents fire.*Give the dictionary a `k`"
    ):
        look(variant, nameless)
    assert look(variant, nameless, k=K) == Facts(1024, 12, 12, "topk", k=K, kind="sae", hookpoint="layers.3")
    coder = open_coder("qwen_scope", source(nameless, K), "cpu")
    torch.testing.assert_close(dense(coder.encode(x), len(x), 1024), variant.formula(x), rtol=1e-4, atol=1e-4)
    with pytest.raises(InputError, match="k = 1025 is not between 1 and the 1,024 latents"):
        look(variant, nameless, k=1025)


def test_a_qwen_coder_has_the_k_and_the_width_of_its_name(tmp_path: Path) -> None:
    variant = VARIANTS["qwen_scope"]
    path = variant.write(tmp_path)
    assert look(variant, path, k=K).k == K
    with pytest.raises(InputError, match="k = 6 in the study, and 5 in the repository's name"):
        look(variant, path, k=6)
    half = {name: each for name, each in variant.tensors.items() if name in ("W_enc", "b_enc")}
    half = {name: each[:512] for name, each in half.items()} | {"W_dec": variant.tensors["W_dec"][:, :512]}
    path = variant.write(tmp_path, variant.tensors | half)
    with pytest.raises(InputError, match=r"layer3.sae.pt has 512 latents, and .* is called W1K"):
        look(variant, path)


@pytest.mark.parametrize("name", ["layer_3/average_l0_82", "average_l0_7/params"])
def test_how_many_fire_on_average_stands_in_the_name(name: str, tmp_path: Path) -> None:
    variant = VARIANTS["gemma_scope"]
    found = facts("gemma_scope", Source(variant.write(tmp_path), f"google/gemma-scope-9b-it-res/{name}"))
    assert (found.l0, found.model) == (82.0 if "82" in name else 7.0, "google/gemma-2-9b-it")


# Files that would run code


class Malicious:
    """Unpickling it makes a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.folder),)


@pytest.fixture
def trap(tmp_path: Path) -> Iterator[Path]:
    """A folder that only code in a checkpoint would make."""
    folder = tmp_path / "sprung"
    yield folder
    assert not folder.exists()


def test_the_trap_springs_where_code_runs(tmp_path: Path) -> None:
    torch.save({"it": Malicious(tmp_path / "sprung")}, tmp_path / "it.pt")
    torch.load(tmp_path / "it.pt", weights_only=False)
    assert (tmp_path / "sprung").is_dir()


@pytest.mark.parametrize("variant", PICKLED)
def test_a_checkpoint_runs_no_code(variant: Variant, trap: Path, tmp_path: Path) -> None:
    path, file = variant.write(tmp_path / "coder"), weights(variant, tmp_path)
    stored = torch.load(file, weights_only=True)
    torch.save(stored | {"more": Malicious(trap)}, file)
    with pytest.raises(InputError, match=rf"{variant.weights} holds more than tensors .* not loaded"):
        look(variant, path)
    torch.save(Malicious(trap), file, _use_new_zipfile_serialization=False)
    with pytest.raises(InputError, match=rf"{variant.weights} holds more than tensors .* not loaded"):
        look(variant, path)
    file.write_bytes(pickle.dumps(stored | {"more": Malicious(trap)}, protocol=2))
    with pytest.raises(InputError, match=variant.weights):
        look(variant, path)


@pytest.mark.parametrize("variant", PICKLED)
def test_a_file_of_no_named_tensors_is_refused(variant: Variant, tmp_path: Path) -> None:
    path, file = variant.write(tmp_path), weights(variant, tmp_path)
    torch.save([torch.zeros(3)], file)
    with pytest.raises(InputError, match=rf"{variant.weights} holds a list, not tensors by name"):
        look(variant, path)


def test_arrays_of_objects_are_not_unpickled(trap: Path, tmp_path: Path) -> None:
    variant = VARIANTS["gemma_scope"]
    path = variant.write(tmp_path / "coder")
    arrays: dict[str, Any] = {name: each.numpy() for name, each in variant.tensors.items()}
    for name in (*arrays, "more"):
        np.savez(path / "params.npz", **{**arrays, name: np.array([Malicious(trap)], dtype=object)})
        with pytest.raises(InputError, match=r"params.npz is no file of arrays alone"):
            look(variant, path)
