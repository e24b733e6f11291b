"""The job that keeps the lake small and fast, and frees what dead runs hold: by hand in the UI, or on a schedule."""

import os

import dagster as dg
from pydantic import Field

from jobs.mend import bury_dead_runs
from latentlake.keeping.upkeep import Upkeep, maintain
from resources.lake import LakeResource


class MaintenanceConfig(dg.Config):
    """``vacuum_hours``: files that versions of the last hours need are kept."""

    vacuum_hours: int = Field(168, ge=1, description="more than the longest read or write takes")


def maintenance(study: str) -> dg.JobDefinition:
    """The job ``maintenance``, for the tables of a study and the shared ones."""

    @dg.op(description="Compacts tables of many small files, vacuums all, cuts logs short, and buries dead runs.")
    def keep_up(context: dg.OpExecutionContext, config: MaintenanceConfig, lake: LakeResource) -> None:
        buried = bury_dead_runs(context.instance)
        done = maintain(lake.open(study), config.vacuum_hours)
        figures = dg.TableMetadataValue([dg.TableRecord(each._asdict()) for each in done], _SCHEMA)
        vacuumed = sum(each.vacuumed for each in done)
        context.add_output_metadata({"tables": figures, "vacuumed": vacuumed, "dead runs buried": buried})

    @dg.job(name="maintenance", description="Compaction and vacuum of the lake; see docs/operations.md.")
    def job() -> None:
        keep_up()

    return job


def weekly(job: dg.JobDefinition) -> dg.ScheduleDefinition:
    """Maintenance early on Sundays, or when ``LATENTLAKE_WEEKLY`` says (a cron expression); off until it is switched on."""
    cron = os.environ.get("LATENTLAKE_WEEKLY", "0 4 * * 0")
    return dg.ScheduleDefinition(name="weekly_maintenance", job=job, cron_schedule=cron, description=weekly.__doc__)


_SCHEMA = dg.TableSchema([dg.TableColumn(name, "string" if name == "table" else "int") for name in Upkeep._fields])
