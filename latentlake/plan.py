"""The plan: which partitions a run would compute, and why. The one mechanism of incremental work.

A partition's recipe is the digest of its stage's code version and of the data versions of its inputs. A partition is
up to date when it is published under the recipe that holds now and no model call is left to retry.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum

from latentlake.catalog import Catalog, Consumed, Publication, Publications
from latentlake.digest import digest
from latentlake.errors import LakeError
from latentlake.flow import Flow, Stage
from latentlake.origins import Origins


class State(StrEnum):
    """What a run would do with a partition."""

    FRESH = "up to date"
    STALE = "to compute"
    WAITING = "depends on what is computed before"


@dataclass(frozen=True)
class Recipe:
    """What a partition would be made from now."""

    digest: str
    code_version: str
    inputs: tuple[Consumed, ...]


@dataclass(frozen=True)
class Planned:
    """A partition, what a run would do with it, and why."""

    stage: Stage
    partition: str
    state: State
    reason: str | None


class Plan:
    """Compares the recipes that hold now with the ones in the lake; takes one snapshot of the lake when made."""

    def __init__(self, flow: Flow, origins: Origins, catalog: Catalog) -> None:
        self._flow = flow
        self._origins = origins
        self.publications: Publications = catalog.publications()
        self.shards = catalog.order(list(origins.shards))

    def recipe(self, stage: Stage, key: str) -> Recipe:
        """The recipe of a partition, from what is published.

        Raises:
            LakeError: an input is not published.
        """
        inputs = tuple(self._consumed(stage, key))
        outside = self._origins.digest_of(stage.kind, stage.values(key))
        consumed = [[each.asset, each.partition, each.data_version] for each in inputs]
        return Recipe(digest([stage.name, key, stage.code_version, outside, consumed]), stage.code_version, inputs)

    def is_fresh(self, recipe: Recipe, published: Publication | None) -> bool:
        """Whether a partition needs no computing."""
        return (
            published is not None
            and published.is_published
            and published.recipe == recipe.digest
            and not published.retryable_failures
        )

    def of(self, stage: Stage) -> list[Planned]:
        """All partitions of a stage whose inputs are taken to be up to date."""
        return [self._planned(stage, key) for key in self._flow.partitions(stage, self.shards)]

    def all(self) -> list[Planned]:
        """All partitions of the flow; the ones below a partition to compute are waiting for what comes out of it."""
        states: dict[tuple[str, str], State] = {}
        planned: list[Planned] = []
        for stage in self._flow.stages.values():
            for key in self._flow.partitions(stage, self.shards):
                above = next((each for each in self._upstream(stage, key) if states[each] != State.FRESH), None)
                if above is None:
                    found = self._planned(stage, key)
                else:
                    found = Planned(stage, key, State.WAITING, f"{_name(*above)} is not up to date")
                states[stage.name, key] = found.state
                planned.append(found)
        return planned

    def orphans(self) -> list[tuple[str, str]]:
        """Published partitions that the present study does not have."""
        present = {
            (stage.name, key)
            for stage in self._flow.stages.values()
            for key in self._flow.partitions(stage, self.shards)
        }
        return [each for each, row in self.publications.items() if row.is_published and each not in present]

    def _planned(self, stage: Stage, key: str) -> Planned:
        recipe, published = self.recipe(stage, key), self.publications.get((stage.name, key))
        if self.is_fresh(recipe, published):
            return Planned(stage, key, State.FRESH, None)
        return Planned(stage, key, State.STALE, _reason(recipe, published))

    def _consumed(self, stage: Stage, key: str) -> Iterator[Consumed]:
        for asset, partition in self._upstream(stage, key):
            published = self.publications.get((asset, partition))
            if published is None or not published.is_published or published.data_version is None:
                raise LakeError(
                    f"{_name(stage.name, key)} needs {_name(asset, partition)}, which is not in the lake; materialize it "
                    "first (`make run` materializes everything in order)"
                )
            yield Consumed(asset, partition, published.data_version)

    def _upstream(self, stage: Stage, key: str) -> Iterator[tuple[str, str]]:
        for source in stage.inputs:
            for partition in self._flow.upstream(stage, key, source, self.shards):
                yield source.stage, partition


def product_ranges(stage: Stage, keys: Sequence[str], order: Sequence[Sequence[str]]) -> list[tuple[str, str]]:
    """Cover partitions by ranges (first and last key), each a product of contiguous ranges along the dimensions.

    ``order``: the keys of each of the stage's dimensions, in order. Partitions are covered exactly once and no other
    partition is covered; neighbours along the first dimension that need the same range of the second share one.
    """
    if not stage.dimensions:
        return [(key, key) for key in keys]
    wanted = {tuple(stage.values(key)[d] for d in stage.dimensions) for key in keys}
    if len(stage.dimensions) == 1:
        spans = _spans([(each,) in wanted for each in order[0]])
        return [(order[0][first], order[0][last]) for first, last in spans]
    rows = [tuple(_spans([(a, b) in wanted for b in order[1]])) for a in order[0]]
    ranges = []
    for first, last in _runs(rows):
        for low, high in rows[first]:
            corners = ((order[0][first], order[1][low]), (order[0][last], order[1][high]))
            start, end = (stage.key(dict(zip(stage.dimensions, corner, strict=True))) for corner in corners)
            ranges.append((start, end))
    return ranges


def _spans(flags: list[bool]) -> list[tuple[int, int]]:
    """First and last index of each run of true flags."""
    starts = [i for i, flag in enumerate(flags) if flag and (i == 0 or not flags[i - 1])]
    ends = [i for i, flag in enumerate(flags) if flag and (i + 1 == len(flags) or not flags[i + 1])]
    return list(zip(starts, ends, strict=True))


def _runs(rows: list[tuple[tuple[int, int], ...]]) -> list[tuple[int, int]]:
    """First and last index of each run of equal rows that are not empty."""
    starts = [i for i, row in enumerate(rows) if row and (i == 0 or rows[i - 1] != row)]
    ends = [i for i, row in enumerate(rows) if row and (i + 1 == len(rows) or rows[i + 1] != row)]
    return list(zip(starts, ends, strict=True))


def _name(asset: str, partition: str) -> str:
    return f"{asset}[{partition}]" if partition else asset


def _reason(recipe: Recipe, published: Publication | None) -> str:
    """Why a partition is to be computed."""
    if published is None:
        return "not computed yet"
    if not published.is_published:
        return "was begun and not finished"
    if published.code_version != recipe.code_version:
        return f"code version {published.code_version} → {recipe.code_version}"
    before = {(each.asset, each.partition): each.data_version for each in published.inputs}
    now = {(each.asset, each.partition): each.data_version for each in recipe.inputs}
    for each in sorted(now.keys() | before.keys()):
        if before.get(each) != now.get(each):
            return f"input {_name(*each)}: {before.get(each, 'none')} → {now.get(each, 'none')}"
    if published.retryable_failures and published.recipe == recipe.digest:
        return f"{published.retryable_failures} failed calls to make again"
    return "what it is made from, outside the lake, has changed"
