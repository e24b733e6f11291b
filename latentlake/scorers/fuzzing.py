"""Fuzzing scoring: a language model says of each window whether the tokens marked in it fit the explanation.

Right answers are yes where the marks stand on the tokens on which the latent fires, and no where they stand on others: of windows
in which it does not fire, or, harder, of windows in which it fires elsewhere. Such marks are copied from a window in which the
latent fires, each of them once, so that neither their number nor their positions tell anything.
"""

from collections.abc import Iterator, Sequence
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
import polars as pl
from pydantic import Field

from latentlake.digest import mix, seed_of
from latentlake.registry import SCORERS
from latentlake.scorers import SHOWN
from latentlake.scorers.labelling import Labelling
from latentlake.scorers.marks import active, moved, with_marks
from latentlake.sources import MILLIONS, Source

WRONG_TOKENS = "wrong_tokens"  # as a source of windows to which no is the right answer


@SCORERS.register("fuzzing")
class Fuzzing(Labelling):
    """``negatives``: where marks are wrong: in windows in which the latent does not fire (``non_activating``), in ``windows``
    more in which it does, on other tokens (``wrong_tokens``), or in both. ``marked_above``: tokens are marked from this share of
    the window's strongest activation.
    """

    version: ClassVar[str] = "1"
    source: ClassVar[Source | None] = MILLIONS
    method: Literal["fuzzing"]
    negatives: tuple[Literal["non_activating", "wrong_tokens"], ...] = Field(("non_activating",), min_length=1)
    marked_above: Annotated[float, Field(gt=0, le=1)] = 0.3

    @property
    def most_calls(self) -> int:
        """One for so many windows, of each kind, and each explanation."""
        return self._calls(1 + len(set(self.negatives)))

    @property
    def needs_negatives(self) -> bool:
        """Not where only tokens are wrong."""
        return "non_activating" in self.negatives

    @property
    def needs(self) -> int:
        """As many again where tokens are wrong."""
        return self.windows * (2 if WRONG_TOKENS in self.negatives else 1)

    def shown(self, windows: pl.LazyFrame) -> pl.DataFrame:
        """Windows with marks."""
        columns = [*SHOWN, "offsets", "activations"]
        drawn = (
            windows.filter(pl.col("rank") < self.needs)
            .select(columns)
            .sort("latent", "is_activating", "rank")
            .collect()
        )
        groups = drawn.partition_by("latent", maintain_order=True)
        rows = [row for group in groups for row in self._marked(group.to_dicts())]
        return pl.DataFrame(rows, schema={name: drawn.schema[name] for name in SHOWN})

    def _marked(self, rows: Sequence[dict[str, Any]]) -> Iterator[dict[str, Any]]:
        """The windows of one latent. One in which it fires on nothing that can be seen (spaces, parts of characters) is left out:
        nobody could say of it whether the marks are right.
        """
        firing = [row for row in rows if row["is_activating"] and row["rank"] < self.windows]
        own = [row for row in firing if active(row, self.marked_above)]
        others = [row for row in rows if not row["is_activating"] and row["rank"] < self.windows]
        wrong = [row for row in rows if row["is_activating"] and row["rank"] >= self.windows]
        right = [active(row, self.marked_above) for row in own]
        for row, places in zip(own, right, strict=True):
            yield _told(row, text=with_marks(row, places))
        if not own:  # there is nothing to copy marks from
            return
        negatives = {"non_activating": others, WRONG_TOKENS: wrong}
        for kind in dict.fromkeys(self.negatives):
            for row, donor in zip(negatives[kind], _donors(negatives[kind], len(own)), strict=True):
                text = with_marks(row, moved(row, right[donor]))
                told = {"is_activating": False, "source": WRONG_TOKENS, "decile": None} if kind == WRONG_TOKENS else {}
                yield _told(row, text=text, **told)


def _told(row: dict[str, Any], **changes: Any) -> dict[str, Any]:
    """What is kept of a window: not its tokens, of which a block has too many."""
    return {name: row[name] for name in SHOWN} | changes


def _donors(rows: Sequence[dict[str, Any]], donors: int) -> list[int]:
    """For each window another whose marks it takes, each as often as any other: drawn by the places of windows in the sample,
    not by their texts, so that a window that is replaced changes no other's marks but the one's that took its own.
    """
    if not rows:
        return []
    order = np.argsort(mix(np.arange(donors), seed_of("donors", rows[0]["latent"], rows[0]["is_activating"])))
    return [int(order[row["rank"] % donors]) for row in rows]
