"""The engine that asks servers, against a real one on loopback: what it sends, and what comes of every fault."""

from __future__ import annotations

import logging
import socket
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from latentlake.calls.ledger import Asker, Ledger
from latentlake.engines.openai import OpenAILLM, Traffic
from latentlake.engines.wire import MalformedError, UnableError, failure_of, is_model, reply_of
from latentlake.errors import EngineError
from latentlake.lake import Lake
from latentlake.protocols import Asked, Call, Choose, Generate, Likely, Message, Reply, Score
from tests.servers import (
    MODEL,
    Canned,
    Fault,
    Sent,
    changed,
    closed,
    half,
    page,
    said,
    serving,
    slow,
    status,
    truncated,
)

QUICK = Traffic(concurrency=4, timeout=0.5, attempts=3, patience=0.02)
SECRET = "sk-not-to-be-seen-0123456789"
PLAIN = Generate(8, stop=("\n",))


@pytest.fixture
def server() -> Iterator[Canned]:
    with serving() as found:
        yield found


def calls(n: int, sampling: Any = PLAIN) -> list[Call]:
    return [Call(f"shared {number % 3}\n", f"own {number}", sampling) for number in range(n)]


def answers(llm: OpenAILLM, asked: Sequence[Call]) -> list[Reply]:
    pairs = [pair for batch in llm.run(asked) for pair in batch]
    assert sorted(index for index, _ in pairs) == list(range(len(asked)))
    return [reply for _, reply in sorted(pairs, key=lambda pair: pair[0])]


def llm_of(*servers: Canned, key: str | None = None, traffic: Traffic = QUICK) -> OpenAILLM:
    return OpenAILLM(MODEL, [each.url for each in servers], key, traffic)


# What is sent, and what comes back


def test_a_completion_is_asked_for_as_the_call_says(server: Canned) -> None:
    (reply,) = answers(llm_of(server), [Call("a ", "b", Generate(8, 0.7, 0.9, ("\n", "Q:")), draw=1)])
    (asked,) = server.asked
    assert {**asked, "seed": None} == {
        "model": MODEL, "prompt": "a b", "max_tokens": 8, "temperature": 0.7, "top_p": 0.9, "stop": ["\n", "Q:"], "seed": None,
    }  # fmt: skip
    assert (reply.tokens_in, reply.tokens_cached, reply.tokens_out) == (2, 2, 1)
    assert (reply.finish_reason, reply.error, reply.attempts) == ("stop", None, 1)
    assert reply.seconds > 0


def test_draws_have_seeds_of_their_own_and_always_the_same(server: Canned) -> None:
    drawn = [Call("a", "b", Generate(8, 0.7), draw) for draw in range(3)]
    first, second = (answers(llm_of(server), drawn) for _ in range(2))
    assert [each.text for each in first] == [each.text for each in second]
    assert len({each.text for each in first}) == 3


def test_a_chat_ends_with_what_the_prompt_says(server: Canned) -> None:
    chat = (Message("system", "You name things."), Message("user", "oak, elm"), Message("assistant", "trees"))
    answers(llm_of(server), [Call("cod, ", "eel", PLAIN, chat=chat), Call("a", "b", PLAIN, chat=())])
    first, second = sorted((each["messages"] for each in server.asked), key=len, reverse=True)
    assert first == [
        {"role": "system", "content": "You name things."},
        {"role": "user", "content": "oak, elm"},
        {"role": "assistant", "content": "trees"},
        {"role": "user", "content": "cod, eel"},
    ]
    assert second == [{"role": "user", "content": "ab"}]


def test_choices_have_the_log_probabilities_that_are_listed(server: Canned) -> None:
    choices = Choose((" yes", " no", " perhaps"))
    plain, chat = answers(llm_of(server), [Call("a", "b", choices), Call("a", "b", choices, chat=())])
    for reply in (plain, chat):
        assert reply.logprobs is not None
        yes, no, perhaps = reply.logprobs
        assert -4 <= yes <= 0
        assert (no, perhaps) == (-0.5, float("-inf"))


def test_a_text_is_scored_from_its_first_token_behind_the_prefix(server: Canned) -> None:
    call = Call("12345678", "abcdefghij", Score())
    (reply,) = answers(llm_of(server), [call])
    assert reply.logprobs is not None
    assert len(reply.logprobs) == 3  # abcd efgh ij
    assert server.asked[0]["echo"] is True


