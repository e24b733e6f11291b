"""Hookpoints: one neutral name, whatever other libraries or a model's family call it, and the module behind it."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from transformers import (
    AutoModelForCausalLM,
    BloomConfig,
    FalconConfig,
    Gemma2Config,
    Glm4Config,
    GPT2Config,
    GPTNeoXConfig,
    GraniteConfig,
    LlamaConfig,
    MistralConfig,
    Olmo2Config,
    OPTConfig,
    PhiConfig,
    Qwen3Config,
)

from latentlake.engines import checkpoint
from latentlake.engines.modules import hook, place_of
from latentlake.engines.skeleton import decoder_of, skeleton, width_of
from latentlake.engines.subject import HookedSubject
from latentlake.errors import InputError
from latentlake.hookpoints import SITES, Site, all_sites, neutral, site_of, written_by

SHAPE: dict[str, Any] = {
    "num_hidden_layers": 3, "hidden_size": 32, "intermediate_size": 80, "num_attention_heads": 4, "vocab_size": 100,
}  # fmt: skip
FAMILIES: dict[str, Any] = {
    "llama": LlamaConfig(**SHAPE, num_key_value_heads=2),
    "mistral": MistralConfig(**SHAPE, num_key_value_heads=2, head_dim=8),
    "qwen3": Qwen3Config(**SHAPE, num_key_value_heads=2, head_dim=16),
    "gemma2": Gemma2Config(**SHAPE, num_key_value_heads=2, head_dim=16),
    "olmo2": Olmo2Config(**SHAPE, num_key_value_heads=2),
    "gpt_neox": GPTNeoXConfig(**SHAPE),
    "gpt2": GPT2Config(n_layer=3, n_embd=32, n_head=4, n_inner=80, vocab_size=100),
    "phi": PhiConfig(**SHAPE),
    "glm4": Glm4Config(**SHAPE, num_key_value_heads=2, head_dim=8, pad_token_id=1),
    "opt": OPTConfig(
        num_hidden_layers=3, hidden_size=32, ffn_dim=80, num_attention_heads=4, vocab_size=100, word_embed_proj_dim=32
    ),
}
WIDTHS = {"residual": 32, "heads": 32, "neurons": 80}
HEADS = {"qwen3": 64, "gemma2": 64}


@pytest.mark.parametrize("name", all_sites(3, WIDTHS))
def test_a_neutral_name_is_its_own(name: str) -> None:
    assert neutral(name) == name


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        ("blocks.9.hook_resid_post", "layers.9"),
        ("blocks.9.hook_resid_pre", "layers.9.input"),
        ("blocks.9.hook_attn_out", "layers.9.attention"),
        ("blocks.9.attn.hook_z", "layers.9.attention.z"),
        ("blocks.9.hook_mlp_out", "layers.9.mlp"),
        ("blocks.9.mlp.hook_post", "layers.9.mlp.neurons"),
        ("layers.9.self_attn.o_proj.input", "layers.9.attention.z"),
        ("layers.9.post_feedforward_layernorm", "layers.9.mlp"),
        ("model.layers.9", "layers.9"),
        ("model.layers.9.output", "layers.9"),
        ("model.layers.9.post_feedforward_layernorm.output", "layers.9.mlp"),
        ("model.layers.9.pre_feedforward_layernorm.output", "layers.9.mlp.input"),
        ("model.layers.9.mlp.down_proj.input", "layers.9.mlp.neurons"),
        ("gemma-scope-2b-pt-res/layer_9/width_16k/average_l0_71", "layers.9"),
        ("google/gemma-scope-9b-pt-att/layer_9", "layers.9.attention.z"),
        ("gemma-scope-2b-pt-transcoders/layer_9/width_16k/average_l0_5", "layers.9.mlp.input"),
        ("9-gemmascope-mlp-16k", "layers.9.mlp"),
    ],
)
def test_names_of_other_libraries_are_translated(name: str, wanted: str) -> None:
    assert neutral(name) == wanted


@pytest.mark.parametrize(
    "name",
    [
        "layers.9.nothing",
        "blocks.9.hook_nothing",
        "model.embed_tokens",
        "h.3.mlp.c_fc",
        "model.layers.9.mlp",
        "layers.9.mlp.output",
        "layers.9.self_attn",
    ],
)
def test_what_is_no_site_stays_as_it_is(name: str) -> None:
    assert site_of(name) is None
    assert neutral(name) == name


def test_a_transcoder_reads_one_and_writes_the_other() -> None:
    assert written_by("blocks.9.hook_resid_post", None) == "layers.9"
    assert written_by("layers.9.mlp.input", None) == "layers.9.mlp"
    assert written_by("layers.9.mlp.input", "blocks.10.hook_mlp_out") == "layers.10.mlp"


@pytest.mark.parametrize("site", SITES)
@pytest.mark.parametrize("family", FAMILIES)
def test_a_site_is_found_in_every_family_and_has_the_width_that_the_configuration_says(family: str, site: str) -> None:
    decoder, wanted = skeleton(FAMILIES[family]), {**WIDTHS, "heads": HEADS.get(family, 32)}
    place = place_of(decoder, Site(1, site).name)
    found = width_of(decoder, place)
    assert place.layer == 1
    # the mask that lets others pass without numbers does not suit OPT
    assert found == (None if family == "opt" else wanted[SITES[site]])


@pytest.mark.parametrize("family", FAMILIES)
def test_widths_out_of_the_configuration_are_those_of_the_modules(family: str, tmp_path: Path) -> None:
    FAMILIES[family].save_pretrained(tmp_path)
    stated = checkpoint.hookpoints(tmp_path)
    assert {"layers.1", "layers.1.input", "layers.1.attention", "layers.1.mlp", "layers.1.mlp.input"} <= stated.keys()
    decoder = skeleton(FAMILIES[family])
    for site in SITES:
        name = Site(1, site).name
        if name in stated and family != "opt":
            assert stated[name] == width_of(decoder, place_of(decoder, name))


@pytest.fixture(params=["llama", "gemma2", "gpt_neox", "gpt2", "glm4"])
def decoder(request: pytest.FixtureRequest) -> nn.Module:
    """A small model with random weights."""
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(FAMILIES[request.param], dtype=torch.float32)
    return decoder_of(model.eval())


@torch.inference_mode()
def seen(decoder: nn.Module, names: list[str]) -> dict[str, torch.Tensor]:
    states: dict[str, torch.Tensor] = {}
    handles = [
        hook(decoder, place_of(decoder, name), lambda state, name=name: states.__setitem__(name, state))
        for name in names
    ]
    decoder(input_ids=torch.tensor([[5, 6, 7, 8, 9]]), use_cache=False)
    for handle in handles:
        handle.remove()
    return states


def test_attention_and_mlp_are_what_is_added_to_the_residual_stream(decoder: nn.Module) -> None:
    states = seen(
        decoder, ["layers.1.input", "layers.1.attention", "layers.1.mlp", "layers.1", "layers.0", "layers.2.input"]
    )
    total = states["layers.1.input"] + states["layers.1.attention"] + states["layers.1.mlp"]
    torch.testing.assert_close(states["layers.1"], total)
    assert torch.equal(states["layers.0"], states["layers.1.input"])
    assert torch.equal(states["layers.1"], states["layers.2.input"])


def test_neurons_and_heads_are_what_is_projected(decoder: nn.Module) -> None:
    states = seen(decoder, ["layers.1.attention.z", "layers.1.mlp.neurons"])
    for name, module in (("layers.1.attention.z", _AFTER_HEADS), ("layers.1.mlp.neurons", _AFTER_NEURONS)):
        place = place_of(decoder, name)
        assert place.side == "input"
        assert place.module.rpartition(".")[2] in module
        projected = seen(decoder, [f"{place.module}.output"])[f"{place.module}.output"]
        with torch.inference_mode():
            torch.testing.assert_close(decoder.get_submodule(place.module)(states[name]), projected)


_AFTER_HEADS = ("o_proj", "dense", "c_proj")
_AFTER_NEURONS = ("down_proj", "dense_4h_to_h", "c_proj")


@pytest.mark.parametrize(
    ("name", "module", "side", "layer"),
    [
        ("layers.2.mlp.gate_proj", "layers.2.mlp.gate_proj", "output", 2),
        ("model.layers.2.mlp.gate_proj.input", "layers.2.mlp.gate_proj", "input", 2),
        ("embed_tokens", "embed_tokens", "output", None),
    ],
)
def test_a_module_is_found_by_its_own_name(name: str, module: str, side: str, layer: int | None) -> None:
    place = place_of(skeleton(FAMILIES["llama"]), name)
    assert (place.module, place.side, place.layer) == (module, side, layer)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("layers.3", r"no block 3.*did you mean.*'layers\.2'"),
        ("layers.2.mlp.gate_prj", r"no hookpoint.*did you mean 'layers\.2\.mlp\.gate_proj'"),
    ],
)
def test_an_unknown_name_names_the_nearest(name: str, said: str) -> None:
    with pytest.raises(InputError, match=said):
        place_of(skeleton(FAMILIES["llama"]), name)


def test_a_family_whose_modules_have_other_names_is_refused_with_what_there_is() -> None:
    decoder = skeleton(FAMILIES["llama"])
    for block in decoder.layers:  # type: ignore[union-attr]
        block.perceptron = block.mlp
        del block.mlp
    with pytest.raises(InputError, match=r"unknown architecture: no module of a LlamaDecoderLayer.*perceptron.*fc1"):
        place_of(decoder, "layers.1.mlp.input")
    assert place_of(decoder, "layers.1.perceptron.input").module == "layers.1.perceptron"


def test_a_modules_own_name_is_that_module_whatever_follows_it() -> None:
    decoder = skeleton(FAMILIES["gemma2"])
    assert place_of(decoder, "layers.1.mlp").module == "layers.1.post_feedforward_layernorm"
    assert place_of(decoder, "model.layers.1.mlp.output").module == "layers.1.mlp"
    assert place_of(decoder, "layers.1.self_attn").module == "layers.1.self_attn"


@pytest.mark.parametrize(
    "config",
    [
        GraniteConfig(**SHAPE, num_key_value_heads=2, residual_multiplier=0.5),
        BloomConfig(n_layer=3, hidden_size=32, n_head=4, vocab_size=100),
    ],
    ids=["granite", "bloom"],
)
@pytest.mark.parametrize("site", ["attention", "mlp"])
def test_where_a_module_does_not_put_out_what_is_added_it_is_refused(config: Any, site: str) -> None:
    with pytest.raises(InputError, match="does not put out what is added to the residual stream"):
        place_of(skeleton(config), f"layers.1.{site}")
    assert place_of(skeleton(config), "layers.1").layer == 1


def test_lists_of_modules_are_no_hookpoints() -> None:
    with pytest.raises(InputError, match=r"no hookpoint 'model\.layers'"):
        place_of(skeleton(FAMILIES["llama"]), "model.layers")


def test_states_do_not_depend_on_what_else_is_hooked(tmp_path: Path) -> None:
    """Falcon adds attention to what the MLP put out, in the same memory."""
    torch.manual_seed(0)
    config = FalconConfig(num_hidden_layers=3, hidden_size=32, num_attention_heads=4, vocab_size=100, alibi=False)
    AutoModelForCausalLM.from_config(config, dtype=torch.float32).save_pretrained(tmp_path)

    def states(names: list[str]) -> torch.Tensor:
        [(_, found)] = HookedSubject(tmp_path).activations([[5, 6, 7, 8]], names)
        return found["layers.1.mlp"]

    assert torch.equal(states(["layers.1.mlp"]), states(["layers.1.mlp", "layers.2"]))


def test_what_is_no_language_model_is_refused() -> None:
    from transformers import ViTConfig

    with pytest.raises(InputError, match="unknown architecture: 'vit' is no causal language model"):
        skeleton(ViTConfig())
