"""The lake as its readers see it: the published partitions of the present study, as lazy Polars frames."""

import json
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

import polars as pl

from latentlake.calls.ledger import one_a_key
from latentlake.catalog import PUBLISHED, Catalog
from latentlake.errors import LakeError, nearest
from latentlake.lake import Lake
from latentlake.sections.comparisons import pairs_of
from latentlake.tables import TABLES

T = TypeVar("T")


class View:
    """One study of a lake. Each table is an attribute, a lazy frame: ``view.scores``, ``view.examples``, …

    What was published under an earlier version of the study and is no longer in it (a scorer or dictionary that was
    removed) is hidden, and so is a partition that is being built. ``at``: a moment in the past (with a timezone), for
    the lake as it was then; None for the lake as it is whenever a table is read.

    Raises:
        LakeError: files of the past state were deleted (when its table is asked for).
    """

    def __init__(self, lake: Lake, at: datetime | None = None) -> None:
        self.lake = lake
        self.at = at
        self.catalog = Catalog(lake, at)
        self._remembered: dict[str, tuple[tuple[object, ...], Any]] = {}

    def __getattr__(self, table: str) -> pl.LazyFrame:
        if table.startswith("_") or table not in TABLES:
            raise AttributeError(f"there is no table {table!r}{nearest(table, TABLES)}")
        if table == "calls":  # an answer counts before a failure that came to nothing
            return one_a_key(self._before("calls", "created_at"))
        if table == "prompts":
            return self._prompts()
        if table == "shards":
            return self._shards()
        if table in ("partitions", "studies"):
            return self._before(table, "at")
        return self._rows(table)

    def __dir__(self) -> list[str]:
        return [*super().__dir__(), *TABLES]

    @property
    def study(self) -> dict[str, Any] | None:
        """The row of ``studies`` that holds at the moment of the view; None before there was one."""
        return self._once("study", self.catalog.present_study, "studies")

    @property
    def uri(self) -> str:
        """Where the lake is."""
        return self.lake.uri

    def past_calls(self) -> pl.LazyFrame:
        """Rows of ``calls``, failures that were made up for later among them: what was paid for."""
        return self._before("calls", "created_at")

    def answers(self, keys: Sequence[str], latents: Sequence[int]) -> pl.DataFrame:
        """Rows of ``calls`` with some keys, one each, of which most were first made for some latents.

        Of the ledger only what holds these is read, and all of it only for keys that have no answer there: the same call may
        have been made for another latent before, or failed here and been answered there. Attempts may be fewer than `calls` says.
        """
        calls = self._before("calls", "created_at")
        own = calls.filter(
            pl.col("latent").is_in(latents), pl.col("key").is_in(keys), ~pl.col("is_retryable")
        ).collect()
        others = sorted(set(keys) - set(own["key"]))
        rows = [own, calls.filter(pl.col("key").is_in(others)).collect()] if others else [own]
        return one_a_key(pl.concat(rows).lazy()).collect()

    def latest(self) -> pl.DataFrame:
        """The latest row of each partition; ``is_seen``: whether the frames of the view hold its rows."""
        return self._once("latest", self._latest, "partitions", "studies")

    def _once(self, name: str, read: Callable[[], T], *tables: str) -> T:
        """What was read of some tables, read anew only where one of them is another than before it was read."""
        states = tuple(self.lake.state(table) for table in tables)
        known = self._remembered.get(name)
        if known is None or known[0] != states:
            known = self._remembered[name] = states, read()
        value: T = known[1]
        return value

    def _latest(self) -> pl.DataFrame:
        rows = self.catalog.latest(lists=["where", "inputs", "table_versions"]).collect()
        present = self.study
        if present is None:
            return rows.with_columns(is_seen=pl.lit(False))
        choices = json.loads(present["choices"])
        there = pl.Series(
            "is_seen", [_is_in(each, choices, present["shards"]) for each in rows["where"].to_list()], pl.Boolean
        )
        is_published = (pl.col("state") == PUBLISHED) & pl.col("asset").is_in(present["assets"])
        return rows.with_columns(there).with_columns(pl.col("is_seen") & is_published)

    def _rows(self, table: str) -> pl.LazyFrame:
        """The published rows of a table that stages write."""
        frame = self.lake.scan(table)  # opened before it is asked what is published, lest unpublished rows be seen
        published, where = self._once(table, lambda: self._published(table), "partitions", "studies")
        if published.is_empty():
            return TABLES[table].empty().lazy()
        if not self._stands(published):
            frame = self.lake.past(table, _version(published, table))
        return frame.join(where.lazy(), on=where.columns, how="semi") if where.columns else frame

    def _stands(self, published: pl.DataFrame) -> bool:
        """Whether partitions are still what they were at the moment of the view: then no vacuum took any of them."""
        if self.at is None:
            return True
        now = Catalog(self.lake).latest().select("asset", "partition", "at").collect()
        return published.join(now, on=now.columns, how="anti").is_empty()

    def _before(self, table: str, column: str) -> pl.LazyFrame:
        """Rows of a table that only grows, up to the moment of the view."""
        frame = self.lake.scan(table)
        return frame if self.at is None else frame.filter(pl.col(column) <= self.at)

    def _prompts(self) -> pl.LazyFrame:
        """Prompts, each once; of a past state, those of its calls and what comes before these."""
        prompts = self.lake.scan("prompts").unique("prompt", keep="first")
        if self.at is None:
            return prompts
        shown = prompts.join(self._before("calls", "created_at"), on="prompt", how="semi")
        prefixes = prompts.join(shown, left_on="prompt", right_on="prefix", how="semi")
        return pl.concat([shown, prefixes]).unique("prompt", keep="first")

    def _shards(self) -> pl.LazyFrame:
        """Registered shards; of a past state, those that its studies and the ones before had."""
        shards = self.lake.scan("shards")
        if self.at is None:
            return shards
        return shards.join(
            self.studies.select(pl.col("shards").explode()), left_on="shard", right_on="shards", how="semi"
        )

    def _published(self, table: str) -> tuple[pl.DataFrame, pl.DataFrame]:
        """Rows of ``partitions`` of what readers see of a table, and their partition columns."""
        tables = pl.col("table_versions").list.eval(pl.element().struct.field("table"))
        published = self.latest().filter(pl.col("is_seen"), tables.list.contains(table))
        return published, _where(published, list(TABLES[table].partition_by))