def test_a_chat_is_not_scored(server: Canned) -> None:
    with pytest.raises(EngineError, match="cannot be scored"):
        answers(llm_of(server), [Call("a", "b", Score(), chat=())])


def test_likeliest_tokens_are_kept(server: Canned) -> None:
    for chat in (None, ()):
        (reply,) = answers(llm_of(server), [Call("a", "b", Generate(4, likeliest=2), chat=chat)])
        assert reply.logprobs is not None
        assert reply.likeliest is not None
        ((first, second),) = reply.likeliest
        assert isinstance(first, Likely)
        assert first.logprob >= second.logprob
        assert {first.token.strip(), second.token.strip()} == {"yes", "no"}


@pytest.mark.parametrize(
    ("sampling", "text", "found", "error"),
    [
        (Generate(4, choice=("yes", "no")), '"yes"', "yes", None),
        (Generate(4, choice=("yes", "no")), " no\n", "no", None),
        (Generate(4, choice=("yes", "no")), "perhaps", "perhaps", "unparsed"),
        (Generate(4, choice=("yes", "no")), '["yes"]', '["yes"]', "unparsed"),
        (Generate(4, schema='{"type": "array"}'), "[1, 0]", "[1, 0]", None),
        (Generate(4, schema='{"type": "array"}'), "[1, 0", "[1, 0", "unparsed"),
        (Generate(4, schema='{"type": "array"}'), '{"a": 1}', '{"a": 1}', "unparsed"),
    ],
)
def test_a_form_is_asked_for_and_looked_for(
    server: Canned, sampling: Generate, text: str, found: str, error: str | None
) -> None:
    server.faults = lambda number, body: said(text=text)
    (reply,) = answers(llm_of(server), [Call("a", "b", sampling)])
    assert (reply.text, reply.error, reply.is_retryable) == (found, error, False)
    schema = server.asked[0]["response_format"]["json_schema"]["schema"]
    assert schema == ({"type": "string", "enum": ["yes", "no"]} if sampling.choice else {"type": "array"})


def test_calls_that_share_a_prefix_are_sent_one_after_the_other(server: Canned) -> None:
    answers(llm_of(server, traffic=replace(QUICK, concurrency=1)), calls(12))
    prefixes = [each["prompt"].split("\n")[0] for each in server.asked]
    assert prefixes == sorted(prefixes)


# Faults

LATER = ("retryable", 3)
FAULTS: dict[str, tuple[Fault, str, bool, int]] = {
    # what the server does, class of the failure, whether it may succeed later, attempts
    "no answer in time": (slow(1.0), "transport", True, 3),
    "connection closed": (closed, "transport", True, 3),
    "half of an answer": (half, "transport", True, 3),
    "truncated JSON": (truncated, "server", True, 3),
    "a page of HTML": (page, "server", True, 3),
    "500": (status(500), "server", True, 3),
    "503": (status(503, Retry_After="0"), "server", True, 3),
    "429": (status(429), "rate_limit", True, 3),
    "no choices": (changed(choices=[]), "server", True, 3),
    "not even a list": (changed(choices=None), "server", True, 3),
    "400": (status(400, "unknown parameter"), "request", True, 1),
    "too long": (status(400, "This model's maximum context length is 9 tokens"), "context_length", False, 1),
    "filtered": (status(400, "blocked by content management policy"), "refusal", False, 1),
    "refused": (said(finish_reason="content_filter"), "refusal", False, 1),
}


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_that_stays_is_stored_and_what_may_succeed_is_asked_again(
    server: Canned, tmp_path: Path, name: str
) -> None:
    fault, error, is_retryable, attempts = FAULTS[name]
    server.faults = lambda number, body: fault if body["prompt"].endswith("own 1") else None
    ledger, asker = Ledger(Lake(str(tmp_path), "tiny")), Asker("judge", "rev", "openai", "scores", "one")
    asked = [Asked(0, call) for call in calls(3)]

    def ask() -> list[Reply]:
        found = ledger.ask(lambda: llm_of(server), asker, asked, lambda *_: None)
        return [each.reply for each in found]

    good, bad, other = ask()
    assert (good.error, other.error) == (None, None)
    assert (bad.text, bad.error, bad.is_retryable, bad.attempts) == (None, error, is_retryable, attempts)
    assert len(server.asked) == 2 + attempts
    server.faults = lambda number, body: None
    _, again, _ = ask()
    assert again.error == (None if is_retryable else error)
    assert len(server.asked) == 2 + attempts + is_retryable


