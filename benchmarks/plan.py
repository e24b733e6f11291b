"""What planning costs on a large lake: ``python -m benchmarks.plan [PARTITIONS ...]``.

A study of many dictionaries, blocks and shards is published in real tables, with synthetic rows. The
plan is held against the floor under it: reading that table and listing the study's partitions, both with Polars, in
the same process by turns. Then the run entry runs a study of 1,000 partitions of which all are up to date.
"""

import argparse
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import Any

import dagster as dg
import polars as pl
import pyarrow as pa
import yaml

from jobs.progress import TerminalProgress
from jobs.run import Run
from latentlake.catalog import BUILDING, PUBLISHED, Catalog, Publication
from latentlake.corpus import Shard
from latentlake.digest import digest
from latentlake.flow import Flow
from latentlake.lake import Lake
from latentlake.origins import Origins
from latentlake.plan import Plan, State
from latentlake.protocols import Handles
from latentlake.study import Study, load_study
from latentlake.tables import TABLES
from resources.lake import LakeResource

ROUNDS = 5
DICTIONARIES, SHARDS = 10, 64


class SyntheticOrigins(Origins):
    """Files that do not exist: digests made of their names."""

    @property
    def shards(self) -> dict[str, Shard]:
        """The benchmark's shards."""
        source = self.study.corpus.sources["docs"]
        keys = [f"docs-{number:04}" for number in range(SHARDS)]
        return {key: Shard(key, "docs", key, Path(key), None, 0, 1, key, source) for key in keys}

    def digest_of(self, kind: str, values: dict[str, str]) -> str | None:
        """As if a file were behind each partition of the first stages."""
        return digest([kind, values]) if kind in ("subject", "llms", "dictionaries", "selections", "contexts") else None


class SyntheticModels:
    """In the place of the models: nothing here may load one."""

    def origins(self, study: Study) -> Origins:
        """Files that do not exist."""
        return SyntheticOrigins(study, Path("unused"))

    def handles(self, study: Study, origins: Origins, lake: Lake) -> Handles:
        """An up-to-date run needs none."""
        raise AssertionError("an up-to-date run asked for a model")


