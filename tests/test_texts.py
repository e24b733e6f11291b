"""The texts of windows are those of the documents, cut between tokens, and a corpus of tokens is decoded."""

import random
import re
from collections import Counter
from collections.abc import Callable, Sequence
from itertools import accumulate, pairwise
from typing import cast

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from latentlake.corpus import Document
from latentlake.fakes import FakeSubject
from latentlake.marking import pieces_of
from latentlake.protocols import Subject
from latentlake.sampling.contexts import Contexts, read_contexts
from latentlake.sampling.texts import SEPARATOR, Texts, read_texts, token_texts
from latentlake.stages.contexts import Packing, pack
from tests.scene import BETWEEN, BOS, SHARDS, Firing, Place, Scene, examples_of, sampled
from tests.scene import SEPARATOR as SEPARATOR_TOKEN

# of one, two, three and four bytes; two that end a line; one that stands between documents; and one that stands for broken ones
LETTERS = "ab é日🎉\n\u2028\u2029\ufffd"
DOCUMENTS = st.lists(st.text(LETTERS, max_size=14), min_size=1, max_size=6)
PACKINGS = st.builds(
    Packing,
    length=st.integers(4, 12),
    bos=st.sampled_from([BOS, None]),
    separator=st.sampled_from([SEPARATOR_TOKEN, None]),
    contexts=st.sampled_from(["packed", "documents"]),
)


class Counting(FakeSubject):
    """A subject that remembers what it decoded."""

    def __init__(self) -> None:
        super().__init__()
        self.decoded: Counter[tuple[int, ...]] = Counter()

    def detokenize(self, tokens: Sequence[Sequence[int]]) -> list[str]:
        self.decoded.update(map(tuple, tokens))
        return super().detokenize(tokens)


def not_needed() -> Subject:
    raise AssertionError("the subject was opened")


def packed(shards: Sequence[Sequence[str]], packing: Packing) -> Scene:
    """Documents of some shards, in contexts of the split score."""
    scene = Scene(SHARDS[: len(shards)])
    for shard, texts in zip(scene.shards, shards, strict=True):
        documents = [Document("d", text) for text in texts]
        for context in pack(documents, FakeSubject().tokenize(texts), packing):
            scene.add(shard, context, "score")
        scene.add_documents(shard, texts)
    return scene


def read(scene: Scene, has_bos: bool, subject: Callable[[], Subject] = not_needed) -> tuple[Contexts, Texts]:
    contexts = read_contexts(scene.contexts_frame().lazy(), scene.shards, 1)
    rows, documents = scene.contexts_frame().lazy(), scene.documents_frame().lazy()
    return contexts, read_texts(contexts, rows, documents, subject, has_bos)


def every_window(contexts: Contexts, length: int) -> np.ndarray:
    """The starts of all whole windows."""
    is_whole = np.arange(contexts.size) + length <= contexts.start[contexts.of + 1]
    return np.flatnonzero(is_whole)


def spoken(text: str) -> list[str]:
    """The text of each byte of a document: a character is with its first."""
    return [piece for letter in text for piece in (letter, *[""] * (len(letter.encode()) - 1))]


def streams(texts: Sequence[str], packing: Packing) -> list[list[str]]:
    """The text of each token of each context, from the documents alone."""
    after = [] if packing.separator is None else [BETWEEN]
    bos = [] if packing.bos is None else [""]
    groups = [texts] if packing.contexts == "packed" else [[text] for text in texts]
    found = []
    for group in groups:
        stream = [piece for text in group for piece in (*spoken(text), *after)]
        found += [[*bos, *stream[at : at + packing.room]] for at in range(0, len(stream), packing.room)]
    return found


# out of documents


@settings(deadline=None, max_examples=150)
@given(st.lists(DOCUMENTS, min_size=1, max_size=2), PACKINGS)
def test_the_text_of_a_window_is_that_of_its_documents(shards: list[list[str]], packing: Packing) -> None:
    scene = packed(shards, packing)
    contexts, texts = read(scene, packing.bos is not None)
    wanted = [pieces for each in shards for pieces in streams(each, packing)]
    assert list(map(len, wanted)) == np.diff(contexts.start).tolist()
    flat = [piece for pieces in wanted for piece in pieces]
    for length in {1, 2, 3, 4, packing.length - 1, packing.length}:
        starts = every_window(contexts, length)
        found, offsets = texts.windows(starts, length), texts.offsets(starts, length)
        assert found.to_list() == ["".join(flat[start : start + length]) for start in starts]
        assert offsets.shape == (len(starts), length)
        for start, text, own in zip(starts, found, offsets.tolist(), strict=True):
            assert pieces_of(text, own) == flat[start : start + length]


