"""Embedding scoring: cosine of the explanation, as a query, and each window, as a document."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar, Literal

from latentlake.choices import EmbedderName
from latentlake.registry import SCORERS
from latentlake.scorers import Case, Judgement, WindowScorer
from latentlake.sources import MILLIONS, Source

if TYPE_CHECKING:
    from latentlake.work import Work


@SCORERS.register("embedding")
class Embedding(WindowScorer):
    """``query``: put before the explanation, for embedders that want an instruction."""

    version: ClassVar[str] = "1"
    source: ClassVar[Source | None] = MILLIONS
    method: Literal["embedding"]
    embedder: EmbedderName
    query: str = ""

    def judge(self, work: "Work", cases: Sequence[Case]) -> Sequence[Judgement]:
        """Cosines, as measures."""
        queries = [self.query + case.explanation for case in cases]
        texts = sorted({*queries, *(case.text for case in cases)})
        embedded = dict(zip(texts, work.handles.embedder(self.embedder).embed(texts), strict=True))
        return [
            Judgement(measure=round(float(embedded[query] @ embedded[case.text]), 5))
            for query, case in zip(queries, cases, strict=True)
        ]
