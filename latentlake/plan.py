"""The plan: which partitions a run would compute, and why. The one mechanism of incremental work.

A partition's recipe is the digest of its stage's code version and of the data versions of its inputs. A partition is
up to date when it is published under the recipe that holds now and no model call is left to retry.
"""

from collections.abc import Iterator, Sequence
from enum import StrEnum
from functools import cached_property
from typing import NamedTuple

import polars as pl

from latentlake.catalog import (
    BUILDING,
    DROPPED,
    PUBLISHED,
    Catalog,
    Consumed,
    Key,
    Publication,
    Publications,
    publications_of,
)
from latentlake.digest import digest, text_digest
from latentlake.errors import LakeError
from latentlake.flow import Flow, Input, Stage
from latentlake.origins import OUTSIDE_KINDS, Origins

OUTSIDE = "files outside the lake"
NOT_READ = ""  # in the place of an input's version, or of files', for a partition that does not read them


class State(StrEnum):
    """What a run would do with a partition."""

    FRESH = "up to date"
    STALE = "to compute"
    WAITING = "depends on what is computed before"


class Recipe(NamedTuple):
    """What a partition would be made from now."""

    digest: str
    code_version: str
    inputs: tuple[Consumed, ...]


class Planned(NamedTuple):
    """A partition and what a run would do with it. ``above``: the first input that is not up to date, if any."""

    stage: Stage
    partition: str
    state: State
    above: str | None = None

    @property
    def key(self) -> Key:
        """Asset and partition."""
        return self.stage.name, self.partition