def open_lake(
    lake: str = "lake",
    study: str | None = None,
    storage_options: dict[str, str] | None = None,
    at: datetime | str | None = None,
) -> View:
    """The tables of a study, as lazy Polars frames named like the tables.

    ``lake``: a folder or an object-store address. ``study``: its name; None takes the only one there is. ``at``: a
    moment in the past, for the tables as they were then, as `as_moment` takes it; before the first publication they
    are empty.

    Raises:
        LakeError: there is no such study, or several and none was named; or ``at`` is no moment in the past.
    """
    if "://" not in lake:
        there = sorted(path.parent.name for path in Path(lake).glob("*/partitions") if path.is_dir())
        if study is None and len(there) == 1:
            study = there[0]
        if study not in there:
            raise LakeError(
                f"{lake!r} holds the studies {there}; name one of them" if there else f"{lake!r} holds no study"
            )
    if study is None:
        raise LakeError(f"name the study to be read from {lake}")
    return View(Lake(lake, study, storage_options or {}), None if at is None else as_moment(at))


def as_moment(at: datetime | str) -> datetime:
    """A moment in UTC, out of a datetime or of an ISO date or time: ``2026-03-01``, ``2026-03-01T12:00+01:00``.

    Without an offset it is local time, as Python takes it; a date alone is the beginning of the day.

    Raises:
        LakeError: the text is no date or time, or the moment is yet to come.
    """
    try:
        moment = (datetime.fromisoformat(at) if isinstance(at, str) else at).astimezone(UTC)
    except ValueError as error:
        raise LakeError(f"{at!r} is no date or time; write it like 2026-03-01 or 2026-03-01T12:00+00:00") from error
    if moment > datetime.now(UTC):
        raise LakeError(f"{moment.isoformat(' ')} is yet to come; name a moment that has passed")
    return moment


def _version(published: pl.DataFrame, table: str) -> int:
    """Version of a table that holds every partition published at a moment.

    Whatever was committed later to one of them had been announced as ``building`` before, so it is not among them.
    """
    versions = published.select(pl.col("table_versions").explode()).unnest("table_versions")
    return int(versions.filter(table=table)["version"].max())  # type: ignore[arg-type]


def _where(published: pl.DataFrame, columns: list[str]) -> pl.DataFrame:
    """Partition columns of published partitions."""
    rows = [{each["column"]: each["value"] for each in where} for where in published["where"].to_list()]
    frame = pl.DataFrame(rows, schema=dict.fromkeys(columns, pl.String))
    return frame.with_columns(pl.col("block").cast(pl.Int32)) if "block" in columns else frame


def _is_in(where: list[dict[str, str]], choices: dict[str, Any], shards: list[str]) -> bool:
    """Whether a study still has a partition's shard, dictionary, model, block and pair of dictionaries."""
    values = {each["column"]: each["value"] for each in where}
    return (
        values.get("dictionary", next(iter(choices["dictionaries"]))) in choices["dictionaries"]
        and ("shard" not in values or values["shard"] in shards)
        and ("llm" not in values or values["llm"] in choices["llms"])
        and int(values.get("block", 0)) < choices["blocks"]
        and ("pair" not in values or _is_pair(values["comparison"], values["pair"], choices))
    )


def _is_pair(comparison: str, pair: str, choices: dict[str, Any]) -> bool:
    """Whether a study still compares two dictionaries."""
    own = choices.get("comparisons", {}).get(comparison)
    return own is not None and pair in pairs_of(own, choices["dictionaries"])
