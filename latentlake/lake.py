"""Delta tables in a folder or an object store: scan, replace, append. Nothing here knows what a stage is."""

import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from os import listdir
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeVar

import polars as pl
import pyarrow as pa
from deltalake import ColumnProperties, CommitProperties, DeltaTable, Schema, WriterProperties, write_deltalake
from deltalake.exceptions import CommitFailedError, DeltaError, TableNotFoundError
from deltalake.fs import DeltaStorageHandler
from pyarrow.fs import FileSelector, PyFileSystem
from tenacity import retry, retry_if_exception_type, stop_after_attempt, wait_random_exponential

from latentlake.digest import digest
from latentlake.errors import LakeError
from latentlake.tables import TABLES
from latentlake.tables.table import Layout, Table

_SMALL_BYTES = 16 << 20
_ROW_GROUP = 16_384  # rows: what is read of a file where one latent of its thousands is asked for
_COMMIT = re.compile(r"\d{20}\..*(json|parquet)")
_FILE = "__file"
_KNOWN_TABLES = 256

T = TypeVar("T")
State = tuple[int, str]

# Writers of different partitions do not conflict, but their commits queue for one version number.
_retry_conflicts = retry(
    retry=retry_if_exception_type(CommitFailedError),
    stop=stop_after_attempt(20),
    wait=wait_random_exponential(multiplier=0.05, max=5),
    reraise=True,
)


class Written(NamedTuple):
    """A commit: the table's version, and the digest of the names of the files that hold the partition."""

    version: int
    files: str


@dataclass
class _Known:
    """What this process knows of a table in a folder: the table opened, and what was made of it, each with the state it is of.

    An opened table that is kept is for readers alone: it stays at its version, for frames are read of it later.
    """

    opened: tuple[State, DeltaTable] | None = None
    made: tuple[State, dict[str, Any]] | None = None


@lru_cache(maxsize=_KNOWN_TABLES)
def _known(path: str) -> _Known:
    return _Known()


