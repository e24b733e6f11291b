"""What Dagster is told of a published partition: one materialization event, whose tags say what it was made from.

With these tags the UI's own staleness agrees with the plan. Dagster is told and never asked: the truth is the table
``partitions`` of the lake.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import dagster as dg

from latentlake.catalog import Consumed, Publication
from latentlake.flow import Flow, Stage

DATA_VERSION, CODE_VERSION = "dagster/data_version", "dagster/code_version"
POINTER = "dagster/input_event_pointer/"
_INPUT_VERSION = "dagster/input_data_version/"


def asset_key(stage: str) -> dg.AssetKey:
    """Key of a stage's asset."""
    return dg.AssetKey(stage.split("/"))


def latest_event(instance: dg.DagsterInstance, stage: str) -> int | None:
    """Id of the newest materialization event of any partition of a stage."""
    records = instance.fetch_materializations(asset_key(stage), limit=1).records
    return records[0].storage_id if records else None


def pointer_tag(pointer: int | None) -> str:
    """An event's id as Dagster's tags have it."""
    return "NULL" if pointer is None else str(pointer)


def input_pointers(instance: dg.DagsterInstance, stage: Stage) -> dict[str, int | None]:
    """For each input of a stage, its newest event. To be read before the inputs are."""
    return {source.stage: latest_event(instance, source.stage) for source in stage.inputs}


def materialization(
    flow: Flow,
    publication: Publication,
    inputs: Sequence[Consumed],
    pointers: Mapping[str, int | None],
    metadata: Mapping[str, Any],
) -> dg.AssetMaterialization:
    """The event of one published partition, made from ``inputs``."""
    stage, versions = flow[publication.asset], {each.asset: each.data_version for each in inputs}
    tags = {
        DATA_VERSION: str(publication.data_version),
        "dagster/data_version_is_user_provided": "true",
        CODE_VERSION: publication.code_version,
    }
    for source in stage.inputs:
        if source.stage not in versions:  # not read by this partition
            continue
        name = asset_key(source.stage).to_user_string()
        tags[_INPUT_VERSION + name] = versions[source.stage]
        tags[POINTER + name] = pointer_tag(pointers[source.stage])
    values = stage.values(publication.partition)
    if len(values) > 1:
        tags |= {f"dagster/partition/{dimension}": value for dimension, value in values.items()}
    return dg.AssetMaterialization(
        asset_key(stage.name),
        partition=publication.partition or None,
        tags=tags,
        metadata={
            "dagster/partition_row_count" if values else "dagster/row_count": publication.rows,
            "recipe": publication.recipe,
            "made by run": dg.MetadataValue.dagster_run(publication.run or ""),
            "retryable failures": publication.retryable_failures,
            **metadata,
        },
    )
