"""Checkpoints that are whole and yet not as they should be: odd shapes, values, names and settings, and damaged bytes."""

from __future__ import annotations

import random
import re
from pathlib import Path
from typing import Any

import pytest
import torch

from latentlake.coders.opening import Source, facts, format_of, open_coder
from latentlake.errors import InputError
from tests.coder_fixtures import VARIANTS, WIDTH, Config, Tensors, Variant, changed, inputs, perfected
from tests.test_formats import dense, look, opened, weights, without

NO_DIRECTION = 30  # how many latents, the first ones, have a decoder row of zeros where a test says so


def refused(
    name: str, folder: Path, message: str, tensors: Tensors | None = None, config: Config | None = None
) -> None:
    """A variant with other tensors or another configuration is refused, with a message that names the file and the fault."""
    variant = VARIANTS[name]
    with pytest.raises(InputError, match=message):
        look(variant, variant.write(folder, tensors, config))


def old_pickle(variant: Variant, folder: Path) -> tuple[Path, Path]:
    """A checkpoint as torch.save wrote it before it wrote zip files: its path, and its file of weights."""
    path = variant.write(folder)
    file = weights(variant, folder)
    torch.save(torch.load(file, weights_only=True), file, _use_new_zipfile_serialization=False)
    return path, file


def without_directions(variant: Variant) -> Tensors:
    """A variant's tensors with zeros for the decoder rows of the first latents."""
    name = "decoder.weight" if "decoder.weight" in variant.tensors else "W_dec"
    decoder = variant.tensors[name].clone()
    (decoder.T if name == "decoder.weight" else decoder)[:NO_DIRECTION] = 0
    return variant.tensors | {name: decoder}


# Tensors


@pytest.mark.parametrize("is_row", [True, False], ids=["row", "number"])
@pytest.mark.parametrize(
    ("name", "bias"),
    [
        ("gemma_scope", "b_enc"),
        ("gemma_scope_2", "b_dec"),
        ("openai_relu", "latent_bias"),
        ("openai_topk", "pre_bias"),
        ("qwen_scope", "b_enc"),
    ],
)
def test_biases_that_sizes_are_taken_from_are_vectors(name: str, bias: str, is_row: bool, tmp_path: Path) -> None:
    variant = VARIANTS[name]
    vector = variant.tensors[bias]
    odd = vector[None] if is_row else vector.sum()
    message = rf"{variant.weights}: tensor {bias} is {re.escape(str(list(odd.shape)))}; it must be a vector"
    refused(name, tmp_path, message, variant.tensors | {bias: odd})


@pytest.mark.parametrize("length", [0, 2])
def test_a_stored_k_is_one_number(length: int, tmp_path: Path) -> None:
    tensors = VARIANTS["dictionary_learning_topk"].tensors | {"k": torch.full((length,), 5)}
    message = rf"ae.pt: tensor k is \[{length}\]; it must be one number"
    refused("dictionary_learning_topk", tmp_path, message, tensors)


def test_tensors_whose_names_are_numbers_are_none_of_a_coder(tmp_path: Path) -> None:
    variant = VARIANTS["openai_relu"]
    path = variant.write(tmp_path)
    torch.save({1: torch.zeros(2)}, path)
    with pytest.raises(InputError, match=r"1.pt has no tensor latent_bias"):
        look(variant, path)


def test_thresholds_belong_to_an_architecture_that_has_them(tmp_path: Path) -> None:
    config = changed(VARIANTS["saelens_jumprelu"].config, "architecture", "standard")
    message = r"sae_weights.safetensors has thresholds, and cfg.json does not say that it is jumprelu"
    refused("saelens_jumprelu", tmp_path, message, config=config)


@pytest.mark.parametrize("name", ["scaling_factor", "finetuning_scaling_factor"])
@pytest.mark.parametrize("is_stated", [True, False], ids=["false", "unstated"])
def test_scaling_factors_that_the_configuration_denies_are_ones(name: str, is_stated: bool, tmp_path: Path) -> None:
    variant, x = VARIANTS["saelens_standard_old"], inputs()
    config = variant.config | ({"finetuning_scaling_factor": False} if is_stated else {})
    ones = torch.ones(WIDTH)
    coder = opened(variant, variant.write(tmp_path, variant.tensors | {name: ones}, config))
    torch.testing.assert_close(coder.decode(coder.encode(x), x), variant.reconstruct(x), rtol=1e-4, atol=1e-4)
    ones[-1] = 1.5
    message = rf"sae_weights.safetensors has a {name}, and cfg.json says that there is none"
    refused(variant.name, tmp_path, message, variant.tensors | {name: ones}, config)


