"""Detection scoring: a language model says of each window whether it fits the explanation."""

from typing import ClassVar, Literal

from latentlake.registry import SCORERS
from latentlake.scorers.labelling import Labelling
from latentlake.sources import MILLIONS, Source


@SCORERS.register("detection")
class Detection(Labelling):
    """Windows are shown as they are, with nothing marked."""

    version: ClassVar[str] = "2"
    source: ClassVar[Source | None] = MILLIONS
    method: Literal["detection"]
