"""Publishing one partition beside the computing of the next: same results, same order, and nothing computed is lost."""

import threading
from collections.abc import Callable, Iterator

import pytest

from latentlake.execute import one_behind


def numbered(n: int, done: list[int], fails_at: int | None = None) -> Iterator[Callable[[], int]]:
    """Things to be made, by number; ``done`` gets what is made. Computing one of them may fail."""

    def make(number: int) -> int:
        done.append(number)
        return number

    for number in range(n):
        if number == fails_at:
            raise ValueError("computing failed")
        yield lambda number=number: make(number)


def test_results_come_in_order_and_each_once() -> None:
    done: list[int] = []
    assert list(one_behind(numbered(5, done))) == list(range(5))
    assert done == list(range(5))
    assert list(one_behind(iter(()))) == []


def test_one_is_made_while_the_next_is_computed() -> None:
    is_computing, is_made = threading.Event(), threading.Event()

    def first() -> str:
        assert is_computing.wait(10)
        is_made.set()
        return "first"

    def computed() -> Iterator[Callable[[], str]]:
        yield first
        is_computing.set()
        assert is_made.wait(10)  # would never come if it were made only after this
        yield lambda: "second"

    assert list(one_behind(computed())) == ["first", "second"]


def test_where_computing_fails_what_was_computed_is_made_and_given() -> None:
    done: list[int] = []
    given = []
    with pytest.raises(ValueError, match="computing failed"):
        for each in one_behind(numbered(5, done, fails_at=3)):
            given.append(each)
    assert given == done == [0, 1, 2]


def test_where_making_fails_nothing_later_hides_it() -> None:
    def fails() -> int:
        raise ValueError("making failed")

    with pytest.raises(ValueError, match="making failed"):
        list(one_behind(iter([lambda: 1, fails, lambda: 2, lambda: 3])))
