"""What launching has in common, from the command line and by the daemon: what comes first, and what one run computes."""

from collections.abc import Sequence
from dataclasses import dataclass

import dagster as dg

from assets.events import asset_key
from jobs.mend import bury_dead_runs, mend, register_shards
from latentlake.calls.pending import ASKING
from latentlake.catalog import Catalog
from latentlake.digest import digest
from latentlake.flow import Flow, Stage
from latentlake.lake import Lake
from latentlake.origins import Origins
from latentlake.plan import Plan, Planned, State, product_ranges

REASON_TAG, WORK_TAG = "latentlake/reason", "latentlake/work"
_RANGE_START, _RANGE_END = "dagster/asset_partition_range_start", "dagster/asset_partition_range_end"
_VERIFIED = ("subject", "dictionaries", "selections", "contexts")  # what `Origins.verify` holds against each other
_LONGEST = 200  # characters of a reason; Dagster shows tags in one line


@dataclass(frozen=True)
class Work:
    """A product range of partitions. ``reason``: why the first of them is to be computed. ``recipes``: digest of the recipes
    of all, which tells work from the same range made of something else.
    """

    stage: Stage
    start: str
    end: str
    reason: str
    recipes: str

    @property
    def selection(self) -> list[dg.AssetKey]:
        """The asset to be computed."""
        return [asset_key(self.stage.name)]

    @property
    def tags(self) -> dict[str, str]:
        """Tags of a run over the range."""
        span = {_RANGE_START: self.start, _RANGE_END: self.end} if self.stage.dimensions else {}
        return {
            **span,
            REASON_TAG: self.reason,
            WORK_TAG: digest([self.stage.name, self.start, self.end, self.recipes]),
        }


def prepare(instance: dg.DagsterInstance, flow: Flow, lake: Lake, origins: Origins) -> Plan:
    """The plan, after bad input was refused with nothing written, and lake and Dagster were told of shards, of the study, and of
    each other.

    Raises:
        LatentlakeError: bad input.
    """
    wanted = {each.stage.kind for each in Plan(flow, origins, Catalog(lake)).all if each.state is not State.FRESH}
    if wanted.intersection(_VERIFIED):
        origins.verify()
    if wanted.intersection(ASKING):
        origins.verify_servers()
    Catalog(lake).register(flow.study, list(flow.stages), origins.shards)
    plan = Plan(flow, origins, Catalog(lake))
    register_shards(instance, flow, plan.shards)
    bury_dead_runs(instance)
    mend(instance, flow, plan)
    return plan


def works(flow: Flow, plan: Plan, stage: Stage, wanted: Sequence[Planned]) -> list[Work]:
    """Partitions of a stage, whose inputs are published, as product ranges."""
    order = [plan.shards if axis == "shard" else list(flow.keys(axis, stage)) for axis in stage.dimensions]
    partitions = [each.partition for each in wanted]
    reasons = plan.reasons(wanted)
    recipes = digest([plan.recipe(stage, each).digest for each in partitions])
    first = next(iter(reasons.values()), "")[:_LONGEST]
    return [Work(stage, start, end, first, recipes) for start, end in product_ranges(stage, partitions, order)]
