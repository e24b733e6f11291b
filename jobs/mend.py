"""Keeps Dagster's memory in step with the lake: after a kill, with a fresh instance, where a new shard is not in use.

The lake is the truth. Where Dagster's newest event of a published, up-to-date partition is missing or says something
else, an event is reported; runs that died with their process are marked as failed.
"""

from collections.abc import Mapping
from functools import cache, partial

import dagster as dg

from assets.events import CODE_VERSION, DATA_VERSION, POINTER, asset_key, latest_event, materialization
from assets.partitions import shards_name
from assets.process import PROCESS_TAG, is_dead
from latentlake.catalog import Publication
from latentlake.flow import Flow, Stage
from latentlake.plan import Plan, State

_MATERIALIZATION = dg.DagsterEventType.ASSET_MATERIALIZATION


def register_shards(instance: dg.DagsterInstance, flow: Flow, shards: list[str]) -> None:
    """Make Dagster's dynamic partitions the shards that there are, in order of registration."""
    name = shards_name(flow)
    known = list(instance.get_dynamic_partitions(name))
    if known != shards[: len(known)]:  # Dagster can only append; ranges of partitions follow its order
        for key in known:
            instance.delete_dynamic_partition(name, key)
    instance.add_dynamic_partitions(name, shards)


def bury_dead_runs(instance: dg.DagsterInstance) -> int:
    """Mark as failed the runs of this machine whose process is gone; returns how many there were.

    Until then Dagster counts them as running: they hold a place in the queue, and in the pools of their assets. Dagster does
    not start them again: what they left undone is in the plan, and would be launched twice.
    """
    running = dg.RunsFilter(statuses=[dg.DagsterRunStatus.STARTED, dg.DagsterRunStatus.STARTING])
    dead = [run for run in instance.get_runs(running) if is_dead(run.run_id, run.tags.get(PROCESS_TAG))]
    for run in dead:
        instance.add_run_tags(run.run_id, {"dagster/max_retries": "0"})
        instance.report_run_failed(run, "The process of this run is gone. What it had published stays; start it again.")
    return len(dead)


def mend(instance: dg.DagsterInstance, flow: Flow, plan: Plan) -> int:
    """Report an event for each up-to-date partition of which Dagster thinks otherwise; returns how many."""
    reported, newest = 0, cache(partial(latest_event, instance))  # asked once a stage is done with, by those below it
    for stage in flow.stages.values():
        pointers = {source.stage: newest(source.stage) for source in stage.inputs}
        known = _known(instance, stage)
        for planned in plan.all:
            if planned.stage is not stage or planned.state is not State.FRESH:
                continue
            publication = plan.publications[planned.key]
            if not _agrees(known.get(planned.partition), publication, pointers):
                inputs = plan.recipe(stage, planned.partition).inputs
                event = materialization(flow, publication, inputs, pointers, {"mended": True})
                instance.report_runless_asset_event(event)
                reported += 1
    return reported


def _known(instance: dg.DagsterInstance, stage: Stage) -> dict[str, Mapping[str, str]]:
    """Tags of the newest event of each partition."""
    key = asset_key(stage.name)
    if not stage.dimensions:
        records = instance.fetch_materializations(key, limit=1).records
    else:
        ids = list(instance.get_latest_storage_id_by_partition(key, _MATERIALIZATION).values())
        newest = dg.AssetRecordsFilter(key, storage_ids=ids)
        records = instance.fetch_materializations(newest, limit=len(ids)).records if ids else []
    events = [record.asset_materialization for record in records]
    return {event.partition or "": event.tags or {} for event in events if event is not None}


def _agrees(tags: Mapping[str, str] | None, publication: Publication, pointers: Mapping[str, int | None]) -> bool:
    """Whether an event says what the lake says, and was reported after the newest event of every input."""
    if tags is None:
        return False
    return (
        tags.get(DATA_VERSION) == publication.data_version
        and tags.get(CODE_VERSION) == publication.code_version
        and all(
            tags.get(POINTER + asset_key(source).to_user_string()) == str(pointer)
            for source, pointer in pointers.items()
        )
    )
