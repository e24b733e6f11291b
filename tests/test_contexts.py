"""Packing loses and reorders nothing, and splits follow from tokens alone."""

from collections import Counter
from itertools import chain
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from latentlake.corpus import Document
from latentlake.stages.contexts import Context, assign_splits, pack
from latentlake.study import Split

BOS, SEPARATOR = 1, 2
# Tokens 0 to 5: documents hold the ids of BOS and separator too.
TOKENS = st.lists(st.lists(st.integers(0, 5), max_size=20), max_size=8)
LENGTH = st.integers(8, 12)


def packed(tokens: list[list[int]], length: int) -> list[Context]:
    documents = [Document(f"document {n}", "text") for n in range(len(tokens))]
    return pack(documents, tokens, length, BOS, SEPARATOR)


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
        wanted: list[dict[str, Any]] = [{"document": f"document {owner}", "start": at} for owner, at in starts.items()]
        assert context.documents == wanted


def test_a_document_that_fills_a_context_exactly_leaves_its_separator_to_the_next() -> None:
    first, second = packed([[5] * 7], 8)
    assert (first.tokens, first.excluded) == ([BOS, *[5] * 7], [0])
    assert (second.tokens, second.excluded) == ([BOS, SEPARATOR], [0, 1])


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
