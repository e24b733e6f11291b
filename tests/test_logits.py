"""What latents promote, against norms and products worked out by hand."""

from pathlib import Path
from typing import Any, cast

import numpy as np
import polars as pl
import pytest
import torch
from transformers import AutoModelForCausalLM, Gemma2Config, GPT2Config, OPTConfig

from latentlake.coders.coder import SparseCoder
from latentlake.coders.parameters import Parameters
from latentlake.coders.rules import TopK
from latentlake.engines import subject as engine
from latentlake.engines.loading import random_model
from latentlake.engines.modules import UnknownArchitectureError, final_norm_of
from latentlake.engines.subject import HookedSubject
from latentlake.fakes import FakeSubject
from latentlake.hookpoints import is_residual
from latentlake.stages import logits
from latentlake.work import Shared
from tests.models import FAMILIES, SIZE, tokenizer
from tests.scene import Scene, rows_of, study_of, work_of

WIDTH, LATENTS, SEED = 32, 40, 3
_SHAPE: dict[str, Any] = {"num_hidden_layers": 2, "hidden_size": WIDTH, "num_attention_heads": 4, "vocab_size": SIZE}
MODELS: dict[str, Any] = {
    **FAMILIES,
    "gemma2": lambda: Gemma2Config(
        **_SHAPE, num_key_value_heads=2, head_dim=8, intermediate_size=64, final_logit_softcapping=2.0
    ),
    "gpt2": lambda: GPT2Config(n_layer=2, n_embd=WIDTH, n_head=4, vocab_size=SIZE),
    "opt": lambda: OPTConfig(**_SHAPE, ffn_dim=64, word_embed_proj_dim=WIDTH),
}
NORMS = {
    "llama": "norm", "pythia": "final_layer_norm", "gemma3": "norm", "gemma2": "norm", "gpt2": "ln_f",
    "opt": "final_layer_norm",
}  # fmt: skip


def drawn(n: int, seed: int = 0) -> torch.Tensor:
    """Directions of very different lengths, which are not to count."""
    generator = torch.Generator().manual_seed(seed)
    lengths = 10 ** (4 * torch.rand(n, 1, generator=generator) - 2)
    return (torch.randn(n, WIDTH, generator=generator) + 0.3) * lengths


@pytest.fixture(scope="module", params=MODELS)
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    """A model of each family whose norms have scales and biases of their own."""
    folder = tmp_path_factory.mktemp("model") / "it"
    written = random_model(MODELS[request.param](), "float32", seed=1)
    with torch.no_grad():
        for weights in written.parameters():
            weights.add_(torch.randn(weights.shape, generator=torch.Generator().manual_seed(2)) * 0.3)
    written.save_pretrained(folder)
    tokenizer().save_pretrained(folder)
    return request.param, folder


def by_hand(family: str, loaded: Any, directions: torch.Tensor) -> np.ndarray:
    """Logits of directions of mean square 1: through the norm as its family has it, and the unembedding."""
    decoder = loaded.get_decoder()
    scale = decoder.get_submodule(NORMS[family]).weight.double().detach().numpy()
    head = loaded.get_output_embeddings().weight.double().detach().numpy()
    rows = directions.double().numpy()
    if family in ("pythia", "gpt2", "opt"):
        rows = rows - rows.mean(1, keepdims=True)
    rows = rows / np.sqrt((rows**2).mean(1, keepdims=True))
    found: np.ndarray = rows * (1 + scale if family.startswith("gemma") else scale) @ head.T
    return found


def test_directions_go_through_the_norm_and_the_unembedding_of_each_family(model: tuple[str, Path]) -> None:
    family, folder = model
    loaded = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    found = HookedSubject(folder).unembed(drawn(9))
    assert (found.dtype, found.shape) == (torch.float64, (9, SIZE))
    np.testing.assert_allclose(found.numpy(), by_hand(family, loaded, drawn(9)), rtol=1e-4, atol=1e-4)


def test_what_is_unembedded_is_what_the_model_makes_of_its_last_state(model: tuple[str, Path]) -> None:
    family, folder = model
    loaded: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    norm, head = loaded.get_decoder().get_submodule(NORMS[family]), loaded.get_output_embeddings()
    unit = torch.nn.functional.normalize(drawn(5), dim=1) * WIDTH**0.5
    states: list[torch.Tensor] = []
    norm.register_forward_hook(lambda _module, _inputs, output: states.append(output))
    norm.register_forward_pre_hook(lambda _module, _inputs: (unit[None],))
    with torch.inference_mode():
        said = loaded(input_ids=torch.zeros((1, 5), dtype=torch.long)).logits[0].double()
        nothing = head(norm.forward(torch.zeros(1, WIDTH))).double()
    capped = HookedSubject(folder).unembed(drawn(5))
    if family == "gemma2":
        capped = torch.tanh(capped / 2) * 2
    assert len(states) == 1
    torch.testing.assert_close(capped, said - nothing, rtol=1e-4, atol=1e-4)


