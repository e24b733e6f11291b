"""A coder that is trained here, where the study names none."""

import tempfile
from dataclasses import asdict
from pathlib import Path

import polars as pl

from latentlake.coders.training import Lesson, train
from latentlake.errors import InputError
from latentlake.hookpoints import neutral, written_by
from latentlake.work import Tables, Work


def compute(work: Work) -> Tables:
    """The coder's files, which are kept beside the tables, and how training went.

    Raises:
        InputError: the study does not fit, the shards that it is trained on have too few contexts, or training diverges.
    """
    work.origins.verify()
    choice = work.study.dictionaries[work.dictionary]
    assert choice.train is not None
    rows = work.frame("contexts").sort("shard", "context").select("tokens", "excluded").collect()
    lesson = Lesson(
        work.handles.subject(choice.control == "model"),
        rows["tokens"].to_list(),
        rows["excluded"].to_list(),
        neutral(choice.hookpoint),
        written_by(choice.hookpoint, choice.writes),
    )
    with tempfile.TemporaryDirectory() as folder:
        try:
            steps = train(choice.train, lesson, Path(folder), work.progress.share)
        except InputError as error:
            raise InputError(f"dictionaries.{work.dictionary}.train: {error}") from error
        files = pl.DataFrame(work.keep(Path(folder) / "coder"))
    curve = pl.DataFrame([asdict(step) for step in steps])
    named = {"dictionary": pl.lit(work.dictionary)}
    return {"coders": files.with_columns(**named), "trainings": curve.with_columns(**named)}