@pytest.mark.parametrize("name", [name for name, each in FAULTS.items() if each[3] > 1])
def test_a_fault_that_passes_is_overcome(server: Canned, name: str) -> None:
    fault = FAULTS[name][0]
    server.faults = lambda number, body: fault if number == 0 else None
    (reply,) = answers(llm_of(server), calls(1))
    assert (reply.error, reply.attempts) == (None, 2)
    assert reply.text


def test_the_pause_is_the_one_that_the_server_asks_for(server: Canned) -> None:
    server.faults = lambda number, body: status(429, Retry_After="0.6") if number == 0 else None
    began = time.monotonic()
    (reply,) = answers(llm_of(server), calls(1))
    assert reply.attempts == 2
    assert time.monotonic() - began >= 0.6


def test_fewer_are_under_way_where_the_server_bears_no_more(server: Canned) -> None:
    bears = 3
    server.pause = 0.02
    server.faults = lambda number, body: status(429) if server.active > bears else None
    found = answers(llm_of(server, traffic=Traffic(concurrency=64, attempts=50, patience=0.05)), calls(150))
    assert [each.error for each in found] == [None] * 150
    assert server.most < 64
    assert len(server.asked) < 300


@pytest.mark.parametrize(
    ("fault", "said_of"),
    [
        (changed(model="another/model"), "answers as 'another/model'"),
        (status(404, "no such model"), "has no model"),
        (status(429, "insufficient_quota"), "quota is used up"),
    ],
)
def test_what_is_wrong_with_every_call_ends_the_run_and_nothing_is_stored(
    server: Canned, tmp_path: Path, fault: Fault, said_of: str
) -> None:
    server.faults = lambda number, body: fault
    lake = Lake(str(tmp_path), "tiny")
    asked = [Asked(0, call) for call in calls(50)]
    with pytest.raises(EngineError, match=said_of):
        Ledger(lake).ask(
            lambda: llm_of(server), Asker("judge", "rev", "openai", "scores", "one"), asked, lambda *_: None
        )
    assert lake.scan("calls").collect().is_empty()
    assert len(server.asked) < 50


def test_a_name_with_a_maker_or_a_date_is_the_same_model(server: Canned) -> None:
    server.faults = lambda number, body: changed(model="canned-2026-01-01")
    assert answers(llm_of(server), calls(1))[0].error is None


def test_a_server_that_fails_at_everything_is_left_alone(server: Canned) -> None:
    server.faults = lambda number, body: status(500, "out of memory")
    with pytest.raises(EngineError, match=r"came to nothing \(server: 500: .*out of memory.*what was answered is kept"):
        answers(llm_of(server, traffic=replace(QUICK, attempts=1)), calls(500))
    assert len(server.asked) < 60


def test_a_server_that_is_down_is_found_out_before_any_call() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}/v1"
    with pytest.raises(EngineError, match=r"no endpoint .* can be used: .*LATENTLAKE_ENDPOINTS"):
        answers(OpenAILLM(MODEL, [url], traffic=QUICK), calls(3))


def test_a_model_that_the_server_has_not_is_found_out_before_any_call(server: Canned) -> None:
    server.models = ["tests/cannot"]
    with pytest.raises(EngineError, match=r"has no model 'tests/canned' \(did you mean 'tests/cannot'"):
        answers(llm_of(server), calls(3))
    assert server.asked == []


def test_several_endpoints_share_the_work_and_one_that_is_down_is_left_out() -> None:
    with serving() as one, serving() as other:
        one.pause = other.pause = 0.01
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            down = f"http://127.0.0.1:{free.getsockname()[1]}/v1"
        found = answers(OpenAILLM(MODEL, [one.url, down, other.url], traffic=QUICK), calls(60))
        assert [each.error for each in found] == [None] * 60
        assert len(one.asked) + len(other.asked) == 60
        assert min(len(one.asked), len(other.asked)) > 10


def test_an_endpoint_that_goes_down_is_made_up_for_by_the_others() -> None:
    with serving() as one, serving() as other:
        one.faults = lambda number, body: closed if number > 5 else None
        found = answers(llm_of(one, other, traffic=replace(QUICK, attempts=20)), calls(60))
        assert [each.error for each in found] == [None] * 60


