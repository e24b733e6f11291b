"""A coder that is trained here, where the study names none."""

import tempfile
from dataclasses import asdict
from pathlib import Path

import polars as pl
import pyarrow as pa

from latentlake.coders.keeping import parts
from latentlake.coders.training import Lesson, train
from latentlake.hookpoints import neutral, written_by
from latentlake.tables import TABLES
from latentlake.work import Tables, Work


def compute(work: Work) -> Tables:
    """The coder's files, and how training went.

    Raises:
        InputError: the shards that it is trained on have too few contexts.
    """
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
        steps = train(choice.train, lesson, Path(folder), work.progress.share)
        kept = [{"dictionary": work.dictionary, **part} for part in parts(Path(folder) / "coder")]
    curve = pl.DataFrame([asdict(step) for step in steps])
    return {
        "coders": pa.Table.from_pylist(kept, schema=TABLES["coders"].schema),
        "trainings": curve.with_columns(dictionary=pl.lit(work.dictionary)),
    }
