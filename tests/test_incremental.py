"""The schedule and the sensor launch the plan, range by range, and nothing that is up to date."""

from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import dagster as dg
import pytest

from definitions import build_definitions
from jobs.groups import asset_jobs
from jobs.incremental import Launcher, new_shards, next_stage, nightly
from latentlake.errors import LatentlakeError
from latentlake.study import load_study
from resources.lake import LakeResource
from tests.workbench import EVERYTHING, FakeModels, Workbench

ROOT = Path(__file__).parents[1]
NIGHT = datetime(2026, 1, 2, 2, tzinfo=UTC)


class Daemon:
    """Does what Dagster's daemon does: evaluates, runs what is requested, and asks what can follow each run."""

    def __init__(self, bench: Workbench) -> None:
        self.bench, run = bench, bench.prepare()
        models = FakeModels(bench.folder / "cache", bench.subject, bench.llm)
        self.study, self.progress = run.study, run.progress
        self._job = build_definitions(
            self.study, lake=bench.lake, models=models, progress=self.progress
        ).resolve_implicit_global_asset_job_def()
        self.launcher = Launcher(self.study, bench.lake.open(self.study.name), lambda: models.origins(self.study))
        self._cursor: str | None = None
        assert self.follow() == []  # what ended before is of no interest

    def run(self, requests: Sequence[dg.RunRequest]) -> list[str]:
        """Run requests and what follows them; returns the assets in the order of the runs."""
        waiting, done = list(requests), []
        while waiting:
            request = waiting.pop(0)
            (key,) = request.asset_selection or ()
            done.append(key.to_user_string())
            subset = self._job.get_subset(asset_selection={key})
            tags = {**request.tags, "dagster/run_key": str(request.run_key)}
            assert subset.execute_in_process(instance=self.bench.instance, tags=tags).success
            asked = {each.run_key for each in waiting}  # a run key is launched once
            waiting += [each for each in self.follow() if each.run_key not in asked]
        return done

    def computed(self) -> dict[str, int]:
        """Partitions computed since this daemon began, by asset."""
        return {name: n for name, n in self.progress.computed.items() if n}

    def night(self, hour: int = 2) -> list[dg.RunRequest]:
        """What the nightly schedule launches."""
        context = dg.build_schedule_context(self.bench.instance, scheduled_execution_time=NIGHT.replace(hour=hour))
        return nightly(self.launcher).evaluate_tick(context).run_requests or []

    def follow(self) -> list[dg.RunRequest]:
        """What is launched because runs have ended since this was asked before."""
        context = dg.build_sensor_context(self.bench.instance, cursor=self._cursor)
        found = next_stage(self.launcher).evaluate_tick(context)
        self._cursor = found.cursor
        return found.run_requests or []

    def look(self, cursor: str | None) -> tuple[list[dg.RunRequest], str | None, str | None]:
        """What the sensor launches: requests, the cursor it leaves, and why it skipped."""
        context = dg.build_sensor_context(self.bench.instance, cursor=cursor)
        found = new_shards(self.launcher).evaluate_tick(context)
        return found.run_requests or [], found.cursor, found.skip_message


def test_the_schedule_launches_the_whole_flow_stage_after_stage(workbench: Workbench) -> None:
    daemon = Daemon(workbench)
    order = daemon.run(daemon.night())
    assert daemon.computed() == EVERYTHING
    assert Counter(order) == Counter(dict.fromkeys(EVERYTHING, 1))  # one range a stage
    assert workbench.stale() == {}
    assert workbench.dagster_stale() == {}


def test_what_is_up_to_date_launches_nothing(materialized: Workbench) -> None:
    assert Daemon(materialized).night() == []


