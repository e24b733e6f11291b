"""A language model behind any server that speaks the OpenAI API: vLLM's, llama.cpp's, a gateway, OpenAI itself."""

from __future__ import annotations

import asyncio
import json
import logging
import re
import time
from collections.abc import Iterator, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Any

import openai
from tenacity import AsyncRetrying, retry_if_exception_type, stop_after_attempt, wait_random_exponential

from latentlake.engines.background import Taker, taken
from latentlake.engines.lanes import Lane, Lanes
from latentlake.engines.order import together
from latentlake.engines.places import reads_prompt
from latentlake.engines.wire import MalformedError, Request, UnableError, failure_of, is_model, reply_of, request_of
from latentlake.errors import EngineError, nearest
from latentlake.protocols import RATE_LIMIT, REQUEST, SERVER, TRANSPORT, Call, Reply

logger = logging.getLogger("latentlake.engines")

# Calls that come to nothing one after the other before no more are made: something is wrong with all of them.
_HOPELESS = 20
_ECHO = re.compile(r"\b(echo|(prompt_)?logprobs)\b", re.IGNORECASE)  # what a server that cannot read prompts refuses
_RETRY_AFTER = "retry-after"
_LOOKING = 30.0  # seconds that an endpoint has to say which models it has

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

    def __post_init__(self) -> None:
        if self.concurrency < 1 or self.timeout <= 0 or self.attempts < 1:
            raise EngineError("concurrency and attempts must be 1 at least, and a timeout more than 0 seconds")


class _Failed(Exception):  # noqa: N818 - becomes a reply
    """A call came to nothing. ``kind``: class of the failure."""

    def __init__(self, kind: str, reason: str) -> None:
        super().__init__(reason)
        self.kind = kind


