"""Moments in the life of a lake: a date or time, or what a run did."""

from datetime import datetime, timedelta

import polars as pl

from latentlake.catalog import BUILDING, PUBLISHED
from latentlake.errors import LakeError
from latentlake.reading.view import View, as_moment

SHORTEST = 6  # characters that tell a run


def moment(view: View, text: str) -> datetime:
    """A moment in UTC: an ISO date or time, as `as_moment` takes it, or the moment at which a run last published.

    ``text``: the date or time, or the run's id as in ``partitions.run``, or the beginning of it.

    Raises:
        LakeError: it is neither; or several runs begin so; or the run published nothing; or the time is yet to come.
    """
    if not _runs(view, text):
        return _date(view, text)
    published = _rows(view, text).filter(state=PUBLISHED)
    if published.is_empty():
        raise LakeError(f"run {text} published nothing; name another run, or a date")
    last: datetime = published["at"].max()  # type: ignore[assignment]
    return last


def around(view: View, run: str) -> tuple[datetime, datetime]:
    """The moment before a run changed anything, the study included, and the one of its last row in ``partitions``.

    Raises:
        LakeError: there is no such run, or several begin so.
    """
    rows = _rows(view, run)
    first: datetime = rows["at"].min()  # type: ignore[assignment]
    last: datetime = rows["at"].max()  # type: ignore[assignment]
    earlier = view.partitions.filter(pl.col("at") < first).select(pl.col("at").max()).collect().item()
    # A study is registered before the first partition of it is begun; the last row before that may be older.
    study = view.studies.filter(pl.col("at") <= first).sort("ordinal").select("at").last().collect().item()
    return max(each for each in (earlier, study - timedelta(microseconds=1)) if each is not None), last


def _rows(view: View, run: str) -> pl.DataFrame:
    """What a run wrote to ``partitions``. Rows that say `pruned` bear the id of the run that once published."""
    found = _runs(view, run)
    if not found:
        raise LakeError(_no_such(view, run))
    if len(found) > 1:
        raise LakeError(f"{len(found)} runs begin with {run!r}: {', '.join(found)}; name one of them")
    return view.partitions.filter(pl.col("state").is_in([BUILDING, PUBLISHED]), run=found[0]).collect()


def _runs(view: View, prefix: str) -> list[str]:
    """Runs whose id is the one given, or else begins so."""
    if len(prefix) < SHORTEST:
        return []
    runs = view.partitions.select("run").drop_nulls().unique().collect()["run"]
    return [prefix] if prefix in runs else runs.filter(runs.str.starts_with(prefix)).sort().to_list()


def _date(view: View, text: str) -> datetime:
    try:
        datetime.fromisoformat(text)
    except ValueError as error:
        raise LakeError(f"{_no_such(view, text)}; and it is no date or time like 2026-03-01T12:00") from error
    return as_moment(text)


def _no_such(view: View, run: str) -> str:
    recent = view.partitions.group_by("run", "asset").agg(pl.col("at").max()).sort("at").tail(3).drop_nulls().collect()
    known = "; ".join(f"{each['run']} ({each['asset']}, {each['at']:%Y-%m-%d %H:%M} UTC)" for each in recent.to_dicts())
    return f"no run begins with {run!r} (at least {SHORTEST} characters); the last ones are {known or 'none'}"
