"""Subjects of several families: states against a plain pass, short memory, tokenizers, and where models come from."""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from latentlake.engines import checkpoint
from latentlake.engines.modules import hook, place_of
from latentlake.engines.subject import HookedSubject
from latentlake.errors import InputError
from latentlake.hookpoints import SITES, Site
from latentlake.protocols import Tokenized
from tests.models import BOS, EOS, FAMILIES, SIZE, TEXTS, tokenizer, write_model

NAMES = [Site(layer, site).name for layer in (1, 2) for site in SITES]


@pytest.fixture(scope="module", params=FAMILIES)
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of each family."""
    return write_model(tmp_path_factory.mktemp("model") / "it", request.param)


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("model") / "it")


@pytest.fixture(scope="module")
def contexts() -> list[list[int]]:
    """Contexts of several lengths; the third and the last are as long as each other."""
    tokens = [each.tokens for each in _tokenize(TEXTS)]
    return [[BOS, *tokens[0]], [BOS, *tokens[1][:7]], [BOS, *tokens[1]], [BOS, *tokens[2][:3]], [BOS, *tokens[1][::-1]]]


def _tokenize(texts: Sequence[str]) -> list[Tokenized]:
    subject = HookedSubject(Path())
    subject.__dict__["_tokenizer"] = tokenizer()
    return subject.tokenize(texts)


def states_of(subject: HookedSubject, contexts: list[list[int]], names: list[str]) -> list[dict[str, torch.Tensor]]:
    """The states of each context, out of whatever batches they came in."""
    found: list[Any] = [None] * len(contexts)
    for batch, states in subject.activations(contexts, names):
        lengths = [len(contexts[index]) for index in batch]
        pieces = {name: torch.split(states[name], lengths) for name in names}
        for place, index in enumerate(batch):
            assert found[index] is None
            found[index] = {name: pieces[name][place] for name in names}
    return found


@torch.inference_mode()
def plain(folder: Path, context: list[int], name: str) -> torch.Tensor:
    """A hookpoint's state in a pass of the whole model over one context."""
    model: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    model.eval()
    seen: list[torch.Tensor] = []
    hook(model.get_decoder(), place_of(model.get_decoder(), name), seen.append)
    model(input_ids=torch.tensor([context]))
    return seen[0][0]


def test_states_are_those_of_the_whole_model(folder: Path, contexts: list[list[int]]) -> None:
    for batch_tokens in (1, 70, 10_000):
        found = states_of(HookedSubject(folder, batch_tokens=batch_tokens), contexts, NAMES)
        for index in (0, 1, 4):
            for name in NAMES:
                wanted = plain(folder, contexts[index], name)
                assert float(wanted.abs().max()) > 0.01
                torch.testing.assert_close(found[index][name], wanted, rtol=1e-4, atol=1e-4)


def test_the_stated_residual_stream_is_transformers_own(folder: Path, contexts: list[list[int]]) -> None:
    model: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    with torch.inference_mode():
        hidden = model(input_ids=torch.tensor([contexts[0]]), output_hidden_states=True).hidden_states
    [found] = states_of(HookedSubject(folder), contexts[:1], ["layers.0.input", "layers.1", "layers.2"])
    for name, at in (("layers.0.input", 0), ("layers.1", 2), ("layers.2", 3)):
        torch.testing.assert_close(found[name], hidden[at][0], rtol=1e-4, atol=1e-4)


def test_nothing_is_computed_beyond_the_deepest_hookpoint(folder: Path, contexts: list[list[int]]) -> None:
    subject = HookedSubject(folder)
    list(subject.activations(contexts, ["layers.1.attention"]))
    decoder = subject._decoder
    ran: list[str] = []
    for name, module in decoder.named_modules():
        module.register_forward_hook(lambda *_, name=name: ran.append(name))
    list(subject.activations(contexts, ["layers.1.attention"]))
    assert len(decoder.get_submodule("layers")) == 2
    assert any(name.startswith("layers.1.") for name in ran)
    assert not any("mlp" in name for name in ran if name.startswith("layers.1."))


def test_native_names_are_told(folder: Path) -> None:
    subject = HookedSubject(folder)
    assert subject.module_of("blocks.2.hook_resid_post") == "layers.2.output"
    assert subject.module_of("layers.2.mlp.input") == "layers.2.mlp.input"
    assert subject._decoder is None


class Scarce:
    """In the place of a forward pass: memory for so many tokens, and no more."""

    def __init__(self, decoder: Any, tokens: int, error: Exception) -> None:
        self.passes: list[int] = []
        self._forward, self._tokens, self._error = decoder.forward, tokens, error

    def __call__(self, input_ids: torch.Tensor, **more: Any) -> Any:
        if input_ids.numel() > self._tokens:
            raise self._error
        self.passes.append(input_ids.numel())
        return self._forward(input_ids=input_ids, **more)


