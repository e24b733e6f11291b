"""A call that was answered is never made again, and the ledger gives back what the model said."""

import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from deltalake import write_deltalake
from hypothesis import given, settings
from hypothesis import strategies as st
from polars.testing import assert_frame_equal

from latentlake.calls import ledger as module
from latentlake.calls.ledger import Asker, Ledger, call_key
from latentlake.engines.seeds import seed_of
from latentlake.errors import LakeError
from latentlake.fakes import FakeLLM
from latentlake.keeping.upkeep import maintain
from latentlake.lake import Lake
from latentlake.protocols import (
    Answer,
    Asked,
    Call,
    Choose,
    Generate,
    Likely,
    Message,
    Reply,
    Sampling,
    Score,
    settings_of,
)
from latentlake.reading.called import with_calls
from latentlake.reading.view import View

ASKER = Asker("judge", "rev1", "transformers", "scores/default/detection", "one")
SAMPLINGS: list[Sampling] = [Generate(8, 0.7, stop=("\n",)), Choose((" yes", " no")), Score()]


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    """An empty lake."""
    return Lake(str(tmp_path), "tiny")


def calls(*numbers: int, sampling: Sampling = SAMPLINGS[0]) -> list[Asked]:
    return [Asked(number, Call(f"shared {number % 3}\n", f"own {number}", sampling)) for number in numbers]


def quiet(made: int, remembered: int, share: float) -> None:
    """Hears of progress."""


def ask(
    lake: Lake, llm: Any, asked: Sequence[Asked], asker: Asker = ASKER, report: Callable[..., None] = quiet
) -> list[Answer]:
    return Ledger(lake).ask(lambda: llm, asker, asked, report)


def never() -> Any:
    raise AssertionError("the model was loaded")


class Scripted:
    """A model that gives each call, by its suffix, the next reply of a list."""

    def __init__(self, replies: dict[str, list[Reply]]) -> None:
        self.replies = replies
        self.made: list[str] = []

    def run(self, calls: Sequence[Call]) -> Iterator[list[tuple[int, Reply]]]:
        """One batch, in reverse."""
        self.made += [call.suffix for call in calls]
        yield [(place, self.replies[calls[place].suffix].pop(0)) for place in reversed(range(len(calls)))]


GOOD = Reply("fine", None, 5, 0, 2, "stop", 0.25)
LATER = Reply(None, None, 5, 0, 0, None, 0.5, error="timeout", is_retryable=True)
NEVER = Reply(None, None, 5, 0, 0, None, 0.5, error="refused", is_retryable=False)


def test_the_same_list_is_asked_once(lake: Lake) -> None:
    llm = FakeLLM()
    first = ask(lake, llm, calls(1, 2, 3))
    assert Ledger(lake).ask(never, ASKER, calls(1, 2, 3), quiet) == first
    assert [call.suffix for call in llm.made] == ["own 1", "own 2", "own 3"]


def test_a_call_that_occurs_twice_in_a_list_is_made_once_and_answered_twice(lake: Lake) -> None:
    llm = FakeLLM()
    answers = ask(lake, llm, calls(1, 2, 1, 2, 1))
    assert len(llm.made) == 2
    assert answers[0] == answers[2] == answers[4]
    assert answers[1] == answers[3]
    assert answers[0] != answers[1]


@settings(deadline=None, max_examples=15)
@given(st.lists(st.lists(st.integers(0, 6), max_size=6), min_size=1, max_size=4))
def test_over_any_lists_each_call_is_made_once_and_answered_in_order(
    tmp_path_factory: pytest.TempPathFactory, lists: list[list[int]]
) -> None:
    lake, llm = Lake(str(tmp_path_factory.mktemp("lake")), "tiny"), FakeLLM(batch=2)
    for numbers in lists:
        answers = ask(lake, llm, calls(*numbers))
        assert [answer.key for answer in answers] == [call_key("rev1", each.call) for each in calls(*numbers)]
        alone = [next(FakeLLM().run([each.call]))[0][1] for each in calls(*numbers)]
        assert [answer.reply for answer in answers] == alone
    made = [call.suffix for call in llm.made]
    assert len(made) == len(set(made))
    assert set(made) == {f"own {number}" for numbers in lists for number in numbers}


