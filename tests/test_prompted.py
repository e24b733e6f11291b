"""Prompts read with a push: against whole passes with a hook, whatever the batches; on small real models and on SmolLM2."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import AutoModelForCausalLM, BloomConfig, FalconConfig, MambaConfig

from latentlake.engines.drafts import draw
from latentlake.engines.modules import place_of, replace
from latentlake.engines.skeleton import decoder_of, skeleton, width_of
from latentlake.engines.subject import HookedSubject
from latentlake.errors import InputError
from latentlake.fakes import FakeSubject
from latentlake.hookpoints import SITES, Site
from latentlake.protocols import Continuation, Generate, Subject
from tests.models import BOS, EOS, FAMILIES, tokenizer, write_model
from tests.test_engines_real import smollm2  # noqa: F401 - a fixture
from tests.test_hookpoints import FAMILIES as MORE_FAMILIES

NAMES = [Site(1, site).name for site in SITES]
# of several lengths, longer than what gemma3's blocks see, one of a single token, and two that are equal
PROMPTS = [
    [BOS, *((7 * row + 3 * place) % 290 + 2 for place in range(length))] for row, length in enumerate((11, 2, 40, 0))
]
PROMPTS += [PROMPTS[0], [BOS, *range(20, 31)]]
OF = [0, 2, 1, 3, 4, 0, 5, 2, 3]


@pytest.fixture(scope="module", params=FAMILIES)
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of each family."""
    return write_model(tmp_path_factory.mktemp("model") / "it", request.param)


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("model") / "it")


def whole(folder: Path) -> Any:
    """The model, with nothing of ours around it."""
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()


def pushes_for(model: Any, name: str, rows: int, size: float = 3.0) -> Tensor:
    """A push for each row, as wide as what the hookpoint gives; the one of the fourth is 0."""
    width = width_of(skeleton(model.config), place_of(decoder_of(model), name)) or 32
    pushes = size * torch.randn(rows, width, generator=torch.Generator().manual_seed(0))
    pushes[3:4] = 0
    return pushes


@torch.inference_mode()
def plain(model: Any, prompt: Sequence[int], text: Sequence[int], name: str, push: Tensor) -> Tensor:
    """Logits [vocabulary] after a prompt and what follows, in a pass of all tokens with a hook from the prompt's last one on."""

    def change(state: Tensor) -> Tensor:
        changed = state.reshape(len(prompt) + len(text), -1).clone()
        changed[len(prompt) - 1 :] += push
        return changed.reshape(state.shape)

    handle = replace(decoder_of(model), place_of(decoder_of(model), name), change)
    try:
        logits: Tensor = model(input_ids=torch.tensor([[*prompt, *text]]), use_cache=False).logits[0, -1]
    finally:
        handle.remove()
    return logits


def goes_on(
    model: Any,
    prompt: Sequence[int],
    name: str,
    push: Tensor,
    sampling: Generate,
    seed: int,
    ends: Sequence[int] = (EOS,),
) -> Continuation:
    """What a prompt's continuation should be, each token by a pass of all before it."""
    drawn, text = torch.Generator().manual_seed(seed), list[int]()
    while len(text) < sampling.max_tokens:
        token = int(draw(plain(model, prompt, text, name, push)[None], sampling, [drawn]))
        if token in ends:
            break
        text.append(token)
    clean, pushed = (plain(model, prompt, [], name, each).double().log_softmax(-1) for each in (push * 0, push))
    return Continuation(text, float((clean.exp() * (clean - pushed)).sum()))


def next_tokens(
    subject: Subject, prompts: list[list[int]], of: Sequence[int], name: str, pushes: Tensor
) -> tuple[Tensor, Tensor]:
    """Of all rows, out of whatever batches they came in; all prompts in one group."""
    found = []
    for batch, prompted in subject.prompted(prompts, [0] * len(prompts)):
        assert batch == list(range(len(prompts)))
        found += list(prompted.next_tokens(of, name, pushes))
    assert [row for rows, _, _ in found for row in range(*rows.indices(len(of)))] == list(range(len(of)))
    return torch.cat([clean for _, clean, _ in found]), torch.cat([pushed for _, _, pushed in found])


