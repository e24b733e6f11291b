"""Deletes rows that can be derived again: activations, whose data version is their recipe, so that nothing becomes stale."""

from collections.abc import Sequence

from latentlake.catalog import Catalog, Consumed, Made
from latentlake.flow import Stage
from latentlake.lake import Lake

# kinds of stages whose rows may be dropped
DROPPABLE = ("activations",)


def droppable(lake: Lake, stage: Stage) -> list[str]:
    """Keys of the partitions of a stage whose rows are there."""
    return sorted(key for (_, key), each in Catalog(lake).publications(stage.name).items() if each.is_published)


def drop(lake: Lake, stage: Stage, keys: Sequence[str]) -> None:
    """Delete the rows of some partitions, having first said in ``partitions`` that they are gone and can be derived again.

    The files stay until the table is vacuumed. No run should go on meanwhile: what it makes of these rows is refused.
    """
    catalog = Catalog(lake)
    publications = catalog.publications(stage.name)
    inputs: dict[tuple[str, str], tuple[Consumed, ...]] = catalog.inputs([(stage.name, key) for key in keys])
    for key in keys:
        where = stage.columns(stage.values(key))
        catalog.drop(Made(publications[stage.name, key], inputs[stage.name, key], where, {}))
        for table in stage.tables:
            lake.delete(table, where)