@settings(deadline=None, max_examples=25)
@given(DOCUMENTS, st.integers(4, 12))
def test_the_text_of_a_window_is_a_slice_of_its_document(documents: list[str], length: int) -> None:
    packing = Packing(length, BOS, SEPARATOR_TOKEN)
    scene = packed([documents], packing)
    _, texts = read(scene, True)
    for row, first in scene.ordered():
        segments = [*row["documents"], {"start": len(row["tokens"])}]
        for segment, after in pairwise(segments):
            document = documents[segment["number"]]
            own = [at for at in range(segment["start"], after["start"]) if at not in row["excluded"]]
            for begin in own:
                for end in own[own.index(begin) :]:
                    is_last = end == own[-1]
                    last = segment["end_offset"] if is_last else row["offsets"][end + 1]
                    found = texts.windows(np.array([first + begin]), end + 1 - begin).item()
                    assert found == document[row["offsets"][begin] : last]


@settings(deadline=None, max_examples=30)
@given(st.lists(DOCUMENTS, min_size=2, max_size=2), PACKINGS, st.integers(0, 2**32))
def test_neither_the_order_of_rows_nor_that_of_shards_matters(
    shards: list[list[str]], packing: Packing, draw: int
) -> None:
    scene, chance = packed(shards, packing), random.Random(draw)
    shuffled = Scene(scene.shards[::-1])
    shuffled.rows = chance.sample(scene.rows, len(scene.rows))
    shuffled.documents = chance.sample(scene.documents, len(scene.documents))
    found = []
    for each in (scene, shuffled):
        contexts, texts = read(each, packing.bos is not None)
        starts = every_window(contexts, 3)
        place = zip(contexts.shard[contexts.of[starts]], contexts.place_hash(starts).tolist(), strict=True)
        keys = [(each.shards[shard], hash_) for shard, hash_ in place]
        found.append(
            dict(zip(keys, zip(texts.windows(starts, 3), texts.offsets(starts, 3).tolist(), strict=True), strict=True))
        )
    assert found[0] == found[1]


def test_between_documents_stands_the_paragraph_separator_and_bos_has_no_text() -> None:
    assert SEPARATOR == BETWEEN == "\u2029"
    scene = packed([["ab", "", "c"]], Packing(7, BOS, SEPARATOR_TOKEN))
    contexts, texts = read(scene, True)
    assert texts.windows(np.array([0]), 7).to_list() == ["ab\u2029\u2029c\u2029"]
    assert texts.offsets(np.array([0]), 7).tolist() == [[0, 0, 1, 2, 3, 4, 5]]
    assert contexts.is_excluded.tolist() == [True, False, False, True, True, False, True]


def test_without_bos_the_first_token_that_is_excluded_is_a_separator() -> None:
    scene = packed([["", "ab"]], Packing(4, None, SEPARATOR_TOKEN))
    _, texts = read(scene, False)
    assert texts.windows(np.array([0]), 4).to_list() == ["\u2029ab\u2029"]


def test_a_token_with_the_number_of_a_separator_is_a_token() -> None:
    """What is excluded is excluded by position."""
    scene = packed([["ab"]], Packing(4, BOS, SEPARATOR_TOKEN))
    scene.rows[0]["tokens"] = [BOS, BOS, SEPARATOR_TOKEN, SEPARATOR_TOKEN]
    _, texts = read(scene, True)
    assert texts.windows(np.array([0]), 4).to_list() == ["ab\u2029"]


@pytest.mark.parametrize(
    ("start", "length", "text", "pieces"),
    [
        (0, 2, "aé", ["a", "é"]),  # ends within the second character, which began in it
        (0, 4, "aé🎉", ["a", "é", "", "🎉"]),
        (2, 3, "🎉", ["", "🎉", ""]),  # begins within one that began before it
        (4, 3, "", ["", "", ""]),  # lies within one
        (3, 5, "🎉b", ["🎉", "", "", "", "b"]),
    ],
)
def test_windows_begin_and_end_within_characters(start: int, length: int, text: str, pieces: list[str]) -> None:
    document = "aé🎉b"
    for has_documents in (True, False):
        scene = packed([[document]], Packing(9, None, SEPARATOR_TOKEN))
        if not has_documents:
            scene.forget_documents()
        _, texts = read(scene, False, FakeSubject)
        starts = np.array([start])
        assert texts.windows(starts, length).to_list() == [text]
        assert pieces_of(text, texts.offsets(starts, length)[0].tolist()) == pieces


def test_a_character_that_goes_on_in_the_next_context_is_with_the_first() -> None:
    scene = packed([["ab🎉c"]], Packing(4, None, None))
    _, texts = read(scene, False)
    assert texts.windows(np.array([0, 4]), 3).to_list() == ["ab🎉", "c"]
    assert texts.windows(np.array([0]), 4).to_list() == ["ab🎉"]