def continuations(
    subject: Subject,
    prompts: list[list[int]],
    of: Sequence[int],
    name: str,
    pushes: Tensor,
    sampling: Generate,
    seeds: Sequence[int],
) -> list[Continuation]:
    """Of all rows, in order."""
    found = {}
    for _, prompted in subject.prompted(prompts, [0] * len(prompts)):
        for batch in prompted.continuations(of, name, pushes, sampling.max_tokens, sampling.temperature, seeds):
            found |= dict(batch)
    return [found[row] for row in range(len(of))]


# Against whole passes


@pytest.mark.parametrize("name", NAMES)
def test_the_next_token_is_that_of_a_whole_pass_with_a_hook(folder: Path, name: str) -> None:
    model = whole(folder)
    pushes = pushes_for(model, name, len(OF))
    for batch_tokens in (1, 100, 4096):
        subject = HookedSubject(folder, batch_tokens=batch_tokens)
        clean, pushed = next_tokens(subject, PROMPTS, OF, name, pushes)
        for row, number in enumerate(OF):
            for found, push in ((clean[row], pushes[row] * 0), (pushed[row], pushes[row])):
                wanted = plain(model, PROMPTS[number], [], name, push).double().log_softmax(-1)
                torch.testing.assert_close(found, wanted, rtol=1e-3, atol=1e-3)
        assert torch.equal(clean[3], pushed[3])
        changes = (clean - pushed).abs().amax(1)
        assert float(changes[:3].min()) > 0.05


@pytest.mark.parametrize("family", [*MORE_FAMILIES, "bloom", "falcon"])
def test_of_every_family(family: str, tmp_path: Path) -> None:
    config = {
        **MORE_FAMILIES,
        "bloom": BloomConfig(n_layer=3, hidden_size=32, n_head=4, vocab_size=100),
        "falcon": FalconConfig(num_hidden_layers=3, hidden_size=32, num_attention_heads=4, vocab_size=100, alibi=False),
    }[family]
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(config, dtype=torch.float32).save_pretrained(tmp_path)
    tokenizer().save_pretrained(tmp_path)
    model, pushes = whole(tmp_path), torch.randn(len(OF), 32, generator=torch.Generator().manual_seed(0))
    prompts = [[token % 100 for token in prompt] for prompt in PROMPTS]
    found = continuations(HookedSubject(tmp_path), prompts, OF, "layers.1", pushes, Generate(4), range(len(OF)))
    ends = [EOS, model.generation_config.eos_token_id]
    for row, number in enumerate(OF):
        wanted = goes_on(model, prompts[number], "layers.1", pushes[row], Generate(4), row, ends)
        assert found[row] == (wanted.tokens, pytest.approx(wanted.kl, rel=1e-3, abs=1e-5))


@pytest.mark.parametrize(
    "name", ["layers.1", "layers.2.input", "layers.1.mlp", "layers.1.attention.z", "layers.1.mlp.neurons"]
)
@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_a_continuation_is_that_of_whole_passes_with_the_push_held(folder: Path, name: str, temperature: float) -> None:
    model, sampling = whole(folder), Generate(6, temperature)
    pushes, seeds = pushes_for(model, name, len(OF)), range(100, 100 + len(OF))
    found = continuations(HookedSubject(folder), PROMPTS, OF, name, pushes, sampling, seeds)
    for row, number in enumerate(OF):
        wanted = goes_on(model, PROMPTS[number], name, pushes[row], sampling, seeds[row])
        assert found[row] == (wanted.tokens, pytest.approx(wanted.kl, rel=1e-3, abs=1e-6))
    assert found[3].kl == 0
    assert min(each.kl for row, each in enumerate(found) if row != 3) > 0


