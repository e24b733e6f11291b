"""What is looked at, as it stands in the address: every page is a link that can be sent."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal, get_args
from urllib.parse import parse_qsl, urlencode

from latentlake.errors import LakeError, nearest

Page = Literal["overview", "latents", "latent"]
Which = Literal["explained", "failed", "chosen", "left out", "all"]
Order = Literal["nearest", "best", "worst", "often", "seldom", "strong", "latent"]
PAGES: tuple[Page, ...] = get_args(Page)
WHICH: tuple[Which, ...] = get_args(Which)
ORDERS: tuple[Order, ...] = get_args(Order)
SHOWN = 50  # latents on a page of hits
_LAST = 2**31 - 1  # no latent has a larger number


@dataclass(frozen=True)
class Asked:
    """What is searched for. An empty word is any; ``low`` and ``high`` bound the score by ``scorer``; ``first``: number of the
    first latent that is shown, from 0."""

    words: str = ""
    by: str = "words"
    dictionary: str = ""
    explainer: str = ""
    triage: str = ""
    scorer: str = ""
    low: float | None = None
    high: float | None = None
    which: Which = "all"
    order: Order = "latent"
    first: int = 0


def asked_of(given: Mapping[str, str], known: Mapping[str, Iterable[str]], usual: Asked) -> Asked:
    """What an address searches for. ``known``: what may stand in a place; ``usual``: what holds where it says nothing.

    Raises:
        LakeError: it names something that is not there, or a number that is none.
    """
    for name, values in {**known, "which": WHICH, "order": ORDERS}.items():
        if given.get(name):
            require(name, given[name], values)
    numbers = {name: number(name, given[name]) for name in ("low", "high", "first") if given.get(name)}
    texts = {name: given[name] for name in ("words", *known, "which", "order") if given.get(name)}
    first = min(max(0, int(numbers.pop("first", usual.first))), _LAST)
    return Asked(**{**vars(usual), **texts, **numbers, "first": first})


def require(name: str, value: str, known: Iterable[str]) -> None:
    """Refuse what is not known.

    Raises:
        LakeError: it is not.
    """
    there = list(known)
    if value not in there:
        raise LakeError(f"the address names the {name} {value!r}, which is not there{nearest(value, there)}")


def number(name: str, value: str) -> float:
    """A number of an address.

    Raises:
        LakeError: it is none.
    """
    try:
        found = float(value)
        int(found)  # no NaN, and not without end
    except (ValueError, OverflowError) as error:
        raise LakeError(f"the address says {name}={value!r}, which must be a number") from error
    return found


def link(page: Page, given: Mapping[str, object] | None = None, **more: object) -> str:
    """A page's address: what it says beside the page, but for what is empty."""
    said = {**(given or {}), **more, "page": page}
    return "?" + urlencode({name: value for name, value in said.items() if value not in ("", None)})


def said(address: str) -> dict[str, str]:
    """What an address says; of what it says twice, the last."""
    return dict(parse_qsl(address.partition("#")[0].removeprefix("?")))