def test_what_several_explanations_share_is_made_once(lake: Lake) -> None:
    neutral = Call("The following is about various things.", " a window", Score())
    llm = FakeLLM()
    for latent, explanation in enumerate(["birds", "rivers"]):
        given = Call(f"The following is about {explanation}.", " a window", Score())
        ask(lake, llm, [Asked(latent, neutral), Asked(latent, given)])
    assert llm.made.count(neutral) == 1
    assert len(llm.made) == 3


def test_studies_share_their_calls(lake: Lake) -> None:
    llm = FakeLLM()
    ask(lake, llm, calls(1))
    ask(Lake(lake.uri, "another"), llm, calls(1))
    assert len(llm.made) == 1


def test_the_model_s_name_and_the_asset_do_not_make_a_call_another(lake: Lake) -> None:
    ask(lake, FakeLLM(), calls(1))
    other = Asker("renamed", ASKER.revision, "transformers", "explanations/default", "two")
    assert len(Ledger(lake).ask(never, other, calls(1), quiet)) == 1


def test_retryable_failures_are_asked_again_and_final_ones_are_not(lake: Lake) -> None:
    llm = Scripted({"own 1": [LATER, LATER, GOOD], "own 2": [NEVER], "own 3": [GOOD]})
    found = [[answer.reply for answer in ask(lake, llm, calls(1, 2, 3))] for _ in range(4)]
    assert found == [[LATER, NEVER, GOOD], [LATER, NEVER, GOOD], [GOOD, NEVER, GOOD], [GOOD, NEVER, GOOD]]
    assert llm.made == ["own 1", "own 2", "own 3", "own 1", "own 1"]


def test_readers_see_the_answer_and_not_the_failures_before_it(lake: Lake) -> None:
    llm = Scripted({f"own {n}": [LATER, GOOD] for n in range(6)})
    for _ in range(2):
        ask(lake, llm, calls(*range(6)))
    seen = View(lake).calls.collect()
    assert seen.height == 6
    assert seen["error"].to_list() == [None] * 6


def test_maintenance_leaves_one_row_a_call_and_a_prompt(lake: Lake) -> None:
    llm = Scripted({f"own {n}": [LATER, LATER, LATER if n == 5 else GOOD] for n in range(6)})
    for _ in range(3):
        ask(lake, llm, calls(*range(6)))
    racing = Ledger(lake)
    racing.take(
        ASKER, {call_key("rev1", calls(0)[0].call): calls(0)[0]}, {call_key("rev1", calls(0)[0].call): GOOD}, None
    )
    seen = View(lake).calls.sort("key").collect()
    assert lake.scan("calls").collect().height == 6 * 3 + 1
    maintain(lake, vacuum_hours=0)
    kept = lake.scan("calls").sort("key").collect()
    assert kept["key"].is_unique().all()
    assert lake.scan("prompts").collect()["prompt"].is_unique().all()
    assert_frame_equal(kept, seen)
    assert sorted(kept["attempts"]) == [3, 3, 3, 3, 3, 4]
    assert kept["error"].count() == 1
    assert Ledger(lake).replies(kept["key"].to_list()).keys() == set(kept.filter(pl.col("error").is_null())["key"])


def test_a_ledger_of_an_older_latentlake_is_read_and_tidied(lake: Lake) -> None:
    llm = Scripted({f"own {n}": [LATER, GOOD] for n in range(3)})
    for _ in range(2):
        ask(lake, llm, calls(*range(3)))
    older = lake.scan("calls").drop("likeliest").collect().to_arrow()
    shutil.rmtree(lake.path("calls"))
    for rows in (older.slice(0, 3), older.slice(3)):
        write_deltalake(lake.path("calls"), rows, mode="append")
    keys = [call_key("rev1", each.call) for each in calls(*range(3))]
    assert [Ledger(lake).replies(keys)[key] for key in keys] == [GOOD] * 3
    maintain(lake, vacuum_hours=0)
    assert lake.scan("calls").collect().height == 3
    assert [Ledger(lake).replies(keys)[key] for key in keys] == [replace(GOOD, attempts=2)] * 3