def test_names_of_the_models_own_are_hookpoints_too(llama: Path) -> None:
    model = whole(llama)
    for name in ("layers.1.mlp.up_proj.output", "embed_tokens", "layers.2.self_attn"):
        pushes = pushes_for(model, name, 2)
        _, pushed = next_tokens(HookedSubject(llama), PROMPTS, [0, 2], name, pushes)
        for row, number in enumerate((0, 2)):
            wanted = plain(model, PROMPTS[number], [], name, pushes[row]).double().log_softmax(-1)
            torch.testing.assert_close(pushed[row], wanted, rtol=1e-3, atol=1e-3)


# Batches


def test_batches_do_not_change_what_comes_out(folder: Path) -> None:
    pushes, seeds, sampling = pushes_for(whole(folder), "layers.1", len(OF)), list(range(len(OF))), Generate(6, 1.0)
    found = [
        continuations(HookedSubject(folder, batch_tokens=tokens), PROMPTS, OF, "layers.1", pushes, sampling, seeds)
        for tokens in (1, 30, 4096)
    ]
    turned = continuations(
        HookedSubject(folder),
        PROMPTS[::-1],
        [5 - n for n in OF][::-1],
        "layers.1",
        pushes.flip(0),
        sampling,
        seeds[::-1],
    )
    for one in (*found[1:], turned[::-1]):
        for row, continuation in enumerate(one):
            assert continuation == (found[0][row].tokens, pytest.approx(found[0][row].kl, rel=1e-3, abs=1e-6))


def test_equal_prompts_are_read_once(llama: Path) -> None:
    subject, prompts = HookedSubject(llama), [PROMPTS[2], PROMPTS[0], PROMPTS[2], PROMPTS[2]]
    sizes: list[tuple[int, ...]] = []
    handle = subject._whole.get_input_embeddings().register_forward_pre_hook(
        lambda _, given: sizes.append(given[0].shape)
    )
    push = torch.ones(3, 32)
    for _, prompted in subject.prompted(prompts, [0] * 4):
        [(_, clean, pushed)] = prompted.next_tokens([0, 2, 3], "layers.1", push)
        [_] = prompted.next_tokens([0, 2, 3], "layers.1", 2 * push)
    handle.remove()
    assert sizes == [
        (2, len(PROMPTS[2])),
        (3, 1),
        (3, 1),
    ]  # the prompts once, and a token of each row for each strength
    for some in (clean, pushed):
        torch.testing.assert_close(some[1:], some[:1].expand(2, -1))


@pytest.mark.parametrize("batch_tokens", [1, 30, 60, 4096])
def test_groups_are_not_parted_and_prompts_keep_their_order(llama: Path, batch_tokens: int) -> None:
    groups = [4, 4, 7, 7, 7, 4]
    batches = [batch for batch, _ in HookedSubject(llama, batch_tokens=batch_tokens).prompted(PROMPTS, groups)]
    assert [index for batch in batches for index in batch] == list(range(len(PROMPTS)))
    assert {len({number for number, batch in enumerate(batches) if index in batch}) for index in range(6)} == {1}
    starts = {batch[0] for batch in batches}
    assert starts == ({0} if batch_tokens == 4096 else {0, 2, 5})


def test_a_batch_is_good_until_the_next_is_asked_for(llama: Path) -> None:
    batches = HookedSubject(llama, batch_tokens=1).prompted(PROMPTS[:2], [0, 1])
    _, first = next(batches)
    push = torch.ones(1, 32)
    assert len(list(first.next_tokens([0], "layers.1", push))) == 1
    _, second = next(batches)
    assert len(list(second.next_tokens([0], "layers.1", push))) == 1
    with pytest.raises(AttributeError):
        list(first.next_tokens([0], "layers.1", push))


def test_a_subject_is_as_it_was_afterwards(llama: Path) -> None:
    subject = HookedSubject(llama)
    before = [losses for _, losses in subject.losses(PROMPTS[:1])]
    continuations(subject, PROMPTS, OF, "layers.1", torch.ones(len(OF), 32), Generate(3), range(len(OF)))
    after = [losses for _, losses in subject.losses(PROMPTS[:1])]
    torch.testing.assert_close(after, before, equal_nan=True)


