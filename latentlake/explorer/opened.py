"""Which view is shown, and what was read of it: of one process one, for all its sessions."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache, wraps
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, TypeVar

if TYPE_CHECKING:
    from latentlake.view import View

_MOST = 256  # answers that are kept of each function; each is a page or less
_shown: list[View] = []

P, R = ParamSpec("P"), TypeVar("R")
Reader = Callable[Concatenate["View", P], R]


def show(view: View) -> None:
    """From now on this is the view."""
    _shown[:] = [view]


def shown() -> View:
    """The view that is shown."""
    return _shown[0]


def remembered(*tables: str) -> Callable[[Reader[P, R]], Reader[P, R]]:
    """A function of a view that is called once for the same arguments, as long as nothing is written to some tables: nothing is
    published before ``partitions`` says so."""

    def remember(function: Reader[P, R]) -> Reader[P, R]:
        @lru_cache(maxsize=_MOST)
        def answer(versions: tuple[int | None, ...], view: View, arguments: Any, named: Any) -> R:
            return function(view, *arguments, **dict(named))

        @wraps(function)
        def asked(view: View, *arguments: P.args, **named: P.kwargs) -> R:
            versions = tuple(view.lake.version(table) for table in tables)
            return answer(versions, view, arguments, tuple(named.items()))

        return asked

    return remember


published = remembered("partitions", "studies")
paid = remembered("partitions", "studies", "calls")
