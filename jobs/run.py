"""The run entry: makes a plan, executes it through Dagster stage by stage, and shows what came out.

``python -m jobs.run [JOB]``; the study is the one that LATENTLAKE_STUDY names, the lake the one of LATENTLAKE_LAKE.
"""

import argparse
import os
import sys
from functools import cached_property
from pathlib import Path
from typing import Protocol
from uuid import uuid4

import dagster as dg

from assets.process import PROCESS_TAG, this_process
from assets.stage import LAUNCH_TAG, STUDY_TAG
from definitions import build_definitions, study_path
from jobs.groups import JOBS, stages_of
from jobs.launch import Work, prepare, works
from jobs.mend import mend
from jobs.progress import TerminalProgress
from latentlake.catalog import Catalog
from latentlake.errors import LatentlakeError
from latentlake.flow import Flow, Stage
from latentlake.keeping.reported import said_of
from latentlake.keeping.upkeep import tidy
from latentlake.lake import Lake
from latentlake.origins import Origins
from latentlake.plan import Plan, State
from latentlake.protocols import Handles
from latentlake.reading.summary import summarize
from latentlake.reading.view import View
from latentlake.study import Study, load_study, require_unchanged
from resources.lake import LakeResource, lake_from_environment
from resources.models import models_from_environment

_NO_DAEMON = {"dagster/max_retries": "0", "dagster/max_runtime": "0"}  # a daemon beside is to let these runs alone
_QUIET = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}


class Models(Protocol):
    """What a run needs of `resources.models.ModelsResource`; tests give fakes."""

    def origins(self, study: Study) -> Origins:
        """The models, checkpoints and corpus files that a study names."""
        ...

    def handles(self, study: Study, origins: Origins, lake: Lake) -> Handles:
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
        self.instance, self.progress = instance, progress
        self.study = load_study(path)
        self.flow = Flow(self.study)
        self.lake: Lake = lake.open(self.study.name)
        self.origins: Origins = models.origins(self.study)
        self._resources = {"lake": lake, "models": models, "progress": progress}
        self._launch_id = uuid4().hex

    @cached_property
    def definitions(self) -> dg.Definitions:
        """What Dagster is told of the study; made when something is to be computed."""
        return build_definitions(self.study, **self._resources)

    @cached_property
    def _job(self) -> dg.JobDefinition:
        return self.definitions.resolve_implicit_global_asset_job_def()

    def plan(self) -> Plan:
        """The plan as of now."""
        return Plan(self.flow, self.origins, Catalog(self.lake))

    def execute(self, job: str = "everything") -> None:
        """Compute whatever is not up to date of the stages of a job. Bad input is refused before anything is written.

        Raises:
            LatentlakeError: bad input, or the study was edited meanwhile.
        """
        plan = prepare(self.instance, self.flow, self.lake, self.origins)
        wanted = {each.stage.name for each in plan.all if each.state is not State.FRESH}
        for stage in stages_of(self.flow, job):
            if stage.name in wanted:
                self._compute(stage)
        mend(self.instance, self.flow, self.plan())
        tidy(self.lake)

    def _compute(self, stage: Stage) -> None:
        plan = self.plan()
        stale = [each for each in plan.of(stage) if each.state is not State.FRESH]
        for work in works(self.flow, plan, stage, stale) if stale else []:
            require_unchanged(self.study)
            self._launch(work)

    def _launch(self, work: Work) -> None:
        """One Dagster run over a range of partitions."""
        run = str(uuid4())
        own = {STUDY_TAG: self.study.digest, PROCESS_TAG: this_process(run), LAUNCH_TAG: self._launch_id}
        self._job.get_subset(asset_selection=set(work.selection)).execute_in_process(
            instance=self.instance, run_id=run, tags={**work.tags, **own, **_NO_DAEMON}, run_config=_QUIET
        )


def main(arguments: list[str] | None = None) -> int:
    """The command; returns the exit status."""
    said = "Materialize a study. `latentlake plan` shows beforehand what would be computed, and why."
    parser = argparse.ArgumentParser(prog="python -m jobs.run", description=said)
    parser.add_argument(
        "job", nargs="?", default="everything", choices=list(JOBS), help="what of the flow (everything)"
    )
    options = parser.parse_args(arguments)
    os.environ.setdefault("DAGSTER_HOME", str(_dagster_home(Path.cwd())))
    try:
        return _run(options.job)
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


def _run(job: str) -> int:
    lake, models, progress = lake_from_environment(), models_from_environment(), TerminalProgress()
    with dg.DagsterInstance.get() as instance:
        run = Run(study_path(), instance, lake, models, progress)
        run.execute(job)
    _print_end(run, lake)
    return 0


def _print_end(run: Run, lake: LakeResource) -> None:
    print(summarize(View(run.lake)))
    computed = {name: n for name, n in run.progress.computed.items() if n}
    print(
        f"\ncomputed: {', '.join(f'{name} {n}' for name, n in computed.items()) or 'nothing, everything was up to date'}"
    )
    print(f"model calls made: {run.progress.calls_made}")
    for check in run.progress.failed_checks:
        print(f"check failed: {check}")
    if run.study.report is not None:
        print(said_of(run.lake))
    print(f"the lake is {Path(lake.uri).resolve() if run.lake.is_local else lake.uri}; to query it:\n")
    print(_QUERY.format(lake=lake.uri, study=run.study.name))


_QUERY = """    import latentlake, polars as pl
    lake = latentlake.open("{lake}", "{study}")
    print(lake.scores.filter(pl.col("metric") == "auroc").collect())
"""


if __name__ == "__main__":
    sys.exit(main())
