"""What the lake says of itself: which partitions are published, which shards are registered, which study is present.

The table ``partitions`` is the truth. A row ``building`` is written before the data are committed and a row
``published`` after it: killed in between, the partition counts as not done, whatever stood there before. Of two runs
on one partition, the one that began last may publish; the other is refused at its next commit.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from typing import Any, NamedTuple

import polars as pl
import pyarrow as pa

from latentlake.digest import digest
from latentlake.errors import SupersededError
from latentlake.lake import Lake, Written
from latentlake.study import Study
from latentlake.tables import TABLES

BUILDING, PUBLISHED, DROPPED, PRUNED = "building", "published", "dropped", "pruned"
Key = tuple[str, str]


class Consumed(NamedTuple):
    """An input at the version that was read; ``partition`` is None where several were, ``data_version`` then the
    digest of theirs."""

    asset: str
    partition: str | None
    data_version: str


class Publication(NamedTuple):
    """The latest row of a partition in the table ``partitions``, but for its lists."""

    asset: str
    partition: str
    attempt: int
    state: str
    recipe: str
    code_version: str
    data_version: str | None
    rows: int
    retryable_failures: int
    study: str
    run: str | None
    at: datetime | None

    @property
    def is_published(self) -> bool:
        """Whether readers may see the partition."""
        return self.state == PUBLISHED


@dataclass(frozen=True)
class Made:
    """A partition being made: what is written to ``partitions``. ``where``: its values of the partition columns.
    ``begun``: the version of ``partitions`` at which it was begun.
    """

    publication: Publication
    inputs: tuple[Consumed, ...]
    where: Mapping[str, str | int]
    written: Mapping[str, Written]
    begun: int | None = None


Publications = dict[Key, Publication]


class Catalog:
    """The tables ``partitions``, ``shards`` and ``studies`` of a lake, as of ``at``; as of now where that is None."""

    def __init__(self, lake: Lake, at: datetime | None = None) -> None:
        self._lake = lake
        self._at = at

    def latest(self, asset: str | None = None, lists: Sequence[str] = ()) -> pl.LazyFrame:
        """The latest row of each partition, of one asset or of all: the columns of `Publication`, and those of ``lists``."""
        frame = self._lake.scan("partitions", {"asset": asset} if asset else None)
        if self._at is not None:
            frame = frame.filter(pl.col("at") <= self._at)
        # "dropped" and "pruned" rows are attempts of their own; "published" sorts after "building", as it comes later.
        frame = frame.select(*Publication._fields, *lists).sort("attempt", "at", "state")
        return frame.unique(["asset", "partition"], keep="last", maintain_order=True)

    def snapshot(self) -> pl.DataFrame:
        """`latest` of all assets, with the list ``table_versions``; read once, as long as nothing is written."""
        latest = partial(self.latest, lists=["table_versions"])
        if self._at is not None:
            return latest().collect()
        return self._lake.once("partitions", "latest", lambda: latest().collect())

    def publications(self, asset: str | None = None) -> Publications:
        """The latest row of each partition, by (asset, partition); pruned ones are left out."""
        return publications_of(self.latest(asset).collect())

    def inputs(self, keys: Iterable[Key]) -> dict[Key, tuple[Consumed, ...]]:
        """What some partitions were made from, by (asset, partition)."""
        wanted = pl.LazyFrame(list(keys), schema={"asset": pl.String, "partition": pl.String}, orient="row")
        rows = self.latest(lists=["inputs"]).join(wanted, on=["asset", "partition"], how="semi").collect()
        return {
            (row["asset"], row["partition"]): tuple(Consumed(**each) for each in row["inputs"])
            for row in rows.select("asset", "partition", "inputs").iter_rows(named=True)
        }

    def damaged(self, latest: pl.DataFrame) -> dict[Key, str]:
        """Published partitions whose rows are not the ones that were published, with the table that was changed: it was deleted,
        rolled back, or written to by hand. A table at the version of its last publication is taken to be whole.

        ``latest``: of `latest`, with the list ``table_versions``.
        """
        written = (
            latest.filter(state=PUBLISHED).select("asset", "partition", "table_versions").explode("table_versions")
        )
        written = written.unnest("table_versions")
        newest = written.group_by("table").agg(pl.max("version")).sort("table")
        changed = [table for table, version in newest.iter_rows() if self._lake.version(table) != version]
        if not changed:
            return {}
        live = {table: self._lake.files_by_partition(table) for table in changed}
        where = self.latest(lists=["where"]).select("asset", "partition", "where").collect()
        suspects = written.filter(pl.col("table").is_in(changed)).join(where, on=["asset", "partition"])
        return {
            (row["asset"], row["partition"]): row["table"]
            for row in suspects.iter_rows(named=True)
            if live[row["table"]].get(_values(row), digest([])) != row["files"]
        }

    def begin(self, made: Made) -> Made:
        """Say that a partition is being built: from now on readers do not see it, and whoever began it before may no
        longer publish it. Returns what was begun, with the number of the attempt that it got."""
        while True:
            own = replace(made, publication=made.publication._replace(state=BUILDING))
            version = self._append(own)
            key = {"asset": own.publication.asset, "partition": own.publication.partition}
            before = self._lake.scan("partitions", key, version).filter(state=BUILDING)
            same = before.filter(attempt=own.publication.attempt).select(pl.len()).collect().item()
            if same == 1:
                return replace(own, begun=version)
            # another run began the same attempt a moment before: this one is the next
            made = replace(made, publication=made.publication._replace(attempt=made.publication.attempt + 1))

    def publish(self, made: Made) -> Publication:
        """Say that a partition's data are committed and may be read."""
        published = made.publication._replace(state=PUBLISHED)
        self._append(replace(made, publication=published))
        return published

    def forget(self, publication: Publication) -> None:
        """Say that a partition's data are to be deleted: nobody sees it any more."""
        self._append(Made(publication._replace(state=PRUNED, attempt=publication.attempt + 1), (), {}, {}))

    def drop(self, made: Made) -> None:
        """Say that a partition's rows are to be deleted but can be derived again: what was made of them stays as it is."""
        dropped = made.publication._replace(state=DROPPED, attempt=made.publication.attempt + 1)
        self._append(replace(made, publication=dropped, written={}))

    def require_current(self, made: Made) -> None:
        """Refuse to go on with an attempt after which another was begun.

        Raises:
            SupersededError: another run has begun this partition since.
        """
        if made.begun is not None and self._lake.version("partitions") == made.begun:
            return  # nothing at all was written since: names of commits say so, and no row need be read
        publication = made.publication
        key = {"asset": publication.asset, "partition": publication.partition}
        last = self._lake.scan("partitions", key).sort("attempt").select("attempt", "run").last().collect().row(0)
        if last[0] != publication.attempt:
            raise SupersededError(
                f"{publication.asset}[{publication.partition}] was begun by run {last[1]} after this run began it; what "
                "this run made of it is not published. Let the other run end, and start again what is then missing"
            )

    def shards(self) -> list[str]:
        """Registered shards, in order of registration."""
        return list(self._lake.once("shards", "order", self._registered))

    def _registered(self) -> list[str]:
        return self._lake.scan("shards").sort("ordinal").select("shard").collect()["shard"].to_list()

    def order(self, listed: Sequence[str]) -> list[str]:
        """Shards that the corpus files make, in order of registration; the ones not yet registered come last."""
        place = {shard: ordinal for ordinal, shard in enumerate(self.shards())}
        return sorted(listed, key=lambda shard: place.get(shard, len(place)))

    def register(self, study: Study, assets: Sequence[str], shards: Mapping[str, Any]) -> None:
        """Remember new shards and a changed study with its assets, so that readers know what is present."""
        known = self.shards()
        new = [key for key in shards if key not in known]
        rows = [
            {"shard": key, "ordinal": len(known) + n, "source": shards[key].source, "file": shards[key].name}
            for n, key in enumerate(new)
        ]
        self._extend("shards", rows)
        last = self.present_study()
        now = {"study": study.digest, "assets": list(assets), "shards": sorted(shards)}
        if last is None or any(last[name] != value for name, value in now.items()):
            ordinal = 0 if last is None else last["ordinal"] + 1
            choices = {"choices": study.model_dump_json(), "prompts": prompts_of(study), "at": datetime.now(UTC)}
            self._extend("studies", [{"ordinal": ordinal, **choices, **now}])

    def present_study(self) -> dict[str, Any] | None:
        """The last row of ``studies``; read once, as long as nothing is written."""
        if self._at is not None:
            return self._present()
        present = self._lake.once("studies", "present", self._present)
        return None if present is None else dict(present)

    def _present(self) -> dict[str, Any] | None:
        frame = self._lake.scan("studies")
        if self._at is not None:
            frame = frame.filter(pl.col("at") <= self._at)
        rows = frame.sort("ordinal").tail(1).collect().rows(named=True)
        return rows[0] if rows else None

    def _extend(self, table: str, rows: list[dict[str, Any]]) -> int | None:
        return self._lake.append(table, pa.Table.from_pylist(rows, schema=TABLES[table].schema)) if rows else None

    def _append(self, made: Made) -> int | None:
        row = {
            **made.publication._asdict(),
            "where": [{"column": column, "value": str(value)} for column, value in made.where.items()],
            "inputs": [each._asdict() for each in made.inputs],
            "table_versions": [{"table": table, **each._asdict()} for table, each in made.written.items()],
            "at": datetime.now(UTC),
        }
        return self._extend("partitions", [row])


def publications_of(latest: pl.DataFrame) -> Publications:
    """Rows of `Catalog.latest` by (asset, partition); pruned ones are left out."""
    rows = latest.filter(pl.col("state") != PRUNED).select(Publication._fields)
    return {(row[0], row[1]): Publication(*row) for row in rows.iter_rows()}


def _values(row: Mapping[str, Any]) -> tuple[str, ...]:
    """A partition's values of the partition columns of a table, in the table's order."""
    where = {each["column"]: each["value"] for each in row["where"]}
    return tuple(where[column] for column in TABLES[row["table"]].partition_by)


def prompts_of(study: Study) -> list[dict[str, str]]:
    """Names and digests of a study's prompts, as ``studies`` has them."""
    return [{"prompt": name, "digest": prompt.digest} for name, prompt in sorted(study.prompts.items())]