def test_a_changed_prompt_launches_the_explainer_and_then_what_depended_on_it(materialized: Workbench) -> None:
    path = materialized.folder / "pattern.txt"
    path.write_text(path.read_text().replace("spices", "seasonings"))
    daemon = Daemon(materialized)
    order = daemon.run(daemon.night())
    assert order[0] == "explanations/default"
    assert sorted(order[1:-1]) == [f"scores/default/{name}" for name in ("detection", "embedding", "surprisal")]
    assert daemon.computed() == {**dict.fromkeys(order[:-1], 2), "agreements": 1}


def test_what_turns_out_unchanged_is_not_launched(materialized: Workbench) -> None:
    materialized.study["explainers"]["default"]["temperature"] = 0.9  # which the fake does not heed
    daemon = Daemon(materialized)
    assert daemon.run(daemon.night()) == ["explanations/default"]


def test_runs_say_why_and_under_which_study(materialized: Workbench) -> None:
    path = materialized.folder / "detection.txt"
    path.write_text(path.read_text().replace("Answer yes or no.", "Say yes or no."))
    daemon = Daemon(materialized)
    (request,) = daemon.night()
    assert request.tags["latentlake/reason"].startswith("code version ")
    assert request.tags["latentlake/study"] == daemon.study.digest
    assert request.tags["dagster/asset_partition_range_start"] == "0|one"
    assert request.tags["dagster/asset_partition_range_end"] == "1|one"


def test_failed_calls_are_made_again_once_a_launch(materialized: Workbench) -> None:
    path = materialized.folder / "detection.txt"
    path.write_text(path.read_text().replace("Answer yes or no.", "Say yes or no."))
    materialized.llm.fails = True
    daemon = Daemon(materialized)
    assert daemon.run(daemon.night()) == ["scores/default/detection", "agreements"]
    materialized.llm.fails = False
    later = Daemon(materialized)
    assert later.run(later.night(hour=3)) == ["scores/default/detection", "agreements"]
    assert materialized.stale() == {}


def under_way(bench: Workbench, asset: str) -> dg.DagsterRun:
    """A run that is at work on an asset, begun by whomever."""
    key = dg.AssetKey(asset.split("/"))
    run = dg.DagsterRun("__ASSET_JOB", status=dg.DagsterRunStatus.STARTED, asset_selection=frozenset({key}))
    return bench.instance.add_run(run)


def test_what_a_run_is_at_work_on_is_not_launched_beside_it(materialized: Workbench) -> None:
    path = materialized.folder / "detection.txt"
    path.write_text(path.read_text().replace("Answer yes or no.", "Say yes or no."))
    daemon, run = Daemon(materialized), under_way(materialized, "scores/default/detection")
    assert daemon.night() == []
    materialized.instance.report_run_canceled(run)
    assert [request.asset_selection for request in daemon.night()] == [list(run.asset_selection or ())]


def test_new_files_are_asked_for_again_while_something_is_under_way(materialized: Workbench) -> None:
    daemon, run = Daemon(materialized), under_way(materialized, "contexts")
    materialized.write_shard("c", 3)
    requests, cursor, _ = daemon.look(daemon.look(None)[1])
    assert requests == []
    materialized.instance.report_run_canceled(run)
    requests, cursor, _ = daemon.look(cursor)
    assert [request.asset_selection for request in requests] == [[dg.AssetKey("contexts")]]
    assert daemon.look(cursor)[2] == "no new files"


def test_a_file_that_came_while_runs_went_on_is_not_read_by_what_follows(materialized: Workbench) -> None:
    daemon = Daemon(materialized)
    materialized.write_shard("c", 3, documents=5)
    assert daemon.launcher.go_on(materialized.instance, "night") == []


def test_runs_by_hand_launch_nothing(materialized: Workbench) -> None:
    path = materialized.folder / "detection.txt"
    path.write_text(path.read_text().replace("Answer yes or no.", "Say yes or no."))
    daemon = Daemon(materialized)
    materialized.run()
    path.write_text(path.read_text().replace("Say yes or no.", "Answer."))
    assert Daemon(materialized).follow() == daemon.follow() == []


