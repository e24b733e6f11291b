"""Packing loses and reorders nothing, and splits follow from tokens alone."""

from collections import Counter
from itertools import chain
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from latentlake.corpus import Document
from latentlake.errors import InputError
from latentlake.protocols import Tokenized
from latentlake.sections.corpus import Split
from latentlake.stages.contexts import Context, Packing, assign_splits, pack, without_repeats

BOS, SEPARATOR = 1, 2
# Tokens 0 to 5: documents hold the ids of BOS and separator too.
TOKENS = st.lists(st.lists(st.integers(0, 5), max_size=20), max_size=8)
LENGTH = st.integers(8, 12)


def packed(tokens: list[list[int]], length: int, **choices: Any) -> list[Context]:
    """Documents whose text has two characters a token."""
    documents = [Document(f"document {n}", "ab" * len(each)) for n, each in enumerate(tokens)]
    tokenized = [Tokenized(each, list(range(2, 2 * len(each) + 1, 2))) for each in tokens]
    return pack(documents, tokenized, Packing(length, **{"bos": BOS, "separator": SEPARATOR, **choices}))


@settings(deadline=None, max_examples=100)
@given(TOKENS, LENGTH)
def test_nothing_is_lost_or_reordered(tokens: list[list[int]], length: int) -> None:
    contexts = packed(tokens, length)
    assert all(context.tokens[0] == BOS for context in contexts)
    assert all(len(context.tokens) == length for context in contexts[:-1])
    assert all(2 <= len(context.tokens) <= length for context in contexts)
    joined = [token for context in contexts for token in context.tokens[1:]]
    assert joined == [token for document in tokens for token in [*document, SEPARATOR]]


@settings(deadline=None, max_examples=100)
@given(TOKENS, LENGTH)
def test_excluded_are_bos_and_separators_by_position(tokens: list[list[int]], length: int) -> None:
    is_separator = [flag for document in tokens for flag in [*[False] * len(document), True]]
    for number, context in enumerate(packed(tokens, length)):
        here = is_separator[number * (length - 1) :][: length - 1]
        assert context.excluded == [0, *(place for place, flag in enumerate(here, start=1) if flag)]


@settings(deadline=None, max_examples=100)
@given(TOKENS, LENGTH)
def test_documents_are_listed_where_they_start(tokens: list[list[int]], length: int) -> None:
    owners = [n for n, document in enumerate(tokens) for _ in [*document, SEPARATOR]]
    for number, context in enumerate(packed(tokens, length)):
        here = owners[number * (length - 1) :][: length - 1]
        starts: dict[int, int] = {}
        for place, owner in enumerate(here, start=1):
            starts.setdefault(owner, place)
        wanted = [(f"document {owner}", owner, at) for owner, at in starts.items()]
        assert [(each["document"], each["number"], each["start"]) for each in context.documents] == wanted


def test_a_document_that_fills_a_context_exactly_leaves_its_separator_to_the_next() -> None:
    first, second = packed([[5] * 7], 8)
    assert (first.tokens, first.excluded) == ([BOS, *[5] * 7], [0])
    assert (second.tokens, second.excluded) == ([BOS, SEPARATOR], [0, 1])


def in_documents(contexts: list[Context], texts: list[str]) -> list[str]:
    """The text of each document, put together from what the contexts say of it."""
    found = [""] * len(texts)
    for context in contexts:
        assert context.offsets is not None
        for here, after in zip(context.documents, [*context.documents[1:], None], strict=True):
            last = after["start"] if after else len(context.tokens)
            own = [offset for offset in context.offsets[here["start"] : last] if offset >= 0]
            ends = [*own[1:], here["end_offset"]][: len(own)]
            assert all(0 <= begin <= end for begin, end in zip(own, ends, strict=True))
            found[here["number"]] += "".join(
                texts[here["number"]][begin:end] for begin, end in zip(own, ends, strict=True)
            )
    return found