def write_study(folder: Path, partitions: int) -> Path:
    """A study of about so many partitions."""
    entry = {"hookpoint": "layers.1", "coder": "coder", "latents": 6}
    stages, fixed = 8, DICTIONARIES * (SHARDS + 2) + SHARDS + 3
    study = {
        "name": f"of{partitions}",
        "blocks": max(1, (partitions - fixed) // (stages * DICTIONARIES)),
        "corpus": {"sources": {"docs": {"path": "*.jsonl"}}},
        "subject": {"model": "model"},
        "reconstruction": None,
        "logits": None,
        "dictionaries": {f"d{number}": entry for number in range(DICTIONARIES)},
        "samples": {
            "strong": {"split": "explain", "windows": 4},
            "select": {"split": "select", "windows": 4, "negatives": 4},
            "test": {"split": "score", "windows": 8, "negatives": 8},
        },
        "llms": {
            "judge": {"model": "model", "engine": "transformers"},
            "embedder": {"model": "embedder", "engine": "sentence_transformers"},
        },
        "explainers": {
            "default": {
                "method": "pattern", "llm": "judge", "sample": "strong", "select_sample": "select",
                "embedder": "embedder",
            },
        },
        "scorers": {
            "embedding": {
                "method": "embedding", "explainers": ["default"], "sample": "test", "windows": 8, "embedder": "embedder",
            },
            "surprisal": {
                "method": "surprisal", "explainers": ["default"], "sample": "test", "windows": 4, "llm": "judge",
            },
            "detection": {
                "method": "detection", "explainers": ["default"], "sample": "test", "windows": 4, "together": 1, "llm": "judge",
            },
        },
    }  # fmt: skip
    path = folder / f"{study['name']}.yaml"
    path.write_text(yaml.safe_dump(study, sort_keys=False))
    return path


def publish(study: Study, lake: Lake) -> int:
    """Publish every partition of a study, up to date, in one commit; returns how many."""
    flow, origins, catalog = Flow(study), SyntheticOrigins(study, Path("unused")), Catalog(lake)
    catalog.register(study, list(flow.stages), origins.shards)
    plan, rows = Plan(flow, origins, catalog), []
    for stage in flow.stages.values():
        for key in flow.partitions(stage, plan.shards):
            recipe = plan.recipe(stage, key)
            made = Publication(
                stage.name, key, 1, PUBLISHED, recipe.digest, recipe.code_version, digest([stage.name, key]), 100, 0,
                study.digest, "run", datetime.now(UTC),
            )  # fmt: skip
            plan._published[stage.name][key] = str(made.data_version)
            row = {
                **made._asdict(),
                "inputs": [each._asdict() for each in recipe.inputs],
                "where": [{"column": c, "value": str(v)} for c, v in stage.columns(stage.values(key)).items()],
                "table_versions": [{"table": table, "version": 1, "files": ""} for table in stage.tables],
            }
            rows += [{**row, "state": BUILDING, "data_version": None}, row]
    for table in {table for stage in flow.stages.values() for table in stage.tables}:
        own = [stage for stage in flow.stages.values() if table in stage.tables]
        lake.append(
            table, synthetic(table, [s.columns(s.values(k)) for s in own for k in flow.partitions(s, plan.shards)])
        )
    lake.append("partitions", pa.Table.from_pylist(rows, schema=TABLES["partitions"].schema))
    return len(rows) // 2


def synthetic(table: str, places: Sequence[Mapping[str, str | int]]) -> pa.Table:
    """A row for each partition of a table, a file each; empty but for the partition columns."""
    columns = {
        field.name: pa.array([place.get(field.name, _empty(field.type)) for place in places], field.type)
        for field in TABLES[table].schema
    }
    return pa.table(columns, schema=TABLES[table].schema)


def _empty(of: pa.DataType) -> Any:
    if pa.types.is_nested(of):
        return []
    return "" if pa.types.is_string(of) else False if pa.types.is_boolean(of) else 0


def read_and_list(lake: Lake, flow: Flow, shards: Sequence[str]) -> int:
    """The floor: the whole table read, and the study's partitions listed, with Polars."""
    table = lake.scan("partitions").collect()
    axes: dict[str, list[str]] = {
        "shard": list(shards),
        "llm": list(flow.study.llms),
        "dictionary": list(flow.study.dictionaries),
    }
    axes["block"] = [str(block) for block in range(flow.study.blocks)]
    listed = [
        pl.select(asset=pl.lit(stage.name))
        .join(_product([axes[name] for name in sorted(stage.dimensions)]), how="cross")
        .select(
            "asset", partition=pl.concat_str(pl.exclude("asset"), separator="|") if stage.dimensions else pl.lit("")
        )
        for stage in flow.stages.values()
    ]
    return len(pl.concat(listed)) + len(table)


def _product(axes: list[list[str]]) -> pl.DataFrame:
    frame = pl.DataFrame({"": [""]}) if not axes else pl.DataFrame({"0": axes[0]})
    for number, axis in enumerate(axes[1:], 1):
        frame = frame.join(pl.DataFrame({str(number): axis}), how="cross")
    return frame


def seconds(work: Callable[[], Any], clock: Callable[[], float] = time.process_time) -> float:
    """Time of one call: of the processor, all threads, since a shared machine makes the clock on the wall meaningless."""
    begun = clock()
    work()
    return clock() - begun


def measure(folder: Path, partitions: int) -> dict[str, float]:
    """One row of the table: median CPU-seconds of the floor and of the plan."""
    study = load_study(write_study(folder, partitions))
    lake, flow = Lake(str(folder / "lake"), study.name), Flow(study)
    published = publish(study, lake)
    shards = list(SyntheticOrigins(study, Path("unused")).shards)

    def plan() -> None:
        made = Plan(Flow(study), SyntheticOrigins(study, Path("unused")), Catalog(lake))
        assert all(each.state is State.FRESH for each in made.all)
        assert len(made.all) == published

    rounds = [(seconds(lambda: read_and_list(lake, flow, shards)), seconds(plan)) for _ in range(ROUNDS + 1)][1:]
    floor, planned = (median(each) for each in zip(*rounds, strict=True))
    return {"partitions": published, "floor": floor, "plan": planned, "ratio": planned / floor}


def up_to_date_run(folder: Path, partitions: int) -> tuple[int, float]:
    """Seconds of a run in which nothing is to be done, after one that told Dagster of everything."""
    path = write_study(folder, partitions)
    study, lake = load_study(path), LakeResource(uri=str(folder / "lake"))
    published = publish(study, lake.open(study.name))
    (folder / "instance").mkdir()
    with dg.DagsterInstance.local_temp(str(folder / "instance")) as instance:

        def run() -> None:
            made = Run(str(path), instance, lake, SyntheticModels(), TerminalProgress())
            made.execute()
            assert not any(made.progress.computed.values())

        run()
        return published, seconds(run, time.perf_counter)


def rows(folder: Path, sizes: Sequence[int]) -> Iterator[str]:
    """The lines of the report."""
    for size in sizes:
        found = measure(folder, size)
        yield (
            f"{found['partitions']:>6.0f} partitions: read and list {found['floor']:.3f} cpu-s, plan {found['plan']:.3f} cpu-s, "
            f"ratio {found['ratio']:.2f}"
        )
    published, took = up_to_date_run(folder, 1000)
    yield f"a run of {published} up-to-date partitions: {took:.1f} s"


def main() -> None:
    """Print the report."""
    parser = argparse.ArgumentParser(description="What planning costs on a large lake.")
    parser.add_argument("partitions", nargs="*", type=int, default=[2500, 5000, 10000])
    warnings.filterwarnings("ignore", category=dg.BetaWarning)
    with tempfile.TemporaryDirectory() as folder:
        for line in rows(Path(folder), parser.parse_args().partitions):
            print(line, flush=True)


if __name__ == "__main__":
    main()
