"""The flow's dimensions as Dagster partitions, and its one rule of inputs as partition mappings."""

from collections.abc import Sequence

import dagster as dg

from latentlake.flow import Flow, Input, Stage
from latentlake.sections.comparisons import BETWEEN


def shards_name(flow: Flow) -> str:
    """Name under which Dagster knows the shards of a study."""
    return f"{flow.study.name}_shards"


def partitions_of(flow: Flow, stage: Stage) -> dg.PartitionsDefinition | None:
    """The partitions of a stage; none for one that has no dimensions."""
    if not stage.dimensions:
        return None
    axes = {dimension: _axis(flow, dimension, stage) for dimension in stage.dimensions}
    return next(iter(axes.values())) if len(axes) == 1 else dg.MultiPartitionsDefinition(axes)


def mapping_of(flow: Flow, stage: Stage, source: Input) -> dg.PartitionMapping | None:
    """How partitions of a stage depend on those of an input.

    Dagster is told of all shards even where only some are in use: which these are depends on how many there are.
    """
    above, only = flow[source.stage].dimensions, flow[source.stage].only
    if not above or not stage.dimensions:
        return None
    if stage.dimensions == ("pair",) and above == ("dictionary",):
        pairs, names = flow.keys("pair", stage), flow.keys("dictionary", flow[source.stage])
        return dg.StaticPartitionMapping(
            {name: {pair for pair in pairs if name in pair.split(BETWEEN)} for name in names}
        )
    if stage.dimensions == ("pair",):  # of shards and blocks Dagster cannot say which pairs read them
        return dg.AllPartitionMapping()
    if stage.dimensions and set(above) == set(source.keys) and len(above) > 1:
        own = flow.upstream(stage, flow.partitions(stage, [])[0], source, [])
        return dg.SpecificPartitionsPartitionMapping(own)
    if only and above == stage.dimensions:  # the others do not depend on it
        return dg.StaticPartitionMapping({key: key for (keys,) in [only.values()] for key in keys})
    if set(above) == set(stage.dimensions):
        return _whole_along(source, above) if source.keys else dg.IdentityPartitionMapping()
    if len(stage.dimensions) == 1 and stage.dimensions[0] in above:
        return dg.MultiToSingleDimensionPartitionMapping(stage.dimensions[0])
    if len(above) == 1:
        (dimension,) = above
        if dimension in stage.dimensions:
            return dg.MultiToSingleDimensionPartitionMapping(dimension)
        keys = source.keys.get(dimension)
        return dg.SpecificPartitionsPartitionMapping(list(keys)) if keys else dg.AllPartitionMapping()
    free = iter([dimension for dimension in stage.dimensions if dimension not in above])
    return dg.MultiPartitionMapping(
        {
            dimension: dg.DimensionPartitionMapping(dimension, dg.IdentityPartitionMapping())
            if dimension in stage.dimensions
            else dg.DimensionPartitionMapping(next(free), dg.AllPartitionMapping())
            for dimension in above
        }
    )


def _whole_along(source: Input, dimensions: Sequence[str]) -> dg.PartitionMapping:
    """The same key along each dimension, but all keys along those of which the input says what is read."""
    return dg.MultiPartitionMapping(
        {
            name: dg.DimensionPartitionMapping(
                name, dg.AllPartitionMapping() if name in source.keys else dg.IdentityPartitionMapping()
            )
            for name in dimensions
        }
    )


def _axis(flow: Flow, dimension: str, stage: Stage) -> dg.PartitionsDefinition:
    if dimension == "shard":
        return dg.DynamicPartitionsDefinition(name=shards_name(flow))
    return dg.StaticPartitionsDefinition(list(flow.keys(dimension, stage)))