def test_an_endpoint_that_fails_at_once_does_not_draw_what_another_answers() -> None:
    with serving() as good, serving() as bad:
        good.pause = 0.05
        bad.faults = lambda number, body: status(503)
        traffic = Traffic(concurrency=16, timeout=5)
        found = answers(llm_of(good, bad, traffic=traffic), calls(150))
        assert [each.error for each in found] == [None] * 150
        assert len(bad.asked) < 60


def test_an_endpoint_without_the_model_is_left_out_of_later_runs_too(server: Canned) -> None:
    with serving() as other:
        other.models = ["another"]
        other.faults = lambda number, body: status(404)
        llm = llm_of(server, other)
        for _ in range(3):
            assert [each.error for each in answers(llm, calls(10))] == [None] * 10
        assert other.asked == []


def test_calls_that_always_fail_do_not_keep_a_run_from_its_end(server: Canned, tmp_path: Path) -> None:
    bad = {f"own {number}" for number in range(100, 140)}
    server.faults = lambda number, body: status(400, "no") if body["prompt"].split("\n")[1] in bad else None
    ledger, asker = Ledger(Lake(str(tmp_path), "tiny")), Asker("judge", "rev", "openai", "scores", "one")
    for _ in range(2):
        found = ledger.ask(lambda: llm_of(server), asker, [Asked(0, call) for call in calls(200)], lambda *_: None)
        assert sum(each.reply.error == "request" for each in found) == 40


def test_an_endless_answer_is_not_waited_for(server: Canned) -> None:
    def dribble(handler: Any, body: dict[str, Any]) -> tuple[int, bytes, dict[str, str]]:
        handler.send_response(200)
        handler.send_header("Content-Length", "1000")
        handler.end_headers()
        for _ in range(20):
            handler.wfile.write(b" ")
            time.sleep(0.2)
        raise Sent

    server.faults = lambda number, body: dribble if number == 0 else None
    began = time.monotonic()
    (reply,) = answers(llm_of(server), calls(1))
    assert (reply.error, reply.attempts) == (None, 2)
    assert time.monotonic() - began < 3


def test_limits_that_make_no_sense_are_refused() -> None:
    with pytest.raises(EngineError, match="concurrency"):
        Traffic(concurrency=0)
    with pytest.raises(EngineError, match="LATENTLAKE_ENDPOINTS"):
        OpenAILLM(MODEL, [])


@pytest.mark.parametrize(
    ("asked", "said", "is_same"),
    [
        ("gpt-4o", "gpt-4o-2024-08-06", True),
        ("openai/gpt-4", "gpt-4-0613", True),
        ("meta-llama/Llama-3.1-8B", "Llama-3.1-8B", True),
        ("gpt-4", "gpt-4o", False),
        ("gpt-4o", "gpt-4o-mini", False),
        ("Llama-3.1-8B", "Llama-3.1-8B-Instruct", False),
        ("qwen2-7b", "q", False),
    ],
)
def test_a_model_is_known_by_its_name(asked: str, said: str, is_same: bool) -> None:
    assert is_model(asked, said) == is_same


# Responses that are hard to read


def response(**fields: Any) -> dict[str, Any]:
    choice = {"index": 0, "finish_reason": "stop", "text": "x", "logprobs": None} | fields
    return {"choices": [choice], "usage": {"prompt_tokens": 3, "completion_tokens": 1}}


def test_a_reply_that_was_all_thought_is_empty_and_no_text_is_none(server: Canned) -> None:
    chat = Call("a", "b", PLAIN, chat=())
    cut = reply_of(chat, response(message={"content": None}, finish_reason="length"), 0.0)
    assert (cut.text, cut.finish_reason, cut.error) == ("", "length", None)
    with pytest.raises(MalformedError):
        reply_of(chat, response(message={"content": None}), 0.0)
    with pytest.raises(MalformedError):
        reply_of(Call("a", "b", PLAIN), response(finish_reason="error"), 0.0)


@pytest.mark.parametrize("opening", [[], ["<|begin_of_text|>"]])
def test_tokens_that_open_a_text_are_not_of_it(opening: list[str]) -> None:
    tokens = [*opening, "The", " river", " runs", " on", "!"]
    values = [None, *(-float(n) for n in range(1, len(tokens)))]
    offsets = [sum(map(len, tokens[:n])) for n in range(len(tokens))]
    echoed = {"tokens": tokens, "text_offset": offsets, "token_logprobs": values}
    found = reply_of(Call("The river", " runs on", Score()), response(text="The river runs on!", logprobs=echoed), 0.0)
    first = len(opening) + 2
    assert found.logprobs == (-float(first), -float(first + 1))