class Plan:
    """Compares the recipes that hold now with the ones in the lake; takes one snapshot of the lake when made.

    ``retries``: whether a partition with failed calls that may succeed later is to be computed.
    """

    def __init__(self, flow: Flow, origins: Origins, catalog: Catalog, retries: bool = True) -> None:
        self._retries = retries
        self._flow = flow
        self._origins = origins
        self._catalog = catalog
        self._latest = catalog.snapshot()
        self._damaged = catalog.damaged(self._latest)
        self.shards = catalog.order(list(origins.shards))
        self._dropped = set(self._latest.filter(state=DROPPED).select("asset", "partition").iter_rows())
        self._published, self._offers = self._read()

    @cached_property
    def publications(self) -> Publications:
        """The latest row of each partition."""
        return publications_of(self._latest)

    def _read(self) -> tuple["Versions", "Versions"]:
        """By stage and partition, the data versions of what is published, and the recipes under which a partition would be
        up to date: of those without failures to retry. Column by column, for speed."""
        published: Versions = {name: {} for name in self._flow.stages}
        offers: Versions = {name: {} for name in self._flow.stages}
        is_known = pl.col("state").is_in([PUBLISHED, DROPPED])
        rows = self._latest.filter(pl.col("asset").is_in(list(published)) & is_known)
        for (asset,), own in rows.partition_by("asset", as_dict=True).items():
            published[asset] = dict(zip(own["partition"].to_list(), own["data_version"].to_list(), strict=True))
            whole = own.filter(retryable_failures=0) if self._retries else own
            offers[asset] = dict(zip(whole["partition"].to_list(), whole["recipe"].to_list(), strict=True))
        for asset, partition in self._damaged:
            offers.get(asset, {}).pop(partition, None)
        return published, offers

    def recipe(self, stage: Stage, key: str) -> Recipe:
        """The recipe of a partition, from what is published.

        Raises:
            LakeError: an input is not published.
        """
        values = stage.values(key)
        ordered, consumed = tuple(values[each] for each in stage.dimensions), []
        for wire in self._wires(stage, self._published):
            version = wire.version(key, ordered)
            if version == NOT_READ:
                continue
            if version is None:
                raise LakeError(
                    f"{name_of(stage.name, key)} needs {wire.missing(ordered)}, which is not in the lake; materialize it first "
                    "(`make run` materializes everything in order)"
                )
            consumed.append(Consumed(wire.stage, wire.partition(ordered), version))
        outside = self._origins.digest_of(stage.kind, {**stage.constants, **values})
        if outside is not None:
            consumed.append(Consumed(OUTSIDE, None, outside))
        return Recipe(
            _digest(stage, key, [each.data_version for each in consumed]), stage.code_version, tuple(consumed)
        )

    def is_fresh(self, stage: Stage, key: str, recipe: Recipe) -> bool:
        """Whether a partition needs no computing when it is asked for, ``recipe`` being the one that holds now."""
        return self._offers[stage.name].get(key) == recipe.digest and (stage.name, key) not in self._dropped

    def of(self, stage: Stage) -> list[Planned]:
        """All partitions of a stage, its inputs being taken as they are published, up to date or not."""
        return self._with_dropped(list(self._walk(stage, self._published)))

    @cached_property
    def all(self) -> list[Planned]:
        """All partitions of the flow; the ones below a partition to compute are waiting for what comes out of it."""
        return self._with_dropped(self._by_recipes)

    def dropped_inputs(self, stage: Stage, key: str) -> list[Key]:
        """Partitions that one reads whose rows were dropped."""
        if not self._dropped:
            return []
        read = [
            (each.stage, above) for each in stage.inputs for above in self._flow.upstream(stage, key, each, self.shards)
        ]
        return [each for each in read if each in self._dropped]

    def _with_dropped(self, planned: list[Planned]) -> list[Planned]:
        """Dropped rows that something needs are to be derived again, and it waits for them; others make nothing stale."""
        return [self._heeding_dropped(each) for each in planned] if self._dropped else planned

    def _heeding_dropped(self, planned: Planned) -> Planned:
        if planned.state is State.FRESH and planned.key in self._needed:
            return planned._replace(state=State.STALE)
        dropped = self.dropped_inputs(planned.stage, planned.partition) if planned.state is State.STALE else []
        return planned._replace(state=State.WAITING, above=name_of(*dropped[0])) if dropped else planned

    @cached_property
    def _needed(self) -> set[Key]:
        """Dropped partitions that are read by one that is not up to date."""
        if not self._dropped:
            return set()
        wanted = [each for each in self._by_recipes if each.state is not State.FRESH]
        return {key for each in wanted for key in self.dropped_inputs(each.stage, each.partition)}

    @cached_property
    def _by_recipes(self) -> list[Planned]:
        """All partitions of the flow, by their recipes alone."""
        fresh: Versions = {}
        planned: list[Planned] = []
        for stage in self._flow.stages.values():
            own = list(self._walk(stage, fresh))
            published = self._published[stage.name]
            fresh[stage.name] = {each.partition: published[each.partition] for each in own if each.state is State.FRESH}
            planned += own
        return planned

    def count(self, stage: Stage) -> int:
        """Published partitions of a stage."""
        return len(self._published[stage.name])

    @cached_property
    def orphans(self) -> list[Key]:
        """Published partitions that the present study does not have."""
        present = {each.key for each in self.all}
        rows = self._latest.filter(pl.col("state").is_in([PUBLISHED, DROPPED])).select("asset", "partition")
        return [each for each in rows.iter_rows() if each not in present]

    def reasons(self, planned: Sequence[Planned]) -> dict[Key, str]:
        """Why partitions are not up to date; what was read before is looked up in the lake for these alone."""
        stale = [each for each in planned if each.state is State.STALE]
        known = [each.key for each in stale if each.key in self.publications]
        before = self._catalog.inputs(known) if known else {}
        reasons = {each.key: f"{each.above} is not up to date" for each in planned if each.state is State.WAITING}
        for each in stale:
            recipe, published = self.recipe(each.stage, each.partition), self.publications.get(each.key)
            reasons[each.key] = why(recipe, published, before.get(each.key, ()))
            if each.key in self._needed and published is not None and published.recipe == recipe.digest:
                reasons[each.key] = "its rows were dropped, and are needed again"
            if published is not None and published.recipe == recipe.digest and each.key in self._damaged:
                reasons[each.key] = f"its rows in the table {self._damaged[each.key]} are not those that were published"
        return reasons

    def _wires(self, stage: Stage, versions: "Versions") -> list["_Wire"]:
        return [_Wire(self._flow, stage, source, self.shards, versions) for source in stage.inputs]

    def _walk(self, stage: Stage, versions: "Versions") -> Iterator[Planned]:
        """The partitions of a stage, its inputs being at ``versions``. The inner loop of planning: some microseconds a
        partition."""
        wires, offers = self._wires(stage, versions), self._offers[stage.name]
        places = list(self._flow.places(stage, self.shards))
        columns = [wire.versions(places) for wire in wires]
        if stage.kind in OUTSIDE_KINDS:
            named = ({**stage.constants, **dict(zip(stage.dimensions, values, strict=True))} for _, values in places)
            columns.append([self._origins.digest_of(stage.kind, each) or NOT_READ for each in named])
        for (key, values), *consumed in zip(places, *columns, strict=True):
            if None in consumed:
                yield Planned(stage, key, State.WAITING, wires[consumed.index(None)].missing(values))
            else:
                is_fresh = offers.get(key) == _digest(stage, key, consumed)
                yield Planned(stage, key, State.FRESH if is_fresh else State.STALE)


# data versions by stage and partition
Versions = dict[str, dict[str, str]]