@settings(deadline=None, max_examples=100)
@given(TOKENS, LENGTH, st.sampled_from(["packed", "documents"]), st.sampled_from([BOS, None]))
def test_the_text_of_every_token_is_found_in_its_document(
    tokens: list[list[int]], length: int, contexts: str, bos: int | None
) -> None:
    texts = ["ab" * len(each) for each in tokens]
    separator = SEPARATOR if contexts == "packed" else None
    found = packed(tokens, length, contexts=contexts, bos=bos, separator=separator)
    assert in_documents(found, texts) == texts
    opening = [0] if bos is not None else []
    assert all(each.excluded[: len(opening)] == opening for each in found)


@settings(deadline=None, max_examples=100)
@given(TOKENS, LENGTH)
def test_one_document_a_context(tokens: list[list[int]], length: int) -> None:
    choices = {"contexts": "documents", "separator": None}
    contexts = packed(tokens, length, **choices)
    assert all(len(each.documents) == 1 and each.excluded == [0] and len(each.tokens) <= length for each in contexts)
    joined: list[list[int]] = [[] for _ in tokens]
    for each in contexts:
        joined[each.documents[0]["number"]] += each.tokens[1:]
    assert joined == tokens
    first = [each for each in contexts if each.offsets and each.offsets[1] == 0]
    assert packed(tokens, length, long_documents="truncate", **choices) == first


def test_a_document_longer_than_a_context_is_refused_where_the_study_says_so() -> None:
    choices = {"contexts": "documents", "separator": None, "long_documents": "refuse"}
    assert len(packed([[5] * 7], 8, **choices)) == 1
    with pytest.raises(InputError, match=r"document 'document 1' has 8 tokens, and a context holds 7"):
        packed([[5], [5] * 8], 8, **choices)


def test_documents_without_text_have_no_offsets() -> None:
    pair = pack([Document("d", None, (5, 6))], [Tokenized([5, 6], None)], Packing(8, BOS, SEPARATOR))
    assert [(each.tokens, each.offsets) for each in pair] == [([BOS, 5, 6, SEPARATOR], None)]
    assert pair[0].documents == [{"document": "d", "number": 0, "start": 1, "end_offset": None}]


def test_repeats_are_left_out_but_for_the_first() -> None:
    documents = [Document("a", "x"), Document("b", "y"), Document("c", "x"), Document("d", None, (1,))]
    assert [each.name for each in without_repeats([*documents, Document("e", None, (1,))], "s")] == ["a", "b", "d"]


def test_no_documents_make_no_contexts() -> None:
    assert packed([], 8) == []
    assert assign_splits([], Split()) == []


@settings(deadline=None, max_examples=60)
@given(st.lists(st.lists(st.integers(0, 3), min_size=1, max_size=4), min_size=1, max_size=20))
def test_the_split_of_a_context_depends_on_its_tokens_alone(contexts: list[list[int]]) -> None:
    splits = assign_splits(contexts, Split())
    alone = [assign_splits([context], Split())[0] for context in contexts]
    longer = assign_splits([*contexts, [0] * 9], Split())
    assert splits == alone == longer[:-1]


@pytest.mark.parametrize("shares", [(4, 1, 5), (1, 1, 1), (1, 7, 2)])
def test_the_shares_of_the_splits_are_as_asked(shares: tuple[int, int, int]) -> None:
    contexts = np.random.default_rng(0).integers(0, 50_000, (10_000, 4)).tolist()
    explain, select, score = shares
    counts = Counter(assign_splits(contexts, Split(explain=explain, select=select, score=score)))
    for split, parts in zip(("explain", "select", "score"), shares, strict=True):
        share = parts / sum(shares)
        # Five standard deviations of a binomial count.
        assert abs(counts[split] / 10_000 - share) < 5 * (share * (1 - share) / 10_000) ** 0.5


@settings(deadline=None, max_examples=40)
@given(TOKENS, LENGTH)
def test_repeated_documents_in_step_get_the_same_splits(tokens: list[list[int]], length: int) -> None:
    # Padded to whole contexts, so that the second copy is cut where the first was.
    size = sum(len(document) + 1 for document in tokens)
    padding = [[0] * ((-size - 1) % (length - 1))]
    once = [context.tokens for context in packed([*tokens, *padding], length)]
    twice = [context.tokens for context in packed(list(chain(tokens, padding, tokens, padding)), length)]
    assert twice == [*once, *once]
    splits = assign_splits(twice, Split())
    assert splits[: len(once)] == splits[len(once) :]