def test_gemma_scope_names_its_matrices_in_either_case(tmp_path: Path) -> None:
    variant, x = VARIANTS["gemma_scope"], inputs()
    lower = {name.replace("W_", "w_"): each for name, each in variant.tensors.items()}
    assert {"w_enc", "w_dec"} < set(lower)
    upper, coder = (
        opened(variant, variant.write(tmp_path / each, tensors))
        for each, tensors in [("upper", variant.tensors), ("lower", lower)]
    )
    firings, wanted = coder.encode(x), upper.encode(x)
    assert torch.equal(dense(firings, len(x), WIDTH), dense(wanted, len(x), WIDTH))
    assert torch.equal(coder.decode(firings, x), upper.decode(wanted, x))


def test_gemma_scope_coders_of_embeddings_are_refused(tmp_path: Path) -> None:
    path = VARIANTS["gemma_scope"].write(tmp_path)
    release = "google/gemma-scope-2b-pt-res"
    assert format_of(path, release) == "gemma_scope"
    for read in (facts, lambda kind, source: open_coder(kind, source, "cpu")):
        with pytest.raises(InputError, match=r"params.npz: the scale of the embeddings"):
            read("gemma_scope", Source(path, f"{release}/embedding/width_4k/average_l0_6"))
    assert facts("gemma_scope", Source(path, f"{release}/layer_1/width_4k/average_l0_6")).width == WIDTH


# Configurations


@pytest.mark.parametrize("value", ["false", "true", "", 1, []])
@pytest.mark.parametrize(
    ("name", "flag"),
    [
        ("sparsify", "transcode"),
        ("sparsify", "skip_connection"),
        ("saelens_standard", "apply_b_dec_to_input"),
        ("saelens_standard", "finetuning_scaling_factor"),
        ("saelens_topk", "rescale_acts_by_decoder_norm"),
        ("gemma_scope_2", "affine_connection"),
        ("llama_scope", "use_decoder_bias"),
        ("llama_scope", "sparsity_include_decoder_norm"),
        ("llama_scope", "apply_decoder_bias_to_pre_encoder"),
    ],
)
def test_flags_are_true_or_false(name: str, flag: str, value: Any, tmp_path: Path) -> None:
    variant = VARIANTS[name]
    message = rf"{variant.config_file}: {flag} = {re.escape(repr(value))}; it must be true or false"
    refused(name, tmp_path, message, config=variant.config | {flag: value})


@pytest.mark.parametrize("value", ["5", 5.0, True, -1])
@pytest.mark.parametrize(
    "name", ["sparsify", "saelens_topk", "saelens_topk_old", "dictionary_learning_topk", "llama_scope_topk"]
)
def test_k_is_a_whole_number(name: str, value: Any, tmp_path: Path) -> None:
    variant = VARIANTS[name]
    message = rf"{variant.config_file}: {variant.k_at} = {re.escape(repr(value))}; it must be a whole number"
    refused(name, tmp_path, message, config=changed(variant.config, str(variant.k_at), value))


@pytest.mark.parametrize("value", ["x", [], float("nan"), float("inf"), True])
@pytest.mark.parametrize(
    "at", ["jump_relu_threshold", "dataset_average_activation_norm.in", "dataset_average_activation_norm.out"]
)
def test_llama_scope_has_finite_numbers(at: str, value: Any, tmp_path: Path) -> None:
    message = rf"hyperparams.json: {at} = {re.escape(repr(value))}; it must be a finite number"
    refused("llama_scope", tmp_path, message, config=changed(VARIANTS["llama_scope"].config, at, value))


@pytest.mark.parametrize("value", ["x", [], 7])
@pytest.mark.parametrize(
    ("name", "at"),
    [
        ("saelens_standard", "metadata"),
        ("saelens_topk_old", "activation_fn_kwargs"),
        ("dictionary_learning_topk", "trainer"),
        ("llama_scope", "dataset_average_activation_norm"),
    ],
)
def test_sections_are_mappings(name: str, at: str, value: Any, tmp_path: Path) -> None:
    variant = VARIANTS[name]
    message = rf"{variant.config_file}: {at} = {re.escape(repr(value))}; it must be a mapping"
    refused(name, tmp_path, message, config=changed(variant.config, at, value))


