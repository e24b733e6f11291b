"""What the Dagster UI says of partitions, to be held against the plan."""

import dagster as dg
from dagster._core.asset_graph_view.asset_graph_view import AssetGraphView
from dagster._core.definitions.data_version import CachingStaleStatusResolver, StaleStatus
from dagster._core.definitions.temporal_context import TemporalContext
from dagster._time import get_current_datetime

from assets.events import asset_key
from latentlake.flow import Flow
from latentlake.plan import Plan, Planned


def dagster_stale(
    instance: dg.DagsterInstance, definitions: dg.Definitions, flow: Flow, shards: list[str]
) -> set[tuple[str, str]]:
    """The partitions, as (asset, key), that the UI marks as missing or out of date."""
    graph = definitions.resolve_asset_graph()
    now = TemporalContext(effective_dt=get_current_datetime(), last_event_id=None)
    view = AssetGraphView(temporal_context=now, instance=instance, asset_graph=graph)
    resolver = CachingStaleStatusResolver(instance=instance, asset_graph=graph, loading_context=view)
    return {
        (stage.name, key)
        for stage in flow.stages.values()
        for key in flow.partitions(stage, shards)
        if resolver.get_status(asset_key(stage.name), key or None) != StaleStatus.FRESH
    }


def is_published(plan: Plan, planned: Planned) -> bool:
    """Whether a partition is published by the code that there is, up to date or not."""
    published = plan.publications.get((planned.stage.name, planned.partition))
    return published is not None and published.is_published and published.code_version == planned.stage.code_version
