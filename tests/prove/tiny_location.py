"""The small study with fakes in the place of its models, as a code location: ``dagster dev -m tests.prove.tiny_location``.

LATENTLAKE_STUDY and LATENTLAKE_LAKE name its file and its lake. FAKE_SECONDS: how long the language model takes for a batch.
"""

import os
import time
from pathlib import Path

import dagster as dg

from definitions import build_definitions, study_path
from latentlake.fakes import FakeLLM, FakeSubject
from latentlake.study import load_study
from tests.workbench import WIDTH, FakeModels


def fake_models(cache: Path) -> FakeModels:
    """Fakes as fast as the environment says."""
    seconds = float(os.environ.get("FAKE_SECONDS", "0"))
    return FakeModels(cache, FakeSubject(WIDTH), FakeLLM(before=lambda answered: time.sleep(seconds)))


@dg.definitions
def defs() -> dg.Definitions:
    """What Dagster loads."""
    study = load_study(study_path())
    return build_definitions(study, models=fake_models(study.home / "cache"))
