"""Launches the plan through Dagster's daemon: a schedule or a sensor begins, and a run that ends well asks for what is next.

Each run computes a product range of one stage's partitions; what is up to date launches nothing. What waits for others is
planned again when these are done, so that what turns out unchanged is not launched either.
"""

import json
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import dagster as dg

from assets.events import asset_key
from assets.stage import LAUNCH_TAG, STUDY_TAG
from jobs.launch import WORK_TAG, prepare, works
from latentlake.catalog import Catalog
from latentlake.corpus import files
from latentlake.digest import digest
from latentlake.flow import Flow
from latentlake.lake import Lake
from latentlake.origins import Origins
from latentlake.plan import Plan, State
from latentlake.study import Study, require_unchanged

# When to look is no choice of the study: it changes no result.
_NIGHTLY = os.environ.get("LATENTLAKE_NIGHTLY", "0 2 * * *")
_LOOK_SECONDS = int(os.environ.get("LATENTLAKE_LOOK_SECONDS", "60"))

# The job that Dagster makes of all assets. One that is defined may hold only assets that are partitioned alike.
_JOB = "__ASSET_JOB"
_RUN_KEY = "dagster/run_key"  # a tag of what schedules and sensors launch, and of nothing else
_UNDER_WAY = dg.RunsFilter(
    statuses=[
        dg.DagsterRunStatus.QUEUED,
        dg.DagsterRunStatus.NOT_STARTED,
        dg.DagsterRunStatus.STARTING,
        dg.DagsterRunStatus.STARTED,
        dg.DagsterRunStatus.CANCELING,
    ]
)

Requests = list[dg.RunRequest]


@dataclass(frozen=True)
class Launcher:
    """Plans one study in one lake for the daemon. ``origins``: takes a fresh look at what the study names outside the lake."""

    study: Study
    lake: Lake
    origins: Callable[[], Origins]

    def begin(self, instance: dg.DagsterInstance, launch: str) -> Requests:
        """The first runs of a launch; failed calls are made again.

        Raises:
            LatentlakeError: bad input, or the study was edited since the code location was loaded.
        """
        require_unchanged(self.study)
        flow = Flow(self.study)
        return list(self._requests(instance, prepare(instance, flow, self.lake, self.origins()), launch))

    def go_on(self, instance: dg.DagsterInstance, launch: str) -> Requests:
        """The runs that can follow now. Partitions with failed calls count as done: a launch makes each call once."""
        require_unchanged(self.study)
        plan = Plan(Flow(self.study), self.origins(), Catalog(self.lake), retries=False)
        return list(self._requests(instance, plan, launch))

    def _requests(self, instance: dg.DagsterInstance, plan: Plan, launch: str) -> Iterator[dg.RunRequest]:
        """A request for each range that can be computed and that this launch has not asked for already.

        Assets that a run is at work on wait for its end, whoever began it: of two runs on a partition one would be refused. So
        do shards that are not registered: a file that came since the launch began may be growing.
        """
        asked = {run.tags.get(WORK_TAG) for run in instance.get_runs(dg.RunsFilter(tags={LAUNCH_TAG: launch}))}
        busy = {key for run in instance.get_runs(_UNDER_WAY) for key in run.asset_selection or ()}
        flow, unknown = Flow(self.study), set(plan.shards) - set(Catalog(self.lake).shards())
        for stage in flow.stages.values():
            stale = [each for each in plan.all if each.stage.name == stage.name and each.state is State.STALE]
            ready = [each for each in stale if stage.values(each.partition).get("shard") not in unknown]
            for work in works(flow, plan, stage, ready) if ready and asset_key(stage.name) not in busy else []:
                if work.tags[WORK_TAG] not in asked:
                    tags = {**work.tags, LAUNCH_TAG: launch, STUDY_TAG: self.study.digest}
                    yield dg.RunRequest(run_key=f"{launch}:{tags[WORK_TAG]}", asset_selection=work.selection, tags=tags)


def nightly(launcher: Launcher) -> dg.ScheduleDefinition:
    """Every night, or when ``LATENTLAKE_NIGHTLY`` says (a cron expression), whatever is not up to date."""

    @dg.schedule(name="nightly", job_name=_JOB, cron_schedule=_NIGHTLY, description=nightly.__doc__)
    def evaluate(context: dg.ScheduleEvaluationContext) -> Requests | dg.SkipReason:
        at = context.scheduled_execution_time.isoformat(timespec="seconds")
        return launcher.begin(context.instance, f"nightly {at}") or dg.SkipReason(
            "everything is up to date or under way"
        )

    return evaluate


def new_shards(launcher: Launcher) -> dg.SensorDefinition:
    """New or changed files under the corpus, once they are complete, become shards, and the plan is launched.

    A file is complete when two looks in a row find the same size and time of change.
    """

    @dg.sensor(name="new_shards", job_name=_JOB, minimum_interval_seconds=_LOOK_SECONDS, description=new_shards.__doc__)
    def evaluate(context: dg.SensorEvaluationContext) -> dg.SensorResult | dg.SkipReason:
        seen, last = _look(launcher.study), json.loads(context.cursor or "{}")
        growing = [path for path, facts in seen.items() if last.get("seen", {}).get(path) != facts]
        if growing or seen == last.get("launched"):
            context.update_cursor(json.dumps({**last, "seen": seen}))
            return dg.SkipReason(
                f"to be looked at again, for they may be growing: {', '.join(growing)}" if growing else "no new files"
            )
        requests = launcher.begin(context.instance, f"new shards {digest(seen)[:12]}")
        # what is under way may be in the way of what is new: then this is asked for again at the next look
        launched = last.get("launched") if context.instance.get_runs(_UNDER_WAY, limit=1) else seen
        return dg.SensorResult(run_requests=requests, cursor=json.dumps({"seen": seen, "launched": launched}))

    return evaluate


def next_stage(launcher: Launcher) -> dg.SensorDefinition:
    """When a run of a launch ends well, launches what depended on it. Does nothing unless a schedule or sensor began one."""

    @dg.sensor(
        name="next_stage",
        job_name=_JOB,
        minimum_interval_seconds=5,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description=next_stage.__doc__,
    )
    def evaluate(context: dg.SensorEvaluationContext) -> Requests | dg.SkipReason:
        since = datetime.fromisoformat(context.cursor) if context.cursor else datetime.now(UTC)
        ended = context.instance.get_run_records(
            dg.RunsFilter(statuses=[dg.DagsterRunStatus.SUCCESS], updated_after=since)
        )
        context.update_cursor(max([since, *(record.update_timestamp for record in ended)]).isoformat())
        tags = [record.dagster_run.tags for record in ended]
        launches = [each[LAUNCH_TAG] for each in tags if LAUNCH_TAG in each and _RUN_KEY in each]
        if not launches:
            return dg.SkipReason("no run of a schedule or sensor has ended")
        # the plan is one: the newest launch goes on with what other launches began, too
        return launcher.go_on(context.instance, launches[0]) or dg.SkipReason("nothing can follow now")

    return evaluate


def _look(study: Study) -> dict[str, list[int]]:
    """Size and time of change of each file of the corpus."""
    stats = {str(path): Path(path).stat() for path in files(study.corpus, study.home)}
    return {path: [stat.st_size, stat.st_mtime_ns] for path, stat in stats.items()}