def test_an_echo_that_does_not_make_up_the_prompt_is_no_score() -> None:
    echoed = {"tokens": ["The ", "\ufffd", "\ufffd"], "text_offset": [0, 4, 5], "token_logprobs": [None, -1.0, -2.0]}
    found = reply_of(Call("The ", "é", Score()), response(text="The éx", logprobs=echoed), 0.0)
    assert (found.logprobs, found.error) == (None, "unparsed")


def echo(tokens: list[str], **fields: Any) -> dict[str, Any]:
    """A response that echoes a prompt and one token more; of the first token nothing is known, of the others -1, -2, …"""
    tops = [None, *({token: -float(n), "1": -0.5, "0": -3.0} for n, token in enumerate(tokens[1:], start=1))]
    values = [None, *(-float(n) for n in range(1, len(tokens)))]
    logprobs = {"tokens": tokens, "token_logprobs": values, "top_logprobs": tops} | fields
    return response(text="".join(tokens), logprobs=logprobs)


def test_choices_are_read_at_every_place_of_an_echo() -> None:
    call = Call("A: ", "x\t?\ny\t?\nz\t", Choose(("0", "1", "2"), after="\t"))
    tokens = ["A", ": ", "x", "\t", "?", "\n", "y", "\t", "0", "\n", "z\t", "7"]
    tokens[8] = "?"
    found = reply_of(call, echo(tokens), 0.0)
    assert found.logprobs == (-3.0, -0.5, float("-inf")) * 3
    own = reply_of(call, echo([*tokens[:-1], "2"]), 0.0)  # what was made behind the prompt's end
    assert own.logprobs == (-3.0, -0.5, float("-inf"), -3.0, -0.5, float("-inf"), -3.0, -0.5, -11.0)
    over = reply_of(call, echo(["A", ": ", "x", "\t?", "\n", "y", "\t", "?", "\n", "z\t", "7"]), 0.0)
    assert (over.logprobs, over.error) == (None, "unparsed")  # a token reaches over a place
    unlisted = echo(tokens, top_logprobs=None)
    with pytest.raises(UnableError, match="does not list"):
        reply_of(call, unlisted, 0.0)


def test_a_text_is_scored_behind_what_is_read() -> None:
    call = Call("A: ", "x is y is z.", Score(after=" is"))
    found = reply_of(call, echo(["A", ": ", "x", " is", " y", " is", " z", ".", "!"]), 0.0)
    assert found.logprobs == (-6.0, -7.0)
    nothing = reply_of(replace(call, suffix="x is"), echo(["A", ": ", "x", " is", "!"]), 0.0)
    assert (nothing.logprobs, nothing.error) == ((), None)


def test_a_score_in_which_a_token_is_missing_is_none() -> None:
    values = [None, -1.0, None, -1.0, -1.0]
    found = reply_of(
        Call("A: ", "x y", Score()), echo(["A", ": ", "x", " y", "!"], token_logprobs=values, top_logprobs=None), 0.0
    )
    assert (found.logprobs, found.error) == (None, "unparsed")
    whole = reply_of(Call("", "A: x", Score()), echo(["A", ": ", "x", "!"]), 0.0)  # before the first there is nothing
    assert whole.logprobs == (-1.0, -2.0)


NO_ECHO: dict[str, Fault] = {
    "what follows": said(text=" yes", logprobs={"tokens": [" yes"], "token_logprobs": [-0.1], "top_logprobs": None}),
    "no log-probabilities": said(logprobs=None),
    "null for each token": said(logprobs={"tokens": ["a", "b", "c"], "token_logprobs": [None] * 3}),
    "the parameter is unknown": status(400, "Setting 'echo' and 'logprobs' at the same time is not supported"),
    "a failure of the server": status(500, "logprobs is not supported for models created with logits_all=False"),
}


