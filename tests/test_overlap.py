"""Computing the next partition while one is published: same results, same order, and nothing computed is lost."""

import threading
from collections.abc import Iterator

import pytest

from latentlake.execute import ahead


def numbered(n: int, fails_at: int | None = None) -> Iterator[str]:
    """Things to be computed, one of which may fail."""
    for number in range(n):
        if number == fails_at:
            raise ValueError("computing failed")
        yield f"item {number}"


def test_items_come_in_order_and_each_once() -> None:
    assert list(ahead(numbered(5))) == list(numbered(5))
    assert list(ahead(iter(()))) == []


def test_the_next_is_computed_while_one_is_in_use() -> None:
    is_in_use, is_computed = threading.Event(), threading.Event()

    def computed() -> Iterator[str]:
        yield "first"
        assert is_in_use.wait(10)  # would never come if this were computed before the first is given
        is_computed.set()
        yield "second"

    used = []
    for item in ahead(computed()):
        used.append(item)
        is_in_use.set()
        assert is_computed.wait(10)  # would never come if it were computed only when it is asked for
    assert used == ["first", "second"]


def test_no_more_than_one_is_computed_ahead() -> None:
    computed = []

    def counted() -> Iterator[str]:
        for item in numbered(9):
            computed.append(item)
            yield item

    for used, _ in enumerate(ahead(counted()), start=1):
        assert len(computed) <= used + 1


def test_where_computing_fails_what_was_computed_before_is_given() -> None:
    given = []
    with pytest.raises(ValueError, match="computing failed"):
        for each in ahead(numbered(5, fails_at=3)):
            given.append(each)
    assert given == ["item 0", "item 1", "item 2"]


def test_where_using_fails_no_more_is_computed() -> None:
    computed: list[str] = []

    def counted() -> Iterator[str]:
        for item in numbered(100):
            computed.append(item)
            yield item

    with pytest.raises(KeyError):
        for each in ahead(counted()):
            raise KeyError(each)
    assert len(computed) <= 2