def test_no_block_runs_and_the_model_stays_as_it_is(model: tuple[str, Path]) -> None:
    _, folder = model
    alone, beside = HookedSubject(folder, dtype="bfloat16"), HookedSubject(folder, dtype="bfloat16")
    before = [losses for _, losses in beside.losses([[2, 3, 4]])]
    found = beside.unembed(drawn(4))
    torch.testing.assert_close(found, alone.unembed(drawn(4)), rtol=0, atol=0)
    assert (alone._decoder, alone.__dict__.get("_whole")) == (None, None)
    assert {weights.dtype for weights in beside._whole.parameters()} == {torch.bfloat16}
    for [_, after], known in zip(beside.losses([[2, 3, 4]]), before, strict=True):
        torch.testing.assert_close(after, known, rtol=0, atol=0, equal_nan=True)


def test_logits_do_not_depend_on_what_is_computed_along(
    model: tuple[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    _, folder = model
    together = HookedSubject(folder).unembed(drawn(9))
    monkeypatch.setattr(engine, "_WEIGHTS", 7 * WIDTH)
    apart = torch.cat([HookedSubject(folder).unembed(each[None]) for each in drawn(9)])
    torch.testing.assert_close(apart, together, rtol=1e-12, atol=1e-12)


def test_a_subject_of_random_weights_has_its_own_unembedding(tmp_path: Path) -> None:
    FAMILIES["llama"]().save_pretrained(tmp_path)
    found = HookedSubject(tmp_path, seed=SEED).unembed(drawn(3)).numpy()
    own, other = (random_model(FAMILIES["llama"](), "float32", seed) for seed in (SEED, SEED + 1))
    np.testing.assert_allclose(found, by_hand("llama", own, drawn(3)), rtol=1e-4, atol=1e-5)
    assert np.abs(found - by_hand("llama", other, drawn(3))).max() > 0.01


def test_the_direction_nothing_adds_nothing(model: tuple[str, Path]) -> None:
    assert not HookedSubject(model[1]).unembed(torch.zeros(1, WIDTH)).any()


def test_a_decoder_without_a_final_norm_is_refused() -> None:
    decoder = random_model(FAMILIES["llama"](), "float32", seed=1).get_decoder()
    decoder.last_one = decoder.norm
    del decoder.norm
    with pytest.raises(
        UnknownArchitectureError, match=r"\(embed_tokens, layers, rotary_emb, last_one\).*`logits: null`"
    ):
        final_norm_of(decoder)


# The stage


def coder_of(directions: torch.Tensor) -> SparseCoder:
    return SparseCoder(Parameters(TopK(2), directions, None, directions, None), "one")


def computed(
    chosen: list[int],
    k: int = 5,
    writes: str = "layers.1",
    subject: Any = None,
    directions: torch.Tensor | None = None,
    blocks: int = 2,
    **dictionary: Any,
) -> pl.DataFrame:
    """The rows of all blocks."""
    study = study_of(
        blocks=blocks, logits={"k": k}, dictionaries={"one": {"hookpoint": "h", "coder": "c", **dictionary}}
    )
    coder, shared, found = coder_of(drawn(LATENTS) if directions is None else directions), Shared(), []
    for block in range(blocks):
        own = range(block * LATENTS // blocks, (block + 1) * LATENTS // blocks)
        frames = {
            "latents": pl.DataFrame({"latent": own, "is_chosen": [latent in chosen for latent in own]}),
            "dictionaries": pl.DataFrame({"writes": [writes]}),
        }
        work = work_of(
            study, "logits", Scene(), block, shared, lambda _: coder, subject or FakeSubject(WIDTH), frames=frames
        )
        found.append(rows_of("logits", logits.compute(work)))
    return pl.concat(found)


def expected(subject: Any, texts: list[str], latent: int, sign: int = 1) -> list[tuple[int, str, float]]:
    """All tokens with a text, the most promoted first, or with the sign -1 the most suppressed: token, text, logit."""
    [raw] = subject.unembed(drawn(LATENTS)[latent : latent + 1]).tolist()
    spoken = [token for token, text in enumerate(texts) if text]
    mean = sum(raw[token] for token in spoken) / len(spoken)
    found = [(token, texts[token], round(raw[token] - mean, 4)) for token in spoken]
    return sorted(found, key=lambda each: (-sign * each[2], each[0]))


def listed(tokens: list[dict[str, Any]]) -> list[tuple[int, str, Any]]:
    return [(each["token"], each["text"], pytest.approx(each["logit"], abs=1e-9)) for each in tokens]


def bytes_of(subject: FakeSubject) -> list[str]:
    """The text of each of the fake's tokens."""
    return [subject.detokenize([[token]])[0] for token in range(subject.vocabulary)]


def test_the_most_and_the_least_promoted_of_all_tokens_are_listed() -> None:
    subject, chosen = FakeSubject(WIDTH), [0, 3, 19, 20, 39]
    found = computed(chosen)
    assert found["latent"].to_list() == chosen
    assert found["error"].null_count() == len(chosen)
    for row in found.iter_rows(named=True):
        assert listed(row["promoted"]) == expected(subject, bytes_of(subject), row["latent"])[:5]
        assert listed(row["suppressed"]) == expected(subject, bytes_of(subject), row["latent"], -1)[:5]


def test_of_a_real_model_too(model: tuple[str, Path]) -> None:
    subject = HookedSubject(model[1])
    texts = [tokenizer().decode([token], skip_special_tokens=True) for token in range(SIZE)]
    found = computed([1, 30], k=SIZE, subject=subject)
    for row in found.iter_rows(named=True):
        assert listed(row["promoted"]) == expected(subject, texts, row["latent"])
        assert listed(row["suppressed"]) == expected(subject, texts, row["latent"], -1)


def test_tokens_without_a_text_are_not_listed() -> None:
    subject = FakeSubject(WIDTH)
    for name in ("promoted", "suppressed"):
        tokens = {each["token"] for each in computed([4], k=300)[name].item()}
        assert tokens == {token for token, text in enumerate(bytes_of(subject)) if text}
        assert subject.bos not in tokens


def test_lists_do_not_depend_on_chunks_blocks_or_what_else_is_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    every = list(range(LATENTS))
    whole = computed(every)
    assert computed([7, 8, 31]).equals(whole.filter(pl.col("latent").is_in([7, 8, 31])))
    assert computed(every, blocks=5).drop("block").equals(whole.drop("block"))
    for numbers in (1, 3 * FakeSubject.vocabulary, 7 * FakeSubject.vocabulary + 1):
        monkeypatch.setattr(logits, "_NUMBERS", numbers)
        assert computed(every).equals(whole)


def test_of_tokens_that_are_promoted_alike_the_first_come_first() -> None:
    class Even(FakeSubject):
        def unembed(self, directions: torch.Tensor) -> torch.Tensor:
            return torch.arange(self.vocabulary).remainder(2).double().repeat(len(directions), 1)

    row = computed([2], k=3, subject=Even(WIDTH)).row(0, named=True)
    assert [each["token"] for each in row["promoted"]] == [3, 5, 7]
    assert [each["token"] for each in row["suppressed"]] == [4, 6, 8]


@pytest.mark.parametrize(
    "writes", ["layers.1.attention.z", "layers.1.mlp.input", "layers.1.mlp.neurons", "encoder.1.output"]
)
def test_what_is_not_written_to_the_residual_stream_promotes_nothing_that_is_known(writes: str) -> None:
    class Shut(FakeSubject):
        def unembed(self, directions: torch.Tensor) -> torch.Tensor:
            raise AssertionError("the subject was asked")

    found = computed([1, 30], writes=writes, subject=Shut(WIDTH))
    assert found["error"].to_list() == ["not_residual"] * 2
    assert (found["promoted"].null_count(), found["suppressed"].null_count()) == (2, 2)


@pytest.mark.parametrize(
    "name", ["layers.0", "layers.0.input", "layers.0.attention", "layers.0.mlp", "blocks.0.hook_mlp_out"]
)
def test_what_is_in_the_residual_stream(name: str) -> None:
    assert is_residual(name)
    assert not computed([1], writes=name)["promoted"].null_count()


def test_a_direction_that_is_nothing_is_an_error() -> None:
    directions = drawn(LATENTS)
    directions[5] = 0
    found = computed([4, 5], directions=directions)
    assert found["error"].to_list() == [None, "no_direction"]
    assert found["promoted"].is_null().to_list() == [False, True]


def test_where_no_latent_is_chosen_there_is_nothing() -> None:
    assert computed([]).is_empty()


def test_of_a_model_of_random_weights_it_is_that_models_tokens() -> None:
    own, other = computed([2]), computed([2], control="model")
    assert own["promoted"].to_list() != other["promoted"].to_list()
    subject = cast(Any, FakeSubject(WIDTH, draw=1))
    assert listed(other["promoted"].item()) == expected(subject, bytes_of(subject), 2)[:5]