def test_a_ledger_of_a_newer_latentlake_is_refused_in_words(lake: Lake) -> None:
    ask(lake, FakeLLM(), calls(1))
    newer = lake.scan("calls").with_columns(mood=pl.lit("good")).collect().to_arrow()
    shutil.rmtree(lake.path("calls"))
    write_deltalake(lake.path("calls"), newer)
    with pytest.raises(LakeError, match="Upgrade latentlake"):
        ask(lake, FakeLLM(), calls(1, 2))


REPLIES = {
    "text": Reply("é\n🎉 'quoted'", None, 7, 3, 2, "length", 1.5),
    "empty text": Reply("", None, 0, 0, 0, "stop", 0.0),
    "choices": Reply(None, (-0.1, -2.5), 7, 7, 0, None, 0.0),
    "unlikely": Reply(None, (float("-inf"), 0.0), 7, 0, 0, None, 0.0),
    "no tokens": Reply(None, (), 0, 0, 0, None, 0.0),
    "exact": Reply("x", (0.1 + 0.2, 1e-300, -123456.789), 2**40, 1, 1, "stop", 1 / 3),
    "refused": NEVER,
    "likeliest": Reply("x", (-0.5,), 7, 0, 1, "stop", 0.0, likeliest=((Likely(" x", -0.5), Likely("\n", -3.0)),)),
    "tried often": Reply("x", None, 7, 0, 1, "stop", 0.0, attempts=5),
}


@pytest.mark.parametrize("reply", REPLIES.values(), ids=REPLIES)
def test_a_reply_comes_back_as_it_was(lake: Lake, reply: Reply) -> None:
    first = ask(lake, Scripted({"own 1": [reply]}), calls(1))
    assert [answer.reply for answer in first] == [reply]
    assert Ledger(lake).ask(never, ASKER, calls(1), quiet) == first


