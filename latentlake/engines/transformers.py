"""A language model run by transformers, in this process: batches that share their prefix's keys and values."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM

from latentlake.engines.batches import cut
from latentlake.engines.drafts import Draft, Form, allowed, draw, ends_of, generator, likeliest
from latentlake.engines.loading import load_model
from latentlake.engines.places import reads_prompt
from latentlake.engines.prompts import Prompts
from latentlake.engines.reading import Fed, Reader
from latentlake.errors import InputError
from latentlake.protocols import CONTEXT_LENGTH, Call, Choose, Generate, Reply, Sampling, Score

logger = logging.getLogger("latentlake.engines")

# Logits that a batch may hold, 512 MiB in float32: over a large vocabulary they outweigh everything else.
_LOGITS = 2**27
# Rows of logits normalized at once.
_SLICE = 256
# Tokens of context (prefix and completion included) that a batch may keep keys for, in multiples of `batch_tokens`.
_CONTEXTS = 8


@dataclass(frozen=True)
class _Prompt:
    """A suffix's tokens, the places in it where logits are wanted, and the calls that end in it, as indices into all calls."""

    suffix: list[int]
    places: Sequence[int]
    members: list[int]


class TransformersLLM:
    """Any `AutoModelForCausalLM` from a directory; implements `latentlake.protocols.LLM`.

    Calls are grouped by prefix and sampling, in order of first appearance. A prompt that occurs many times is read
    once. Log-probabilities are in nats, rounded to 6 significant digits. A prompt that does not fit the model's
    positions, with what it may generate, is answered with the error ``context_length``.

    Args:
        path: directory with config, tokenizer and weights; loaded at the first call.
        dtype: float32, bfloat16 or float16.
        device: where the model runs.
        batch_tokens: tokens that a forward pass reads, padding included and the shared prefix not.
    """

    def __init__(self, path: Path, dtype: str = "float32", device: str = "cpu", batch_tokens: int = 4096) -> None:
        self._path = path
        self._dtype = dtype
        self._device = torch.device(device)
        self._batch_tokens = batch_tokens

    @cached_property
    def _prompts(self) -> Prompts:
        return Prompts(self._path)

    @cached_property
    def _model(self) -> Any:
        logger.info("loading %s", self._path.name)
        return load_model(AutoModelForCausalLM, self._path, self._dtype).to(self._device)

    @cached_property
    def _reader(self) -> Reader:
        return Reader(self._model)

    def run(self, calls: Sequence[Call]) -> Iterator[list[tuple[int, Reply]]]:
        """Answer every call once; see `latentlake.protocols.LLM.run`."""
        groups: dict[tuple[object, str, Sampling], list[int]] = {}
        for index, call in enumerate(calls):
            groups.setdefault((call.chat, call.prefix, call.sampling), []).append(index)
        answered = 0
        try:
            for members in groups.values():
                for batch in self._answer_group(calls, members):
                    answered += len(batch)
                    yield batch
        finally:
            logger.info("answered %d calls", answered)

    def _answer_group(self, calls: Sequence[Call], members: list[int]) -> Iterator[list[tuple[int, Reply]]]:
        """Batches of calls that have their prefix and their sampling in common; what cannot be answered comes first."""
        sampling = calls[members[0]].sampling
        _require_able(sampling)
        prefix, prompts = self._group(calls, members)
        room = self._most_tokens - len(prefix) - _completion(sampling)
        if too_long := [prompt for prompt in prompts if len(prompt.suffix) > room]:
            yield [(index, _too_long(prefix, prompt)) for prompt in too_long for index in prompt.members]
        prompts = [prompt for prompt in prompts if len(prompt.suffix) <= room]
        for batch in self._cut(prefix, sampling, prompts):
            started = time.perf_counter()
            replies = self._answer([prompts[place] for place in batch], calls, prefix, sampling)
            seconds = time.perf_counter() - started
            logger.debug("%s: %d calls in %.2f s", type(sampling).__name__, len(replies), seconds)
            yield [(index, Reply(**reply, seconds=seconds / len(replies))) for index, reply in replies]

    def _group(self, calls: Sequence[Call], members: list[int]) -> tuple[list[int], list[_Prompt]]:
        """The prefix that some calls share, and each of their suffixes once."""
        by_suffix: dict[str, list[int]] = {}
        for index in members:
            by_suffix.setdefault(calls[index].suffix, []).append(index)
        fed = self._prompts.of([calls[own[0]] for own in by_suffix.values()])
        return fed[0].prefix, [
            _Prompt(each.suffix, each.places, own) for each, own in zip(fed, by_suffix.values(), strict=True)
        ]

    @cached_property
    def _most_tokens(self) -> int:
        return int(self._model.config.get_text_config().max_position_embeddings)

    @cached_property
    def _ends(self) -> frozenset[int]:
        """Tokens that end a completion."""
        return ends_of(self._model, self._prompts.tokenizer)

    def _cut(self, prefix: list[int], sampling: Sampling, prompts: list[_Prompt]) -> list[list[int]]:
        is_drawn = isinstance(sampling, Generate)
        heads = _LOGITS // self._model.config.get_text_config().vocab_size

        def fits(rows: int, longest: int) -> bool:
            fed = rows * (1 + longest)
            context = rows * (len(prefix) + longest + _completion(sampling))
            logits = fed if reads_prompt(sampling) else rows
            return fed <= self._batch_tokens and context <= _CONTEXTS * self._batch_tokens and logits <= heads

        rows = [len(prompt.members) if is_drawn else 1 for prompt in prompts]
        return cut([len(prompt.suffix) for prompt in prompts], fits, rows)

    @torch.inference_mode()
    def _answer(
        self, batch: list[_Prompt], calls: Sequence[Call], prefix: list[int], sampling: Sampling
    ) -> list[tuple[int, dict[str, Any]]]:
        """Each call of a batch with the fields of its reply, but for the time."""
        match sampling:
            case Generate():
                return self._generate(batch, calls, prefix, sampling)
            case Choose():
                is_chat = calls[batch[0].members[0]].chat is not None
                logprobs = self._choose(batch, prefix, self._prompts.firsts(sampling, is_chat))
            case Score():
                logprobs = self._score(batch, prefix)
        return [
            (index, _fields(prefix, prompt, logprobs=tuple(float(f"{value:.6g}") for value in values)))
            for prompt, values in zip(batch, logprobs, strict=True)
            for index in prompt.members
        ]

    def _choose(self, batch: list[_Prompt], prefix: list[int], firsts: list[int]) -> list[list[float]]:
        logprobs = self._read(batch, prefix).logits.log_softmax(-1)
        values = iter(logprobs[:, firsts].tolist())
        return [[value for _ in prompt.places for value in next(values)] for prompt in batch]

    def _score(self, batch: list[_Prompt], prefix: list[int]) -> list[list[float]]:
        """The token fed at each place predicts the next, so that the first prediction may be the prefix's last token's."""
        logits = self._read(batch, prefix).logits
        tokens = [[prompt.suffix[place]] for prompt in batch for place in prompt.places]
        targets = torch.tensor(tokens, dtype=torch.long, device=self._device)
        # In slices, since the normalizer of them all at once would double the largest tensor there is.
        slices = [slice(start, start + _SLICE) for start in range(0, len(tokens), _SLICE)]
        logprobs = [
            value
            for each in slices
            for value in (logits[each].gather(1, targets[each])[:, 0] - logits[each].logsumexp(-1)).tolist()
        ]
        ends = accumulate(len(prompt.places) for prompt in batch)
        return [logprobs[end - len(prompt.places) : end] for prompt, end in zip(batch, ends, strict=True)]

    def _read(self, batch: list[_Prompt], prefix: list[int]) -> Fed:
        return self._reader.read(prefix, [prompt.suffix for prompt in batch], [prompt.places for prompt in batch])

    def _generate(
        self, batch: list[_Prompt], calls: Sequence[Call], prefix: list[int], sampling: Generate
    ) -> list[tuple[int, dict[str, Any]]]:
        fed = self._read(batch, prefix)
        owners = [place for place, prompt in enumerate(batch) for _ in prompt.members]
        fed.select(torch.tensor(owners, device=self._device))
        members = [index for prompt in batch for index in prompt.members]
        form = Form(self._prompts.encode(sampling.choice), self._ends) if sampling.choice else None
        drafts = [Draft(sampling, self._ends, self._decode, form) for _ in members]
        self._complete(fed, sampling, drafts, [generator(calls[index]) for index in members])
        return [
            (index, _fields(prefix, batch[owner], draft=draft))
            for index, owner, draft in zip(members, owners, drafts, strict=True)
        ]

    def _complete(self, fed: Fed, sampling: Generate, drafts: list[Draft], generators: list[torch.Generator]) -> None:
        """Extend the drafts, a token at a time, until all are finished; finished ones leave once they are half."""
        while True:
            tokens = draw(allowed(fed.logits, drafts), sampling, generators)
            tops = likeliest(fed.logits, tokens, sampling.likeliest) if sampling.likeliest else None
            for row, (draft, token) in enumerate(zip(drafts, tokens.tolist(), strict=True)):
                if draft.finish is None:
                    draft.add(token, tops[row] if tops else None)
            open_rows = [row for row, draft in enumerate(drafts) if draft.finish is None]
            if not open_rows:
                return
            if 2 * len(open_rows) <= len(drafts):
                rows = torch.tensor(open_rows, device=self._device)
                fed.select(rows)
                tokens = tokens[rows]
                drafts, generators = [drafts[row] for row in open_rows], [generators[row] for row in open_rows]
            self._reader.step(fed, tokens)

    def _decode(self, tokens: list[int]) -> str:
        text: str = self._prompts.tokenizer.decode(tokens, skip_special_tokens=True, clean_up_tokenization_spaces=False)
        return text


def _require_able(sampling: Sampling) -> None:
    if isinstance(sampling, Generate) and sampling.schema is not None:
        raise InputError("The engine transformers cannot hold replies to a schema. Name the engine vllm or openai.")


def _completion(sampling: Sampling) -> int:
    return sampling.max_tokens if isinstance(sampling, Generate) else 0


def _fields(
    prefix: list[int], prompt: _Prompt, logprobs: tuple[float, ...] | None = None, draft: Draft | None = None
) -> dict[str, Any]:
    return {
        "text": draft.text if draft else None,
        "logprobs": draft.logprobs if draft else logprobs,
        "likeliest": draft.likeliest if draft else None,
        "tokens_in": len(prefix) + len(prompt.suffix),
        "tokens_cached": len(prefix) - 1,
        "tokens_out": len(draft.tokens) if draft else 0,
        "finish_reason": draft.finish if draft else None,
    }


def _too_long(prefix: list[int], prompt: _Prompt) -> Reply:
    tokens = len(prefix) + len(prompt.suffix)
    return Reply(None, None, tokens, 0, 0, None, 0.0, error=CONTEXT_LENGTH)
