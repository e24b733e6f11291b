"""Calls as requests of the OpenAI API, and its responses as replies. Nothing is sent here."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import inf
from typing import Any

from latentlake.engines.forms import formed
from latentlake.engines.seeds import seed_of
from latentlake.protocols import (
    CONTEXT_LENGTH,
    RATE_LIMIT,
    REFUSAL,
    REQUEST,
    SERVER,
    UNPARSED,
    Call,
    Choose,
    Generate,
    Likely,
    Reply,
    Score,
)  # fmt: skip

# Tokens whose log-probabilities are asked for where choices are compared: as many as servers give.
_LISTED = 20
_CONTEXT = re.compile(
    r"context (length|window|size)|maximum context|available context|prompt is too long|too many tokens", re.IGNORECASE
)
_DATE = re.compile(r"[-:@](\d{4,8}|\d{4}-\d\d-\d\d|latest)")
_FILTER = re.compile(r"content.?(filter|management)", re.IGNORECASE)
# How servers say that a reply ended; what else they say is no answer.
_FINISHED = {"stop": "stop", "eos": "stop", "eos_token": "stop", "stop_sequence": "stop", "length": "length"}
_SEED_BITS = 63 - 31  # some servers take seeds of 31 bits, and no more


class MalformedError(Exception):
    """A response that is none: what the API promises is not in it. ``content``: what is."""

    def __init__(self, reason: str, content: str) -> None:
        super().__init__(reason)
        self.content = content


class UnableError(Exception):
    """The API, or a server, does not do what a call asks for."""


@dataclass(frozen=True)
class Request:
    """``path``: below the address of the API, such as ``/completions``."""

    path: str
    body: dict[str, Any]


def request_of(model: str, call: Call) -> Request:
    """The request that asks for what a call asks for.

    Prompts go to ``/completions``, chats to ``/chat/completions``. A draw has a seed of its own. What a reply is to be
    (``choice``, ``schema``) is said as a JSON schema. A text is scored by having it echoed.

    Raises:
        UnableError: a chat is to be scored, which the API does not do.
    """
    if call.chat is None:
        body: dict[str, Any] = {"model": model, "prompt": call.prefix + call.suffix}
        return Request("/completions", body | _asked(call, is_chat=False))
    if isinstance(call.sampling, Score):
        raise UnableError("a chat cannot be scored over the OpenAI API, which echoes prompts alone")
    said = [{"role": each.role, "content": each.text} for each in call.chat]
    messages = [*said, {"role": "user", "content": call.prefix + call.suffix}]
    return Request("/chat/completions", {"model": model, "messages": messages} | _asked(call, is_chat=True))


def failure_of(status: int, said: str, code: str | None = None) -> str:
    """Class of the failure that a status other than 200 means, of those that are about the call."""
    if status == 429:
        return RATE_LIMIT
    if status in (408, 409, 425) or status >= 500:
        return SERVER
    if code == "content_filter" or _FILTER.search(said):
        return REFUSAL
    return CONTEXT_LENGTH if code == "context_length_exceeded" or _CONTEXT.search(said) else REQUEST


def is_model(asked: str, said: str) -> bool:
    """Whether a server that was asked for a model answers as it: it may put a maker before the name, and a date behind it."""
    one, other = (each.rpartition("/")[2] for each in (asked, said))
    shorter, longer = sorted((one, other), key=len)
    return longer == shorter or (longer.startswith(shorter) and bool(_DATE.fullmatch(longer[len(shorter) :])))


def _asked(call: Call, is_chat: bool) -> dict[str, Any]:
    match call.sampling:
        case Choose():
            return {"max_tokens": 1, "temperature": 0} | _listing(_LISTED, is_chat)
        case Score():  # of the one token that many servers insist on making, nothing is kept
            return {"max_tokens": 1, "temperature": 0, "echo": True, "logprobs": 1}
        case Generate() as sampling:
            asked: dict[str, Any] = {"max_tokens": sampling.max_tokens, "temperature": sampling.temperature}
            if sampling.temperature:
                asked |= {"top_p": sampling.top_p, "seed": seed_of(call) >> _SEED_BITS}
            if sampling.stop:
                asked["stop"] = list(sampling.stop)
            if sampling.likeliest:
                asked |= _listing(sampling.likeliest, is_chat)
            return asked | _structure(sampling, is_chat)


def _listing(number: int, is_chat: bool) -> dict[str, Any]:
    return {"logprobs": True, "top_logprobs": number} if is_chat else {"logprobs": number}


def _structure(sampling: Generate, is_chat: bool) -> dict[str, Any]:
    if not sampling.choice and sampling.schema is None:
        return {}
    schema = json.loads(sampling.schema) if sampling.schema else {"type": "string", "enum": list(sampling.choice)}
    named = {"type": "json_schema", "json_schema": {"name": "reply", "strict": True, "schema": schema}}
    # of plain completions servers do not agree on how it is said
    return {"response_format": named} if is_chat else {"response_format": named, "json_schema": schema}


def reply_of(call: Call, response: object, seconds: float, attempts: int = 1) -> Reply:
    """The reply that a response, parsed from JSON, is to a call.

    Raises:
        MalformedError: it has no choice, or not what the API promises.
        UnableError: it has no log-probabilities, or the prompt is not echoed, and a call asks for that.
    """
    try:
        assert isinstance(response, Mapping)
        (choice,) = response["choices"]
        usage = response.get("usage") or {}
        cached = (usage.get("prompt_tokens_details") or {}).get("cached_tokens") or 0
        counts = {
            "tokens_in": int(usage.get("prompt_tokens") or 0),
            "tokens_cached": int(cached),
            "tokens_out": int(usage.get("completion_tokens") or 0),
        }
        told: dict[str, Any] = {**counts, "seconds": seconds, "attempts": attempts}
        if _is_refused(choice):
            return Reply(None, None, finish_reason=None, error=REFUSAL, **told)
        found = _found(call, choice)
    except (AssertionError, AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
        raise MalformedError(f"{type(error).__name__}: {error}", json.dumps(response)) from error
    return Reply(**{**told, **found})


def _is_refused(choice: Mapping[str, Any]) -> bool:
    return choice.get("finish_reason") == "content_filter" or bool((choice.get("message") or {}).get("refusal"))


def _found(call: Call, choice: Mapping[str, Any]) -> dict[str, Any]:
    """Text, log-probabilities, finish reason and error of a reply."""
    match call.sampling:
        case Choose() as sampling:
            if choice.get("logprobs") is None:
                raise UnableError("it gives no log-probabilities")
            places = _places(choice["logprobs"])  # none where the reply is empty
            listed = places[0][1] if places else ()
            return _answer(logprobs=_of_choices(sampling.choices, listed, call.chat is not None))
        case Score():
            if not choice.get("logprobs") or not str(choice["text"]).startswith(call.prefix):
                raise UnableError("it does not echo prompts with their log-probabilities")
            logprobs = _of_suffix(choice["logprobs"], call.prefix, call.suffix)
            return _answer(logprobs=logprobs, error=UNPARSED if logprobs is None else None)
        case Generate() as sampling:
            text = choice["text"] if call.chat is None else choice["message"]["content"]
            finish = _FINISHED[choice["finish_reason"]]
            if text is None and finish == "length":  # it was all spent on what is not shown
                text = ""
            assert isinstance(text, str), "no text"
            likeliest: dict[str, Any] = {}
            if sampling.likeliest:
                if choice.get("logprobs") is None:
                    raise UnableError("it gives no log-probabilities")
                places = _places(choice["logprobs"])
                likeliest = {
                    "logprobs": tuple(own.logprob for own, _ in places),
                    "likeliest": tuple(listed[: sampling.likeliest] for _, listed in places),
                }
            return _structured(sampling, text, finish) | likeliest


def _answer(**fields: Any) -> dict[str, Any]:
    return {"text": None, "logprobs": None, "finish_reason": None} | fields


def _structured(sampling: Generate, text: str, finish: str) -> dict[str, Any]:
    """A text held against its form, which not all servers see to; what was cut off says so by its finish reason."""
    reply = formed(sampling, text)
    if reply is None:
        return _answer(text=text, finish_reason=finish, error=None if finish == "length" else UNPARSED)
    return _answer(text=reply, finish_reason=finish)


def _places(logprobs: Mapping[str, Any] | None) -> list[tuple[Likely, tuple[Likely, ...]]]:
    """Each token of a reply, and the likeliest tokens at its place, most likely first."""
    if not logprobs:
        return []
    if logprobs.get("content") is not None:  # of a chat
        return [
            (_likely(each), _ordered([_likely(other) for other in each.get("top_logprobs") or []]))
            for each in logprobs["content"]
        ]
    tops = logprobs.get("top_logprobs") or [{}] * len(logprobs["tokens"])
    return [
        (Likely(token, float(own)), _ordered([Likely(other, float(value)) for other, value in (top or {}).items()]))
        for token, own, top in zip(logprobs["tokens"], logprobs["token_logprobs"], tops, strict=True)
    ]


def _likely(each: Mapping[str, Any]) -> Likely:
    return Likely(str(each["token"]), float(each["logprob"]))


def _ordered(listed: Sequence[Likely]) -> tuple[Likely, ...]:
    return tuple(sorted(listed, key=lambda each: (-each.logprob, each.token)))


def _of_choices(choices: Sequence[str], listed: Sequence[Likely], is_chat: bool) -> tuple[float, ...]:
    """For each choice the log-probability of the longest listed token that begins it. A chat's reply begins without a space."""

    def of(choice: str) -> float:
        begins = [each for each in listed if each.token.strip() and choice.startswith(each.token)]
        return max(begins, key=lambda each: len(each.token)).logprob if begins else -inf

    return tuple(of(choice.strip() if is_chat else choice) for choice in choices)


def _of_suffix(logprobs: Mapping[str, Any], prefix: str, suffix: str) -> tuple[float, ...] | None:
    """Of an echoed prompt the tokens that end behind the prefix, by their texts: what servers say of offsets counts tokens that
    open a text, which the text has not. None where the texts do not make up the prompt, as where a character is cut in two.
    """
    tokens, prompt = [str(each) for each in logprobs["tokens"]], prefix + suffix
    opening = next((n for n in range(min(3, len(tokens))) if "".join(tokens[n:]).startswith(prompt)), None)
    if opening is None:
        return None
    found, end = [], 0
    for token, value in zip(tokens[opening:], logprobs["token_logprobs"][opening:], strict=True):
        if end >= len(prompt):
            break
        end += len(token)
        if end > len(prefix) and value is not None:
            found.append(float(value))
    return tuple(found) if found or not suffix else None