def test_a_study_edited_after_it_was_loaded_is_refused(materialized: Workbench) -> None:
    daemon = Daemon(materialized)
    materialized.study["seed"] = 5
    materialized.prepare()
    with pytest.raises(LatentlakeError, match="reload the code location"):
        daemon.launcher.begin(materialized.instance, "night")
    with pytest.raises(LatentlakeError, match="reload the code location"):
        daemon.launcher.go_on(materialized.instance, "night")


def test_a_new_file_is_launched_once_it_is_complete(materialized: Workbench) -> None:
    daemon = Daemon(materialized)
    requests, cursor, why = daemon.look(None)
    assert (requests, "may be growing" in str(why)) == ([], True)
    requests, cursor, why = daemon.look(cursor)
    assert requests == []  # the files that are there are in the lake
    materialized.write_shard("c", 3, documents=5)
    assert daemon.look(cursor)[0] == []
    requests, growing, _ = daemon.look(cursor)
    materialized.write_shard("c", 3)
    assert daemon.look(growing)[0] == []
    requests, cursor, why = daemon.look(daemon.look(growing)[1])
    assert [request.asset_selection for request in requests] == [[dg.AssetKey("contexts")]]
    assert daemon.run(requests) == ["contexts", "activations"]
    assert daemon.computed() == {"contexts": 1, "activations": 1}
    requests, _, why = daemon.look(cursor)
    assert (requests, why) == ([], "no new files")


def test_a_file_that_is_not_what_it_should_be_launches_nothing(materialized: Workbench) -> None:
    daemon, before = Daemon(materialized), materialized.data_versions()
    (materialized.folder / "docs" / "d.jsonl").write_text('{"title": "d"')
    _, cursor, _ = daemon.look(None)
    with pytest.raises(LatentlakeError, match=r"d\.jsonl"):
        daemon.look(cursor)
    assert materialized.data_versions() == before


def test_jobs_of_assets_that_are_partitioned_alike_are_in_the_ui(materialized: Workbench) -> None:
    assert list(asset_jobs(materialized.prepare().flow)) == ["explain", "rescore"]
    materialized.study["scorers"] = {}
    assert list(asset_jobs(materialized.prepare().flow)) == ["explain"]


def test_dagster_can_load_everything_there_is(workbench: Workbench) -> None:
    dg.Definitions.validate_loadable(build_definitions(workbench.prepare().study, lake=workbench.lake))


def test_a_job_of_the_run_entry_computes_its_stages_alone(materialized: Workbench) -> None:
    for prompt in ("detection.txt", "pattern.txt"):
        path = materialized.folder / prompt
        path.write_text(path.read_text() + " ")
    run = materialized.prepare()
    run.execute("rescore")
    assert {name: n for name, n in run.progress.computed.items() if n} == {
        "scores/default/detection": 2,
        "agreements": 1,
    }


def test_schedule_and_sensor_are_off_until_they_are_switched_on(workbench: Workbench) -> None:
    workbench.prepare()
    repository = build_definitions(load_study(workbench.path), lake=workbench.lake).get_repository_def()
    status = {each.name: each.default_status.name for each in (*repository.schedule_defs, *repository.sensor_defs)}
    assert status == {
        "nightly": "STOPPED",
        "weekly_maintenance": "STOPPED",
        "new_shards": "STOPPED",
        "next_stage": "RUNNING",
    }


@pytest.mark.parametrize(
    "path", [ROOT / "study.yaml", *sorted(ROOT.glob("studies/*.yaml"))], ids=lambda path: path.stem
)
def test_dagster_takes_every_study_of_ours(path: Path, tmp_path: Path) -> None:
    definitions = build_definitions(load_study(path), lake=LakeResource(uri=str(tmp_path / "lake")))
    assert definitions.get_repository_def().assets_defs_by_key
