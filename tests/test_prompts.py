"""Prompt files: two parts, and who speaks; as the messages of a chat or as one text."""

from pathlib import Path

import pytest

from latentlake.prompts import Prompt, read_prompt
from latentlake.protocols import Message, Score

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
