"""How a stage becomes an asset: the same for all of them."""

from collections.abc import Callable, Iterator
from typing import Any

import dagster as dg
import polars as pl

from assets.checks import check_result, check_specs
from assets.events import asset_key, input_pointers, materialization
from assets.partitions import mapping_of, partitions_of
from assets.process import PROCESS_TAG, this_process
from latentlake.errors import LakeError, StudyChangedError
from latentlake.execute import Executor, Outcome
from latentlake.flow import Flow, Stage
from latentlake.tables import TABLES
from latentlake.work import Compute

STUDY_TAG, LAUNCH_TAG = "latentlake/study", "latentlake/launch"

# Dagster would emit an event of its own for each partition of a range, all with one data version, after the ones that
# this asset logs (dagster#34013). Marked so, an output emits none, and downstream steps still run.
_SAYS_NOTHING = {"__source_asset_observation__": True}

Preview = Callable[[Callable[[str], pl.LazyFrame]], str]


def stage_asset(
    flow: Flow, stage: Stage, compute: Compute, *, group: str, kinds: set[str], description: str, preview: Preview
) -> dg.AssetsDefinition:
    """An asset that computes what is not up to date among the partitions asked for, and tells Dagster of all of them."""

    @dg.asset(
        key=asset_key(stage.name),
        description=description,
        group_name=group,
        kinds={"deltalake", *kinds},
        code_version=stage.code_version,
        partitions_def=partitions_of(flow, stage),
        backfill_policy=dg.BackfillPolicy.single_run() if stage.dimensions else None,
        pool=_pool(stage),
        deps=[
            dg.AssetDep(asset_key(source.stage), partition_mapping=mapping_of(flow, stage, source))
            for source in stage.inputs
        ],
        metadata=_definition_metadata(stage),
        check_specs=check_specs(flow, stage),
        required_resource_keys={"lake", "models", "progress"},
    )
    def materialize(context: dg.AssetExecutionContext) -> Iterator[dg.MaterializeResult[None]]:
        _require_same_study(context, flow)
        context.instance.add_run_tags(context.run_id, {PROCESS_TAG: this_process(context.run_id)})
        pointers = input_pointers(context.instance, stage)
        keys = [str(key) for key in context.partition_keys] if stage.dimensions else [""]
        if not keys:
            raise LakeError(
                f"the range asked for holds no partition of {stage.name}; run `make run`, which orders them"
            )
        executor = _executor(context, flow)
        for outcome in executor.execute(stage.name, keys, compute):
            context.log_event(
                materialization(flow, outcome.publication, outcome.inputs, pointers, _metadata(outcome, preview))
            )
        checked = [check_result(check, result) for check, result in executor.check(stage.name, keys)]
        yield dg.MaterializeResult(metadata=_SAYS_NOTHING, check_results=checked)

    return materialize


def _pool(stage: Stage) -> str | None:
    """The pool whose places a stage's runs take up: of the subject's device, or of the language models."""
    if stage.kind in ("coder", "reconstructions", "activations", "neighbours", "alignments", "logits"):
        return "gpu"
    asks = stage.kind != "report"  # which only says what was asked
    return "llm" if asks and any(source.stage == "llms" for source in stage.inputs) else None


def _executor(context: dg.AssetExecutionContext, flow: Flow) -> Executor:
    """The core's executor, with what the resources give."""
    resources, study = context.resources, flow.study
    origins, lake = resources.models.origins(study), resources.lake.open(study.name)
    return Executor(
        flow=flow,
        lake=lake,
        origins=origins,
        handles=resources.models.handles(study, origins, lake),
        progress=resources.progress,
        run=context.run_id,
        launch=_launch_of(context),
    )


def _launch_of(context: dg.AssetExecutionContext) -> str:
    """The execution of a plan that the run is part of: a launch of ours, a backfill of Dagster's, or the run alone."""
    tags = context.run.tags
    return tags.get(LAUNCH_TAG) or tags.get("dagster/backfill") or context.run_id


def _require_same_study(context: dg.AssetExecutionContext, flow: Flow) -> None:
    """A run that was planned under one study must not go on under another."""
    planned = context.run.tags.get(STUDY_TAG)
    if planned is not None and planned != flow.study.digest:
        raise StudyChangedError(
            f"this run was started for the study {planned}, but the code location now holds {flow.study.digest}; start it "
            "again"
        )


def _definition_metadata(stage: Stage) -> dict[str, Any]:
    table = TABLES[stage.tables[0]]
    columns = [
        dg.TableColumn(
            column.name,
            str(column.type),
            description=column.doc,
            constraints=dg.TableColumnConstraints(nullable=column.nullable),
        )
        for column in table.columns
    ]
    return {"dagster/table_name": table.name, "dagster/column_schema": dg.TableSchema(columns)}


def _metadata(outcome: Outcome, preview: Preview) -> dict[str, Any]:
    seconds = {"seconds": round(outcome.seconds, 2)} if outcome.is_computed else {}
    spent = outcome.spent
    calls = {"model calls": spent.calls, "tokens": spent.tokens, "price": round(spent.money, 6)} if spent.calls else {}
    return {"computed": outcome.is_computed, **seconds, **calls, "preview": dg.MetadataValue.md(preview(outcome.frame))}
