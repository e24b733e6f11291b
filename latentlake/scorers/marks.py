"""Windows with marked tokens: those on which the latent fires, or as many others, in places that tell nothing.

Wrong marks are copied from a window in which the latent fires, so that neither their number nor their positions tell anything.
Windows are rows of the table ``examples``.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from latentlake.digest import seed_of
from latentlake.marking import mark, pieces_of

COLUMNS = ("shard", "context", "start", "text", "offsets", "activations")  # of a window, that are read here


def active(row: Mapping[str, Any], above: float) -> list[int]:
    """Tokens to be marked in a window in which the latent fires: those that can be seen, from a share of its strongest."""
    threshold = above * max(row["activations"])
    pieces = pieces_of(row["text"], row["offsets"])
    return [n for n, each in enumerate(row["activations"]) if each >= threshold and pieces[n].strip()]


def moved(row: Mapping[str, Any], places: Sequence[int]) -> list[int]:
    """Places for as many marks, where possible the same: on tokens that can be seen, and on which the latent does not fire. A
    mark that cannot stand where it should goes to the nearest token where it can; to which side first, a hash of the window says.
    """
    pieces = pieces_of(row["text"], row["offsets"])
    free = {n for n, piece in enumerate(pieces) if piece.strip() and row["activations"][n] <= 0}
    side = 1 if seed_of("side", row["shard"], row["context"], row["start"]) % np.uint64(2) else -1
    taken: list[int] = []
    for place in places:
        steps = (place + sign * step for step in range(len(pieces)) for sign in (side, -side))
        found = next((each for each in steps if each in free), None)
        if found is not None:
            free.remove(found)
            taken.append(found)
    return taken


def with_marks(row: Mapping[str, Any], places: Sequence[int]) -> str:
    """A window's text with the tokens at some places marked."""
    pieces, marked = pieces_of(row["text"], row["offsets"]), set(places)
    return mark(pieces, [float(n in marked) for n in range(len(pieces))], 0.5, "<<", ">>")
