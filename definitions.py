"""The one `dg.Definitions`: the study's assets with their resources, jobs, schedules and sensors."""

import os
import warnings
from typing import Any

import dagster as dg

from assets import build_assets
from assets.links import address, with_metadata
from jobs.groups import asset_jobs
from jobs.incremental import Launcher, new_shards, next_stage, nightly
from jobs.maintenance import maintenance, weekly
from jobs.progress import LogProgress
from latentlake.flow import Flow
from latentlake.study import Study, load_study
from resources.lake import lake_from_environment
from resources.models import models_from_environment

warnings.filterwarnings(
    "ignore", category=dg.BetaWarning
)  # of partition mappings, backfill policies and code references


def study_path() -> str:
    """The study file that ``LATENTLAKE_STUDY`` names; ``study.yaml`` where it is not set."""
    return os.environ.get("LATENTLAKE_STUDY", "study.yaml")


def build_definitions(study: Study, **resources: Any) -> dg.Definitions:
    """Definitions for a study; ``resources`` take the place of the ones that the environment gives."""
    given = {
        "lake": lake_from_environment(),
        "models": models_from_environment(),
        "progress": LogProgress(),
        **resources,
    }
    flow, lake = Flow(study), given["lake"].open(study.name)
    assets, keeping = build_assets(flow), maintenance(study.name)
    launcher = Launcher(study, lake, lambda: given["models"].origins(study))
    tables = [address(lake, stage) for stage in flow.stages.values()]
    return dg.Definitions(
        assets=[*map(with_metadata, assets, tables), *assets[len(tables) :]],
        jobs=[*asset_jobs(flow).values(), keeping],
        schedules=[nightly(launcher), weekly(keeping)],
        sensors=[new_shards(launcher), next_stage(launcher)],
        resources=given,
        executor=dg.in_process_executor,  # a step of its own process costs ten seconds of imports
    )


@dg.definitions
def defs() -> dg.Definitions:
    """What Dagster loads."""
    return build_definitions(load_study(study_path()))
