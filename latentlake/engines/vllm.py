"""A language model run by vLLM, in this process or in processes that it starts: many requests under way at once."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import islice
from math import inf
from pathlib import Path
from typing import Any

from latentlake.engines import checkpoint
from latentlake.engines.forms import formed
from latentlake.engines.order import together
from latentlake.engines.places import reads_prompt
from latentlake.engines.prompts import Prompt, Prompts
from latentlake.engines.seeds import seed_of
from latentlake.errors import EngineError
from latentlake.protocols import CONTEXT_LENGTH, UNPARSED, Call, Choose, Generate, Likely, Reply, Sampling, Score

logger = logging.getLogger("latentlake.engines")

# Calls tokenized at once.
_PORTION = 256
# Tokens whose log-probabilities vLLM picks out for a request, at most; for more it lists the whole vocabulary.
_PICKED = 128
# Tokens that are listed at each place of a prompt where choices are compared: as many as servers give.
_LISTED = 20
# A request that is to read and to generate nothing makes one token all the same.
_READING: dict[str, Any] = {"max_tokens": 1, "temperature": 0.0, "detokenize": False}
_SEED_BITS = 63 - 31  # as the servers' seeds, so that one call is drawn alike

Found = tuple[int, Reply]


@dataclass(frozen=True)
class Settings:
    """Where and how vLLM runs; nothing of it changes what a call is answered.

    ``tensor_parallel``: GPUs that a layer is spread over. ``memory``: share of a GPU's memory that is taken. ``longest``: tokens
    of the longest context that room is made for, the model's own where None. ``waiting``: requests handed over at once, at
    most. ``is_eager``: no compilation and no CUDA graphs, which start slowly and run fast.
    """

    tensor_parallel: int = 1
    memory: float = 0.9
    longest: int | None = None
    waiting: int = 1024
    is_eager: bool = False


@dataclass(frozen=True)
class _Asked:
    """A call on its way. ``is_again``: it was asked before, and the cache hid what was wanted."""

    index: int
    sampling: Sampling
    prompt: Prompt
    firsts: list[int]
    seed: int
    is_again: bool = False

    @property
    def length(self) -> int:
        """Tokens of the prompt."""
        return len(self.prompt.prefix) + len(self.prompt.suffix)


class VLLM:
    """Any model that vLLM runs, from a directory; implements `latentlake.protocols.LLM`.

    Calls that share chat and prefix are handed over one after the other, in order of first appearance, so that their common
    beginning is read once; those that compare choices come last. Log-probabilities are in nats, rounded to 6 significant digits,
    and of the model's own distribution, before temperature and ``top_p``; those of a reply that was held to a form are of what
    the form allows, minus infinity where it does not. Of a chat that is scored, the suffix alone is.

    A prompt that does not fit the context with what is to be generated, one token at least, is answered with the error
    ``context_length`` before anything is asked. ``seconds`` of a reply: the time since the replies before it, shared by those
    that came with it. The token that vLLM must make where nothing is to be generated is not counted.

    What is computed side by side differs from run to run, and so may the last bits of a log-probability, and a token where two
    are all but equally likely. Draws have seeds of their own.

    Args:
        path: directory with config, tokenizer and weights; loaded at the first call.
        dtype: float32, bfloat16 or float16.
        settings: where and how it runs.
    """

    def __init__(self, path: Path, dtype: str = "float32", settings: Settings | None = None) -> None:
        self._path, self._dtype = path, dtype
        self._settings = settings or Settings()
        self._made = 0
        self._known_firsts: dict[tuple[Choose, bool], list[int]] = {}

    @cached_property
    def _llm(self) -> Any:
        try:
            from vllm import LLM
        except ImportError as error:
            raise EngineError(
                f"the engine vllm needs the package vllm, which does not load here ({error}). Install it, in an environment of "
                "its own, or name another engine"
            ) from error
        logger.info("loading %s", self._path.name)
        settings = self._settings
        return LLM(
            model=str(self._path),
            dtype=self._dtype,
            tensor_parallel_size=settings.tensor_parallel,
            gpu_memory_utilization=settings.memory,
            max_model_len=settings.longest,
            enforce_eager=settings.is_eager,
            enable_prefix_caching=True,
            max_logprobs=-1,
            logprobs_mode="raw_logprobs",
        )

    @cached_property
    def _prompts(self) -> Prompts:
        return Prompts(self._path)

    @cached_property
    def _longest(self) -> int:
        """Tokens of the longest context."""
        return int(self._llm.llm_engine.model_config.max_model_len)

    def run(self, calls: Sequence[Call]) -> Iterator[list[Found]]:
        """Answer every call once, as answers come; see `latentlake.protocols.LLM.run`.

        Raises:
            EngineError: vLLM is not installed, or does not take a call.
        """
        ordered = together(calls)
        # In one batch with picked tokens, vLLM gives no likeliest ones.
        listing = [index for index in ordered if not _is_picking(calls[index].sampling)]
        picking = [index for index in ordered if _is_picking(calls[index].sampling)]
        answered = 0
        try:
            for order in (listing, picking):
                for batch in self._answers(calls, order):
                    answered += len(batch)
                    yield batch
        finally:
            logger.info("answered %d calls", answered)

    def close(self) -> None:
        """Let go of the model and of the processes that run it; the next call loads it anew."""
        if "_llm" in self.__dict__:
            self.__dict__.pop("_llm").llm_engine.engine_core.shutdown()

    def _answers(self, calls: Sequence[Call], order: list[int]) -> Iterator[list[Found]]:
        """Keep vLLM busy until all is answered; whoever stops listening leaves nothing under way."""
        if not order:
            return
        source, engine = self._asked(calls, order), self._llm.llm_engine
        under_way: dict[str, _Asked] = {}
        since = time.perf_counter()
        try:
            while True:
                done = self._fill(source, under_way)
                if under_way:
                    found = list(self._finished(under_way))
                    seconds = (time.perf_counter() - since) / max(1, len(found))
                    done += [(index, replace(reply, seconds=seconds)) for index, reply in found]
                if done:
                    yield done
                    since = time.perf_counter()
                elif not under_way:
                    return
        finally:
            if under_way:
                engine.abort_request(list(under_way))

    def _asked(self, calls: Sequence[Call], order: list[int]) -> Iterator[_Asked]:
        for start in range(0, len(order), _PORTION):
            portion = order[start : start + _PORTION]
            for index, prompt in zip(portion, self._prompts.of([calls[index] for index in portion]), strict=True):
                call = calls[index]
                yield _Asked(index, call.sampling, prompt, self._firsts(call), seed_of(call) >> _SEED_BITS)

    def _firsts(self, call: Call) -> list[int]:
        """The first token of each choice; the choices of a run are few."""
        if not isinstance(call.sampling, Choose):
            return []
        key = (call.sampling, call.chat is not None)
        if key not in self._known_firsts:
            self._known_firsts[key] = self._prompts.firsts(*key)
        return self._known_firsts[key]

    def _fill(self, source: Iterator[_Asked], under_way: dict[str, _Asked]) -> list[Found]:
        """Hand requests over until as many as may be are under way; replies to what need not be asked."""
        known: list[Found] = []
        for asked in islice(source, self._settings.waiting - len(under_way)):
            reply = self._known(asked)
            if reply is None:
                self._add(asked, under_way)
            else:
                known.append((asked.index, reply))
        return known

    def _known(self, asked: _Asked) -> Reply | None:
        """The reply to a prompt that is too long, or to one of which nothing is to be scored."""
        needed = asked.length + _completion(asked.sampling)
        if needed > self._longest:
            # what the model could read, and only the room made for it does not, may be answered another time
            own = checkpoint.longest(self._path) if self._settings.longest else None
            is_retryable = own is not None and needed <= own
            return replace(_reply(asked), error=CONTEXT_LENGTH, is_retryable=is_retryable)
        if isinstance(asked.sampling, Score) and not asked.prompt.places:
            return replace(_reply(asked), logprobs=())
        return None

    def _add(self, asked: _Asked, under_way: dict[str, _Asked]) -> None:
        from vllm.inputs import tokens_input

        self._made += 1
        name, tokens = str(self._made), tokens_input(asked.prompt.prefix + asked.prompt.suffix)
        try:
            self._llm.llm_engine.add_request(name, tokens, _params(asked))
        except ValueError as error:
            raise EngineError(f"vLLM does not take a call of the model {self._path.name}: {error}") from error
        under_way[name] = asked

    def _finished(self, under_way: dict[str, _Asked]) -> Iterator[Found]:
        """Replies to what one step of vLLM finished."""
        for output in self._llm.llm_engine.step():
            if not output.finished:
                continue
            asked = under_way.pop(output.request_id)
            if reads_prompt(asked.sampling) and not _is_read(asked, output):
                self._add(replace(asked, is_again=True), under_way)
            else:
                yield asked.index, _answer(asked, output)


def _is_picking(sampling: Sampling) -> bool:
    return isinstance(sampling, Choose) and not sampling.after and len(sampling.choices) <= _PICKED


def _completion(sampling: Sampling) -> int:
    """Tokens that are generated, at most: vLLM always makes one."""
    return sampling.max_tokens if isinstance(sampling, Generate) else 1


def _params(asked: _Asked) -> Any:
    """What vLLM calls sampling parameters, of one request."""
    from vllm import SamplingParams
    from vllm.sampling_params import RequestOutputKind

    fields = {"output_kind": RequestOutputKind.FINAL_ONLY, "flat_logprobs": True, "skip_clone": True}
    match asked.sampling:
        case Generate() as sampling:
            return SamplingParams(**fields, **_drawing(sampling, asked.seed))
        case Choose(after=after) if after:
            again = {"skip_reading_prefix_cache": asked.is_again}
            return SamplingParams(**fields, **_READING, **again, prompt_logprobs=_LISTED, logprobs=_LISTED)
        case Choose() as sampling:
            # `logprob_token_ids` gives exact log-probabilities of the tokens named, however unlikely, for next to nothing
            wanted = (
                {"logprob_token_ids": list(dict.fromkeys(asked.firsts))} if _is_picking(sampling) else {"logprobs": -1}
            )
            return SamplingParams(**fields, max_tokens=1, temperature=0.0, detokenize=False, **wanted)
        case Score():
            # vLLM reads prompts anew whose log-probabilities are wanted, since none come of what is cached. None are wanted of
            # what comes before the first place; where more than that was cached, the call is asked again.
            return SamplingParams(**fields, **_READING, prompt_logprobs=0, skip_reading_prefix_cache=asked.is_again)


def _drawing(sampling: Generate, seed: int) -> dict[str, Any]:
    from vllm.sampling_params import StructuredOutputsParams

    fields: dict[str, Any] = {
        "max_tokens": sampling.max_tokens,
        "temperature": sampling.temperature,
        "stop": list(sampling.stop),
        "logprobs": sampling.likeliest or None,
    }
    if sampling.temperature:
        fields |= {"top_p": sampling.top_p, "seed": seed}
    if sampling.choice:
        fields["structured_outputs"] = StructuredOutputsParams(choice=list(sampling.choice))
    elif sampling.schema is not None:
        fields["structured_outputs"] = StructuredOutputsParams(json=sampling.schema)
    return fields


def _is_read(asked: _Asked, output: Any) -> bool:
    """Whether there are log-probabilities at each place: what was read from the cache has none."""
    first = asked.prompt.places[0]
    wanted, found = asked.prompt.suffix[first:], output.prompt_logprobs
    own = range(max(0, len(found) - len(wanted)), len(found))
    listed = [token for place in own for token, _ in _listed(found, place)[:1]]
    is_read = asked.is_again or (output.num_cached_tokens or 0) < len(asked.prompt.prefix) + first
    if asked.is_again and listed != wanted:
        raise EngineError(
            "vLLM gave log-probabilities of other tokens than those of the prompt; try another release of it"
        )
    return is_read and listed == wanted


def _listed(logprobs: Any, place: int) -> list[tuple[int, float]]:
    """Tokens listed at a place of what vLLM calls flat log-probabilities, the text's own first, with their log-probabilities."""
    own = slice(logprobs.start_indices[place], logprobs.end_indices[place])
    return list(zip(logprobs.token_ids[own], logprobs.logprobs[own], strict=True))


