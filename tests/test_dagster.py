"""What Dagster is told: one event a partition, with its own versions, in the order of the flow."""

import os
import shutil
import subprocess
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest

from assets.events import asset_key
from assets.process import PROCESS_TAG, this_process
from definitions import build_definitions
from jobs.launch import prepare
from jobs.mend import bury_dead_runs
from jobs.run import Run
from latentlake.catalog import Catalog
from tests.workbench import FakeModels, Workbench, open_instance

MATERIALIZED = dg.DagsterEventType.ASSET_MATERIALIZATION


def events(bench: Workbench, stage: str) -> list[dg.AssetMaterialization]:
    records = bench.instance.fetch_materializations(asset_key(stage), limit=100).records
    return [record.asset_materialization for record in records if record.asset_materialization]


def test_a_partition_gets_one_event_with_its_own_data_version(materialized: Workbench) -> None:
    publications = Catalog(materialized.lake.open("tiny")).publications()
    counted = Counter(
        (stage, event.partition or "")
        for stage in {key[0] for key in publications}
        for event in events(materialized, stage)
    )
    assert counted == Counter(publications.keys())
    for (stage, key), publication in publications.items():
        event = next(each for each in events(materialized, stage) if (each.partition or "") == key)
        assert event.tags is not None
        assert event.tags["dagster/data_version"] == publication.data_version
        assert event.tags["dagster/code_version"] == publication.code_version


def test_what_is_launched_by_hand_and_up_to_date_is_told_again_and_not_computed(materialized: Workbench) -> None:
    run = materialized.prepare()
    before = materialized.data_versions()
    result = launch(materialized, run, ["explanations/default", "scores/default/embedding"], "0|one", "1|one")
    assert result.success
    assert len(result.get_asset_materialization_events()) == 4
    assert materialized.data_versions() == before
    assert materialized.llm.made == []
    assert materialized.dagster_stale() == {}


def test_steps_after_another_in_one_run_are_not_skipped(materialized: Workbench) -> None:
    prompt = materialized.folder / "pattern.txt"
    prompt.write_text(prompt.read_text().replace("spices", "seasonings"))
    run = materialized.prepare()
    assert launch(materialized, run, ["explanations/default", "scores/default/embedding"], "0|one", "1|one").success
    assert materialized.stale() == {"scores/default/surprisal": 2, "scores/default/detection": 2}


def test_a_partition_whose_input_is_missing_says_what_to_do(workbench: Workbench) -> None:
    run = workbench.prepare()
    with pytest.raises(
        Exception, match=r"contexts\[docs-a-0000\] needs subject, which is not in the lake; materialize"
    ):
        workbench.instance.add_dynamic_partitions("tiny_shards", ["docs-a-0000"])
        launch(workbench, run, ["contexts"], "docs-a-0000", "docs-a-0000")


def launch(bench: Workbench, run: Run, stages: list[str], first: str, last: str) -> dg.ExecuteInProcessResult:
    """As the UI launches a range of partitions of some assets."""
    models = FakeModels(bench.folder / "cache", bench.subject, bench.llm)
    definitions = build_definitions(run.study, lake=bench.lake, models=models, progress=run.progress)
    job = definitions.resolve_implicit_global_asset_job_def().get_subset(
        asset_selection={asset_key(each) for each in stages}
    )
    tags = {"dagster/asset_partition_range_start": first, "dagster/asset_partition_range_end": last}
    return job.execute_in_process(instance=bench.instance, tags=tags)


def test_a_shard_removed_and_put_back_keeps_its_place(materialized: Workbench) -> None:
    file = materialized.folder / "docs" / "a.jsonl.gz"
    content = file.read_bytes()

    def registered() -> list[str]:
        run = materialized.prepare()
        prepare(run.instance, run.flow, run.lake, run.origins)
        return list(materialized.instance.get_dynamic_partitions("tiny_shards"))

    file.unlink()
    assert registered() == ["docs-b-0000"]
    assert set(materialized.view().contexts.collect()["shard"]) == {"docs-b-0000"}
    file.write_bytes(content)
    assert registered() == ["docs-a-0000", "docs-b-0000"]
    launch(materialized, materialized.prepare(), ["contexts"], "docs-a-0000", "docs-b-0000")
    assert materialized.run() == {}
    assert materialized.dagster_stale() == {}


def test_a_partition_launched_on_a_fresh_instance_has_pointers_that_dagster_reads(
    materialized: Workbench, tmp_path: Path
) -> None:
    (tmp_path / "fresh").mkdir()
    with open_instance(tmp_path / "fresh") as instance:
        materialized.instance = instance
        launch(materialized, materialized.prepare(), ["explanations/tokens"], "0|one", "1|one")
        assert materialized.dagster_stale()["explanations/tokens"] == 0


