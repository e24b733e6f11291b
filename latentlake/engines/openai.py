"""A language model behind any server that speaks the OpenAI API: vLLM's, llama.cpp's, a gateway, OpenAI itself."""

from __future__ import annotations

import asyncio
import json
import logging
import re
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Any

import openai
from tenacity import AsyncRetrying, RetryCallState, retry_if_exception_type, stop_after_attempt, wait_random_exponential

from latentlake.engines.background import Taker, taken
from latentlake.engines.lanes import Lane, Lanes
from latentlake.engines.wire import MalformedError, Request, UnableError, reply_of, request_of
from latentlake.errors import EngineError, nearest
from latentlake.protocols import CONTEXT_LENGTH, RATE_LIMIT, REFUSAL, REQUEST, SERVER, TRANSPORT, Call, Reply

logger = logging.getLogger("latentlake.engines")

# Calls that come to nothing one after the other before no more are made: something is wrong with all of them.
_HOPELESS = 20
_CONTEXT = re.compile(r"context|maximum .*tokens|too (long|many tokens)", re.IGNORECASE)
_FILTER = re.compile(r"content.?(filter|management|policy)", re.IGNORECASE)
_RETRY_AFTER = "retry-after"

Found = tuple[int, Reply]


@dataclass(frozen=True)
class Traffic:
    """How endpoints are used. ``concurrency``: requests under way to one of them, at most. ``timeout``: seconds that an answer
    may take. ``attempts``: how often a call is tried. ``patience``: seconds between two attempts, at most, unless the server
    asks for more.
    """

    concurrency: int = 128
    timeout: float = 600.0
    attempts: int = 6
    patience: float = 60.0


class _Failed(Exception):  # noqa: N818 - becomes a reply
    """A call came to nothing. ``kind``: class of the failure."""

    def __init__(self, kind: str, reason: str) -> None:
        super().__init__(reason)
        self.kind = kind


class _Again(_Failed):
    """Another attempt may succeed. ``wait``: seconds that the server asks for, if it does."""

    def __init__(self, kind: str, reason: str, wait: float = 0.0) -> None:
        super().__init__(kind, reason)
        self.wait = wait