@dataclass(frozen=True)
class Lake:
    """The tables of one study, and the ones that all studies of a lake share.

    ``uri``: a folder or an object-store address. ``study``: name of the study. ``storage_options``: as delta-rs and
    Polars take them.
    """

    uri: str
    study: str
    storage_options: Mapping[str, str] = field(default_factory=dict)

    def path(self, table: str) -> str:
        """Address of a table."""
        root = self.uri.rstrip("/")
        return f"{root}/{table}" if TABLES[table].is_shared else f"{root}/{self.study}/{table}"

    def beside(self, name: str) -> str:
        """Address of something that lies beside the study's tables and is none."""
        return f"{self.uri.rstrip('/')}/{self.study}/{name}"

    def past(self, table: str, version: int) -> pl.LazyFrame:
        """A table as it was at a version.

        Raises:
            LakeError: files that the version needs, or its log, were deleted.
        """
        delta = DeltaTable(self.path(table), storage_options=dict(self.storage_options) or None)
        try:
            delta.load_as_version(version)
            gone = self._gone(delta)
        except DeltaError:  # of a gap in the log
            gone = ["its log"]
        if gone:
            raise LakeError(
                f"version {version} of the table {self.path(table)} can no longer be read, {gone[0]} was deleted: a vacuum "
                "keeps what the hours need that it is told to keep, and nothing older. Name a later moment; to go back "
                "farther in future, vacuum with more hours"
            )
        return self.scan(table, version=version)

    def _gone(self, delta: DeltaTable) -> list[str]:
        """Files of a table that are not there: Polars would find out only when it comes to read them.

        Their names alone tell them apart, and stores do not agree on how to encode folders.
        """
        handler = DeltaStorageHandler(delta.table_uri, dict(self.storage_options) or None)
        there = {each.base_name for each in PyFileSystem(handler).get_file_info(FileSelector("", recursive=True))}
        names = [uri.rsplit("/", 1)[-1] for uri in delta.file_uris()]
        return [name for name in names if name not in there]

    def scan(self, table: str, where: Mapping[str, object] | None = None, version: int | None = None) -> pl.LazyFrame:
        """A table as a lazy frame; without rows where it does not exist yet.

        ``where``: values of columns, each one value or a list of them; partition columns prune files. ``version``: a
        past version of the table, as long as its files are kept.
        """
        delta = self._read(table, version)
        if delta is None:
            return TABLES[table].empty().lazy()
        frame = self._whole(table, delta)
        for column, value in (where or {}).items():
            is_wanted = pl.col(column).is_in(value) if isinstance(value, list) else pl.col(column) == value
            frame = frame.filter(is_wanted)
        return frame

    def _whole(self, table: str, delta: DeltaTable) -> pl.LazyFrame:
        """A table with all columns that are declared, in their order."""
        lacking, schema = self._lacks(table, delta), TABLES[table].empty().schema
        if not lacking:
            return pl.scan_delta(delta)
        absent = [pl.lit(None, schema[name]).alias(name) for name in lacking]
        return pl.scan_delta(delta).with_columns(absent).select(schema.names())

    def find(self, table: str, column: str, values: Sequence[str]) -> pl.LazyFrame:
        """Rows of a table without partitions whose column has one of some values.

        Of all files only that column is read, and the others of those files alone that hold any: look-ups in what millions of
        appended rows say are mostly in vain, or for rows that were written together.
        """
        delta, declared = self._read(table), TABLES[table].empty()
        if delta is None or not values:
            return declared.lazy()
        self._lacks(table, delta)
        wanted = pl.LazyFrame({column: values}, schema={column: pl.String})
        every = self._parquet(delta.file_uris(), include_file_paths=_FILE)
        there = every.select(column, _FILE).join(wanted, on=column, how="semi").collect(engine="streaming")
        if there.is_empty():
            return declared.lazy()
        rows = self._parquet(there[_FILE].unique().sort().to_list(), schema=declared.schema, missing_columns="insert")
        return rows.filter(pl.col(column).is_in(there[column].unique().implode()))

    def _parquet(self, files: list[str], **options: Any) -> pl.LazyFrame:
        return pl.scan_parquet(files, storage_options=dict(self.storage_options) or None, **options)

    def replace(
        self,
        table: str,
        rows: pa.Table,
        partition: Mapping[str, str | int],
        facts: Mapping[str, str],
        fence: Callable[[], None] = lambda: None,
    ) -> Written:
        """Put rows in the place of a partition's, in one commit.

        ``partition``: a value for each partition column. ``facts``: kept as evidence in the commit's metadata.
        ``fence``: called before each attempt to commit, once the table's state is read; what it raises stops the
        commit. A commit that comes in between to the same partition is a conflict, and the fence is called again.
        """
        delta = self._write(table, rows, facts, mode="overwrite", predicate=_predicate(partition), fence=fence)
        filters = [(column, "=", str(value)) for column, value in partition.items()]
        return Written(delta.version(), _names_digest(delta.file_uris(filters or None)))

    def delete(self, table: str, partition: Mapping[str, str | int]) -> None:
        """Delete a partition's rows; their files stay until they are vacuumed."""
        delta = self._open(table)
        if delta is not None:
            delta.delete(_predicate(partition), commit_properties=CommitProperties(max_commit_retries=100))

    def files(self, table: str) -> int:
        """Number of live files of a table."""
        delta = self._read(table)
        return 0 if delta is None else len(delta.file_uris())

    def bytes(self, table: str) -> int:
        """Bytes of a table's live files."""
        delta = self._read(table)
        return 0 if delta is None else sum(pl.DataFrame(delta.get_add_actions())["size_bytes"].to_list())

    def small_files(self, table: str) -> int:
        """Number of live files of a table that had better be fewer."""
        delta = self._read(table)
        sizes = [] if delta is None else pa.table(delta.get_add_actions())["size_bytes"].to_pylist()
        return sum(size < _SMALL_BYTES for size in sizes)

    def compact(self, table: str, kept: Callable[[pl.LazyFrame], pl.LazyFrame] | None = None) -> None:
        """Put the rows of a table's many small files into few; the order of rows is not kept. ``kept``: what of them is kept.

        What is appended meanwhile stays; where another compacts meanwhile, its commit counts and this one is left.
        Delta's own `optimize` is not used: of two at a time both commit, and every row is there twice.
        """
        delta = self._open(table)
        if delta is not None:
            rows: Any = delta.to_pyarrow_dataset().scanner().to_reader()
            if kept is not None:
                self._complete(table, delta)
                rows = TABLES[table].conform(kept(self._whole(table, delta)).collect(engine="streaming"))
            with suppress(CommitFailedError):
                write_deltalake(
                    delta,
                    rows,
                    mode="overwrite",
                    writer_properties=_writer_properties(TABLES[table].layout),
                    commit_properties=CommitProperties(max_commit_retries=100),
                )

    def checkpoint(self, table: str) -> None:
        """Sum the log up in one file, and delete the part of it that is older than the log's retention, 30 days."""
        delta = self._open(table)
        if delta is not None:
            delta.create_checkpoint()
            delta.cleanup_metadata()

    def vacuum(self, table: str, hours: int) -> int:
        """Delete files that no version of the last hours needs, and what killed writers left; returns how many."""
        delta = self._open(table)
        if delta is None:
            return 0
        # full: the log forgets which files it removed as its checkpoints age, and never knew of uncommitted ones
        return len(delta.vacuum(retention_hours=hours, dry_run=False, enforce_retention_duration=False, full=True))

    def append(self, table: str, rows: pa.Table) -> int:
        """Add rows in one commit; returns the table's version."""
        return self._write(table, rows, {}, mode="append", predicate=None).version()

    def version(self, table: str) -> int | None:
        """The newest version of a table, None where there is none."""
        if self.is_local:  # names of commits say it; opening a table reads them, ten times as long
            newest = self._newest(table)
            return None if newest is None else int(newest[:20])
        delta = self._open(table)
        return None if delta is None else delta.version()

    def once(self, table: str, name: str, make: Callable[[], T]) -> T:
        """What ``make`` makes of a table's rows; what goes by a name is made anew when the table has changed."""
        state = self.state(table) if self.is_local else None
        if state is None:
            return make()
        known = self._known(table)
        kept = known.made
        if kept is None or kept[0] != state:
            kept = known.made = (state, {})
        if name not in kept[1]:
            kept[1][name] = make()
        made: T = kept[1][name]
        return made

    def state(self, table: str) -> State | None:
        """What tells a table from what it was before, and from one that was made anew in its place; None where there is none."""
        if self.is_local:
            newest = self._newest(table)
            with suppress(FileNotFoundError):  # deleted meanwhile
                if newest is not None:
                    found = Path(self.path(table), "_delta_log", newest).stat()
                    return int(newest[:20]), f"{found.st_mtime_ns} {found.st_ino} {found.st_size}"
            return None
        delta = self._open(table)
        return None if delta is None else (delta.version(), str(delta.metadata().id))

    def _newest(self, table: str) -> str | None:
        """Name of the newest commit in a folder, or of what sums it up; not of one that is still being written aside."""
        log = Path(self.path(table), "_delta_log")
        names = listdir(log) if log.is_dir() else []
        return max(filter(_COMMIT.fullmatch, names), default=None)

    def files_by_partition(self, table: str) -> dict[tuple[str, ...], str]:
        """Digest of the names of the live files of each partition, by the values of the partition columns."""
        delta = self._read(table)
        if delta is None:
            return {}
        columns = [f"partition.{name}" for name in TABLES[table].partition_by]
        live = pl.DataFrame(delta.get_add_actions(flatten=True)).select("path", pl.col(columns).cast(pl.String))
        groups = live.partition_by(columns, as_dict=True).items() if columns else [((), live)]
        return {tuple(map(str, values)): _names_digest(own["path"].to_list()) for values, own in groups}

    @_retry_conflicts
    def _write(
        self,
        name: str,
        rows: pa.Table,
        facts: Mapping[str, str],
        mode: Literal["append", "overwrite"],
        predicate: str | None,
        fence: Callable[[], None] = lambda: None,
    ) -> DeltaTable:
        table = TABLES[name]
        delta = self._open(name) or self._create(table)
        self._complete(name, delta)
        fence()
        # a table of an older latentlake may describe its columns in other words, which a writer must not contradict
        rows = rows.cast(pa.schema([field.remove_metadata() for field in rows.schema]))
        properties = _writer_properties(table.layout)
        commit = CommitProperties(custom_metadata=dict(facts), max_commit_retries=100)
        try:
            if mode == "append":
                write_deltalake(delta, rows, mode=mode, writer_properties=properties, commit_properties=commit)
            else:
                write_deltalake(
                    delta, rows, mode=mode, predicate=predicate, writer_properties=properties, commit_properties=commit
                )
        except CommitFailedError:
            raise
        except (DeltaError, OSError) as error:
            raise LakeError(
                f"cannot write to the table {self.path(name)}: {error}; see to the room and the rights there. What was written "
                "before stands, and the next run goes on from it"
            ) from error
        self._keep(name, delta)
        return delta

    def _complete(self, name: str, delta: DeltaTable) -> None:
        """Give a table of an older latentlake the columns that it lacks."""
        lacking = self._lacks(name, delta)
        if lacking:
            wanted = Schema.from_arrow(TABLES[name].schema).fields
            delta.alter.add_columns([field for field in wanted if field.name in lacking])

    def _create(self, table: Table) -> DeltaTable:
        return DeltaTable.create(
            self.path(table.name),
            schema=table.schema,
            mode="ignore",
            partition_by=list(table.partition_by) or None,
            # What only grows gets a commit for every few rows: the log is summed up often, for whoever opens the table reads it.
            configuration={} if table.partition_by else {"delta.checkpointInterval": "10"},
            description=table.doc,
            storage_options=dict(self.storage_options) or None,
        )

    def _known(self, table: str) -> _Known:
        return _known(str(Path(self.path(table)).absolute()))

    def _keep(self, table: str, delta: DeltaTable) -> None:
        """Keep a table that was written to, and is not again, for those who read it next."""
        state = self.state(table) if self.is_local else None
        if state is not None and state[0] == delta.version():
            self._known(table).opened = state, delta

    def _read(self, table: str, version: int | None = None) -> DeltaTable | None:
        """A table for reading alone, at its newest version or a past one: opened anew only if it is not known as it is."""
        state = self.state(table) if self.is_local else None
        if state is None:
            return self._open(table, version)
        known = self._known(table)
        kept = known.opened
        if kept is not None and kept[0] == state and version in (None, state[0]):
            return kept[1]
        delta = self._open(table, version)
        if delta is not None and version is None and delta.version() == state[0]:  # no commit came in between
            known.opened = state, delta
        return delta

    def _open(self, table: str, version: int | None = None) -> DeltaTable | None:
        options = dict(self.storage_options) or None
        try:
            return DeltaTable(self.path(table), version, options)
        except TableNotFoundError:
            return None
        except (DeltaError, OSError) as error:
            raise LakeError(
                f"cannot read the table {self.path(table)}: {error}; check the lake's address and rights"
            ) from error

    def _lacks(self, table: str, delta: DeltaTable) -> list[str]:
        """Columns that a table was made without, by an older latentlake.

        Raises:
            LakeError: it has columns that this latentlake does not know, or lacks ones that cannot be null.
        """
        there = {each.name for each in delta.schema().fields}
        declared = {column.name: column for column in TABLES[table].columns}
        unknown = sorted(there - declared.keys())
        if unknown:
            raise LakeError(
                f"{self.path(table)} has the columns {', '.join(unknown)}, which this latentlake does not know: a newer one "
                "wrote it. Upgrade latentlake, or name another lake with LATENTLAKE_LAKE"
            )
        lacking = [name for name in declared if name not in there]
        needed = [name for name in lacking if not declared[name].nullable]
        if needed:
            raise LakeError(
                f"{self.path(table)} lacks the columns {', '.join(needed)}: an older latentlake wrote it. Name another lake "
                "with LATENTLAKE_LAKE and materialize the study anew"
            )
        return lacking

    @cached_property
    def is_local(self) -> bool:
        """Whether the lake is a folder of this machine."""
        return "://" not in self.uri


def _predicate(partition: Mapping[str, str | int]) -> str | None:
    return " AND ".join(f"{column} = {_literal(value)}" for column, value in partition.items()) or None


def _names_digest(paths: Sequence[str]) -> str:
    return digest(sorted(path.rpartition("/")[2] for path in paths))


def _literal(value: str | int) -> str:
    return str(value) if isinstance(value, int) else "'" + value.replace("'", "''") + "'"


def _writer_properties(layout: Layout | None) -> WriterProperties:
    if layout is None:
        return WriterProperties(compression="ZSTD", compression_level=3, max_row_group_size=_ROW_GROUP)
    columns = {
        name: ColumnProperties(dictionary_enabled=False, encoding=encoding)  # type: ignore[arg-type]
        for name, encoding in layout.encodings.items()
    }
    return WriterProperties(
        compression="ZSTD",
        compression_level=layout.zstd_level,
        max_row_group_size=layout.row_group,
        default_column_properties=ColumnProperties(dictionary_enabled=False),  # what is in lists cannot be named
        column_properties=columns,
    )
