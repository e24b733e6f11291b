"""Prompt files: two parts, and who speaks; as the messages of a chat or as one text."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from latentlake import cli
from latentlake.errors import InputError
from latentlake.prompts import Prompt, read_prompt
from latentlake.protocols import Call, Choose, Message, Score
from tests.workbench import Workbench

CHAT = """\
[system]
Be $how.
[user]
one
two
[assistant]
Reply: three
[user]
Now $what

%%
$more
[assistant]
Reply:
"""
VALUES = {"how": "brief", "what": "this", "more": "$how"}


def prompt(folder: Path, text: str) -> Prompt:
    (folder / "p.txt").write_text(text)
    return read_prompt("p.txt", folder)


def test_a_chat_is_messages_without_cues(tmp_path: Path) -> None:
    call = prompt(tmp_path, CHAT).call(Score(), True, VALUES)
    assert call.chat == (Message("system", "Be brief."), Message("user", "one\ntwo"), Message("assistant", "three"))
    assert (call.prefix, call.suffix) == ("Now this\n", "$how")


def test_the_same_is_one_text_that_ends_with_the_cue(tmp_path: Path) -> None:
    call = prompt(tmp_path, CHAT).call(Score(), False, VALUES)
    assert call.chat is None
    assert call.prefix == "Be brief.\n\none\ntwo\nReply: three\n\nNow this\n"
    assert call.suffix == "$how\nReply:"


def test_without_roles_a_prompt_is_a_text(tmp_path: Path) -> None:
    found = prompt(tmp_path, "before $what\n%%\n$more\n")
    for is_chat in (False, True):
        call = found.call(Score(), is_chat, VALUES)
        assert (call.prefix, call.suffix, call.chat) == ("before this", "$how", None)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("no divider", "line '%%'"),
        ("a\n%%\nb\n%%\nc", "line '%%'"),
        ("[user]\na\n[assistant]\nb\n%%\nc", "user says last"),
        ("before\n[user]\na\n%%\nb", "begins with who speaks"),
        ("[user]\na\n%%\nb\n[user]\nc", "only \\[assistant\\]"),
        ("[user]\na\n%%\nb\n[assistant]\nc\n[assistant]\nd", "only \\[assistant\\]"),
    ],
)
def test_a_file_that_is_no_prompt_is_refused(tmp_path: Path, text: str, says: str) -> None:
    with pytest.raises(OSError, match=says):
        prompt(tmp_path, text)


def test_places_are_looked_for_in_all_that_is_said(tmp_path: Path) -> None:
    found = prompt(tmp_path, CHAT)
    found.require_places((("how", "what"), ("more",)))
    for wanted in ((("how",), ("more",)), (("how", "what"), ()), (("how", "what", "else"), ("more",))):
        with pytest.raises(ValueError, match="must have"):
            found.require_places(wanted)


def test_every_part_belongs_to_the_digest(tmp_path: Path) -> None:
    texts = [CHAT, *(CHAT.replace(*each) for each in [("Be", "Do"), ("three", "3"), ("more", "x")])]
    texts += [
        CHAT.replace("[assistant]\nReply:\n", ""),
        CHAT.replace("Reply:\n", "Answer:\n"),
        CHAT.replace("system", "user"),
    ]
    assert len({prompt(tmp_path, text).digest for text in texts}) == len(set(texts)) == 7


# the command


@pytest.fixture
def show(
    materialized: Workbench, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., tuple[int, str]]:
    """`latentlake prompt` in the materialized lake: exit status, and what was printed."""
    materialized.prepare()
    monkeypatch.setenv("LATENTLAKE_CACHE", str(materialized.folder / "cache"))

    def run(*arguments: str) -> tuple[int, str]:
        own = ["--lake", materialized.lake.uri, "--study-file", str(materialized.path)]
        status = cli.main([*own, "prompt", *arguments])
        printed = capsys.readouterr()
        return status, printed.out + printed.err

    return run


def test_a_prompt_is_shown_with_its_places(show: Callable[..., tuple[int, str]]) -> None:
    status, said = show("detection")
    assert status == 0
    assert said.startswith("detection.txt, digest ")
    assert "Description: $explanation" in said


def test_the_calls_about_a_latent_are_those_that_were_made(
    show: Callable[..., tuple[int, str]], materialized: Workbench
) -> None:
    view = materialized.view()
    latent = view.explanations.filter(explainer="default").select("latent").collect()["latent"][0]
    status, said = show("scorers.detection", "one", str(latent), "--all")
    assert status == 0
    keys = re.findall(r"call (\w{32}), (made|not made yet): Choose", said)
    own = view.judgements.filter(scorer="detection", latent=latent).collect()
    assert {key for key, _ in keys} == set(own["call"])
    assert {state for _, state in keys} == {"made"}
    assert said.count("\nText: ") >= len(own)
    assert show("default", "one", str(latent))[1].startswith("1 of 3 calls of explanations/default about latent")


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["detecton"], "did you mean 'detection'?"),
        (["explainers.detection"], "no explainer or scorer"),
        (["tokens"], "explainers.tokens asks no language model"),
        (["detection", "one"], "which latent of one?"),
        (["detection", "two", "3"], "no dictionary 'two'"),
        (["detection", "one", "99999"], "no latent 99999"),
        (["embedding", "one", "3"], "makes no call about latent 3"),
        (["detection", "one", "3", "--explainer", "tokens"], "does not judge the explainer 'tokens'"),
    ],
    ids=str,
)
def test_what_cannot_be_shown_is_refused(show: Callable[..., tuple[int, str]], arguments: list[str], says: str) -> None:
    status, said = show(*arguments)
    assert status == 1
    assert says in said
    assert said.startswith("error: ")


def test_where_a_template_knows_no_system_message_the_user_says_it_first() -> None:
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    from latentlake.engines.prompts import Prompts

    template = (
        "{% for m in messages %}{% if m['role'] == 'system' %}{{ raise_exception('no system') }}{% endif %}"
        "{{ m['role'] }} {{ m['content'] }} {% endfor %}"
    )
    words = ["user", "assistant", "Be", "brief", "one", "three", "more"]
    level = Tokenizer(models.WordLevel({word: n for n, word in enumerate([*words, "?"])}, unk_token="?"))
    level.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=level, unk_token="?", chat_template=template)
    chat = (Message("system", "Be brief"), Message("user", "one"), Message("assistant", "three"))
    [fed] = Prompts(Path("m"), tokenizer).of([Call("more ", "one", Choose(("three",)), chat=chat)])
    said = [words[token] for token in [*fed.prefix, *fed.suffix]]
    assert said == ["user", "Be", "brief", "one", "assistant", "three", "user", "more", "one"]
    with pytest.raises(InputError, match="refuses the chat"):
        Prompts(Path("m"), tokenizer).of([Call("a", "b", Choose(("c",)), chat=chat[:1] + chat[2:])])
