"""The base of everything that a study can choose: frozen, strict, and open about what it refers to."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, StringConstraints


@dataclass(frozen=True)
class Refers:
    """Marks a field that names an entry of another section of the study (or, for ``prompts``, a prompt file).

    ``split``: of ``samples``, the split from which the entry must be drawn. ``is_embedder``: of ``llms``, whether the
    entry must embed texts, or else complete them; ``reads_prompt``: whether it must give the log-probabilities of a prompt's own
    tokens. ``places``: of ``prompts``, what prefix and suffix have filled in.
    ``apart``: two of these, with which the suffix ends, words between them. ``stage``: of ``interventions`` and ``explainers``,
    which of the entry's stages is read.
    """

    section: str
    split: str | None = None
    is_embedder: bool = False
    stage: str | None = None
    reads_prompt: bool = False
    places: tuple[tuple[str, ...], tuple[str, ...]] = ((), ())
    apart: tuple[str, str] | None = None


class Choices(BaseModel):
    """A section of a study: immutable, and unknown keys are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    def references(self) -> Iterator[tuple[Refers, str]]:
        """Mark and name of each entry that this one refers to, in the order of the fields."""
        for field, info in type(self).model_fields.items():
            for mark in info.metadata:
                if isinstance(mark, Refers):
                    yield from ((mark, name) for name in _names(getattr(self, field)))


def _names(value: Any) -> list[str]:
    """The names in a field that refers: one, several or none."""
    if value is None:
        return []
    return [value] if isinstance(value, str) else list(value)


Positive = Annotated[int, Field(ge=1)]
Name = Annotated[str, StringConstraints(pattern=r"^[a-z0-9_]+$")]
# What explains does not select, and what explains or selects does not judge.
ExplainSample = Annotated[str, Refers("samples", split="explain")]
SelectSample = Annotated[str, Refers("samples", split="select")]
ScoreSample = Annotated[str, Refers("samples", split="score")]
LLMName = Annotated[str, Refers("llms")]
ReadingLLMName = Annotated[str, Refers("llms", reads_prompt=True)]
EmbedderName = Annotated[str, Refers("llms", is_embedder=True)]
# Of `X | None` pydantic keeps no marks of X, so that what may be left out is marked as a whole.
ExplainSampleOrNone = Annotated[str | None, Refers("samples", split="explain")]
SelectSampleOrNone = Annotated[str | None, Refers("samples", split="select")]
EmbedderNameOrNone = Annotated[str | None, Refers("llms", is_embedder=True)]
DictionaryFiles = Annotated[dict[Name, str], Refers("dictionaries")]
ReadExplainerOrNone = Annotated[str | None, Refers("explainers", stage="explanations")]
ExplainerNames = Annotated[tuple[str, ...], Refers("explainers")]