@pytest.mark.parametrize("has_documents", [True, False])
def test_no_windows_have_no_texts(has_documents: bool) -> None:
    scene = packed([["abc"]], Packing(4, BOS, SEPARATOR_TOKEN))
    if not has_documents:
        scene.forget_documents()
    _, texts = read(scene, True, FakeSubject)
    none = np.zeros(0, dtype=np.int64)
    assert texts.windows(none, 4).to_list() == []
    assert texts.windows(none, 4).dtype == pl.String
    assert texts.offsets(none, 9).shape == (0, 9)


@pytest.mark.parametrize("shards", [[["abc"], []], [[], ["abc"]], [[], []]], ids=str)
def test_a_shard_without_contexts_has_no_texts(shards: list[list[str]]) -> None:
    contexts, texts = read(packed(shards, Packing(4, None, SEPARATOR_TOKEN)), False)
    starts = every_window(contexts, 4)
    assert texts.windows(starts, 4).to_list() == ["abc\u2029"] * sum(map(bool, shards))


# out of tokens


@settings(deadline=None, max_examples=80)
@given(st.lists(DOCUMENTS, min_size=1, max_size=2), st.sampled_from([BOS, None]))
def test_a_corpus_of_tokens_is_decoded_to_the_same_texts(shards: list[list[str]], bos: int | None) -> None:
    """As long as no context begins or ends within a character."""
    shards = [[text.replace("\ufffd", "") for text in texts] for texts in shards]
    scene = packed(shards, Packing(400, bos, SEPARATOR_TOKEN))
    contexts, texts = read(scene, bos is not None)
    scene.forget_documents()
    _, decoded = read(scene, bos is not None, FakeSubject)
    for length in (1, 2, 5):
        starts = every_window(contexts, length)
        assert decoded.windows(starts, length).to_list() == texts.windows(starts, length).to_list()
        assert decoded.offsets(starts, length).tolist() == texts.offsets(starts, length).tolist()


@settings(deadline=None, max_examples=80)
@given(st.text(LETTERS.replace("\ufffd", ""), min_size=8, max_size=30), st.integers(4, 12))
def test_what_breaks_off_at_the_border_of_a_context_is_told_as_a_tokenizer_tells_it(text: str, length: int) -> None:
    scene = packed([[text]], Packing(length, None, None))
    scene.forget_documents()
    contexts, texts = read(scene, False, FakeSubject)
    for start, end in zip(contexts.start[:-1], contexts.start[1:], strict=True):
        own = bytes((contexts.tokens[start:end] - 3).tolist()).decode(errors="replace")
        assert one_mark(texts.windows(np.array([start]), end - start).item()) == one_mark(own)


def one_mark(text: str) -> str:
    """A text with one mark for any number of broken parts in a row."""
    return re.sub("\ufffd+", "\ufffd", text)


@pytest.mark.parametrize("first", [1, 2])
def test_a_context_that_begins_within_a_character_has_the_next_ones_at_their_place(first: int) -> None:
    """All of its tokens are parts of characters."""
    scene, text = Scene(SHARDS[:1]), "日本語テキスト"
    tokens = FakeSubject().tokenize([text])[0].tokens[first:]
    scene.add_tokens(SHARDS[0], tokens, "score")
    _, texts = read(scene, False, FakeSubject)
    starts = np.arange(3 - first, len(tokens) - 5, 3)
    assert texts.windows(starts, 6).to_list() == ["本語", "語テ", "テキ", "キス", "スト"]
    assert one_mark(texts.windows(np.array([0]), 6).item()) == "\ufffd本語"


@pytest.mark.parametrize(
    ("tokens", "excluded", "pieces"),
    [
        ("abcd", [], ["a", "b", "c", "d"]),
        ("aéb", [], ["a", "é", "", "b"]),
        ("🎉", [], ["🎉", "", "", ""]),
        ("éé", [], ["é", "", "é", ""]),
        ("日é"[1:] + "ab", [], ["é", "", "a", "b"]),
        # a broken character ends at what is whole by itself, and at what is excluded
        ([198, SEPARATOR_TOKEN, 198, 100], [1], ["\ufffd", BETWEEN, "\ufffd", "a"]),
        ([198, 100, 198, 172], [], ["\ufffd", "a", "é", ""]),
        ([100, 198, SEPARATOR_TOKEN, 172], [2], ["a", "\ufffd", BETWEEN, "\ufffd"]),
    ],
    ids=str,
)
def test_a_character_is_with_the_first_of_its_own_tokens(
    tokens: str | list[int], excluded: list[int], pieces: list[str]
) -> None:
    scene = Scene(SHARDS[:1])
    given_tokens = FakeSubject().tokenize([tokens])[0].tokens if isinstance(tokens, str) else tokens
    scene.add_tokens(SHARDS[0], given_tokens, "score", excluded)
    _, texts = read(scene, False, FakeSubject)
    text = texts.windows(np.array([0]), 4).item()
    assert pieces_of(text, texts.offsets(np.array([0]), 4)[0].tolist()) == pieces