class OpenAILLM:
    """A model of an OpenAI-compatible server; implements `latentlake.protocols.LLM`.

    Requests are sent such that those that share a prefix follow one another. How many are under way follows what the endpoints
    bear. What may succeed later is tried again, after growing pauses or the one that the server asks for (``Retry-After``); a
    call that still fails is answered with the class of its failure.

    Args:
        model: its name at the server.
        endpoints: addresses of the API, such as ``http://localhost:8000/v1``, that all serve this model.
        key: the secret that the server asks for; it is in no message and in no table.
        traffic: how they are used.
    """

    def __init__(
        self, model: str, endpoints: Sequence[str], key: str | None = None, traffic: Traffic | None = None
    ) -> None:
        self._model, self._endpoints, self._key = model, tuple(endpoints), key
        self._traffic = traffic or Traffic()
        self._is_known = False
        self._in_vain = 0

    def run(self, calls: Sequence[Call]) -> Iterator[list[Found]]:
        """Answer every call once, as answers come; see `latentlake.protocols.LLM.run`.

        Raises:
            EngineError: no endpoint can be reached, the model is not there, the key is not taken, or nothing succeeds.
        """
        if not calls:
            return
        room = self._traffic.concurrency * len(self._endpoints)

        async def serve(taker: Taker[Found]) -> None:
            await self._serve(calls, taker)

        yield from taken(serve, room)

    async def _serve(self, calls: Sequence[Call], taker: Taker[Found]) -> None:
        async with AsyncExitStack() as stack:
            clients = [await stack.enter_async_context(self._client(url)) for url in self._endpoints]
            most = self._traffic.concurrency
            lanes = [Lane(client, url, most) for client, url in zip(clients, self._endpoints, strict=True)]
            usable = Lanes(await self._usable(lanes))
            async with asyncio.TaskGroup() as group:
                for index in _order(calls):
                    await taker.place()
                    group.create_task(self._give(index, calls[index], usable, taker))

    def _client(self, url: str) -> openai.AsyncOpenAI:
        return openai.AsyncOpenAI(
            base_url=url, api_key=self._key or "none", timeout=self._traffic.timeout, max_retries=0
        )

    async def _usable(self, lanes: Sequence[Lane]) -> list[Lane]:
        """The endpoints that answer, looked for once, before any call is made."""
        if self._is_known:
            return list(lanes)
        found = await asyncio.gather(*(self._trouble(lane) for lane in lanes))
        for lane, trouble in zip(lanes, found, strict=True):
            if trouble:
                logger.warning("%s is not used: %s", lane.url, trouble)
        usable = [lane for lane, trouble in zip(lanes, found, strict=True) if trouble is None]
        if not usable:
            raise EngineError(
                f"no endpoint of the model {self._model} can be used: {lanes[0].url}: {found[0]}. Start the server, or correct "
                "LATENTLAKE_ENDPOINTS"
            )
        self._is_known = True
        return usable

    async def _trouble(self, lane: Lane) -> str | None:
        """Why an endpoint cannot be used; None if it can, or does not say which models it has."""
        try:
            models = json.loads(await lane.client.get("/models", cast_to=str))
            names = [str(each["id"]) for each in models["data"]]
        except openai.AuthenticationError as error:
            raise self._key_refused(lane, error) from None
        except (openai.APIStatusError, ValueError, KeyError, TypeError):
            return None
        except openai.APIConnectionError as error:
            return self._said(error.__cause__ or error)
        return (
            None if _is_among(self._model, names) else f"it has no model {self._model!r}{nearest(self._model, names)}"
        )

    def _key_refused(self, lane: Lane, error: openai.APIStatusError) -> EngineError:
        name = "the key" if self._key else "a request without a key"
        return EngineError(
            f"{lane.url} does not accept {name} ({error.status_code}): {self._said(error)}. Set LATENTLAKE_API_KEY"
        )

    async def _give(self, index: int, call: Call, lanes: Lanes, taker: Taker[Found]) -> None:
        reply = await self._answer(call, lanes)
        taker.give((index, reply))
        self._in_vain = self._in_vain + 1 if reply.is_retryable else 0

    async def _answer(self, call: Call, lanes: Lanes) -> Reply:
        """The reply to a call, after as many attempts as it takes."""
        try:
            request = request_of(self._model, call)
        except UnableError as error:
            raise EngineError(f"{error}; name an engine that does it (`vllm`, `transformers`)") from error
        attempts = AsyncRetrying(
            retry=retry_if_exception_type(_Again),
            stop=stop_after_attempt(self._traffic.attempts),
            wait=_pause(self._traffic.patience),
            reraise=True,
        )
        number = 0
        try:
            async for attempt in attempts:
                with attempt:
                    number = attempt.retry_state.attempt_number
                    return await self._attempt(call, request, lanes, number)
        except _Failed as failure:
            self._require_hope(failure)
            is_retryable = failure.kind in (TRANSPORT, RATE_LIMIT, SERVER, REQUEST)
            return Reply(None, None, 0, 0, 0, None, 0.0, error=failure.kind, is_retryable=is_retryable, attempts=number)
        raise AssertionError("a call is answered or fails")

    def _require_hope(self, failure: _Failed) -> None:
        if self._in_vain >= _HOPELESS:
            raise EngineError(
                f"the last {self._in_vain} calls of the model {self._model} came to nothing ({failure.kind}: {failure}); what "
                "was answered is kept. See to the server and start again"
            )

    async def _attempt(self, call: Call, request: Request, lanes: Lanes, number: int) -> Reply:
        lane = await lanes.enter()
        sent = time.monotonic()
        try:
            text = await lane.client.post(request.path, body=request.body, cast_to=str)
            response = _parsed(text)
            self._require_model(lane, response)
            reply = reply_of(call, response, time.monotonic() - sent, number)
        except UnableError as error:
            raise EngineError(
                f"{lane.url} cannot do what is asked of {self._model}: {error}; name another server, or another engine"
            ) from error
        except MalformedError as error:
            raise _Again(SERVER, f"no answer that the API knows: {self._scrubbed(str(error))}") from None
        except openai.APITimeoutError:
            lane.refused(sent, 0.0)
            raise _Again(TRANSPORT, f"no answer within {self._traffic.timeout:g} seconds") from None
        except openai.APIConnectionError as error:
            lane.refused(sent, 0.0)
            raise _Again(TRANSPORT, self._said(error.__cause__ or error)) from None
        except openai.APIStatusError as error:
            raise self._failure(lane, error, sent) from None
        finally:
            await lanes.leave(lane)
        lane.answered()
        return reply

    def _failure(self, lane: Lane, error: openai.APIStatusError, sent: float) -> Exception:
        """What a status that is not 200 means."""
        status, said = error.status_code, self._said(error)
        if status in (401, 403):
            return self._key_refused(lane, error)
        if status == 404:
            return EngineError(f"{lane.url} has no model {self._model!r}, or not the API that is needed: {said}")
        if status == 429:
            if "insufficient_quota" in said:
                return EngineError(f"{lane.url} takes no more calls, its quota is used up: {said}")
            wait = _retry_after(error)
            lane.refused(sent, wait)
            return _Again(RATE_LIMIT, said, wait)
        if status in (408, 409, 425) or status >= 500:
            wait = _retry_after(error)
            lane.refused(sent, wait)
            return _Again(SERVER, f"{status}: {said}", wait)
        if status == 413 or _CONTEXT.search(said):
            return _Failed(CONTEXT_LENGTH, said)
        return _Failed(REFUSAL if _FILTER.search(said) else REQUEST, f"{status}: {said}")

    def _require_model(self, lane: Lane, response: Any) -> None:
        """Refuse what another model said: every answer after it would be as wrong."""
        said = response.get("model") if isinstance(response, dict) else None
        if isinstance(said, str) and not _is_among(self._model, [said]):
            raise EngineError(
                f"{lane.url} answers as {said!r} where {self._model!r} was asked; correct the study, or LATENTLAKE_ENDPOINTS"
            )

    def _said(self, error: BaseException) -> str:
        return self._scrubbed(" ".join(str(error).split()) or type(error).__name__)[:300]

    def _scrubbed(self, text: str) -> str:
        return text.replace(self._key, "[key]") if self._key else text