# Texts


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_a_push_of_nothing_gives_the_clean_text_whoever_is_beside_it(folder: Path, temperature: float) -> None:
    sampling, seeds = Generate(8, temperature), range(6)
    pushes = 5 * torch.randn(12, 32, generator=torch.Generator().manual_seed(1))
    pushes[::2] = 0
    twice, seeded = [number for number in range(6) for _ in "ab"], [seed for seed in seeds for _ in "ab"]
    mixed = continuations(HookedSubject(folder), PROMPTS, twice, "layers.1", pushes, sampling, seeded)
    alone = [
        continuations(HookedSubject(folder), [prompt], [0], "layers.1", torch.zeros(1, 32), sampling, [seed])[0]
        for prompt, seed in zip(PROMPTS, seeds, strict=True)
    ]
    assert mixed[::2] == alone
    assert {each.kl for each in alone} == {0}
    assert [each.tokens for each in mixed[1::2]] != [each.tokens for each in alone]


def test_a_text_ends_at_the_models_end_tokens_and_those_that_are_done_leave(llama: Path) -> None:
    subject = HookedSubject(llama)
    free = continuations(subject, PROMPTS, OF, "layers.1", torch.zeros(len(OF), 32), Generate(8, 1.0), range(len(OF)))
    assert {len(each.tokens) for each in free} == {8}
    ends = {free[0].tokens[3], free[1].tokens[1], free[2].tokens[0], *free[4].tokens[5:6]}
    subject._whole.generation_config.eos_token_id = sorted(ends)
    rows: list[int] = []
    handle = subject._whole.get_input_embeddings().register_forward_pre_hook(
        lambda _, given: rows.append(len(given[0]))
    )
    ended = continuations(subject, PROMPTS, OF, "layers.1", torch.zeros(len(OF), 32), Generate(8, 1.0), range(len(OF)))
    handle.remove()
    for whole_text, cut in zip(free, ended, strict=True):
        at = next((place for place, token in enumerate(whole_text.tokens) if token in ends), 8)
        assert cut.tokens == whole_text.tokens[:at]
    assert ended[2].tokens == []
    assert rows[1:] == sorted(rows[1:], reverse=True)


def test_a_larger_push_changes_more(folder: Path) -> None:
    direction = torch.nn.functional.normalize(torch.randn(1, 32, generator=torch.Generator().manual_seed(3)), dim=1)
    pushes = torch.cat([strength * direction for strength in (0, 0.1, 0.5, 2)])
    found = continuations(HookedSubject(folder), PROMPTS, [0] * 4, "layers.2", pushes, Generate(1), [0] * 4)
    kls = [each.kl for each in found]
    assert kls == sorted(set(kls))
    assert kls[0] == 0


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_in_half_precision(folder: Path, dtype: str) -> None:
    pushes = pushes_for(whole(folder), "layers.1", len(OF))
    wanted = next_tokens(HookedSubject(folder), PROMPTS, OF, "layers.1", pushes)
    found = next_tokens(HookedSubject(folder, dtype), PROMPTS, OF, "layers.1", pushes)
    for one, other in zip(found, wanted, strict=True):
        assert float((one - other).abs().mean()) < 0.1 * float(other.std())
    texts = continuations(
        HookedSubject(folder, dtype), PROMPTS, OF, "layers.1", pushes, Generate(4, 1.0), range(len(OF))
    )
    assert [len(each.tokens) for each in texts] == [4] * len(OF)


def test_of_random_weights(llama: Path) -> None:
    pushes = pushes_for(whole(llama), "layers.1", len(OF))
    drawn = [
        continuations(HookedSubject(llama, seed=seed), PROMPTS, OF, "layers.1", pushes, Generate(4), range(len(OF)))
        for seed in (0, 0, 1)
    ]
    assert drawn[0] == drawn[1] != drawn[2]


# What is refused


