"""What a stage is given, as results: of each table the rows of the inputs that have it."""

from collections.abc import Sequence
from functools import cached_property
from typing import Any

import polars as pl

from latentlake.catalog import prompts_of
from latentlake.flow import Flow
from latentlake.tables import TABLES
from latentlake.work import Work


class Given:
    """The inputs of a partition, as `Results` says. What no input has is empty: calls, prompts, shards."""

    def __init__(self, work: Work) -> None:
        self._work = work
        self._frames: dict[str, pl.LazyFrame] = {}

    @cached_property
    def _flow(self) -> Flow:
        return Flow(self._work.study)

    @cached_property
    def study(self) -> dict[str, Any]:
        """The study as it is written to ``studies``, as far as results follow from it."""
        study = self._work.study
        named = {"study": study.digest, "choices": study.model_dump_json(), "prompts": prompts_of(study)}
        return {**named, "assets": list(self._flow.stages), "shards": sorted(self._work.shards)}

    @property
    def uri(self) -> str:
        """Stages know no lake."""
        return f"the study {self._work.study.name}"

    def latest(self) -> pl.DataFrame:
        """A row an asset, with its code version; all that a stage follows from is there."""
        rows = [
            {"asset": stage.name, "code_version": stage.code_version}
            for stage in self._flow.stages.values()
            if stage.name != self._work.stage.name
        ]
        schema = TABLES["partitions"].empty().schema
        return pl.DataFrame(rows, schema=schema).with_columns(is_seen=pl.lit(True))

    def answers(self, keys: Sequence[str], latents: Sequence[int]) -> pl.DataFrame:
        """None: a stage reads no calls."""
        return TABLES["calls"].empty()

    def __getattr__(self, table: str) -> pl.LazyFrame:
        if table.startswith("_") or table not in TABLES:
            raise AttributeError(table)
        if table not in self._frames:
            frames = [
                self._work.frame(source.stage, table)
                for source in self._work.stage.inputs
                if table in self._flow[source.stage].tables
            ]
            self._frames[table] = pl.concat(frames) if frames else TABLES[table].empty().lazy()
        return self._frames[table]