def of_tokens(texts: Sequence[str], times: int = 1) -> Scene:
    """A corpus of tokens, so many contexts of each text."""
    scene = Scene(SHARDS[:1])
    for text in [*texts] * times:
        scene.add_tokens(SHARDS[0], FakeSubject().tokenize([text])[0].tokens, "score")
    return scene


@pytest.mark.parametrize("texts", [["abcab", "bcaab"], ["aéb日c", "日🎉é"]], ids=["whole", "broken"])
def test_each_token_is_decoded_once(texts: list[str]) -> None:
    once, often = Counting(), Counting()
    read(of_tokens(texts), False, lambda: once)
    read(of_tokens(texts, 50), False, lambda: often)
    assert often.decoded == once.decoded
    assert (
        sum(often.decoded.values()) < 60
    )  # each token by itself, after another one, and each row of parts of characters


def test_the_subject_is_opened_for_the_shards_alone_that_have_no_documents() -> None:
    scene, opened = packed([["abc"], ["def"]], Packing(4, BOS, SEPARATOR_TOKEN)), [FakeSubject()]
    for row in scene.of(SHARDS[1]):
        row["offsets"] = None
    contexts, texts = read(scene, True, lambda: opened.pop())
    assert not opened
    assert texts.windows(every_window(contexts, 4), 4).to_list() == ["abc", "def"]


def test_a_sample_opens_no_subject_where_there_are_documents() -> None:
    """Windows are text of the documents, not of the tokenizer."""
    scene = packed([["abé", "日cdefg"]], Packing(9, BOS, SEPARATOR_TOKEN))
    scene.firings = [Firing(SHARDS[0], 0, 2, 1.0)]
    counting = Counting()
    frame = examples_of(scene, [0], sampled(length=9), subject=counting)
    assert frame["text"].to_list() == ["abé\u2029日"]
    assert not counting.decoded
    scene.forget_documents()
    assert examples_of(scene, [0], sampled(length=9), subject=counting)["text"].to_list() == ["abé\u2029日"]
    assert counting.decoded


# the texts of tokens


class Words(FakeSubject):
    """A tokenizer of words that leaves out the space at the beginning of what it decodes."""

    words = [" the", "the", " ,", ",", " é", "\n", " 12", " "]

    def detokenize(self, tokens: Sequence[Sequence[int]]) -> list[str]:
        joined = ["".join(self.words[token] for token in each) for each in tokens]
        return [text.removeprefix(" ") for text in joined]


def test_the_space_of_a_token_is_kept_although_a_tokenizer_leaves_out_that_of_the_first() -> None:
    subject = Words()
    assert token_texts(subject, range(8)) == dict(enumerate(Words.words))
    assert token_texts(subject, [6, 2]) == {2: " ,", 6: " 12"}


def test_where_no_token_is_a_word_each_is_decoded_by_itself() -> None:
    assert token_texts(Words(), [3, 5]) == {3: ",", 5: "\n"}
    assert token_texts(Words(), []) == {}


def test_spaces_of_tokens_are_in_the_texts_of_windows() -> None:
    scene = Scene(SHARDS[:1])
    scene.add_tokens(SHARDS[0], [1, 4, 3, 0, 6], "score")
    _, texts = read(scene, False, lambda: cast(Subject, Words()))
    assert texts.windows(np.array([0, 1]), 4).to_list() == ["the é, the", " é, the 12"]
    assert texts.offsets(np.array([0, 1]), 4).tolist() == [[0, 3, 5, 6], [0, 2, 3, 7]]


@settings(deadline=None, max_examples=40)
@given(st.lists(st.integers(3, 258), min_size=1, max_size=20))
def test_the_text_of_a_token_is_what_it_decodes_to_by_itself(tokens: list[int]) -> None:
    own = {token: FakeSubject().detokenize([[token]])[0] for token in tokens}
    assert token_texts(FakeSubject(), tokens) == own


@pytest.mark.parametrize("seed", range(2))
def test_the_text_of_a_drawn_scene_is_told_alike_by_the_scene(seed: int) -> None:
    """What other tests compare with is what is compared with here."""
    scene = Scene.drawn(seed)
    contexts, texts = read(scene, True)
    starts = every_window(contexts, 4)
    flat: list[Place] = [
        scene.place(row, first, at, 4) for row, first in scene.ordered() for at in range(len(row["tokens"]) - 3)
    ]
    assert texts.windows(starts, 4).to_list() == ["".join(scene.pieces(place)) for place in flat]
    wanted = [[0, *accumulate(map(len, scene.pieces(place)))][:4] for place in flat]
    assert texts.offsets(starts, 4).tolist() == wanted
