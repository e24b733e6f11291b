"""Explanations that were written elsewhere: by people, by another program, or by who planted the latents. No model is asked."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, ClassVar, Literal

import polars as pl

from latentlake.choices import DictionaryFiles, Positive
from latentlake.explainers import Explainer, Hypothesis
from latentlake.registry import EXPLAINERS

if TYPE_CHECKING:
    from latentlake.work import Work


@EXPLAINERS.register("imported")
class Imported(Explainer):
    """``files``: of each dictionary a file of explanations by latent, relative to the study file (`latentlake.imported` says in
    which forms). A dictionary without a file, and a latent that its file does not have, get no explanation.

    ``longest``: characters of an explanation; one with more is taken for something else.
    """

    version: ClassVar[str] = "1"
    method: Literal["imported"]
    files: DictionaryFiles
    longest: Positive = 1000

    def explain(self, work: "Work", latents: Sequence[int]) -> Mapping[int, Sequence[Hypothesis]]:
        """One hypothesis a latent."""
        file = work.origins.imported("explainers", work.stage.constants["explainer"], work.dictionary)
        if file is None:
            return {latent: [self._hypothesis(False, None)] for latent in latents}
        rows = work.shared(("imported", work.dictionary), file.read)
        own = rows.filter(pl.col("latent").is_in(list(latents)))
        texts = dict(zip(own["latent"], own["explanation"], strict=True))
        return {latent: [self._hypothesis(latent in texts, texts.get(latent))] for latent in latents}

    def _hypothesis(self, is_there: bool, text: str | None) -> Hypothesis:
        if not is_there:
            return Hypothesis("imported", None, error="not_imported")
        if text is None or not any(character.isalnum() for character in text):
            return Hypothesis("imported", None, error="empty")
        if len(text) > self.longest:
            return Hypothesis("imported", None, error="too_long")
        return Hypothesis("imported", text)