@pytest.mark.parametrize("sampling", [Score(), Score(after="own"), Choose(("0", "1"), after="own")], ids=str)
@pytest.mark.parametrize("name", NO_ECHO)
@pytest.mark.parametrize("prefix", ["", "shared "])
def test_a_server_that_reads_no_prompts_is_one_error(
    server: Canned, tmp_path: Path, prefix: str, name: str, sampling: Any
) -> None:
    server.faults = lambda number, body: NO_ECHO[name]
    lake = Lake(str(tmp_path), "tiny")
    asked = [Asked(0, Call(prefix, f"own {number}", sampling)) for number in range(50)]
    with pytest.raises(EngineError, match=r"cannot do what is asked .*name another server, or another engine"):
        Ledger(lake).ask(
            lambda: llm_of(server), Asker("judge", "rev", "openai", "scores", "one"), asked, lambda *_: None
        )
    assert lake.scan("calls").collect().is_empty()
    assert len(server.asked) < 20


def test_places_of_a_chat_are_not_read(server: Canned) -> None:
    with pytest.raises(EngineError, match="cannot be scored"):
        answers(llm_of(server), [Call("a", "b\t", Choose(("0", "1"), after="\t"), chat=())])


def test_choices_that_begin_with_one_listed_token_are_refused() -> None:
    call = Call("a", "b", Choose(("1", "10")))
    listed = {"tokens": ["1"], "token_logprobs": [-0.1], "top_logprobs": [{"1": -0.1, "2": -3.0}]}
    with pytest.raises(UnableError, match=r"'1', by which the choices '1' and '10'"):
        reply_of(call, response(logprobs=listed), 0.0)
    both = listed | {"top_logprobs": [{"1": -0.1, "10": -3.0}]}
    assert reply_of(call, response(logprobs=both), 0.0).logprobs == (-0.1, -3.0)


def test_an_empty_reply_lists_no_choice() -> None:
    sampling = Choose((" yes", " no"))
    for logprobs in (
        {"tokens": [], "token_logprobs": [], "top_logprobs": []},
        {"tokens": [" "], "token_logprobs": [-0.1], "top_logprobs": [{" ": -0.1}]},
    ):
        found = reply_of(Call("a", "b", sampling), response(logprobs=logprobs), 0.0)
        assert found.logprobs == (float("-inf"), float("-inf"))


@pytest.mark.parametrize(
    ("said", "kind"),
    [
        ("the request exceeds the available context size", "context_length"),
        ("This model's maximum context length is 9 tokens", "context_length"),
        ("Invalid 'stop': array too long", "request"),
        ("blocked, in this context, by content management", "refusal"),
    ],
)
def test_what_is_wrong_with_a_request_is_told_apart(said: str, kind: str) -> None:
    assert failure_of(400, said) == kind


# Keys


def test_a_wrong_key_ends_the_run_and_is_nowhere_to_be_read(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    refusal = pytest.raises(EngineError, match=r"does not accept the key \(401\)")
    with serving(key="the right one") as server, refusal as refused:
        answers(llm_of(server, key=SECRET), calls(3))
    assert SECRET not in str(refused.value)
    assert "[key]" in str(refused.value)
    assert SECRET not in caplog.text


def test_a_right_key_is_taken_and_is_in_no_table(tmp_path: Path) -> None:
    lake = Lake(str(tmp_path), "tiny")
    with serving(key=SECRET) as server:
        server.faults = lambda number, body: status(400, f"for {SECRET} no") if number == 0 else None
        Ledger(lake).ask(
            lambda: llm_of(server, key=SECRET),
            Asker("judge", "rev", "openai", "scores", "one"),
            [Asked(0, call) for call in calls(3)],
            lambda *_: None,
        )
    assert SECRET not in str(lake.scan("calls").collect().to_dicts()) + str(lake.scan("prompts").collect().to_dicts())


# Stopping


def test_what_came_before_a_failure_is_given(server: Canned) -> None:
    server.faults = lambda number, body: changed(model="other") if number == 20 else None
    found: list[int] = []
    with pytest.raises(EngineError, match="answers as"):
        for batch in llm_of(server).run(calls(200)):
            found += [index for index, _ in batch]
    assert 10 <= len(found) < 40


def test_whoever_stops_taking_answers_stops_the_asking(server: Canned) -> None:
    server.pause = 0.02
    before = threading.active_count()
    for _ in llm_of(server).run(calls(500)):
        break
    time.sleep(0.2)
    assert len(server.asked) < 30
    assert not [each for each in threading.enumerate() if each.name == "engine"]
    assert before > 0


def test_asking_nothing_asks_nothing(server: Canned) -> None:
    assert list(llm_of(server).run([])) == []
    assert server.asked == []
