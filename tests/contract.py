"""What every engine does for every call, whatever it runs: one suite for all of them.

Plain assertions, so that an engine can be held to it in an environment of its own: `CHECKS` by name, each called with an engine.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from math import exp, isinf

from latentlake.errors import LatentlakeError
from latentlake.protocols import LLM, Call, Choose, Generate, Message, Reply, Score

SHOTS = "Words: cinnamon, clove, nutmeg\nIn common: spices\nWords: oak, elm, birch\nIn common: trees\n" * 2
SUFFIXES = ["Words: Rome, Paris, Oslo\nIn common:", "Words: one, two, three\nIn common:", "Words: cod, eel\nIn common:"]
NAMED = Generate(6, stop=("\n",))
SCHEMA = json.dumps({"type": "array", "items": {"type": "integer", "enum": [0, 1]}, "minItems": 3, "maxItems": 3})


@dataclass(frozen=True)
class Engine:
    """An engine, and what it is able to do. ``reads``: tokens that its model reads at most. ``is_exact``: whether it computes the
    same whatever stands beside a call in a batch, but for rounding. ``reads_chats``: whether it reads a chat's own tokens.
    """

    llm: LLM
    reads: int
    scores: bool = True
    holds_schemas: bool = True
    is_exact: bool = True
    reads_chats: bool = True


def answers(llm: LLM, calls: Sequence[Call]) -> list[Reply]:
    """Replies in the order of the calls, each of which is answered once."""
    pairs = [pair for batch in llm.run(calls) for pair in batch]
    assert sorted(index for index, _ in pairs) == list(range(len(calls)))
    return [reply for _, reply in sorted(pairs, key=lambda pair: pair[0])]


def refuses(engine: Engine, call: Call, says: str = "engine") -> None:
    """A call that an engine cannot do is refused in words, and not answered wrongly."""
    try:
        answers(engine.llm, [call])
    except LatentlakeError as error:
        assert says in str(error)
        return
    raise AssertionError("the call was not refused")


def every_call_is_answered_once(engine: Engine) -> None:
    """Of every kind and in any order."""
    calls = [Call(SHOTS, suffix, NAMED) for suffix in SUFFIXES]
    calls += [Call(SHOTS, suffix, Choose((" trees", " cities"))) for suffix in SUFFIXES]
    calls += [Call("Words: ", "cod\nIn common:", NAMED), Call(SHOTS, SUFFIXES[0], Generate(6, 1.0), draw=1)]
    mixed = calls[::2] + calls[1::2][::-1]
    for reply in answers(engine.llm, mixed):
        assert reply.error is None
        assert reply.tokens_in > 0
        assert 0 <= reply.tokens_cached <= reply.tokens_in
        assert reply.seconds >= 0
        assert reply.attempts == 1
        assert (reply.text is None) != (reply.logprobs is None)
    assert answers(engine.llm, []) == []


def completions_end_where_they_are_told(engine: Engine) -> None:
    """At a stop string, which is left out, or at so many tokens."""
    for reply in answers(engine.llm, [Call(SHOTS, suffix, NAMED) for suffix in SUFFIXES]):
        assert reply.text
        assert "\n" not in reply.text
        assert reply.finish_reason in ("stop", "length")
        assert 1 <= reply.tokens_out <= 6
    (short,) = answers(engine.llm, [Call(SHOTS, SUFFIXES[0], Generate(2))])
    assert (short.finish_reason, short.tokens_out) == ("length", 2)


def the_likeliest_completion_does_not_depend_on_its_company(engine: Engine) -> None:
    """Alone or among others, the text is the same."""
    together = answers(engine.llm, [Call(SHOTS, suffix, NAMED) for suffix in SUFFIXES])
    alone = [answers(engine.llm, [Call(SHOTS, suffix, NAMED)])[0] for suffix in SUFFIXES]
    same = sum(one.text == other.text for one, other in zip(together, alone, strict=True))
    assert same == len(SUFFIXES) if engine.is_exact else same > 0


def draws_differ_and_can_be_drawn_again(engine: Engine) -> None:
    """By their number alone."""
    calls = [Call(SHOTS, SUFFIXES[0], Generate(6, 1.5), draw) for draw in range(6)]
    first, again = (answers(engine.llm, calls) for _ in range(2))
    assert len({reply.text for reply in first}) > 1
    same = sum(one.text == other.text for one, other in zip(first, again, strict=True))
    assert same == len(calls) if engine.is_exact else same > 0


def choices_have_log_probabilities(engine: Engine) -> None:
    """One each, of the next token after the prompt; a prompt that suggests one has it likelier."""
    choices = Choose((" trees", " cities"))
    trees, cities = answers(
        engine.llm, [Call(SHOTS, "Words: ash, fir\nIn common:", choices), Call("Rome, Paris and Oslo are", "", choices)]
    )
    for reply in (trees, cities):
        assert reply.logprobs is not None
        assert len(reply.logprobs) == 2
        assert sum(map(exp, reply.logprobs)) <= 1 + 1e-6
    assert trees.logprobs is not None
    assert trees.logprobs[0] > trees.logprobs[1]


def texts_are_scored_by_token(engine: Engine) -> None:
    """What goes on well is likelier; what cannot be scored is refused."""
    calls = [Call(SHOTS, f"Words: ash, fir\nIn common:{word}", Score()) for word in (" trees", " nutmeg")]
    if not engine.scores:
        refuses(engine, calls[0])
        return
    well, badly = answers(engine.llm, calls)
    assert well.logprobs is not None
    assert badly.logprobs is not None
    assert all(value <= 0 for value in well.logprobs)
    assert len(well.logprobs) >= 10
    assert well.logprobs[:8] == tuple(
        value if abs(value - other) > 2e-3 else other
        for value, other in zip(badly.logprobs[:8], well.logprobs[:8], strict=True)
    )
    assert sum(well.logprobs) > sum(badly.logprobs)


def a_text_is_scored_behind_what_is_read(engine: Engine) -> None:
    """What follows the last place of a string has the log-probabilities that it has behind a prefix that ends there."""
    before, cue = "Words: ash, fir\nIn common: oak\nWords: ash, fir\n", "In common:"
    call = Call(SHOTS, f"{before}{cue} trees, all of them", Score(after=cue))
    if not engine.scores:
        refuses(engine, call)
        return
    found, plain = answers(engine.llm, [call, Call(f"{SHOTS}{before}{cue}", " trees, all of them", Score())])
    assert found.logprobs is not None
    assert plain.logprobs is not None
    assert len(found.logprobs) == len(plain.logprobs) >= 4
    assert max(abs(one - other) for one, other in zip(found.logprobs, plain.logprobs, strict=True)) < 2e-3
    assert not answers(engine.llm, [replace(call, suffix=f"{before}{cue}")])[0].logprobs


def choices_have_log_probabilities_at_every_place(engine: Engine) -> None:
    """Those that they have behind a prompt that ends at the place; what is not listed is minus infinity."""
    lines = ["oak\ttree\n", "Rome\tcity\n", "elm\ttree\n", "Paris\tcity\n", "Oslo\t?\n", "beech\t?\n"]
    choices = ("tree", "city")
    call = Call("Each word and its kind.\n", "".join(lines), Choose(choices, after="\t"))
    if not engine.scores:
        refuses(engine, call)
        return
    for chat in (None, ()) if engine.reads_chats else (None,):
        (found,) = answers(engine.llm, [replace(call, chat=chat)])
        assert found.error is None
        assert found.text is None
        assert found.logprobs is not None
        assert len(found.logprobs) == len(lines) * len(choices)
        assert all(value <= 0 for value in found.logprobs)
    (found,) = answers(engine.llm, [call])
    assert found.logprobs is not None
    for place in (4, 5):
        suffix = "".join(lines)[: [end for end, each in enumerate("".join(lines), 1) if each == "\t"][place]]
        (alone,) = answers(engine.llm, [replace(call, suffix=suffix)])
        (plain,) = answers(engine.llm, [Call(call.prefix, suffix, Choose(choices))])
        assert alone.logprobs is not None
        assert plain.logprobs is not None
        at = found.logprobs[2 * place : 2 * place + 2]
        for one, last, other in zip(at, alone.logprobs[-2:], plain.logprobs, strict=True):
            assert isinf(one) or abs(one - other) < 5e-2 * (1 if engine.is_exact else 4)
            assert isinf(last) or abs(last - other) < 5e-2 * (1 if engine.is_exact else 4)
    refuses(engine, replace(call, suffix="oak, tree"), says="Correct the prompt")


def choices_that_begin_alike_are_refused(engine: Engine) -> None:
    """Where their first token is the same they cannot be told apart."""
    refuses(
        engine, Call(SHOTS, "Words: ash, fir\nIn common:", Choose((" trees", " trees and more"))), says="told apart"
    )


def a_reply_is_one_of_the_choices(engine: Engine) -> None:
    """Drawn or likeliest."""
    form = Generate(12, choice=("certainly", "not at all", "not"))
    for sampling in (form, replace(form, temperature=1.0)):
        for reply in answers(engine.llm, [Call("Is an oak a tree? ", "Answer: ", sampling)]):
            assert reply.error is None
            assert reply.text in form.choice


def a_reply_has_the_form_of_the_schema(engine: Engine) -> None:
    """JSON that the schema allows; an engine that cannot see to it refuses."""
    calls = [Call("Three flags: ", "", Generate(40, schema=SCHEMA))]
    if not engine.holds_schemas:
        refuses(engine, calls[0])
        return
    for reply in answers(engine.llm, calls):
        assert reply.error is None
        assert reply.text
        flags = json.loads(reply.text)
        assert len(flags) == 3
        assert set(flags) <= {0, 1}


def the_likeliest_tokens_of_a_reply_are_kept(engine: Engine) -> None:
    """So many at each place, in order, and what was said among them."""
    (reply,) = answers(engine.llm, [Call(SHOTS, SUFFIXES[0], Generate(4, likeliest=3))])
    assert reply.text
    assert reply.logprobs is not None
    assert reply.likeliest is not None
    assert len(reply.logprobs) == len(reply.likeliest) == reply.tokens_out == 4
    for own, tops in zip(reply.logprobs, reply.likeliest, strict=True):
        assert len(tops) == 3
        assert [each.logprob for each in tops] == sorted((each.logprob for each in tops), reverse=True)
        assert abs(own - tops[0].logprob) < 1e-5
    assert reply.text.startswith(reply.likeliest[0][0].token)


def a_chat_is_answered(engine: Engine) -> None:
    """By what was said before as well."""
    chat = (Message("system", "You answer in one word."), Message("user", "Hello"), Message("assistant", "Hello."))
    calls = [Call("Is an oak a tree, ", "yes or no?", Generate(8), chat=each) for each in (chat, ())]
    calls.append(replace(calls[0], sampling=Choose(("Yes", "No"))))
    longer, shorter, chosen = answers(engine.llm, calls)
    for reply in (longer, shorter):
        assert reply.error is None
        assert reply.text
    assert longer.tokens_in > shorter.tokens_in > 10
    assert chosen.logprobs is not None
    assert max(chosen.logprobs) > -20


def a_prompt_that_is_too_long_is_found_out(engine: Engine) -> None:
    """And the others are answered."""
    calls = [Call("word " * engine.reads, "end", NAMED), Call(SHOTS, SUFFIXES[0], NAMED)]
    long, short = answers(engine.llm, calls)
    assert (long.error, long.is_retryable, long.text) == ("context_length", False, None)
    assert short.error is None


CHECKS: dict[str, Callable[[Engine], None]] = {
    each.__name__: each
    for each in (
        every_call_is_answered_once, completions_end_where_they_are_told,
        the_likeliest_completion_does_not_depend_on_its_company, draws_differ_and_can_be_drawn_again,
        choices_have_log_probabilities, texts_are_scored_by_token, a_text_is_scored_behind_what_is_read,
        choices_have_log_probabilities_at_every_place, choices_that_begin_alike_are_refused, a_reply_is_one_of_the_choices,
        a_reply_has_the_form_of_the_schema, the_likeliest_tokens_of_a_reply_are_kept, a_chat_is_answered,
        a_prompt_that_is_too_long_is_found_out,
    )
}  # fmt: skip
