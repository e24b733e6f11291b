"""A lake and a study as a command is told to open them: each part opened when first asked for."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from latentlake.catalog import Catalog
from latentlake.flow import Flow
from latentlake.lake import Lake
from latentlake.origins import Origins
from latentlake.plan import Plan
from latentlake.protocols import Embedder
from latentlake.reading.search import embedder_of
from latentlake.reading.view import View, open_lake
from latentlake.study import Study, load_study


@dataclass(frozen=True)
class Opened:
    """``uri``: address of the lake. ``study_file``: the study. ``name``: the study to read, where the lake holds several
    and no study file is needed. ``cache``: folder of remembered digests and converted models."""

    uri: str
    study_file: str
    name: str | None
    cache: str

    @cached_property
    def view(self) -> View:
        """What is published in the lake; reads no study file."""
        return open_lake(self.uri, self.name)

    @cached_property
    def embedder(self) -> Embedder:
        """What looks for explanations by meaning; paths in the study start at the folder of the study file, there or not."""
        return embedder_of(self.view, Path(self.study_file).resolve().parent, Path(self.cache))

    @cached_property
    def study(self) -> Study:
        """The study file."""
        return load_study(self.study_file)

    @cached_property
    def lake(self) -> Lake:
        """The lake of the study file's study."""
        return Lake(self.uri, self.study.name)

    @cached_property
    def flow(self) -> Flow:
        """The stages of the study."""
        return Flow(self.study)

    @cached_property
    def origins(self) -> Origins:
        """What the study names outside the lake."""
        return Origins(self.study, Path(self.cache))

    @cached_property
    def plan(self) -> Plan:
        """What a run would do."""
        return Plan(self.flow, self.origins, Catalog(self.lake))
