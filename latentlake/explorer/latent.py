"""A latent's page, and which latents come before and after it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import polars as pl

from latentlake.errors import LakeError
from latentlake.explorer.address import link, number, require
from latentlake.explorer.opened import published
from latentlake.pages.latent import latent_html
from latentlake.reading.results import choices_of
from latentlake.reading.trace import traces

if TYPE_CHECKING:
    from latentlake.reading.view import View


@dataclass(frozen=True)
class Around:
    """The chosen latents around one: the one ``before`` and ``after`` it, None at the ends; it is the ``place``-th of ``many``,
    from 1, None where it was not chosen itself. ``every``: all of them, sorted."""

    before: int | None
    after: int | None
    place: int | None
    many: int
    every: np.ndarray


@published
def chosen(view: View, dictionary: str) -> np.ndarray:
    """The chosen latents of a dictionary, sorted."""
    rows = view.latents.filter(pl.col("is_chosen"), dictionary=dictionary).select("latent")
    return rows.collect(engine="streaming")["latent"].sort().to_numpy()


def around(view: View, dictionary: str, latent: int) -> Around:
    """The chosen latents around one."""
    every = chosen(view, dictionary)
    first, last = (int(np.searchsorted(every, latent, side)) for side in ("left", "right"))
    return Around(
        before=int(every[first - 1]) if first else None,
        after=int(every[last]) if last < len(every) else None,
        place=first + 1 if first < last else None,
        many=len(every),
        every=every,
    )


def asked(view: View, dictionary: str, latent: str) -> tuple[str, int]:
    """The dictionary and latent that an address names; where it names none, the first that was chosen.

    Raises:
        LakeError: there is no such dictionary, or this is no number.
    """
    known = list(choices_of(view)["dictionaries"])
    dictionary = dictionary or known[0]
    require("dictionary", dictionary, known)
    if latent:
        return dictionary, int(number("latent", latent))
    every = chosen(view, dictionary)
    return dictionary, int(every[0]) if len(every) else 0


def jump(view: View, said: str) -> tuple[str, int]:
    """The dictionary and latent of ``layer9 17``, ``layer9/17`` or ``17``.

    Raises:
        LakeError: this is neither.
    """
    parts = said.replace("/", " ").split()
    if not 1 <= len(parts) <= 2:
        raise LakeError(
            f"{said!r} is no latent; write a dictionary and a number, like {next(iter(choices_of(view)['dictionaries']))} 17"
        )
    return asked(view, parts[0] if len(parts) == 2 else "", parts[-1])


@published
def article(view: View, dictionary: str, latent: int) -> str:
    """A latent as HTML.

    Raises:
        LakeError: the dictionary is not published, or has no such latent.
    """
    (found,) = traces(view, dictionary, [latent])
    return latent_html(found, link=lambda dictionary, latent: link("latent", dictionary=dictionary, latent=latent))
