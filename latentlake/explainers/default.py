"""The paper's explainer: a language model sees windows with the active tokens marked, and says what they have in common."""

from collections.abc import Iterator, Mapping, Sequence
from math import floor
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

import polars as pl
from pydantic import Field, model_validator

from latentlake.choices import ExplainSample, Positive, Refers
from latentlake.explainers.asking import Asking, windows_of
from latentlake.marking import in_a_line, mark, pieces_of
from latentlake.registry import EXPLAINERS
from latentlake.sources import MILLIONS, Source

if TYPE_CHECKING:
    from latentlake.work import Work

_STEPS = 10  # strengths are told from 0 to this


class Showing(Asking):
    """``sample``: where the windows shown come from, the first ``windows`` by rank. ``marked_above``: tokens are marked from this
    share of their window's strongest activation. ``activations``: beside each window its marked tokens stand with their strength,
    from 0 to 10 as a share of the strongest shown. ``reasoning``: the model thinks aloud before it explains; it needs more
    ``max_tokens`` then. ``prompt``: by default the method's own, for what is shown.
    """

    sample: ExplainSample
    windows: Positive = 40
    marked_above: Annotated[float, Field(gt=0, le=1)] = 0.3
    activations: bool = False
    reasoning: bool = False

    @model_validator(mode="before")
    @classmethod
    def _own_prompt(cls, values: Any) -> Any:
        """The prompt and the room for a reply follow from what is asked for, where they are not given."""
        if not isinstance(values, dict) or "method" not in values:
            return values
        kinds = [kind for kind in ("activations", "reasoning") if values.get(kind)]
        return {
            "prompt": "_".join([str(values["method"]), *kinds]),
            "max_tokens": 512 if "reasoning" in kinds else 64,
        } | values

    @property
    def is_reasoning(self) -> bool:
        """As is asked."""
        return self.reasoning

    def stops(self, is_chat: bool) -> tuple[str, ...]:
        """Reasons may take several lines."""
        return ("\n\n",) if self.reasoning and not is_chat else super().stops(is_chat)

    def lines(self, rows: pl.DataFrame) -> str:
        """Windows as numbered lines."""
        strongest = max((max(row) for row in rows["activations"]), default=0.0)
        return "\n".join(
            line
            for n, row in enumerate(rows.iter_rows(named=True), start=1)
            for line in self._window(n, row, strongest)
        )

    def _window(self, n: int, row: Mapping[str, Any], strongest: float) -> Iterator[str]:
        pieces, own = pieces_of(row["text"], row["offsets"]), row["activations"]
        threshold = self.marked_above * max(own)
        yield f"{n}. {in_a_line(mark(pieces, own, threshold, '<<', '>>'))}"
        if self.activations and strongest:
            told = [
                f"{in_a_line(piece)} {floor(_STEPS * value / strongest)}"
                for piece, value in zip(pieces, own, strict=True)
                if value > 0 and value >= threshold and piece.strip()
            ]
            yield f"Activations: {', '.join(told)}"


@EXPLAINERS.register("default")
class Default(Showing):
    """Shows windows in which the latent fires."""

    version: ClassVar[str] = "1"
    source: ClassVar[Source | None] = MILLIONS
    method: Literal["default"]
    prompt: Annotated[str, Refers("prompts", places=((), ("windows",)))]

    def fillings(self, work: "Work", latents: Sequence[int]) -> Iterator[tuple[int, Mapping[str, str]]]:
        """The windows of each latent."""
        shown = windows_of(work, self.sample, latents, self.windows).filter("is_activating")
        for (latent,), rows in shown.partition_by("latent", as_dict=True, maintain_order=True).items():
            yield latent, {"windows": self.lines(rows)}
