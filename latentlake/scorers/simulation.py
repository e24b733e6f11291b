"""Simulation scoring: a language model that has read the explanation predicts how active the latent is on each token of a window,
and the predictions are held against the truth.

A prediction is an expectation over digits, by their probabilities after the token. The paper has 0 to 10; here it is 0 to 9,
since many tokenizers have digits as tokens, and the first of "10" is that of "1". Pearson's r does not depend on the scale.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from math import exp, inf
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal, NamedTuple

import polars as pl

from latentlake.choices import LLMName, Refers
from latentlake.marking import in_a_line, pieces_of
from latentlake.protocols import Asked, Choose, Reply
from latentlake.registry import SCORERS
from latentlake.scorers import EXPLANATIONS, SHOWN, WindowScorer
from latentlake.sources import NEURONS, Source

if TYPE_CHECKING:
    from latentlake.work import Work

DIGITS = tuple("0123456789")
UNKNOWN = "unknown"  # in the place of a digit
# What would break a line, or look like the end of a token, is shown by a single character that texts hardly ever have: written
# out as in source code, a line break could not be told from a token of source code.
_VISIBLE = str.maketrans({**dict.fromkeys("\n\r\v\f\x1c\x1d\x1e\x85\u2028", "↵"), "\t": "⇥", "\u2029": "¶"})
_KEPT = ("latent", "control", "explanation_latent", "shard", "context", "start", "source", "decile", "is_activating")


NO_TEXT = "no_text"  # of a window whose tokens are parts of one character


class Simulated(NamedTuple):
    """What is said of a window: an activation for each of its tokens, None of those without text; or why nothing is."""

    simulated: list[float | None] | None
    error: str | None
    call: str | None


@SCORERS.register("simulation")
class Simulation(WindowScorer):
    """``negatives``: whether the windows in which the latent does not fire are simulated too, as many again. ``at_once``: one
    call reads the digits behind all tokens of a window, none of which is known; this takes a model that gives log-probabilities
    of a prompt's own tokens. Otherwise a call is made for each token, which sees the digits predicted for those before it.
    """

    version: ClassVar[str] = "1"
    source: ClassVar[Source | None] = NEURONS
    metrics: ClassVar[tuple[str, ...]] = ("pearson",)
    chance: ClassVar[float | None] = 0.0
    method: Literal["simulation"]
    llm: LLMName
    prompt: Annotated[str, Refers("prompts", places=(("explanation",), ("tokens",)))] = "simulation"
    negatives: bool = True
    at_once: bool = True

    def references(self) -> Iterator[tuple[Refers, str]]:
        """At once, the model must read prompts."""
        for mark, name in super().references():
            yield replace(mark, reads_prompt=self.at_once and mark.section == "llms"), name

    @property
    def most_calls(self) -> int:
        """One a window and explanation; or a token."""
        return EXPLANATIONS * self.windows * (2 if self.negatives else 1)

    @property
    def is_by_token(self) -> bool:
        """Where it is not at once."""
        return not self.at_once

    @property
    def needs_negatives(self) -> bool:
        """Where they are simulated."""
        return self.negatives

    def shown(self, windows: pl.LazyFrame) -> pl.DataFrame:
        """Windows with their tokens."""
        wanted = (pl.col("rank") < self.windows) & (pl.lit(self.negatives) | pl.col("is_activating"))
        return windows.filter(wanted).select(*SHOWN, "offsets", "activations").collect()

    def judgements(self, work: "Work", given: pl.DataFrame) -> pl.DataFrame:
        """A row for each explanation and window, in the order of latents, controls and ranks; with its ``activations``."""
        windows = self.shown(work.frame(f"examples/{self.sample}"))
        rows = given.filter(pl.col("explanation").is_not_null()).drop("error").join(windows, on="latent")
        rows = rows.sort("latent", "control", "is_activating", "source", "rank", nulls_last=False)
        shown = [_Window(**row) for row in rows.select(_Window._fields).iter_rows(named=True)]
        simulate = self._at_once if self.at_once else self._by_token
        said = pl.DataFrame(
            simulate(work, shown) if shown else [],
            schema={"simulated": pl.List(pl.Float64), "error": pl.String, "call": pl.String},
            orient="row",
        )
        return pl.concat([rows.select(*_KEPT, "activations"), said], how="horizontal")

    def score(self, given: pl.DataFrame, judgements: pl.DataFrame) -> tuple[pl.DataFrame, pl.DataFrame]:
        """Pearson's r over all tokens of a latent's windows."""
        from latentlake.measures.correlation import score  # scipy: a second that reading a study need not wait

        return score(given, judgements)

    def _at_once(self, work: "Work", windows: Sequence["_Window"]) -> list[Simulated]:
        sampling = Choose(DIGITS, after="\t")
        lines = [[f"{piece}\t{UNKNOWN}" for piece in each.pieces if piece] for each in windows]
        asked = [self._asked(work, each, own, sampling) for each, own in zip(windows, lines, strict=True) if own]
        answers = iter(work.ask(self.llm, asked))
        said = []
        for each, own in zip(windows, lines, strict=True):
            if not own:
                said.append(Simulated(None, NO_TEXT, None))
                continue
            answer = next(answers)
            digits, error = _expected(answer.reply, len(own))
            said.append(Simulated(None if error else _placed(each, digits), error, answer.key))
        return said

    def _by_token(self, work: "Work", windows: Sequence["_Window"]) -> list[Simulated]:
        """The next token of every window, until all are through: what is asked of one token follows from the answers before."""
        sampling = Choose(DIGITS)
        tokens = [[piece for piece in each.pieces if piece] for each in windows]
        digits: list[list[float]] = [[] for _ in windows]
        ended = {n: Simulated(None, NO_TEXT, None) for n, own in enumerate(tokens) if not own}
        while left := [n for n in range(len(windows)) if n not in ended]:
            asked = []
            for n in left:
                known = [f"{piece}\t{round(digit)}" for piece, digit in zip(tokens[n], digits[n], strict=False)]
                asked.append(self._asked(work, windows[n], [*known, f"{tokens[n][len(digits[n])]}\t"], sampling))
            for n, answer in zip(left, work.ask(self.llm, asked), strict=True):
                found, error = _expected(answer.reply, 1)
                digits[n] += found
                if error:
                    ended[n] = Simulated(None, error, answer.key)
                elif len(digits[n]) == len(tokens[n]):
                    ended[n] = Simulated(_placed(windows[n], digits[n]), None, answer.key)
        return [ended[n] for n in range(len(windows))]

    def _asked(self, work: "Work", window: "_Window", lines: Sequence[str], sampling: Choose) -> Asked:
        prompt, is_chat = work.study.prompt(self.prompt), work.study.llms[self.llm].chat
        filling = {"explanation": in_a_line(window.explanation), "tokens": "\n".join(lines)}
        return Asked(window.latent, prompt.call(sampling, is_chat, filling))


class _Window(NamedTuple):
    """A window that is to be simulated by an explanation."""

    latent: int
    explanation: str
    text: str
    offsets: list[int]

    @property
    def pieces(self) -> list[str]:
        """What is shown of each token; nothing of those without text, which are parts of characters."""
        return [piece.translate(_VISIBLE) for piece in pieces_of(self.text, self.offsets)]


def _expected(reply: Reply, places: int) -> tuple[list[float], str | None]:
    """The expected digit at each place, or why there is none."""
    if reply.error is not None:
        return [], reply.error
    values = reply.logprobs or ()
    rows = [values[start : start + len(DIGITS)] for start in range(0, len(values), len(DIGITS))]
    if len(rows) != places or any(max(row) == -inf for row in rows):
        return [], "no_logprobs"
    return [_expectation(row) for row in rows], None


def _expectation(logprobs: Sequence[float]) -> float:
    weights = [exp(value - max(logprobs)) for value in logprobs]
    return round(sum(digit * weight for digit, weight in enumerate(weights)) / sum(weights), 4)


def _placed(window: _Window, digits: Sequence[float]) -> list[float | None]:
    """Predictions at the tokens that have a text."""
    found = iter(digits)
    return [next(found) if piece else None for piece in window.pieces]
