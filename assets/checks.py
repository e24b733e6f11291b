"""The core's checks as Dagster's asset checks: one result a run, over all its partitions."""

import dagster as dg

from assets.events import asset_key
from latentlake.checks import Check, Result, checks_of
from latentlake.flow import Flow, Stage


def check_specs(flow: Flow, stage: Stage) -> list[dg.AssetCheckSpec]:
    """What Dagster is told of a stage's checks beforehand."""
    return [
        dg.AssetCheckSpec(check.name, asset=asset_key(stage.name), description=check.description)
        for check in checks_of(flow.study, stage)
    ]


def check_result(check: Check, result: Result) -> dg.AssetCheckResult:
    """What Dagster is told of a check that was made: whether it passed, and its figures as metadata."""
    severity = dg.AssetCheckSeverity.WARN if check.is_warning else dg.AssetCheckSeverity.ERROR
    return dg.AssetCheckResult(
        check_name=check.name, passed=result.passed, metadata=dict(result.figures), severity=severity
    )