def _order(calls: Sequence[Call]) -> list[int]:
    """Calls that share a prefix one after the other, in order of first appearance: servers keep what they read last."""
    first: dict[tuple[object, str], int] = {}
    for index, call in enumerate(calls):
        first.setdefault((call.chat, call.prefix), index)
    return sorted(range(len(calls)), key=lambda index: first[calls[index].chat, calls[index].prefix])


def _is_among(model: str, names: Sequence[str]) -> bool:
    """Whether a model is one of some: gateways put a maker before a name, and a date behind it."""
    own = model.rpartition("/")[2]
    others = [name.rpartition("/")[2] for name in names]
    return any(other.startswith(own) or own.startswith(other) for other in others if other)


def _parsed(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError as error:
        raise MalformedError(f"no JSON: {' '.join(text.split())[:200]!r}") from error


def _retry_after(error: openai.APIStatusError) -> float:
    """Seconds that a server asks to be left alone for; dates are rare, and the growing pause does for them."""
    try:
        return max(0.0, min(float(error.response.headers.get(_RETRY_AFTER, 0)), 3600.0))
    except ValueError:
        return 0.0


def _pause(patience: float) -> Callable[[RetryCallState], float]:
    """Seconds before the next attempt: random, up to a bound that doubles, and no less than the server asks for."""
    growing = wait_random_exponential(multiplier=0.5, max=patience)

    def wait(state: RetryCallState) -> float:
        error = state.outcome.exception() if state.outcome else None
        return max(growing(state), error.wait if isinstance(error, _Again) else 0.0)

    return wait