def test_bad_input_is_refused_before_any_work(llama: Path, tmp_path: Path) -> None:
    subject = HookedSubject(llama)
    with pytest.raises(InputError, match="Prompt 1 of 2 has no token"):
        subject.prompted([[BOS], []], [0, 0])
    with pytest.raises(InputError, match="129 tokens, but it reads 128 at most"):
        subject.prompted([[BOS] * 129], [0])
    MambaConfig(num_hidden_layers=2, hidden_size=32, vocab_size=100).save_pretrained(tmp_path)
    with pytest.raises(InputError, match="MambaModel keeps a state in the place of keys and values"):
        HookedSubject(tmp_path).prompted([[BOS]], [0])
    assert "_whole" not in subject.__dict__
    for _, prompted in subject.prompted(PROMPTS, [0] * len(PROMPTS)):
        with pytest.raises(InputError, match="no block 9"):
            prompted.next_tokens([0], "layers.9", torch.ones(1, 32))
        with pytest.raises(InputError, match=r"no hookpoint 'layers\.1\.nothing'"):
            prompted.continuations([0], "layers.1.nothing", torch.ones(1, 32), 3, 0.0, [0])
        with pytest.raises(InputError, match="A prompt of 41 tokens goes on for 88, but the subject reads 128 at most"):
            prompted.continuations([0, 2], "layers.1", torch.ones(2, 32), 88, 0.0, [0, 1])
        with pytest.raises(InputError, match=r"layers\.1\.mlp\.neurons gives states \[1, 1, 64\].*pushes \[1, 32\]"):
            list(prompted.next_tokens([0], "layers.1.mlp.neurons", torch.ones(1, 32)))
        clean, pushed = next(prompted.next_tokens([0], "layers.1", torch.zeros(1, 32)))[1:]
        assert torch.equal(clean, pushed)  # nothing is left of what failed


# The real model, and the fake


def test_of_smollm2(smollm2: Path) -> None:  # noqa: F811
    model, subject = whole(smollm2), HookedSubject(smollm2)
    texts = ["The river runs down from the mountain to the", "Oak, elm and birch are", "Rome"]
    prompts = [[subject.bos, *each.tokens] for each in subject.tokenize(texts)]
    pushes = 20 * torch.nn.functional.normalize(torch.randn(3, 576, generator=torch.Generator().manual_seed(0)), dim=1)
    pushes[1] = 0
    found = continuations(subject, prompts, [0, 1, 2], "layers.9", pushes, Generate(3, 1.0), range(3))
    for row, prompt in enumerate(prompts):
        ends = [subject.separator, model.generation_config.eos_token_id]
        wanted = goes_on(model, prompt, "layers.9", pushes[row], Generate(3, 1.0), row, ends)
        assert found[row] == (wanted.tokens, pytest.approx(wanted.kl, rel=1e-3, abs=1e-6))


def test_the_fake_is_of_the_same_kind() -> None:
    subject = FakeSubject()
    direction = torch.ones(1, 16)
    pushes = torch.cat([strength * direction for strength in (0, 0.01, 0.1, 1, 0)])
    prompts = [each.tokens for each in subject.tokenize(["the river", "a city", "x"])]
    [first, second] = [batch for batch, _ in subject.prompted(prompts, [0, 0, 1])]
    assert (first, second) == ([0, 1], [2])
    found = continuations(subject, prompts[:2], [1, 1, 1, 1, 0], "layers.0", pushes, Generate(5, 1.0), [3] * 5)
    kls = [each.kl for each in found[:4]]
    assert kls == sorted(set(kls))
    assert kls[0] == found[4].kl == 0
    assert found[0] == continuations(subject, prompts[1:2], [0], "layers.0", pushes[:1], Generate(5, 1.0), [3])[0]
    assert found[0].tokens != found[3].tokens
    clean, pushed = next_tokens(subject, prompts, [0, 1, 2, 2, 2], "layers.0", pushes)
    assert torch.equal(clean[0], pushed[0])
    torch.testing.assert_close(pushed.exp().sum(1), torch.ones(5, dtype=torch.float64))
    assert clean.shape == (5, subject.vocabulary)
