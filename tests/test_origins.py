"""What a study names outside the lake, digested by its bytes."""

import os

from latentlake.origins import Origins
from latentlake.study import load_study
from tests.workbench import Workbench


def subject_digest(workbench: Workbench) -> str:
    """As a new process finds it, which shares the remembered digests alone."""
    workbench.prepare()
    return Origins(load_study(workbench.path), workbench.folder / "cache").subject.digest


def test_a_models_digest_follows_its_bytes_and_names(workbench: Workbench) -> None:
    weights = workbench.folder / "model" / "model.safetensors"
    weights.write_bytes(b"one")
    first = subject_digest(workbench)
    assert subject_digest(workbench) == first
    weights.write_bytes(b"two")
    assert subject_digest(workbench) != first
    weights.write_bytes(b"one")
    assert subject_digest(workbench) == first
    weights.rename(weights.with_name("other.safetensors"))
    assert subject_digest(workbench) != first


def test_prose_and_times_are_none_of_a_digest(workbench: Workbench) -> None:
    first = subject_digest(workbench)
    (workbench.folder / "model" / "README.md").write_text("prose")
    os.utime(workbench.folder / "model" / "config.json", (1, 1))
    assert subject_digest(workbench) == first
