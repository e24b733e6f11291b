"""Explanations by completing a pattern, for language models too small to follow instructions.

The prompt shows worked examples of marked words, texts and what they have in common, then the latent's strongest
windows. Several draws and the latent's token list are hypotheses; the best separates activating from non-activating
windows of the select sample, by embedding (best-of-k).
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

import numpy as np
import polars as pl
from pydantic import Field

from latentlake.choices import EmbedderName, ExplainSample, LLMName, Positive, Refers, SelectSample
from latentlake.explainers import Explainer, Hypothesis
from latentlake.explainers.tokens import list_tokens, top_words
from latentlake.marking import mark, marked_words, pieces_of
from latentlake.protocols import Answer, Asked, Call, Generate
from latentlake.registry import EXPLAINERS

if TYPE_CHECKING:
    from latentlake.work import Work


@EXPLAINERS.register("pattern")
class Pattern(Explainer):
    """``sample``: where the windows shown come from, the first ``windows`` by rank. ``draws``: completions a latent.

    ``marked_above``: tokens are marked from this share of the latent's strongest activation shown. ``tokens``: words of
    the token list among the hypotheses, 0 for none. ``select_sample``, ``embedder``: what the choice is made by.
    """

    version: ClassVar[str] = "1"
    method: Literal["pattern"]
    llm: LLMName
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

    @property
    def most_calls(self) -> int:
        """One a draw."""
        return self.draws

    def explain(self, work: "Work", latents: Sequence[int]) -> Mapping[int, Sequence[Hypothesis]]:
        """The draws and the token list of each latent, with their selection values."""
        answers = self._ask(work, latents)
        hypotheses = {latent: [_parse(answer) for answer in answers.get(latent, [])] for latent in latents}
        if self.tokens:
            for latent, words in top_words(work, latents).items():
                hypotheses[latent].append(list_tokens(words, self.tokens))
        return self._select(work, hypotheses)

    def _ask(self, work: "Work", latents: Sequence[int]) -> dict[int, list[Answer]]:
        """Draws of each latent that has windows to show."""
        prompt = work.study.prompt(self.prompt)
        sampling = Generate(self.max_tokens, self.temperature, stop=("\n",))
        shown = _windows(work, self.sample, latents, self.windows).filter("is_activating")
        asked = [
            Asked(latent, Call(prompt.fill_prefix(), self._suffix(prompt, rows), sampling, draw))
            for (latent,), rows in shown.partition_by("latent", as_dict=True, maintain_order=True).items()
            for draw in range(self.draws)
        ]
        answers: dict[int, list[Answer]] = {}
        for each, answer in zip(asked, work.ask(self.llm, asked), strict=True):
            answers.setdefault(each.latent, []).append(answer)
        return answers

    def _suffix(self, prompt: Any, rows: pl.DataFrame) -> str:
        threshold = self.marked_above * max(max(row) for row in rows["activations"])
        pieces = map(pieces_of, rows["text"], rows["offsets"])
        windows = list(zip(pieces, rows["activations"].to_list(), strict=True))
        texts = [" ".join(mark(*window, threshold, "<<", ">>").split()) for window in windows]
        words = dict.fromkeys(word for window in windows for word in marked_words(*window, threshold))
        return str(prompt.fill_suffix(words=", ".join(words), texts="\n".join(f"- {text}" for text in texts)))

    def _select(self, work: "Work", hypotheses: dict[int, list[Hypothesis]]) -> dict[int, list[Hypothesis]]:
        """Put the AUROC on the select sample to each hypothesis."""
        windows = _windows(work, self.select_sample, list(hypotheses), None)
        groups = {latent: rows for (latent,), rows in windows.partition_by("latent", as_dict=True).items()}
        texts = sorted(
            {*windows["text"], *(h.explanation for each in hypotheses.values() for h in each if h.explanation)}
        )
        if not texts:
            return hypotheses
        embedded = dict(zip(texts, work.handles.embedder(self.embedder).embed(texts), strict=True))
        return {
            latent: [_valued(each, groups[latent], embedded) if latent in groups else each for each in own]
            for latent, own in hypotheses.items()
        }


def _windows(work: "Work", sample: str, latents: Sequence[int], first: int | None) -> pl.DataFrame:
    frame = work.frame(f"examples/{sample}").filter(pl.col("latent").is_in(list(latents)))
    frame = frame if first is None else frame.filter(pl.col("rank") < first)
    columns = ["latent", "is_activating", "rank", "activations", "text", "offsets"]
    return frame.select(columns).sort("latent", "is_activating", "rank").collect()


def _valued(hypothesis: Hypothesis, rows: pl.DataFrame, embedded: dict[str, np.ndarray]) -> Hypothesis:
    from latentlake.metrics import auroc  # scikit-learn: a second that reading a study need not wait

    if hypothesis.explanation is None:
        return hypothesis
    cosine = np.stack([embedded[text] for text in rows["text"]]) @ embedded[hypothesis.explanation]
    return replace(hypothesis, selection=auroc(rows["is_activating"].to_numpy(), np.round(cosine, 5)))


def _parse(answer: Answer) -> Hypothesis:
    """An explanation out of a completion: without marks, and without the quotes and stops that models put around it."""
    reply = answer.reply
    if reply.error is not None:
        return Hypothesis("draw", None, reply.error, answer.key)
    text = (reply.text or "").replace("<<", "").replace(">>", "").strip("\"'.,;:-<> \t")
    if not any(character.isalnum() for character in text):
        return Hypothesis("draw", None, "empty", answer.key)
    if reply.finish_reason != "stop":
        return Hypothesis("draw", None, "truncated", answer.key)
    return Hypothesis("draw", text, None, answer.key)
