"""Detection scoring: a language model says of each window whether it fits the explanation (arXiv 2410.13928)."""

from typing import ClassVar, Literal

from latentlake.registry import SCORERS
from latentlake.scorers.labelling import Labelling


@SCORERS.register("detection")
class Detection(Labelling):
    """Windows are shown as they are, with nothing marked."""

    version: ClassVar[str] = "2"
    method: Literal["detection"]