def _after(asked: _Asked, output: Any) -> Iterator[float]:
    """Log-probabilities of the choices at each place: what is listed of the token behind it, which is made behind the last."""
    [made] = output.outputs
    for place in asked.prompt.places:
        left = len(asked.prompt.suffix) - place
        listed = dict(_listed(output.prompt_logprobs, -left) if left else _listed(made.logprobs, 0))
        yield from (listed.get(first, -inf) for first in asked.firsts)


def _answer(asked: _Asked, output: Any) -> Reply:
    """The reply that a finished request is."""
    [made] = output.outputs
    reply = replace(_reply(asked), tokens_cached=output.num_cached_tokens or 0)
    match asked.sampling:
        case Generate() as sampling:
            return replace(reply, tokens_out=len(made.token_ids), **_generated(sampling, made))
        case Choose(after=after) if after:
            return replace(reply, logprobs=_rounded(list(_after(asked, output))))
        case Choose():
            listed = dict(zip(made.logprobs.token_ids, made.logprobs.logprobs, strict=True))
            return replace(reply, logprobs=_rounded([listed[first] for first in asked.firsts]))
        case Score():
            wanted = len(asked.prompt.places)
            return replace(reply, logprobs=_rounded(output.prompt_logprobs.logprobs[-wanted:]))


