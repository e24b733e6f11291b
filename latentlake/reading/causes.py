"""Why partitions are not what they were: followed from what each was made of, up to where the change came from."""

from collections.abc import Iterator
from functools import cache
from typing import Any, NamedTuple

import polars as pl

from latentlake.catalog import BUILDING, DROPPED, Consumed, Key
from latentlake.plan import OUTSIDE, changes, name_of
from latentlake.reading.view import View

_SHOWN = 20  # characters of a version: enough to tell it from others


class Cause(NamedTuple):
    """What changed, of which partition; ``partition`` is None where it holds for all or several of the asset.

    ``what``: "code version", "data version", "files outside the lake", …; with its ``old`` and ``new`` value, where
    it has values.
    """

    asset: str
    partition: str | None
    what: str
    old: str | None = None
    new: str | None = None

    def __str__(self) -> str:
        values = f" {(self.old or 'none')[:_SHOWN]} → {(self.new or 'none')[:_SHOWN]}" if self.old or self.new else ""
        return f"{name_of(self.asset, self.partition)}: {self.what}{values}"


class Change(NamedTuple):
    """A partition that is not what it was.

    ``kind``: `added`, `removed` or `changed`. ``is_same``: whether it was made anew and came out the same. ``cause``:
    the first thing that is other than before; ``roots``: where that and all others come from.
    """

    asset: str
    partition: str
    kind: str
    is_same: bool
    cause: Cause
    roots: tuple[Cause, ...]


def find_changes(before: View, after: View) -> list[Change]:
    """The partitions that readers see otherwise than before (other recipe or data version), and why."""
    return list(_Search(before, after).run())


class _Search:
    """The partitions that differ between two views, and how they hang together."""

    def __init__(self, before: View, after: View) -> None:
        old, new = before.latest(), after.latest()
        keys = _differing(old, new)
        self._old, self._new = _rows(old, keys), _rows(new, keys)
        self._old_assets, self._new_assets = _assets(before), _assets(after)
        self._changed: dict[str, list[Key]] = {}
        for key in keys.iter_rows():
            self._changed.setdefault(key[0], []).append(key)
        self._matching = cache(self._match)
        self._roots = cache(self._find_roots)

    def run(self) -> Iterator[Change]:
        """Each changed partition."""
        for key in (key for keys in self._changed.values() for key in keys):
            kind = self._kind(key)
            is_same = kind == "changed" and self._old[key]["data_version"] == self._new[key]["data_version"]
            yield Change(*key, kind, is_same, self._causes(key)[0], self._roots(key))

    def _kind(self, key: Key) -> str:
        was, is_now = (key in side and side[key]["is_seen"] for side in (self._old, self._new))
        return "changed" if was and is_now else "added" if is_now else "removed"

    def _causes(self, key: Key) -> list[Cause]:
        """What is other than before in a partition or in what it was made of, the first cause first."""
        causes = {"added": self._of_added, "removed": self._of_removed, "changed": self._of_changed}
        return causes[self._kind(key)](key)

    def _of_added(self, key: Key) -> list[Cause]:
        if key[0] not in self._old_assets:
            return [Cause(key[0], None, "new in the study")]
        came = [
            Cause(each["asset"], each["partition"], "new")
            for each in self._new[key]["inputs"]
            if any(self._kind(above) == "added" for above in self._above(key, each["asset"], each["partition"]))
        ]
        was = str(self._old[key]["state"]) if key in self._old else ""
        return came or [Cause(*key, {BUILDING: "finished", DROPPED: "derived again"}.get(was, "new"))]

    def _of_removed(self, key: Key) -> list[Cause]:
        if key[0] not in self._new_assets:
            return [Cause(key[0], None, "no longer in the study")]
        if self._new[key]["state"] == DROPPED:
            return [Cause(*key, "dropped to save room")]
        is_begun = self._new[key]["state"] == BUILDING
        return [Cause(*key, "begun again and not finished" if is_begun else "no longer in the study")]

    def _of_changed(self, key: Key) -> list[Cause]:
        old, new = self._old[key], self._new[key]
        causes = []
        if old["code_version"] != new["code_version"]:
            causes.append(Cause(key[0], None, "code version", old["code_version"], new["code_version"]))
        causes += [_of_input(key, was, now) for was, now in changes(_consumed(old), _consumed(new))]
        if not causes and old["retryable_failures"]:
            causes.append(Cause(*key, "failed model calls made again"))
        return causes or [Cause(*key, "computed again", old["data_version"], new["data_version"])]

    def _find_roots(self, key: Key) -> tuple[Cause, ...]:
        """Causes that are not the consequence of others, each once. An input that had changed earlier is one."""
        roots: dict[Cause, None] = {}
        for cause in self._causes(key):
            above = self._above(key, cause.asset, cause.partition) if cause.asset != key[0] else []
            roots |= dict.fromkeys(root for each in above for root in self._roots(each))
            if not above:
                roots[cause] = None
        return tuple(roots)

    def _above(self, key: Key, asset: str, partition: str | None) -> list[Key]:
        """The changed partitions of an input that a partition reads; ``partition``: the one that it reads, if only one."""
        changed = self._changed.get(asset, [])
        if partition is not None or not changed:
            return [each for each in changed if each[1] == partition]
        columns = self._where(changed[0])
        return self._matching(asset, frozenset(pair for pair in self._where(key).items() if pair[0] in columns))

    def _match(self, asset: str, where: frozenset[tuple[str, str]]) -> list[Key]:
        return [key for key in self._changed[asset] if where <= self._where(key).items()]

    def _where(self, key: Key) -> dict[str, str]:
        row = self._old[key] if self._kind(key) == "removed" else self._new[key]
        return {each["column"]: each["value"] for each in row["where"]}


def _differing(old: pl.DataFrame, new: pl.DataFrame) -> pl.DataFrame:
    """Assets and partitions that are seen otherwise; in the order of the flow, as far as times tell it."""
    columns = ["asset", "partition", "recipe", "data_version", "at"]
    seen_old, seen_new = (side.filter("is_seen").select(columns) for side in (old, new))
    both = seen_old.join(seen_new, on=["asset", "partition"], how="full", coalesce=True)
    is_other = pl.any_horizontal(
        pl.col(name).ne_missing(pl.col(f"{name}_right")) for name in ("recipe", "data_version")
    )
    return both.filter(is_other).sort(pl.coalesce("at_right", "at")).select("asset", "partition")


def _rows(side: pl.DataFrame, keys: pl.DataFrame) -> dict[Key, dict[str, Any]]:
    rows = side.join(keys, on=["asset", "partition"], how="semi").iter_rows(named=True)
    return {(row["asset"], row["partition"]): row for row in rows}


def _assets(view: View) -> set[str]:
    return set(view.study["assets"]) if view.study else set()


def _consumed(row: dict[str, Any]) -> list[Consumed]:
    return [Consumed(**each) for each in row["inputs"]]


def _of_input(key: Key, was: Consumed | None, now: Consumed | None) -> Cause:
    """The cause that an input is; what comes from outside the lake is the partition's own."""
    either = now or was
    assert either is not None
    versions = (was.data_version if was else None, now.data_version if now else None)
    if either.asset == OUTSIDE:
        return Cause(*key, "latents asked for" if key[0] == "selections" else OUTSIDE, *versions)
    return Cause(either.asset, either.partition, "data version", *versions)