class _Wire:
    """One input of a stage: which version of it a partition reads. ``values``: a partition's, in the order of the
    stage's dimensions."""

    def __init__(self, flow: Flow, stage: Stage, source: Input, shards: Sequence[str], versions: Versions) -> None:
        self.stage = source.stage
        above = flow[source.stage].dimensions
        self._positions = [
            stage.dimensions.index(d) for d in sorted(above) if d in stage.dimensions and d not in source.keys
        ]
        self._is_one = len(self._positions) == len(above)
        self._is_partial = bool(flow[source.stage].only)
        self._is_same = set(above) == set(stage.dimensions) and not self._is_partial and not source.keys
        # which shards or pairs are read may be of the dictionary, though the input knows none, and which dictionaries of the pair
        own = ["dictionary"] if source.shards or "pair" in above else ["pair"] if "dictionary" in above else []
        self._own = [stage.dimensions.index(dimension) for dimension in own if dimension in stage.dimensions]
        self._versions = versions[source.stage]
        self._gathered: dict[str, str | None] = {}
        self._flow, self._at, self._source, self._shards = flow, stage, source, shards

    def versions(self, places: Sequence[tuple[str, tuple[str, ...]]]) -> list[str | None]:
        """The version that each of some partitions reads: `version`, with what they share looked up once."""
        if self._is_same:
            of = self._versions.get
            return [of(key) for key, _ in places]
        apart = self._positions + self._own
        shared = [tuple([values[position] for position in apart]) for _, values in places]
        found: dict[tuple[str, ...], str | None] = {}
        for (key, values), each in zip(places, shared, strict=True):
            if each not in found:
                found[each] = self.version(key, values)
        return [found[each] for each in shared]

    def version(self, key: str, values: tuple[str, ...]) -> str | None:
        """The version that a partition reads (of several partitions the digest of theirs); None if one is missing."""
        if self._is_same:
            return self._versions.get(key)
        if self._is_partial and not self._is_read(values):
            return NOT_READ
        shared = "|".join([values[position] for position in self._positions + self._own])
        if self._is_one:
            return self._versions.get(shared)
        if shared not in self._gathered:
            self._gathered[shared] = self._gather(self._read(values))
        return self._gathered[shared]

    def _is_read(self, values: tuple[str, ...]) -> bool:
        return self._flow.reads(self._at, dict(zip(self._at.dimensions, values, strict=True)), self._source)

    def partition(self, values: tuple[str, ...]) -> str | None:
        """The partition that a partition reads; None where it reads several."""
        read = self._read(values)
        return read[0] if len(read) == 1 else None

    def missing(self, values: tuple[str, ...]) -> str:
        """The first partition that is missing, by name."""
        return next(name_of(self.stage, each) for each in self._read(values) if each not in self._versions)

    def _read(self, values: tuple[str, ...]) -> list[str]:
        key = self._at.key(dict(zip(self._at.dimensions, values, strict=True)))
        return self._flow.upstream(self._at, key, self._source, self._shards)

    def _gather(self, partitions: Sequence[str]) -> str | None:
        versions = [self._versions.get(each) for each in partitions]
        if len(versions) == 1 or None in versions:
            return None if None in versions else versions[0]
        return digest([list(each) for each in zip(partitions, versions, strict=True)])


def _digest(stage: Stage, key: str, versions: Sequence[str | None]) -> str:
    """A recipe's digest, no version being None. Inputs are told apart by their order, which the code version pins down with
    the study; those that a partition does not read are left out, so that they come and go without touching it."""
    read = [version for version in versions if version != NOT_READ] if NOT_READ in versions else versions
    return text_digest(stage.name, key, stage.code_version, *read)  # type: ignore[arg-type]


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


def name_of(asset: str, partition: str | None) -> str:
    """A partition as people read it."""
    return f"{asset}[{partition}]" if partition else asset


def why(recipe: Recipe, published: Publication | None, before: Sequence[Consumed]) -> str:
    """Why a partition is to be computed. ``before``: what it was made from."""
    if published is None:
        return "not computed yet"
    if published.state == BUILDING:
        return f"was begun by run {published.run} and not finished"
    if published.code_version != recipe.code_version:
        return f"code version {published.code_version} → {recipe.code_version}"
    for was, now in changes(before, recipe.inputs):
        either = now or was
        assert either is not None
        versions = (each.data_version if each else "none" for each in (was, now))
        return f"input {name_of(either.asset, either.partition)}: {' → '.join(versions)}"
    if published.retryable_failures:
        return f"{published.retryable_failures} failed calls to make again"
    return f"recipe {published.recipe} → {recipe.digest}"


def changes(before: Sequence[Consumed], now: Sequence[Consumed]) -> Iterator[tuple[Consumed | None, Consumed | None]]:
    """Inputs that are not what they were, before and now; None where an input was not read."""
    old = {each.asset: each for each in before}
    for each in now:
        was = old.pop(each.asset, None)
        if was is None or was.data_version != each.data_version:
            yield was, each
    yield from ((each, None) for each in old.values())
