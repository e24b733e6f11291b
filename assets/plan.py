"""The plan as an asset of its own: materialized, it shows in the UI what a run would do, and what that would cost."""

import dagster as dg

from assets.preview import table_of
from latentlake.calls.estimate import Estimator
from latentlake.catalog import Catalog
from latentlake.flow import Flow
from latentlake.plan import Plan, State, name_of

_REASONS = 20


def plan(flow: Flow) -> dg.AssetsDefinition:
    """What `latentlake plan` prints."""

    @dg.asset(
        name="plan",
        group_name="operations",
        kinds={"deltalake", "polars"},
        description="What a run would compute now, why, and what it would cost. Nothing is computed and no model is loaded.",
        required_resource_keys={"lake", "models"},
    )
    def materialize(context: dg.AssetExecutionContext) -> dg.MaterializeResult[None]:
        resources, study = context.resources, flow.study
        lake, origins = resources.lake.open(study.name), resources.models.origins(study)
        made = Plan(flow, origins, Catalog(lake))
        estimates = Estimator(made, flow, lake, origins).table()
        wanted = [each for each in made.all if each.state is not State.FRESH]
        stale = [each for each in wanted if each.state is State.STALE]
        reasons = [f"- {name_of(*key)}: {reason}" for key, reason in made.reasons(stale[:_REASONS]).items()]
        return dg.MaterializeResult(
            metadata={
                "to compute": len(stale),
                "below these": len(wanted) - len(stale),
                "model calls": int(estimates["calls"].sum()),
                "plan": dg.MetadataValue.md(table_of(estimates)),
                "why": dg.MetadataValue.md("\n".join(reasons) or "everything is up to date"),
                "no longer in the study": len(made.orphans),
            }
        )

    return materialize