def test_a_scorer_materialized_by_hand_is_visible(materialized: Workbench) -> None:
    materialized.study["scorers"]["short"] = {**materialized.study["scorers"]["embedding"], "explainers": ["tokens"]}
    launch(materialized, materialized.prepare(), ["scores/tokens/short"], "0|one", "1|one")
    assert materialized.view().scores.filter(scorer="short").collect().height > 0


@pytest.fixture
def configured(tmp_path: Path) -> Iterator[dg.DagsterInstance]:
    """A fresh instance under the configuration of this checkout."""
    home = tmp_path / "home"
    home.mkdir()
    shutil.copy(Path(__file__).parents[1] / "dagster.yaml", home)
    with dg.DagsterInstance.from_config(str(home)) as instance:
        yield instance


def test_the_instance_queues_limits_retries_and_watches(configured: dg.DagsterInstance) -> None:
    concurrency = configured.get_concurrency_config()
    assert concurrency.run_queue_config is not None
    assert concurrency.run_queue_config.max_concurrent_runs == 4
    assert concurrency.pool_config.default_pool_limit == 1
    assert str(concurrency.pool_config.pool_granularity) == "PoolGranularity.RUN"
    assert configured.run_retries_max_retries == 2
    assert not configured.run_retries_retry_on_asset_or_op_failure
    assert configured.run_monitoring_enabled
    assert configured.run_monitoring_max_runtime_seconds == 0


def test_what_needs_a_device_or_a_language_model_is_in_a_pool(workbench: Workbench) -> None:
    pools = {
        asset.key.to_user_string(): asset.op.pool
        for asset in build_definitions(workbench.prepare().study).assets or []
        if isinstance(asset, dg.AssetsDefinition)
    }
    assert {name for name, pool in pools.items() if pool == "gpu"} == {"activations"}
    assert {name for name, pool in pools.items() if pool == "llm"} == {
        name for name in pools if name.startswith(("explanations/default", "scores/"))
    }


def test_the_daemon_lets_runs_of_the_entry_alone(materialized: Workbench) -> None:
    for run in materialized.instance.get_runs():
        assert run.tags["dagster/max_retries"] == "0"
        assert run.tags["dagster/max_runtime"] == "0"


def test_only_a_run_whose_own_process_is_gone_is_buried(configured: dg.DagsterInstance, workbench: Workbench) -> None:
    workbench.instance = configured
    job = build_definitions(workbench.prepare().study).resolve_implicit_global_asset_job_def()
    gone = subprocess.Popen(["true"])
    gone.wait()

    def started() -> str:
        run = configured.create_run_for_job(job, status=dg.DagsterRunStatus.STARTED)
        return run.run_id

    alive, dead, retried, untagged = started(), started(), started(), started()
    configured.add_run_tags(alive, {PROCESS_TAG: this_process(alive)})
    of_the_dead = this_process(dead).replace(f":{os.getpid()}", f":{gone.pid}")
    configured.add_run_tags(dead, {PROCESS_TAG: of_the_dead})
    configured.add_run_tags(retried, {PROCESS_TAG: of_the_dead})
    assert bury_dead_runs(configured) == 1
    running = dg.RunsFilter(statuses=[dg.DagsterRunStatus.STARTED])
    assert {run.run_id for run in configured.get_runs(running)} == {alive, retried, untagged}
    buried = configured.get_run_by_id(dead)
    assert buried is not None
    assert buried.tags["dagster/will_retry"] == "false"


def test_maintenance_shows_what_it_did(materialized: Workbench) -> None:
    definitions = build_definitions(materialized.prepare().study, lake=materialized.lake)
    job = definitions.resolve_job_def("maintenance")
    config = {"ops": {"keep_up": {"config": {"vacuum_hours": 1}}}}
    result = job.execute_in_process(run_config=config, instance=materialized.instance)
    (event,) = [each for each in result.all_node_events if each.event_type == dg.DagsterEventType.STEP_OUTPUT]
    tables = event.step_output_data.metadata["tables"]
    assert isinstance(tables, dg.TableMetadataValue)
    figures = {record.data["table"]: record.data for record in tables.records}
    assert figures["partitions"]["files_before"] > figures["partitions"]["files_after"] == 1
    assert materialized.run() == {}


@pytest.mark.parametrize("hours", [0, -1])
def test_maintenance_refuses_to_delete_what_is_being_written(materialized: Workbench, hours: int) -> None:
    job = build_definitions(materialized.prepare().study, lake=materialized.lake).resolve_job_def("maintenance")
    with pytest.raises(Exception, match="vacuum_hours"):
        job.execute_in_process({"ops": {"keep_up": {"config": {"vacuum_hours": hours}}}}, materialized.instance)
