"""Which view is shown: of one process one, for all its sessions."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from latentlake.view import View

_shown: list[View] = []


def show(view: View) -> None:
    """From now on this is the view."""
    _shown[:] = [view]


def shown() -> View:
    """The view that is shown."""
    return _shown[0]