@pytest.mark.parametrize(
    ("name", "at"),
    [
        ("sparsify", "activation"),
        ("saelens_standard", "architecture"),
        ("gemma_scope_2", "architecture"),
        ("llama_scope", "act_fn"),
        ("dictionary_learning_relu", "trainer.dict_class"),
        ("openai_topk", "activation"),
    ],
)
def test_names_are_text(name: str, at: str, tmp_path: Path) -> None:
    variant, entry = VARIANTS[name], at.rpartition(".")[2]
    message = rf"{variant.config_file or variant.weights}: {entry} '?\[\]'? is not supported; supported "
    refused(name, tmp_path, message, config=changed(variant.config, at, []))


@pytest.mark.parametrize("value", [None, [], 1])
def test_openai_settings_are_a_mapping(value: Any, tmp_path: Path) -> None:
    config = VARIANTS["openai_topk"].config | {"activation_state_dict": value}
    message = rf"1.pt: activation_state_dict is {re.escape(repr(value))}; it must be a mapping"
    refused("openai_topk", tmp_path, message, config=config)


def test_openai_settings_state_a_whole_k(tmp_path: Path) -> None:
    config = VARIANTS["openai_topk"].config
    odd = [changed(config, "activation_state_dict.k", value) for value in (None, True, 5.0, "5")]
    for each in (*odd, without(config, "activation_state_dict")):
        refused("openai_topk", tmp_path, r"1.pt does not state the k of its TopK", config=each)


@pytest.mark.parametrize("is_within", [True, False], ids=["metadata", "flat"])
@pytest.mark.parametrize("name", ["saelens_standard", "saelens_standard_old"])
@pytest.mark.parametrize(
    ("key", "head"), [("hook_head_index", 0), ("hook_point_head_index", 0), ("hook_point_head_index", 3)]
)
def test_coders_of_one_head_are_refused(name: str, key: str, head: int, is_within: bool, tmp_path: Path) -> None:
    config = VARIANTS[name].config
    more = {"metadata": {**config.get("metadata", {}), key: head}} if is_within else {key: head}
    message = rf"cfg.json: {'metadata.' if is_within else ''}{key} = {head} is not supported: a coder of one head"
    refused(name, tmp_path, message, config=config | more)


@pytest.mark.parametrize("name", ["saelens_transcoder", "saelens_skip"])
def test_the_bias_of_outputs_is_not_subtracted_from_inputs(name: str, tmp_path: Path) -> None:
    config = VARIANTS[name].config | {"apply_b_dec_to_input": True}
    refused(name, tmp_path, r"cfg.json: apply_b_dec_to_input of a transcoder", config=config)


def test_the_width_of_llama_scope_may_follow_from_the_expansion_factor(tmp_path: Path) -> None:
    variant = perfected(VARIANTS["llama_scope"], 8)  # 24 latents
    left = without(variant.config, "d_sae")
    for config in (left, left | {"d_sae": None}):
        assert look(variant, variant.write(tmp_path, config=config | {"expansion_factor": 3})).width == 24
        with pytest.raises(InputError, match=r"final.safetensors: tensor encoder.weight is \[24, 8\] .* \[32, 8\]"):
            look(variant, variant.write(tmp_path, config=config | {"expansion_factor": 4}))
        with pytest.raises(InputError, match=r"hyperparams.json does not state 'expansion_factor'"):
            look(variant, variant.write(tmp_path, config=without(config, "expansion_factor")))


# What a coder computes


@pytest.mark.parametrize("name", ["saelens_transcoder", "saelens_skip"])
@pytest.mark.parametrize("norm", ["layer_norm", "constant_norm_rescale"])
def test_saelens_transcoders_do_not_scale_back(norm: str, name: str, tmp_path: Path) -> None:
    variant, x = VARIANTS[name], inputs()
    tensors, config = variant.tensors, variant.config | {"normalize_activations": norm}
    coder = opened(variant, variant.write(tmp_path, config=config))
    if norm == "layer_norm":
        scaled = (x - x.mean(-1, keepdim=True)) / (x.std(-1, keepdim=True) + 1e-5)
    else:
        scaled = x * x.shape[-1] ** 0.5 / x.norm(dim=-1, keepdim=True)
    before = scaled @ tensors["W_enc"] + tensors["b_enc"]
    wanted = before.relu() * (before > tensors.get("threshold", torch.zeros(1)))
    outputs = wanted @ tensors["W_dec"] + tensors["b_dec"]
    if "W_skip" in tensors:
        outputs = outputs + x @ tensors["W_skip"].T
    firings = coder.encode(x)
    assert (wanted > 0).any()
    torch.testing.assert_close(dense(firings, len(x), WIDTH), wanted, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(coder.decode(firings, x), outputs, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("name", "threshold"),
    [
        ("llama_scope", 0.0),
        ("llama_scope", 0.9),
        ("llama_scope_transcoder", 0.0),
        ("llama_scope_topk", None),
        ("saelens_topk_rescaled", None),
        ("dictionary_learning_relu", None),
    ],
)
def test_latents_that_write_nothing_never_fire(name: str, threshold: float | None, tmp_path: Path) -> None:
    """In formats in which the length of a latent's direction counts."""
    variant, x, tensors = VARIANTS[name], inputs(), without_directions(VARIANTS[name])
    config = variant.config if threshold is None else variant.config | {"jump_relu_threshold": threshold}
    coder = opened(variant, variant.write(tmp_path, tensors, config))
    firings = coder.encode(x)
    found, wanted = dense(firings, len(x), WIDTH), variant.encode(tensors, config, x)
    assert (wanted > 0).any()
    assert not (found[:, :NO_DIRECTION] > 0).any()
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-4)
    for each in (firings.values, coder.decode(firings, x), coder.directions):
        assert each.isfinite().all()


