"""What a form is given to write: the results of some dictionaries and explainers, a part at a time."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import polars as pl

from latentlake.reading.results import Results
from latentlake.scorers import NONE
from latentlake.tables import TABLES
from latentlake.work import block_range

T = TypeVar("T")
_LATENTS = 1024  # in a part: with a hundred windows of 32 tokens each some 100 MB are held


@dataclass(frozen=True)
class Given:
    """``dictionaries``: rows of the table. ``explainers``: those whose explanations are written. ``model``: what the subject is
    called where the results go. ``licence``: under which they are shared. ``provenance``: what they were made from.
    ``watch``: shows how far an iteration is.
    """

    results: Results
    choices: Mapping[str, Any]
    dictionaries: Sequence[Mapping[str, Any]]
    explainers: Sequence[str]
    model: str
    licence: str
    provenance: Mapping[str, Any]
    watch: Callable[[Iterable[T]], Iterable[T]]

    def parts(self) -> "Iterator[Part]":
        """All latents of all dictionaries, in order, some at a time."""
        yield from self.watch(
            [
                Part(self, dictionary, block, range(first, min(first + _LATENTS, latents.stop)))
                for dictionary in self.dictionaries
                for block in range(self.choices["blocks"])
                for latents in [block_range(block, self.choices["blocks"], dictionary["width"])]
                for first in range(latents.start, latents.stop, _LATENTS)
            ]
        )

    def llm_of(self, section: str, method: str) -> str | None:
        """What the model is called that a method asks or embeds with; None where it asks none."""
        choice = self.choices[section][method]
        names = [choice.get(key) for key in ("llm", "embedder") if choice.get(key)]
        return short(self.choices["llms"][names[0]]["model"]) if names else None


@dataclass(frozen=True)
class Part:
    """Some consecutive latents of one block of a dictionary, a row of its table."""

    given: Given
    dictionary: Mapping[str, Any]
    block: int
    latents: range

    @property
    def name(self) -> str:
        """The dictionary's name."""
        return str(self.dictionary["dictionary"])

    def rows(self, table: str, *order: str) -> pl.DataFrame:
        """The latents' rows of a table, of the explainers that are asked for and of none; by latent and ``order``."""
        columns = TABLES[table].partition_by
        own: list[Any] = [pl.col("latent").is_between(self.latents.start, self.latents.stop - 1)]
        if "explainer" in columns:
            own.append(pl.col("explainer").is_in([*self.given.explainers, NONE]))
        if "block" in columns:
            own.append(pl.col("block") == self.block)
        found: pl.LazyFrame = getattr(self.given.results, table).filter(*own, dictionary=self.name)
        return found.sort("latent", *order, nulls_last=False).collect()


def short(reference: str) -> str:
    """What a model is called, without its owner and folders."""
    return reference.rstrip("/").rsplit("/", 1)[-1]


def by_latent(rows: pl.DataFrame) -> dict[int, list[dict[str, Any]]]:
    """Rows of each latent, in their order."""
    found: dict[int, list[dict[str, Any]]] = {}
    for row in rows.iter_rows(named=True):
        found.setdefault(row["latent"], []).append(row)
    return found
