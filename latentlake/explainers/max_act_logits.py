"""Short labels out of short lists, as Neuronpedia makes them: where a latent is strongest, what follows, what it promotes."""

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

import polars as pl

from latentlake.choices import ExplainSample, Positive, Refers
from latentlake.explainers.asking import windows_of
from latentlake.explainers.tokens import words_of
from latentlake.explainers.vocabulary import Promoting, listed, one_line
from latentlake.marking import in_a_line, pieces_of
from latentlake.registry import EXPLAINERS

if TYPE_CHECKING:
    from latentlake.work import Work

_PLACES = ("tokens", "following", "promoted", "texts")


@EXPLAINERS.register("max_act_logits")
class MaxActLogits(Promoting):
    """``sample``: where the windows come from, the first ``windows`` by rank. Of each the token with the strongest activation is
    shown and the one after it; of the ``texts`` strongest, what stands around it, so many tokens (``around``) on either side.
    """

    version: ClassVar[str] = "1"
    method: Literal["max_act_logits"]
    sample: ExplainSample
    windows: Positive = 10
    texts: Positive = 4
    around: Positive = 8
    promoted: Positive = 10
    prompt: Annotated[str, Refers("prompts", places=((), _PLACES))] = "max_act_logits"

    def fillings(self, work: "Work", latents: Sequence[int]) -> Iterator[tuple[int, Mapping[str, str]]]:
        """The lists of each latent that has windows and promotes something."""
        promoted = listed(work, latents, "promoted", self.promoted)
        shown = windows_of(work, self.sample, list(promoted), self.windows).filter("is_activating")
        strongest_first = shown.sort("latent", -pl.col("activations").list.max(), "rank")
        for (latent,), rows in strongest_first.partition_by("latent", as_dict=True, maintain_order=True).items():
            yield latent, {**self._lists(rows), "promoted": one_line(promoted[latent])}

    def _lists(self, rows: pl.DataFrame) -> dict[str, str]:
        pieces = list(map(pieces_of, rows["text"], rows["offsets"]))
        peaks = rows["activations"].list.arg_max().to_list()
        at = list(zip(pieces, peaks, strict=True))
        texts = [in_a_line("".join(own[max(0, peak - self.around) : peak + self.around + 1])) for own, peak in at]
        return {
            "tokens": one_line(words_of([own[peak] for own, peak in at])),
            "following": one_line(words_of([own[peak + 1] for own, peak in at if peak + 1 < len(own)])),
            "texts": "\n".join(f"- {text}" for text in texts[: self.texts]),
        }
