"""Explanations by completing a pattern, for language models too small to follow instructions.

The prompt shows worked examples of marked words, texts and what they have in common, then the latent's strongest windows. The
latent's token list is among the hypotheses, and the best is chosen.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

import polars as pl
from pydantic import Field

from latentlake.choices import EmbedderName, ExplainSample, Positive, Refers, SelectSample
from latentlake.explainers.asking import Asking, windows_of
from latentlake.marking import mark, marked_words, pieces_of
from latentlake.registry import EXPLAINERS

if TYPE_CHECKING:
    from latentlake.work import Work


@EXPLAINERS.register("pattern")
class Pattern(Asking):
    """``sample``: where the windows shown come from, the first ``windows`` by rank. ``marked_above``: tokens are marked from this
    share of the latent's strongest activation shown.
    """

    version: ClassVar[str] = "2"
    method: Literal["pattern"]
    sample: ExplainSample
    windows: Positive = 4
    prompt: Annotated[str, Refers("prompts", places=((), ("words", "texts")))] = "pattern"
    draws: Positive = 3
    temperature: Annotated[float, Field(ge=0)] = 0.7
    max_tokens: Positive = 16
    marked_above: Annotated[float, Field(gt=0, le=1)] = 0.3
    tokens: Annotated[int, Field(ge=0)] = 5
    select_sample: SelectSample
    embedder: EmbedderName

    def stops(self, is_chat: bool) -> tuple[str, ...]:
        """A line, whoever says it."""
        return ("\n",)

    def fillings(self, work: "Work", latents: Sequence[int]) -> Iterator[tuple[int, Mapping[str, str]]]:
        """The marked words, and the texts in which they stand."""
        shown = windows_of(work, self.sample, latents, self.windows).filter("is_activating")
        for (latent,), rows in shown.partition_by("latent", as_dict=True, maintain_order=True).items():
            yield latent, self._filling(rows)

    def _filling(self, rows: pl.DataFrame) -> dict[str, str]:
        threshold = self.marked_above * max(max(row) for row in rows["activations"])
        pieces = map(pieces_of, rows["text"], rows["offsets"])
        windows = list(zip(pieces, rows["activations"].to_list(), strict=True))
        texts = [" ".join(mark(*window, threshold, "<<", ">>").split()) for window in windows]
        words = dict.fromkeys(word for window in windows for word in marked_words(*window, threshold))
        return {"words": ", ".join(words), "texts": "\n".join(f"- {text}" for text in texts)}
