"""The one `dg.Definitions`: the study's assets, with their resources."""

import os
from typing import Any

import dagster as dg

from assets import build_assets
from jobs.maintenance import maintenance
from jobs.progress import LogProgress
from latentlake.flow import Flow
from latentlake.study import Study, load_study
from resources.lake import lake_from_environment
from resources.models import models_from_environment


def study_path() -> str:
    """The study file that ``LATENTLAKE_STUDY`` names; ``study.yaml`` where it is not set."""
    return os.environ.get("LATENTLAKE_STUDY", "study.yaml")


def build_definitions(study: Study, **resources: Any) -> dg.Definitions:
    """Definitions for a study; ``resources`` take the place of the ones that the environment gives."""
    return dg.Definitions(
        assets=build_assets(Flow(study)),
        jobs=[maintenance(study.name)],
        resources={
            "lake": lake_from_environment(),
            "models": models_from_environment(),
            "progress": LogProgress(),
            **resources,
        },
        executor=dg.in_process_executor,  # a step of its own process costs ten seconds of imports
    )


@dg.definitions
def defs() -> dg.Definitions:
    """What Dagster loads."""
    return build_definitions(load_study(study_path()))