@pytest.mark.parametrize("fail_at", [0, 8, 64, 72, 136, 192])
def test_what_came_before_a_failure_is_kept_and_only_the_rest_is_asked(
    lake: Lake, fail_at: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_FLUSH_SECONDS", 1e9)

    def crash(answered: int) -> None:
        if answered >= fail_at:
            raise ConnectionError("gone")

    everything = calls(*range(200))
    wanted = [next(FakeLLM().run([each.call]))[0][1] for each in everything]
    first = FakeLLM(batch=8, before=crash)
    with pytest.raises(ConnectionError):
        ask(lake, first, everything)
    kept = lake.scan("calls").collect().height
    # A model that fails is not a process that dies: every answer that came is kept.
    assert kept == len(first.made) == fail_at
    second = FakeLLM(batch=8)
    answers = ask(lake, second, everything)
    assert [answer.reply for answer in answers] == wanted
    assert [call.suffix for call in second.made] == [f"own {number}" for number in range(kept, 200)]


def test_progress_counts_what_is_made_and_remembered(lake: Lake) -> None:
    heard: list[tuple[int, int, float]] = []
    ask(lake, FakeLLM(), calls(1, 2))
    ask(lake, FakeLLM(), calls(1, 2, 3, 3, 4, 5, 6), report=lambda *each: heard.append(each))
    assert sum(made for made, _, _ in heard) == 4
    assert sum(remembered for _, remembered, _ in heard) == 2
    shares = [share for _, _, share in heard]
    assert shares == sorted(shares)
    assert shares[-1] == 1


def test_asking_nothing_loads_nothing(lake: Lake) -> None:
    assert Ledger(lake).ask(never, ASKER, [], quiet) == []
    assert not Path(lake.uri, "calls").exists()


def test_prompts_are_kept_once_and_give_back_prefix_and_suffix(lake: Lake) -> None:
    everything = calls(*range(7)) + calls(*range(7), sampling=Score())
    ask(lake, FakeLLM(), everything[:5])
    ask(lake, FakeLLM(), everything)
    prompts = lake.scan("prompts").collect()
    assert prompts["prompt"].is_unique().all()
    assert prompts.height == 3 + 7
    own = prompts.filter(pl.col("prefix").is_not_null())
    joined = own.join(prompts, left_on="prefix", right_on="prompt", suffix="_shared")
    text = dict(zip(joined["prompt"], joined["text_shared"] + joined["text"], strict=True))
    rows = lake.scan("calls").collect()
    found = {row["key"]: text[row["prompt"]] for row in rows.iter_rows(named=True)}
    assert found == {call_key("rev1", each.call): each.call.prefix + each.call.suffix for each in everything}


def test_of_a_chat_every_message_is_kept_once_and_a_trace_gives_it_back(lake: Lake) -> None:
    said = (Message("system", "Be brief."), Message("user", "oak, elm"), Message("assistant", "trees"))
    chats = [Asked(n, Call("In common: ", f"own {n}", SAMPLINGS[0], chat=said)) for n in range(3)]
    bare = Asked(3, Call("In common: ", "own 0", SAMPLINGS[0], chat=()))
    plain = Asked(4, Call("In common: ", "own 0", SAMPLINGS[0]))
    ask(lake, FakeLLM(), [*chats, bare, plain])
    prompts = lake.scan("prompts").collect()
    assert prompts["prompt"].is_unique().all()
    assert prompts.height == 3 + 1 + 3 + 2 + 2
    keys = pl.DataFrame(
        {"call": [call_key("rev1", each.call) for each in (chats[1], bare, plain)], "latent": [1, 3, 4]}
    )
    assert keys["call"].is_unique().all()
    texts = with_calls(View(lake), keys)["prompt_text"].to_list()
    assert texts == [
        "[system]\nBe brief.\n[user]\noak, elm\n[assistant]\ntrees\n[user]\nIn common: own 1",
        "[user]\nIn common: own 0",
        "In common: own 0",
    ]


def test_a_call_says_who_asked_and_for_what(lake: Lake) -> None:
    ask(lake, FakeLLM(), [Asked(17, Call("p", "s", SAMPLINGS[1], draw=2))])
    row = lake.scan("calls").collect().row(0, named=True)
    assert {name: row[name] for name in vars(ASKER)} == vars(ASKER)
    assert (row["latent"], row["draw"], row["price"], row["error"]) == (17, 2, None, None)
    assert '"choices": [" yes", " no"]' in row["sampling"]


def test_what_came_later_and_is_not_set_is_in_no_key() -> None:
    assert settings_of(Score()) == {}
    assert settings_of(Choose((" a", " b"))) == {"choices": (" a", " b")}
    assert call_key("rev1", Call("ab", "cd", Score())) == "35ae4a40aae79f5d3bb96c8cbd6c0131"
    assert seed_of(Call("ab", "cd", Choose((" a", " b")))) == 5011832380925184718
    assert settings_of(Score(after="is")) == {"after": "is"}


def test_the_key_changes_with_everything_that_could_change_the_reply() -> None:
    call = Call("ab", "cd", SAMPLINGS[0], draw=0)
    others = [
        replace(call, draw=1),
        replace(call, prefix="a", suffix="bcd"),
        replace(call, prefix="abcd", suffix=""),
        replace(call, prefix="cd", suffix="ab"),
        *(replace(call, sampling=sampling) for sampling in SAMPLINGS[1:]),
        replace(call, sampling=Choose((" no", " yes"))),
        replace(call, sampling=Choose((" yes no",))),
        replace(call, sampling=Choose((" yes", " no"), after="c")),
        replace(call, sampling=Score(after="c")),
        replace(call, sampling=Generate(9, 0.7, stop=("\n",))),
        replace(call, sampling=Generate(8, 0.6, stop=("\n",))),
        replace(call, sampling=Generate(8, 0.7, top_p=0.9, stop=("\n",))),
        replace(call, sampling=Generate(8, 0.7, stop=())),
        replace(call, sampling=Generate(8, 0.7, stop=("\n",), choice=("a", "b"))),
        replace(call, sampling=Generate(8, 0.7, stop=("\n",), schema="{}")),
        replace(call, sampling=Generate(8, 0.7, stop=("\n",), likeliest=2)),
        replace(call, chat=()),
        replace(call, chat=(Message("system", "ab"),)),
        replace(call, chat=(Message("user", "ab"),)),
    ]
    keys = [call_key("rev1", each) for each in (call, *others)] + [call_key("rev2", call)]
    assert len(set(keys)) == len(keys)
    assert call_key("rev1", replace(call)) == keys[0]
