"""Show what a run would compute, why, and what it would cost.

Calls are those that the ledger does not answer. Tokens, time and disk follow from the past and are empty where there is none;
`at most` and `about` say how sure the number of calls is. Nothing is computed and no model is loaded.
"""

import argparse
import json
from collections import defaultdict

import polars as pl

from latentlake.calls.estimate import Estimator
from latentlake.console import as_text
from latentlake.opened import Opened
from latentlake.plan import Plan, State, name_of


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's own arguments."""
    parser.add_argument("--all", action="store_true", help="every partition with its reason, not one for each reason")
    parser.add_argument("--json", action="store_true", help="the table, the reasons and the orphans as JSON")


def run(options: argparse.Namespace, opened: Opened) -> None:
    """Print the plan."""
    plan = opened.plan
    table = Estimator(plan, opened.flow, opened.lake, opened.origins).table()
    reasons = plan.reasons([each for each in plan.all if each.state is not State.FRESH])
    if options.json:
        print(json.dumps({
            "assets": table.to_dicts(),
            "partitions": [{"asset": a, "partition": p, "reason": reason} for (a, p), reason in reasons.items()],
            "orphans": [{"asset": asset, "partition": partition} for asset, partition in plan.orphans],
        }, indent=2, ensure_ascii=False))  # fmt: skip
        return
    if reasons:
        print(estimates(table))
        own = [each.key for each in plan.all if options.all or each.state is State.STALE]
        print("\n".join(_why({key: reasons[key] for key in own if key in reasons}, options.all)))
    else:
        print(f"nothing to compute: all {len(plan.all)} partitions are up to date")
    for line in _orphans(plan):
        print(line)


def estimates(table: pl.DataFrame) -> str:
    """The estimates of what is to be done, with a last row for the sum."""
    wanted = table.filter(pl.col("to_compute") + pl.col("waiting") > 0)
    numbers = pl.exclude("asset", "calls_are")
    known = pl.when(numbers.null_count() == 0).then(numbers.sum())  # a sum with unknown parts is unknown
    total = wanted.select(pl.lit("all").alias("asset"), known)
    unsure = wanted.filter(pl.col("calls_are") != "exact")["calls_are"].unique().sort(descending=True).to_list()
    total = total.with_columns(calls_are=pl.lit(unsure[-1] if unsure else "exact")).select(wanted.columns)
    shown = pl.concat([wanted, total.cast(wanted.schema)]).select(
        "asset",
        pl.col("to_compute").alias("to compute"),
        pl.col("waiting").alias("below these"),
        pl.col("up_to_date").alias("up to date"),
        calls=pl.when(pl.col("calls_are") == "exact")
        .then(pl.col("calls").cast(pl.String))
        .otherwise(pl.format("{} {}", "calls_are", "calls")),
        tokens=pl.col("tokens"),
        minutes=(pl.col("seconds") / 60).round(1),
        money=pl.col("money").round(4),
        megabytes=(pl.col("bytes") / 1e6).round(1),
    )
    return as_text(shown.with_columns(pl.exclude("asset").cast(pl.String).fill_null("?")))


def _why(reasons: dict[tuple[str, str], str], is_all: bool) -> list[str]:
    """Why, a line a partition, or a line for each asset and reason."""
    if is_all:
        return [f"{name_of(*key)}: {reason}" for key, reason in reasons.items()]
    groups: dict[tuple[str, str], list[str]] = defaultdict(list)
    for (asset, partition), reason in reasons.items():
        groups[asset, reason].append(partition)
    return [
        f"{name_of(asset, own[0])}{f' and {len(own) - 1} more' if len(own) > 1 else ''}: {reason}"
        for (asset, reason), own in groups.items()
    ]


def _orphans(plan: Plan) -> list[str]:
    lines = [f"{name_of(asset, partition)} is no longer in the study" for asset, partition in plan.orphans]
    return [*lines, "`latentlake prune` deletes what is no longer in the study"] if lines else []