# Damaged bytes


def test_an_old_pickle_is_read(tmp_path: Path) -> None:
    variant = VARIANTS["openai_topk"]
    path, _ = old_pickle(variant, tmp_path)
    x = inputs()
    torch.testing.assert_close(
        dense(opened(variant, path).encode(x), len(x), WIDTH), variant.formula(x), rtol=1e-4, atol=1e-4
    )


def test_an_old_pickle_cut_short_is_refused(tmp_path: Path) -> None:
    variant = VARIANTS["openai_topk"]
    path, file = old_pickle(variant, tmp_path)
    whole = file.read_bytes()
    for size in (*range(0, 64, 3), *range(64, len(whole), 97), len(whole) - 1):
        file.write_bytes(whole[:size])
        with pytest.raises(InputError, match=r"1.pt .*(cut short|holds more than)"):
            look(variant, path)


@pytest.mark.parametrize(
    ("name", "is_old"), [("openai_topk", False), ("openai_topk", True), ("gemma_scope", False), ("sparsify", False)]
)
def test_a_flipped_bit_is_refused_or_of_no_consequence(name: str, is_old: bool, tmp_path: Path) -> None:
    """Among names, types and sizes; in a number it may go unseen. Never is there another error."""
    variant, chance = VARIANTS[name], random.Random(0)
    path, file = old_pickle(variant, tmp_path) if is_old else (variant.write(tmp_path), weights(variant, tmp_path))
    whole = file.read_bytes()
    faults = 0
    for _ in range(80):
        flipped = bytearray(whole)
        flipped[chance.randrange(900)] ^= 1 << chance.randrange(8)
        file.write_bytes(flipped)
        try:
            look(variant, path)
        except InputError as error:
            assert file.name in str(error)
            faults += 1
    assert faults > 0


def test_an_old_pickle_without_one_of_its_storages_is_refused(tmp_path: Path) -> None:
    variant = VARIANTS["openai_topk"]
    path, file = old_pickle(variant, tmp_path)
    whole = bytearray(file.read_bytes())
    key = re.findall(rb"\d{8,}", whole)[-1]  # in the list of storages that stands before them
    whole[whole.rindex(key)] ^= 1
    file.write_bytes(whole)
    with pytest.raises(InputError, match=r"1.pt is cut short or damaged"):
        look(variant, path)


def test_arrays_of_an_unknown_compression_are_refused(tmp_path: Path) -> None:
    variant = VARIANTS["gemma_scope"]
    path, file = variant.write(tmp_path), weights(variant, tmp_path)
    whole = bytearray(file.read_bytes())
    whole[whole.index(b"PK\x01\x02") + 10] = 99  # in the directory of the archive, of its first array
    file.write_bytes(whole)
    with pytest.raises(InputError, match=r"params.npz is no file of arrays alone, or cut short"):
        look(variant, path)


def test_a_header_with_half_an_offset_is_refused(tmp_path: Path) -> None:
    variant = VARIANTS["sparsify"]
    path, file = variant.write(tmp_path), weights(variant, tmp_path)
    found = re.search(rb'"data_offsets":\[\d+(,)', file.read_bytes())
    assert found is not None
    whole = bytearray(file.read_bytes())
    whole[found.start(1)] = ord(".")
    file.write_bytes(whole)
    with pytest.raises(InputError, match=r"sae.safetensors is cut short or damaged"):
        look(variant, path)
