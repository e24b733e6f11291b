"""What the lake says of itself: which partitions are published, which shards are registered, which study is present.

The table ``partitions`` is the truth. A row ``building`` is written before the data are committed and a row
``published`` after it: killed in between, the partition counts as not done, whatever stood there before.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa

from latentlake.lake import Lake
from latentlake.study import Study
from latentlake.tables import TABLES

BUILDING, PUBLISHED = "building", "published"


@dataclass(frozen=True)
class Consumed:
    """A partition of an input, at the version that was read."""

    asset: str
    partition: str
    data_version: str


@dataclass(frozen=True)
class Publication:
    """The latest row of a partition in the table ``partitions``."""

    asset: str
    partition: str
    attempt: int
    state: str
    recipe: str
    code_version: str
    inputs: tuple[Consumed, ...]
    study: str
    run: str
    where: Mapping[str, str | int]
    data_version: str | None = None
    rows: int = 0
    retryable_failures: int = 0
    table_versions: Mapping[str, int] | None = None

    @property
    def is_published(self) -> bool:
        """Whether readers may see the partition."""
        return self.state == PUBLISHED


Publications = dict[tuple[str, str], Publication]


class Catalog:
    """The tables ``partitions``, ``shards`` and ``studies`` of a lake."""

    def __init__(self, lake: Lake) -> None:
        self._lake = lake

    def publications(self, asset: str | None = None) -> Publications:
        """The latest row of each partition, of one asset or of all, by (asset, partition)."""
        frame = self._lake.scan("partitions", {"asset": asset} if asset else None).collect()
        # "published" sorts after "building": of one attempt, publication is the later row.
        latest = frame.sort("attempt", "at", "state").unique(["asset", "partition"], keep="last", maintain_order=True)
        return {(row["asset"], row["partition"]): _publication(row) for row in latest.iter_rows(named=True)}

    def begin(self, publication: Publication) -> None:
        """Say that a partition is being built: from now on readers do not see it."""
        self._append(replace(publication, state=BUILDING))

    def publish(self, publication: Publication) -> None:
        """Say that a partition's data are committed and may be read."""
        self._append(replace(publication, state=PUBLISHED))

    def shards(self) -> list[str]:
        """Registered shards, in order of registration."""
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
            {"shard": key, "ordinal": len(known) + n, "source": shards[key].source, "file": shards[key].path.name}
            for n, key in enumerate(new)
        ]
        self._extend("shards", rows)
        last = self.present_study()
        now = {"study": study.digest, "assets": list(assets), "shards": sorted(shards)}
        if last is None or any(last[name] != value for name, value in now.items()):
            ordinal = 0 if last is None else last["ordinal"] + 1
            self._extend("studies", [{"ordinal": ordinal, "choices": study.model_dump_json(), **now}])

    def present_study(self) -> dict[str, Any] | None:
        """The last row of ``studies``."""
        rows = self._lake.scan("studies").sort("ordinal").tail(1).collect().rows(named=True)
        return rows[0] if rows else None

    def _extend(self, table: str, rows: list[dict[str, Any]]) -> None:
        if rows:
            self._lake.append(table, pa.Table.from_pylist(rows, schema=TABLES[table].schema))

    def _append(self, publication: Publication) -> None:
        versions = publication.table_versions or {}
        row = {
            **{name: getattr(publication, name) for name in ("asset", "partition", "attempt", "state", "recipe")},
            **{name: getattr(publication, name) for name in ("code_version", "data_version", "rows", "study", "run")},
            "where": [{"column": column, "value": str(value)} for column, value in publication.where.items()],
            "inputs": [vars(each) for each in publication.inputs],
            "retryable_failures": publication.retryable_failures,
            "table_versions": [{"table": table, "version": version} for table, version in versions.items()],
            "at": datetime.now(UTC),
        }
        self._extend("partitions", [row])


def _publication(row: dict[str, Any]) -> Publication:
    return Publication(
        **{
            key: row[key]
            for key in ("asset", "partition", "attempt", "state", "recipe", "code_version", "data_version")
        },
        **{key: row[key] for key in ("rows", "retryable_failures", "study", "run")},
        where={each["column"]: each["value"] for each in row["where"]},
        inputs=tuple(Consumed(**each) for each in row["inputs"]),
        table_versions={each["table"]: each["version"] for each in row["table_versions"]},
    )