def _generated(sampling: Generate, made: Any) -> dict[str, Any]:
    finish = "length" if made.finish_reason == "length" else "stop"
    is_unparsed = finish == "stop" and formed(sampling, made.text) is None
    fields: dict[str, Any] = {
        "text": made.text,
        "finish_reason": finish,
        "error": UNPARSED if is_unparsed else None,
    }
    return fields | (_likeliest(made.logprobs, sampling.likeliest) if sampling.likeliest else {})


def _likeliest(listed: Any, number: int) -> dict[str, Any]:
    """At each place the likeliest tokens, which vLLM lists in order behind the one that was drawn."""
    tops = [
        tuple(
            Likely(listed.decoded_tokens[place], _round(listed.logprobs[place]))
            for place in range(start + 1, start + 1 + number)
        )
        for start in listed.start_indices
    ]
    return {"logprobs": _rounded([listed.logprobs[start] for start in listed.start_indices]), "likeliest": tuple(tops)}


def _reply(asked: _Asked) -> Reply:
    """A reply in which nothing stands but the length of the prompt."""
    return Reply(None, None, asked.length, 0, 0, None, 0.0)


def _rounded(values: Sequence[float]) -> tuple[float, ...]:
    return tuple(map(_round, values))


def _round(value: float) -> float:
    return float(f"{value:.6g}")
