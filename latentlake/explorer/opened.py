"""Which view is shown, and what was read of it: of one process one, for all its sessions."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache, wraps
from threading import Lock
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, TypeVar

from latentlake.reading.view import View

if TYPE_CHECKING:
    from latentlake.protocols import Embedder

_MOST = 256  # answers that are kept of each function; each is a page or less
_shown: list[tuple[View, Callable[[], Embedder]]] = []

P = ParamSpec("P")
R = TypeVar("R")
Reader = Callable[Concatenate["View", P], R]


def show(view: View, embedder: Callable[[], Embedder]) -> None:
    """From now on this is the view. ``embedder``: opens what finds explanations by meaning, when it is first asked for."""
    _shown[:] = [(view, embedder)]


def shown() -> View:
    """The view that is shown."""
    return _shown[0][0]


def embedder() -> Embedder:
    """What finds explanations of the view by meaning.

    Raises:
        LakeError: the study has no search by meaning, or its vectors are others'.
    """
    return _shown[0][1]()


def remembered(*tables: str) -> Callable[[Reader[P, R]], Reader[P, R]]:
    """A function of a view that is called once for the same arguments, as long as nothing is written to some tables: nothing is
    published before ``partitions`` says so. Who asks while another's answer is on its way waits for that."""

    def remember(function: Reader[P, R]) -> Reader[P, R]:
        one = Lock()

        @lru_cache(maxsize=_MOST)
        def answer(states: tuple[object, ...], view: View, arguments: Any, named: Any) -> R:
            return function(view, *arguments, **dict(named))

        @wraps(function)
        def asked(view: View, /, *arguments: P.args, **named: P.kwargs) -> R:
            states = tuple(view.lake.state(table) for table in tables)
            with one:
                found: R = answer(states, view, arguments, tuple(named.items()))
            return found

        return asked

    return remember


published = remembered("partitions", "studies")
paid = remembered("partitions", "studies", "calls")
