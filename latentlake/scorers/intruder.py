"""Intruder scoring: a language model says which of five windows is the one in which the latent does not fire.

No explanation is judged, but whether there is anything to explain. In four windows, of one decile of activation, those tokens are
marked on which the latent fires, in the intruder as many others, in the places of the marks of another window in which it fires:
of one that is not shown beside it, since two windows that are marked alike would tell that one of them is the intruder.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import exp, inf
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

import numpy as np
import polars as pl
from pydantic import Field

from latentlake.choices import LLMName, Positive, Refers, ScoreSample
from latentlake.digest import mix, seed_of
from latentlake.marking import in_a_line
from latentlake.protocols import Answer, Asked, Choose
from latentlake.registry import SCORERS
from latentlake.scorers import Judgement, Scorer, answered, without_few
from latentlake.scorers.marks import COLUMNS, active, moved, with_marks
from latentlake.sources import UNEXPLAINED, Source

if TYPE_CHECKING:
    from latentlake.work import Work

_LABELS = (" A", " B", " C", " D", " E")
_FIRING = len(_LABELS) - 1  # windows of a trial in which the latent fires
_DECILES = 10
Row = Mapping[str, Any]


@dataclass(frozen=True)
class Trial:
    """Five windows, marked, in the order in which they are shown. ``row``: of the intruder, which stands at ``place``."""

    row: Row
    decile: int
    texts: tuple[str, ...]
    place: int


@SCORERS.register("intruder")
class Intruder(Scorer):
    """``trials``: how many of a latent, at most; deciles take turns. ``marked_above``: tokens are marked from this share of the
    window's strongest activation.

    Judgements are a row a trial, with the place and the source of the intruder and the decile of the others. The latent does not
    fire in it; ``prediction`` says whether it was found, and ``probability`` is the one given to it. Of scores chance is .2.
    """

    version: ClassVar[str] = "1"
    source: ClassVar[Source | None] = UNEXPLAINED
    metrics: ClassVar[tuple[str, ...]] = ("accuracy",)
    chance: ClassVar[float] = 1 / len(_LABELS)
    method: Literal["intruder"]
    llm: LLMName
    prompt: Annotated[str, Refers("prompts", places=((), ("windows",)))] = "intruder"
    sample: ScoreSample
    trials: Positive
    marked_above: Annotated[float, Field(gt=0, le=1)] = 0.3

    @property
    def needs(self) -> int:
        """Activating windows that the sample must draw: for a trial of each decile."""
        return _DECILES * _FIRING

    @property
    def needs_negatives(self) -> int:
        """One a trial."""
        return self.trials

    @property
    def most_calls(self) -> int:
        """One a trial."""
        return self.trials

    def judgements(self, work: "Work", given: pl.DataFrame) -> pl.DataFrame:
        """A row a trial."""
        trials = list(self.shown(work.frame(f"examples/{self.sample}"), work.study.seed))
        prompt, is_chat = work.study.prompt(self.prompt), work.study.llms[self.llm].chat
        calls = [prompt.call(Choose(_LABELS), is_chat, {"windows": _lettered(each.texts)}) for each in trials]
        asked = [Asked(trial.row["latent"], call) for trial, call in zip(trials, calls, strict=True)]
        answers = work.ask(self.llm, asked)
        said = answered([_found(answer, trial.place) for answer, trial in zip(answers, trials, strict=True)])
        schema = {"latent": pl.Int32, "shard": pl.String, "context": pl.Int32, "start": pl.Int32, "source": pl.String}
        rows = pl.DataFrame([{name: each.row[name] for name in schema} for each in trials], schema=schema)
        deciles = pl.Series([each.decile for each in trials], dtype=pl.Int32)
        rows = rows.with_columns(control=pl.lit(None, pl.String), decile=deciles, is_activating=pl.lit(False))
        return pl.concat([rows, said], how="horizontal")

    def score(self, given: pl.DataFrame, judgements: pl.DataFrame) -> tuple[pl.DataFrame, pl.DataFrame]:
        """The share of the trials in which the intruder was found."""
        from latentlake.measures.scoring import shares  # scipy: a second that reading a study need not wait

        return shares(without_few(given), judgements, "accuracy")

    def shown(self, windows: pl.LazyFrame, seed: int) -> Iterator[Trial]:
        """The trials of each latent, in the order in which deciles take turns."""
        columns = ["latent", "is_activating", "rank", "source", "decile", *COLUMNS]
        drawn = windows.select(columns).sort("latent", "is_activating", "rank").collect()
        for group in drawn.partition_by("latent", maintain_order=True):
            yield from self._trials(group.to_dicts(), seed)

    def _trials(self, rows: Sequence[Row], seed: int) -> Iterator[Trial]:
        """Of one latent. Windows in which nothing can be marked are left out, and so are trials that no other window is left for
        to take marks from.
        """
        latent = rows[0]["latent"]
        marks = {row["rank"]: active(row, self.marked_above) for row in rows if row["is_activating"]}
        firing = [row for row in rows if row["is_activating"] and marks[row["rank"]]]
        silent = [row for row in rows if not row["is_activating"] and row["text"].strip()]
        fours = _fours(firing, seed_of("deciles", latent, seed))[: self.trials]
        for row, four in zip(silent, fours, strict=False):
            own = seed_of("intruder", latent, row["rank"], seed)
            donor = _donor(firing, four, own)
            if donor is not None:
                place = int(own % np.uint64(len(_LABELS)))
                texts = [with_marks(each, marks[each["rank"]]) for each in four]
                texts.insert(place, with_marks(row, moved(row, marks[donor["rank"]])))
                yield Trial(row, four[0]["decile"], tuple(texts), place)


def _fours(firing: Sequence[Row], seed: np.uint64) -> list[Sequence[Row]]:
    """Windows in which the latent fires, four of a decile together, by rank: first a group of each decile, in an order by hash,
    then the next of each.
    """
    deciles = sorted({row["decile"] for row in firing})
    order = mix(np.array(deciles, dtype=np.uint64), seed).tolist()
    found = []
    for decile, after in zip(deciles, order, strict=True):
        own = [row for row in firing if row["decile"] == decile]
        turns = range(len(own) // _FIRING)
        found += [(turn, after, own[turn * _FIRING : (turn + 1) * _FIRING]) for turn in turns]
    return [four for *_, four in sorted(found, key=lambda each: each[:2])]


def _donor(firing: Sequence[Row], four: Sequence[Row], seed: np.uint64) -> Row | None:
    """The window whose marks the intruder takes: one that is not shown, of the same decile if there is one, so that all five
    are marked as windows of that decile are. Drawn by ranks, so that a window that is replaced changes no other's part.
    """
    shown = {row["rank"] for row in four}
    others = [row for row in firing if row["rank"] not in shown]
    others = [row for row in others if row["decile"] == four[0]["decile"]] or others
    if not others:
        return None
    return others[int(np.argmin(mix(np.array([row["rank"] for row in others]), seed)))]


def _lettered(texts: Sequence[str]) -> str:
    return "\n".join(f"{label.strip()}. {in_a_line(text)}" for label, text in zip(_LABELS, texts, strict=True))


def _found(answer: Answer, place: int) -> Judgement:
    """Whether the intruder, at its place, is the likeliest of the answers."""
    reply = answer.reply
    if reply.error is not None or reply.logprobs is None or max(reply.logprobs) == -inf:
        return Judgement(error=reply.error or "no_logprobs", call=answer.key)
    largest = max(reply.logprobs)
    shares = [exp(each - largest) for each in reply.logprobs]
    probability = round(shares[place] / sum(shares), 6)
    return Judgement(prediction=int(np.argmax(shares)) == place, probability=probability, call=answer.key)