@pytest.mark.parametrize(
    "error", [torch.OutOfMemoryError("CUDA out of memory"), RuntimeError("DefaultCPUAllocator: can't allocate memory")]
)
def test_a_batch_that_does_not_fit_is_halved_and_said_to_be(
    llama: Path, error: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    contexts = [[BOS, *range(10, 25)] for _ in range(16)]
    calm = states_of(HookedSubject(llama), contexts, ["layers.1"])
    subject = HookedSubject(llama, batch_tokens=8 * 16)
    list(subject.activations(contexts[:1], ["layers.1"]))
    decoder = subject._decoder
    decoder.forward = scarce = Scarce(decoder, 70, error)
    with caplog.at_level(logging.WARNING, "latentlake.engines"):
        found = states_of(subject, contexts, ["layers.1"])
    assert scarce.passes == [64] * 4
    assert [record.message for record in caplog.records] == [
        "out of memory with a batch of 8 contexts; going on with halves of it"
    ]
    for one, other in zip(found, calm, strict=True):
        torch.testing.assert_close(one["layers.1"], other["layers.1"], rtol=1e-4, atol=1e-4)


def test_a_context_that_does_not_fit_alone_is_an_error(llama: Path) -> None:
    subject = HookedSubject(llama)
    list(subject.activations([[BOS]], ["layers.1"]))
    subject._decoder.forward = Scarce(subject._decoder, 10, torch.OutOfMemoryError("CUDA out of memory"))
    with pytest.raises(torch.OutOfMemoryError):
        list(subject.activations([[BOS] * 11, [BOS] * 11], ["layers.1"]))


def test_other_errors_of_torch_are_not_taken_for_want_of_memory(llama: Path, caplog: pytest.LogCaptureFixture) -> None:
    subject = HookedSubject(llama)
    list(subject.activations([[BOS]], ["layers.1"]))
    subject._decoder.forward = scarce = Scarce(subject._decoder, 10, RuntimeError("another error"))
    with pytest.raises(RuntimeError, match="another error"):
        list(subject.activations([[BOS] * 8, [BOS] * 8], ["layers.1"]))
    assert scarce.passes == []
    assert caplog.records == []


def test_a_subject_may_be_spread_over_the_devices_that_there_are(llama: Path, contexts: list[list[int]]) -> None:
    [alone] = states_of(HookedSubject(llama), contexts[:1], ["layers.2"])
    [spread] = states_of(HookedSubject(llama, device="auto"), contexts[:1], ["layers.2"])
    torch.testing.assert_close(spread["layers.2"].cpu(), alone["layers.2"], rtol=1e-4, atol=1e-4)


def test_a_context_longer_than_the_model_reads_is_refused(llama: Path) -> None:
    with pytest.raises(InputError, match="129 tokens, but it reads 128 at most"):
        HookedSubject(llama).activations([[BOS] * 129], ["layers.1"])


# Tokens


def test_the_texts_of_tokens_tile_the_document() -> None:
    for text, tokenized in zip(TEXTS, _tokenize(TEXTS), strict=True):
        assert tokenized.ends is not None
        ends = tokenized.ends
        pieces = [text[begin:end] for begin, end in zip([0, *ends], ends, strict=False)]
        assert "".join(pieces) == text
        if text.isascii():  # where a character has several tokens it belongs to the first
            assert pieces == [tokenizer().decode([token]) for token in tokenized.tokens]


def test_special_tokens_are_the_tokenizers(llama: Path) -> None:
    subject = HookedSubject(llama)
    assert (subject.bos, subject.separator, subject.vocabulary) == (BOS, EOS, SIZE)


def test_a_tokenizer_without_bos_says_what_to_do(llama: Path) -> None:
    subject = HookedSubject(llama)
    subject._tokenizer.bos_token = None
    with pytest.raises(InputError, match=r"Give a number, or `none`, in corpus\.bos"):
        _ = subject.bos


def test_sizes_of_the_vocabularies_are_read_without_loading_anything(folder: Path) -> None:
    assert checkpoint.vocabulary(folder) == checkpoint.Vocabulary(SIZE, SIZE)
    tokenizer(320).save_pretrained(folder.parent / "other")
    larger = checkpoint.Vocabulary(320, SIZE)
    (folder.parent / "other" / "config.json").write_text((folder / "config.json").read_text())
    assert checkpoint.vocabulary(folder.parent / "other") == larger


# The hub


def snapshot(cache: Path, model: Path, commit: str) -> None:
    """A repository as the hub's client leaves it in its cache."""
    root = cache / "models--lab--small"
    (root / "refs").mkdir(parents=True)
    (root / "refs" / "main").write_text(commit)
    target = root / "snapshots" / commit
    target.mkdir(parents=True)
    for path in model.iterdir():
        (target / path.name).write_bytes(path.read_bytes())


def test_a_repository_of_the_hub_is_a_snapshot_of_its_commit(
    llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit = "0123456789abcdef0123456789abcdef01234567"
    snapshot(tmp_path / "hub", llama, commit)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    found = checkpoint.locate("lab/small", tmp_path)
    assert found.name == commit
    assert found == checkpoint.locate("lab/small", tmp_path, commit)
    assert checkpoint.hookpoints(found)["layers.3.mlp.neurons"] == 64
    with pytest.raises(InputError, match=r"'lab/small' is no path here.* at revision 'v2'.*HF_HUB_OFFLINE"):
        checkpoint.locate("lab/small", tmp_path, "v2")


def test_a_folder_has_no_revisions(llama: Path) -> None:
    with pytest.raises(InputError, match="has no revisions"):
        checkpoint.locate("it", llama.parent, "main")


def test_an_architecture_that_transformers_does_not_know_is_refused(llama: Path, tmp_path: Path) -> None:
    config = (llama / "config.json").read_text().replace('"llama"', '"lama"')
    (tmp_path / "config.json").write_text(config)
    with pytest.raises(InputError, match="unknown architecture"):
        HookedSubject(tmp_path).module_of("layers.1")
