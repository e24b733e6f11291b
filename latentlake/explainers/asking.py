"""What explainers that ask a language model have in common: replies become hypotheses, and of several the best is chosen.

The choice (best-of-k) is made by windows of the select sample, which are neither shown nor used for scores: of all hypotheses
the one that tells activating windows from the others best, by embedding.
"""

import re
from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated

import numpy as np
import polars as pl
from pydantic import Field, model_validator

from latentlake.choices import EmbedderNameOrNone, LLMName, Positive, SelectSampleOrNone
from latentlake.explainers import Explainer, Hypothesis
from latentlake.explainers.tokens import list_tokens, top_words
from latentlake.protocols import UNPARSED, Answer, Asked, Generate

if TYPE_CHECKING:
    from latentlake.work import Work

_LABEL = re.compile(r"^[\s*_#>-]*explanation[*_]*\s*:[*_]*", re.IGNORECASE | re.MULTILINE)
_AROUND, _QUOTES = "*.,;:-<> \t\n", "\"'`"  # what models put around an explanation


class Asking(Explainer):
    """``draws``: replies a latent, each with a ``temperature`` and at most ``max_tokens``. ``tokens``: words of the token list
    among the hypotheses, 0 for none. ``select_sample``, ``embedder``: what the choice is made by, where there is one.
    """

    llm: LLMName
    prompt: str
    draws: Positive = 1
    temperature: Annotated[float, Field(ge=0)] = 0.0
    max_tokens: Positive = 64
    tokens: Annotated[int, Field(ge=0)] = 0
    select_sample: SelectSampleOrNone = None
    embedder: EmbedderNameOrNone = None

    @model_validator(mode="after")
    def _can_choose(self) -> "Asking":
        chooses = self.draws > 1 or self.tokens > 0
        if chooses and (self.select_sample is None or self.embedder is None):
            raise ValueError("of several hypotheses one is chosen, by a `select_sample` and an `embedder`; name both")
        if self.draws > 1 and not self.temperature:
            raise ValueError(f"{self.draws} draws at temperature 0 would be the same one; give a `temperature`")
        return self

    @property
    def is_reasoning(self) -> bool:
        """Whether the explanation follows reasons in a reply, and is to be told from them."""
        return False

    @property
    def most_calls(self) -> int:
        """One a draw."""
        return self.draws

    @abstractmethod
    def fillings(self, work: "Work", latents: Sequence[int]) -> Iterator[tuple[int, Mapping[str, str]]]:
        """What the prompt is filled with, for each latent of which there is something to show."""

    def stops(self, is_chat: bool) -> tuple[str, ...]:
        """Strings that end a reply. Of a text that goes on, an explanation is a line; a chat ends by itself."""
        return () if is_chat else ("\n",)

    def explain(self, work: "Work", latents: Sequence[int]) -> Mapping[int, Sequence[Hypothesis]]:
        """The replies, and where asked the token list, of each latent; with selection values where there is a choice."""
        answers = self._ask(work, latents)
        hypotheses = {latent: [self.read(each) for each in answers.get(latent, [])] for latent in latents}
        if self.tokens:
            for latent, words in top_words(work, latents).items():
                hypotheses[latent].append(list_tokens(words, self.tokens))
        return self._valued(work, hypotheses)

    def read(self, answer: Answer) -> Hypothesis:
        """An explanation out of a reply: what follows the last ``Explanation:`` in it, or all of it, without marks, and without
        the quotes and stops that models put around it.
        """
        reply = answer.reply
        if reply.error is not None:
            return Hypothesis("draw", None, reply.error, answer.key)
        *before, text = _LABEL.split(reply.text or "")
        text = " ".join(_bare(text.replace("<<", "").replace(">>", "")).split())
        error = None
        if not any(character.isalnum() for character in text):
            error = "empty"
        elif reply.finish_reason != "stop":
            error = "truncated"
        elif self.is_reasoning and not before:
            error = UNPARSED
        return Hypothesis("draw", None if error else text, error, answer.key)

    def _ask(self, work: "Work", latents: Sequence[int]) -> dict[int, list[Answer]]:
        """Draws of each latent that has something to show."""
        prompt, is_chat = work.study.prompt(self.prompt), work.study.llms[self.llm].chat
        sampling = Generate(self.max_tokens, self.temperature, stop=self.stops(is_chat))
        asked = [
            Asked(latent, prompt.call(sampling, is_chat, values, draw))
            for latent, values in self.fillings(work, latents)
            for draw in range(self.draws)
        ]
        answers: dict[int, list[Answer]] = {}
        for each, answer in zip(asked, work.ask(self.llm, asked), strict=True):
            answers.setdefault(each.latent, []).append(answer)
        return answers

    def _valued(self, work: "Work", hypotheses: dict[int, list[Hypothesis]]) -> dict[int, list[Hypothesis]]:
        """Put the AUROC on the select sample to each hypothesis."""
        if self.select_sample is None or self.embedder is None:
            return hypotheses
        windows = windows_of(work, self.select_sample, list(hypotheses))
        groups = {latent: rows for (latent,), rows in windows.partition_by("latent", as_dict=True).items()}
        said = {each.explanation for own in hypotheses.values() for each in own if each.explanation}
        texts = sorted({*windows["text"], *said})
        if not texts:
            return hypotheses
        embedded = dict(zip(texts, work.handles.embedder(self.embedder).embed(texts), strict=True))
        return {
            latent: [_with_auroc(each, groups[latent], embedded) if latent in groups else each for each in own]
            for latent, own in hypotheses.items()
        }


def _bare(text: str) -> str:
    """A text without what stands around it; quotes around a word of it, as in ``the word "of"``, are its own."""
    text = text.strip(_AROUND)
    for quote in _QUOTES:
        is_around = text.startswith(quote) and text.endswith(quote) and text.count(quote) == 2
        if is_around or (text.count(quote) == 1 and quote in (text[:1], text[-1:])):
            return _bare(text.removeprefix(quote).removesuffix(quote))
    return text


def windows_of(work: "Work", sample: str, latents: Sequence[int], first: int | None = None) -> pl.DataFrame:
    """Windows of some latents, the first so many by rank of those in which a latent fires and of the others."""
    frame = work.frame(f"examples/{sample}").filter(pl.col("latent").is_in(list(latents)))
    frame = frame if first is None else frame.filter(pl.col("rank") < first)
    columns = ["latent", "is_activating", "rank", "activations", "text", "offsets"]
    return frame.select(columns).sort("latent", "is_activating", "rank").collect()


def _with_auroc(hypothesis: Hypothesis, rows: pl.DataFrame, embedded: dict[str, np.ndarray]) -> Hypothesis:
    from latentlake.measures.metrics import auroc  # scikit-learn: a second that reading a study need not wait

    if hypothesis.explanation is None:
        return hypothesis
    cosine = np.stack([embedded[text] for text in rows["text"]]) @ embedded[hypothesis.explanation]
    return replace(hypothesis, selection=auroc(rows["is_activating"].to_numpy(), np.round(cosine, 5)))
