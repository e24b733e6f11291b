"""Calls as requests of the OpenAI API, and its responses as replies. Nothing is sent here."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from math import inf
from typing import Any, NamedTuple

from latentlake.engines.forms import formed
from latentlake.engines.places import places_of, reads_prompt
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
    (``choice``, ``schema``) is said as a JSON schema. A prompt's own tokens are read by having it echoed.

    Raises:
        UnableError: a chat's own tokens are to be read, which the API does not do.
        InputError: the suffix lacks the place after which something is to be read.
    """
    places_of(call)
    if call.chat is None:
        body: dict[str, Any] = {"model": model, "prompt": call.prefix + call.suffix}
        return Request("/completions", body | _asked(call, is_chat=False))
    if reads_prompt(call.sampling):
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
        case Choose(after=after):
            return {"max_tokens": 1, "temperature": 0} | ({"echo": True} if after else {}) | _listing(_LISTED, is_chat)
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
        UnableError: it has no log-probabilities, the prompt is not echoed, or choices cannot be told apart, and a call asks for
            that.
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
        case Choose(after=after) as sampling if after:
            listings = _listed_after(_echoed(call, choice), call)
            if listings is None:
                return _answer(error=UNPARSED)
            return _answer(
                logprobs=tuple(
                    value for listed in listings for value in _of_choices(sampling.choices, listed, is_reply=False)
                )
            )
        case Choose() as sampling:
            if choice.get("logprobs") is None:
                raise UnableError("it gives no log-probabilities")
            places = _places(choice["logprobs"])  # none where the reply is empty
            listed = places[0][1] if places else ()
            return _answer(logprobs=_of_choices(sampling.choices, listed, is_reply=call.chat is not None))
        case Score():
            logprobs = _scored(_echoed(call, choice), call)
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


def _of_choices(choices: Sequence[str], listed: Sequence[Likely], is_reply: bool) -> tuple[float, ...]:
    """For each choice the log-probability of the longest listed token that begins it. A chat's reply begins without a space.

    Raises:
        UnableError: two choices begin with the same token.
    """
    found: dict[str, str] = {}

    def of(choice: str) -> float:
        begins = [each for each in listed if each.token.strip() and choice.startswith(each.token)]
        if not begins:
            return -inf
        longest = max(begins, key=lambda each: len(each.token))
        if found.setdefault(longest.token, choice) != choice:
            raise UnableError(
                f"it lists the token {longest.token!r}, by which the choices {found[longest.token]!r} and {choice!r} cannot "
                "be told apart"
            )
        return longest.logprob

    return tuple(of(choice.strip() if is_reply else choice) for choice in choices)


class _Token(NamedTuple):
    """A token of an echoed prompt, or the one made after it: the characters of the prompt where it begins and ends, and what is
    listed at its place. ``own``: its log-probability, which the first of all has not.
    """

    begin: int
    end: int
    is_first: bool
    own: float | None
    listed: tuple[Likely, ...]


def _echoed(call: Call, choice: Mapping[str, Any]) -> list[_Token] | None:
    """Tokens of an echoed prompt, placed by their texts: what servers say of offsets counts tokens that open a text, which the
    text has not. None where the texts do not make up the prompt, as where a character is cut in two.

    Raises:
        UnableError: there is no echo, or one without log-probabilities; so will it be with every other call.
    """
    prompt, logprobs = call.prefix + call.suffix, choice.get("logprobs") or {}
    tokens, values = [str(each) for each in logprobs.get("tokens") or ()], logprobs.get("token_logprobs") or []
    tops = logprobs.get("top_logprobs") or [None] * len(tokens)
    is_made_alone = len(tokens) <= 1 and "".join(tokens) != prompt
    if (
        not str(choice["text"]).startswith(call.prefix or call.suffix)
        or is_made_alone
        or not any(value is not None for value in values)
    ):
        raise UnableError("it does not echo prompts with their log-probabilities")
    opening = next((n for n in range(min(3, len(tokens))) if "".join(tokens[n:]).startswith(prompt)), None)
    if opening is None:
        return None
    ends = list(accumulate(map(len, tokens[opening:])))
    rows = zip(tokens[opening:], ends, values[opening:], tops[opening:], strict=True)
    return [
        _Token(
            end - len(token),
            end,
            opening == 0 and number == 0,
            None if own is None else float(own),
            _ordered([Likely(other, float(value)) for other, value in (top or {}).items()]),
        )
        for number, (token, end, own, top) in enumerate(rows)
    ]


def _scored(tokens: Sequence[_Token] | None, call: Call) -> tuple[float, ...] | None:
    """Log-probabilities of the tokens that end behind where a score begins. None where one is missing."""
    [place] = places_of(call)
    begin, end = len(call.prefix) + place, len(call.prefix) + len(call.suffix)
    within = [each for each in tokens or () if each.end > begin and each.begin < end]
    if tokens is None or (begin < end and not within) or any(each.own is None and not each.is_first for each in within):
        return None
    return tuple(each.own for each in within if each.own is not None)


def _listed_after(tokens: Sequence[_Token] | None, call: Call) -> list[tuple[Likely, ...]] | None:
    """The likeliest tokens at each place where choices are compared. None where a token reaches over one.

    Raises:
        UnableError: none are listed.
    """
    first: dict[int, _Token] = {}
    for each in tokens or ():
        first.setdefault(each.begin, each)
    places = [len(call.prefix) + place for place in places_of(call)]
    if not all(place in first for place in places):
        return None
    listings = [first[place].listed for place in places]
    if not all(listings):
        raise UnableError("it does not list likeliest tokens at the places of a prompt")
    return listings