class _Again(_Failed):
    """Another attempt may succeed."""


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
        self._usable: tuple[str, ...] | None = None
        self._in_vain, self._reason = 0, ""
        if not endpoints:
            raise EngineError(f"nothing says where the server of {model} is; set LATENTLAKE_ENDPOINTS")

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
            urls, own = self._endpoints if self._usable is None else self._usable, self._traffic
            clients = [await stack.enter_async_context(self._client(url)) for url in urls]
            lanes = [
                Lane(client, url, own.concurrency, own.patience) for client, url in zip(clients, urls, strict=True)
            ]
            usable = Lanes(await self._looked_for(lanes) if self._usable is None else lanes)
            self._in_vain = 0
            async with asyncio.TaskGroup() as group:
                for index in together(calls):
                    await taker.place()
                    self._require_hope()
                    group.create_task(self._give(index, calls[index], usable, taker))

    def _client(self, url: str) -> openai.AsyncOpenAI:
        return openai.AsyncOpenAI(
            base_url=url, api_key=self._key or "none", timeout=self._traffic.timeout, max_retries=0
        )

    async def _looked_for(self, lanes: Sequence[Lane]) -> list[Lane]:
        """The endpoints that answer, looked for once, before any call is made."""
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
        self._usable = tuple(lane.url for lane in usable)
        return usable

    async def _trouble(self, lane: Lane) -> str | None:
        """Why an endpoint cannot be used; None if it can, or does not say which models it has."""
        try:
            patience = min(self._traffic.timeout, _LOOKING)
            models = json.loads(await lane.client.get("/models", cast_to=str, options={"timeout": patience}))
            names = [str(each["id"]) for each in models["data"]]
        except openai.AuthenticationError as error:
            raise self._key_refused(lane, error) from None
        except (openai.APIStatusError, ValueError, KeyError, TypeError):
            return None
        except openai.APIConnectionError as error:
            return self._said(error.__cause__ or error)
        if any(is_model(self._model, each) for each in names):
            return None
        return f"it has no model {self._model!r}{nearest(self._model, names)}"

    def _key_refused(self, lane: Lane, error: openai.APIStatusError) -> EngineError:
        name = "the key" if self._key else "a request without a key"
        return EngineError(
            f"{lane.url} does not accept {name} ({error.status_code}): {self._said(error)}. Set LATENTLAKE_API_KEY"
        )

    async def _give(self, index: int, call: Call, lanes: Lanes, taker: Taker[Found]) -> None:
        reply = await self._answer(call, lanes)
        self._in_vain = self._in_vain + 1 if reply.error in (TRANSPORT, SERVER, RATE_LIMIT) else 0
        taker.give((index, reply))

    async def _answer(self, call: Call, lanes: Lanes) -> Reply:
        """The reply to a call, after as many attempts as it takes."""
        try:
            request = request_of(self._model, call)
        except UnableError as error:
            raise EngineError(f"{error}; name an engine that does it (`vllm`, `transformers`)") from error
        attempts = AsyncRetrying(
            retry=retry_if_exception_type(_Again),
            stop=stop_after_attempt(self._traffic.attempts),
            wait=wait_random_exponential(multiplier=0.5, max=self._traffic.patience),
            reraise=True,
        )
        number = 0
        try:
            async for attempt in attempts:
                with attempt:
                    number = attempt.retry_state.attempt_number
                    return await self._attempt(call, request, lanes, number)
        except _Failed as failure:
            self._reason = f"{failure.kind}: {failure}"
            is_retryable = failure.kind in (TRANSPORT, RATE_LIMIT, SERVER, REQUEST)
            return Reply(None, None, 0, 0, 0, None, 0.0, error=failure.kind, is_retryable=is_retryable, attempts=number)
        raise AssertionError("a call is answered or fails")

    def _require_hope(self) -> None:
        """Do not go on to further calls where none succeeds: what is wrong is wrong with all of them."""
        if self._in_vain >= _HOPELESS:
            raise EngineError(
                f"the last {self._in_vain} calls of the model {self._model} came to nothing ({self._reason}); what was "
                "answered is kept. See to the server and start again"
            )

    async def _attempt(self, call: Call, request: Request, lanes: Lanes, number: int) -> Reply:
        lane = await lanes.enter()
        sent = time.monotonic()
        try:
            async with asyncio.timeout(self._traffic.timeout):  # the client's own limit is for each piece of an answer
                text = await lane.client.post(request.path, body=request.body, cast_to=str)
            response = _parsed(text)
            self._require_model(lane, response)
            reply = reply_of(call, response, time.monotonic() - sent, number)
        except UnableError as error:
            raise self._unable(lane, str(error)) from error
        except MalformedError as error:
            lane.failed()
            said = self._scrubbed(f"{error}; it begins {error.content!r}")[:300]
            raise _Again(SERVER, f"no answer that the API knows: {said}") from None
        except (TimeoutError, openai.APITimeoutError):
            lane.refused(sent, 0.0)
            lane.failed()
            raise _Again(TRANSPORT, f"no answer within {self._traffic.timeout:g} seconds") from None
        except openai.APIConnectionError as error:
            lane.refused(sent, 0.0)
            lane.failed()
            raise _Again(TRANSPORT, self._said(error.__cause__ or error)) from None
        except openai.APIStatusError as error:
            raise self._failure(lane, call, error, sent) from None
        finally:
            await lanes.leave(lane)
        lane.answered()
        return reply

    def _unable(self, lane: Lane, reason: str) -> EngineError:
        return EngineError(
            f"{lane.url} cannot do what is asked of {self._model}: {reason}; name another server, or another engine"
        )

    def _failure(self, lane: Lane, call: Call, error: openai.APIStatusError, sent: float) -> Exception:
        """What a status that is not 200 means."""
        status, said = error.status_code, self._said(error)
        if status in (401, 403):
            return self._key_refused(lane, error)
        if status == 404:
            return EngineError(f"{lane.url} has no model {self._model!r}, or not the API that is needed: {said}")
        if status == 429 and "insufficient_quota" in said:
            return EngineError(f"{lane.url} takes no more calls, its quota is used up: {said}")
        if reads_prompt(call.sampling) and _ECHO.search(said):
            return self._unable(lane, f"it gives no log-probabilities of a prompt's tokens ({status}: {said})")
        kind = failure_of(status, said, error.code)
        if kind not in (RATE_LIMIT, SERVER):
            return _Failed(kind, f"{status}: {said}")
        lane.refused(sent, _retry_after(error))
        if kind == SERVER:
            lane.failed()
        return _Again(kind, f"{status}: {said}")

    def _require_model(self, lane: Lane, response: Any) -> None:
        """Refuse what another model said: every answer after it would be as wrong."""
        said = response.get("model") if isinstance(response, dict) else None
        if isinstance(said, str) and not is_model(self._model, said):
            raise EngineError(
                f"{lane.url} answers as {said!r} where {self._model!r} was asked; correct the study, or LATENTLAKE_ENDPOINTS"
            )

    def _said(self, error: BaseException) -> str:
        return self._scrubbed(" ".join(str(error).split()) or type(error).__name__)[:300]

    def _scrubbed(self, text: str) -> str:
        return text.replace(self._key, "[key]") if self._key else text


def _parsed(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError as error:
        raise MalformedError("no JSON", " ".join(text.split())) from error


def _retry_after(error: openai.APIStatusError) -> float:
    """Seconds that a server asks to be left alone for; dates are rare, and the growing pause does for them."""
    try:
        return max(0.0, min(float(error.response.headers.get(_RETRY_AFTER, 0)), 3600.0))
    except ValueError:
        return 0.0
