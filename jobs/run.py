"""The run entry: makes a plan, executes it through Dagster stage by stage, and shows what came out.

``python -m jobs.run [--plan]``; the study is the one that LATENTLAKE_STUDY names, the lake the one of LATENTLAKE_LAKE.
"""

import argparse
import os
import sys
import warnings
from collections import Counter
from pathlib import Path
from typing import Protocol
from uuid import uuid4

import dagster as dg

from assets.events import asset_key
from assets.process import PROCESS_TAG, this_process
from assets.stage import STUDY_TAG
from definitions import build_definitions, study_path
from jobs.mend import bury_dead_runs, mend, register_shards
from jobs.progress import TerminalProgress
from latentlake.catalog import Catalog
from latentlake.errors import LatentlakeError
from latentlake.flow import Flow, Stage
from latentlake.lake import Lake
from latentlake.origins import Origins
from latentlake.plan import Plan, State, product_ranges
from latentlake.protocols import Handles
from latentlake.study import Study, load_study, require_unchanged
from latentlake.summary import summarize
from latentlake.upkeep import tidy
from latentlake.view import View
from resources.lake import LakeResource, lake_from_environment
from resources.models import models_from_environment

_RANGE_START, _RANGE_END = "dagster/asset_partition_range_start", "dagster/asset_partition_range_end"
_NO_DAEMON = {"dagster/max_retries": "0", "dagster/max_runtime": "0"}  # a daemon beside is to let these runs alone
_VERIFIED = ("subject", "dictionaries", "selections")  # what `Origins.verify` holds against each other
_QUIET = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}


class Models(Protocol):
    """What a run needs of `resources.models.ModelsResource`; tests give fakes."""

    def origins(self, study: Study) -> Origins:
        """The models, checkpoints and corpus files that a study names."""
        ...

    def handles(self, study: Study, origins: Origins) -> Handles:
        """The doors to a study's models."""
        ...


class Run:
    """One execution of the plan of a study."""

    def __init__(
        self,
        path: str,
        instance: dg.DagsterInstance,
        lake: LakeResource,
        models: Models,
        progress: TerminalProgress,
    ) -> None:
        self.path, self.instance, self.progress = path, instance, progress
        self.study = load_study(path)
        self.flow = Flow(self.study)
        self.lake: Lake = lake.open(self.study.name)
        self.origins: Origins = models.origins(self.study)
        definitions = build_definitions(self.study, lake=lake, models=models, progress=progress)
        self._job = definitions.resolve_implicit_global_asset_job_def()

    def plan(self) -> Plan:
        """The plan as of now."""
        return Plan(self.flow, self.origins, Catalog(self.lake))

    def execute(self) -> None:
        """Compute whatever is not up to date. Bad input is refused before anything is written.

        Raises:
            LatentlakeError: bad input, or the study was edited meanwhile.
        """
        if any(each.stage.kind in _VERIFIED and each.state is not State.FRESH for each in self.plan().all):
            self.origins.verify()
        Catalog(self.lake).register(self.study, list(self.flow.stages), self.origins.shards)
        register_shards(self.instance, self.flow, self.plan().shards)
        bury_dead_runs(self.instance)
        mend(self.instance, self.flow, self.plan())
        for stage in self.flow.stages.values():
            self._compute(stage)
        mend(self.instance, self.flow, self.plan())
        tidy(self.lake)

    def _compute(self, stage: Stage) -> None:
        plan = self.plan()
        stale = [each.partition for each in plan.of(stage) if each.state is not State.FRESH]
        order = [plan.shards if axis == "shard" else list(self.flow.keys(axis)) for axis in stage.dimensions]
        for start, end in product_ranges(stage, stale, order):
            require_unchanged(self.study, self.path)
            self._launch(stage, start, end)

    def _launch(self, stage: Stage, start: str, end: str) -> None:
        """One Dagster run over a range of partitions."""
        run = str(uuid4())
        tags = {STUDY_TAG: self.study.digest, PROCESS_TAG: this_process(run), **_NO_DAEMON}
        if stage.dimensions:
            tags |= {_RANGE_START: start, _RANGE_END: end}
        self._job.get_subset(asset_selection={asset_key(stage.name)}).execute_in_process(
            instance=self.instance, run_id=run, tags=tags, run_config=_QUIET
        )


def print_plan(plan: Plan) -> None:
    """Partitions by stage and state, with the first reason of each."""
    planned, reasons = plan.all, plan.reasons(plan.all)
    for name in dict.fromkeys(each.stage.name for each in planned):
        own = [each for each in planned if each.stage.name == name]
        counts = Counter(each.state for each in own)
        reason = next((reasons[each.key] for each in own if each.key in reasons), "")
        print(f"{name:<26} {', '.join(f'{n} {state}' for state, n in counts.items()):<44} {reason}")
    for asset, partition in plan.orphans:
        print(f"{asset}[{partition}] is no longer in the study; it is hidden from readers")


def main(arguments: list[str] | None = None) -> int:
    """The command; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m jobs.run", description="Materialize a study.")
    parser.add_argument("--plan", action="store_true", help="only show what would be computed, and why")
    options = parser.parse_args(arguments)
    warnings.filterwarnings("ignore", category=dg.BetaWarning)
    os.environ.setdefault("DAGSTER_HOME", str(_dagster_home(Path.cwd())))
    try:
        return _run(options.plan)
    except LatentlakeError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1


def _dagster_home(checkout: Path) -> Path:
    """The instance's folder in a checkout, with its configuration linked in as ``make`` does."""
    home = checkout / ".dagster"
    home.mkdir(exist_ok=True)
    if not (home / "dagster.yaml").exists():
        (home / "dagster.yaml").symlink_to("../dagster.yaml")
    return home


def _run(is_plan: bool) -> int:
    lake, models, progress = lake_from_environment(), models_from_environment(), TerminalProgress()
    with dg.DagsterInstance.get() as instance:
        run = Run(study_path(), instance, lake, models, progress)
        if is_plan:
            print_plan(run.plan())
            return 0
        run.execute()
    _print_end(run, lake)
    return 0


def _print_end(run: Run, lake: LakeResource) -> None:
    print(summarize(View(run.lake)))
    computed = {name: n for name, n in run.progress.computed.items() if n}
    print(
        f"\ncomputed: {', '.join(f'{name} {n}' for name, n in computed.items()) or 'nothing, everything was up to date'}"
    )
    print(f"model calls made: {run.progress.calls_made}")
    print(f"the lake is {Path(lake.uri).resolve() if run.lake.is_local else lake.uri}; to query it:\n")
    print(_QUERY.format(lake=lake.uri, study=run.study.name))


_QUERY = """    import latentlake, polars as pl
    lake = latentlake.open("{lake}", "{study}")
    print(lake.scores.filter(pl.col("metric") == "auroc").collect())
"""


if __name__ == "__main__":
    sys.exit(main())
