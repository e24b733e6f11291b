"""What detection and fuzzing have in common: a language model says of windows, one or several a prompt, yes or no.

Of one window a prompt, the probabilities of the two answers are compared: no reply is parsed, so none can fail to parse. Of
several the model writes a list of labels, held to its form by the engine where that can be, and the probability of each label is
read off the log-probabilities of its token, where the model gives them.
"""

import json
import re
from collections.abc import Iterator, Sequence
from itertools import groupby, product
from math import exp, inf
from typing import TYPE_CHECKING, Any, ClassVar

import polars as pl
from pydantic import model_validator

from latentlake.choices import LLMName, Positive, Refers
from latentlake.marking import in_a_line
from latentlake.protocols import UNPARSED, Answer, Asked, Choose, Generate, Likely, Reply
from latentlake.scorers import EXPLANATIONS, Case, Judgement, WindowScorer
from latentlake.scorers.stop import Stop, in_waves, with_stops

if TYPE_CHECKING:
    from latentlake.work import Work

_LIST = re.compile(r"\[[^\[\]]*\]")
_DIGIT = re.compile("[01]")
_LISTED = 5  # likeliest tokens at a label's place: as many as every server gives
_MOST_CHOICES = 8  # labels of which all lists can be told an engine that knows no schema


class Labelling(WindowScorer):
    """``together``: windows a prompt. ``prompt``: by default the method's own, for one window or for several.

    Of one: ``yes``, ``no`` are the answers whose probabilities are compared. Of several: ``is_formed``: whether the engine holds
    replies to their form; ``probabilities``: whether it is asked for log-probabilities, which not all servers give.

    ``stop``: when no more windows of a latent are judged; by default all are.
    """

    is_labelling: ClassVar[bool] = True
    llm: LLMName
    prompt: str
    together: Positive = 5
    yes: str = " yes"
    no: str = " no"
    is_formed: bool = True
    probabilities: bool = True
    stop: Stop | None = None

    @model_validator(mode="before")
    @classmethod
    def _own_prompt(cls, values: Any) -> Any:
        """The prompt follows from how many windows it is to show, where none is named."""
        if isinstance(values, dict) and "method" in values:
            name = values["method"] if values.get("together", 5) == 1 else f"{values['method']}_several"
            return {"prompt": name, **values}
        return values

    def references(self) -> Iterator[tuple[Refers, str]]:
        """The prompt too, whose places follow from how many windows it shows."""
        yield from super().references()
        shows = "window" if self.together == 1 else "windows"
        yield Refers("prompts", places=(("explanation",), (shows,))), self.prompt

    @property
    def most_calls(self) -> int:
        """One for so many windows, activating or not, and each explanation."""
        return self._calls(2)

    @property
    def may_stop(self) -> bool:
        """Where it is told when to."""
        return self.stop is not None

    def judgements(self, work: "Work", given: pl.DataFrame) -> pl.DataFrame:
        """Of all windows, or wave by wave until the score of a latent is decided; then with the ``wave`` of each."""
        if self.stop is None:
            return super().judgements(work, given)
        # A wave is the windows of so many ranks. Where the second half of ranks is shown as well (`needs`), with other marks,
        # it goes with the first.
        wave = pl.col("rank") % self.windows // self.stop.wave
        rows = self._cases(work, given).with_columns(wave=wave)
        order = ["latent", "control", "is_activating", "source", "rank"]
        judged = in_waves(rows, self.stop, lambda each: self._judged(work, each).with_columns(each["rank"]))
        return judged.sort(order, nulls_last=False).drop("rank")

    def score(self, given: pl.DataFrame, judgements: pl.DataFrame) -> tuple[pl.DataFrame, pl.DataFrame]:
        """AUROC and rates; where judging may stop, balanced accuracy, sensitivity and specificity allow for that, and the others,
        as all slices, are as if so many windows had been asked for.
        """
        scores, slices = super().score(given, judgements)
        return scores if self.stop is None else with_stops(scores, judgements, self.stop), slices

    def judge(self, work: "Work", cases: Sequence[Case]) -> Sequence[Judgement]:
        """Labels, with probabilities of yes where the model gives them."""
        is_chat = work.study.llms[self.llm].chat
        prompts = list(_prompts(cases, self.together))
        forms = {n: self._form(work, n) for n in {len(each) for each in prompts}}
        prompt = work.study.prompt(self.prompt)
        asked = [
            Asked(
                cases[places[0]].latent,
                prompt.call(forms[len(places)], is_chat, self._filling([cases[place] for place in places])),
            )
            for places in prompts
        ]
        judgements: dict[int, Judgement] = {}
        for places, answer in zip(prompts, work.ask(self.llm, asked), strict=True):
            read = [_compared(answer)] if self.together == 1 else _labelled(answer, len(places))
            judgements.update(zip(places, read, strict=True))
        return [judgements[place] for place in range(len(cases))]

    def _calls(self, kinds: int) -> int:
        """Calls for a latent of whose windows so many kinds are shown, as many of each; no prompt shows windows of two waves."""
        sizes = [self.windows] if self.stop is None else self.stop.sizes(self.windows)
        return sum(EXPLANATIONS * -(-kinds * size // self.together) for size in sizes)

    def _filling(self, cases: Sequence[Case]) -> dict[str, str]:
        texts = [in_a_line(case.text) for case in cases]
        numbered = "\n".join(f"{n}. {text}" for n, text in enumerate(texts, start=1))
        shown = {"window": texts[0]} if self.together == 1 else {"windows": numbered}
        return {"explanation": in_a_line(cases[0].explanation), **shown}

    def _form(self, work: "Work", n: int) -> Choose | Generate:
        """What is asked of the model about ``n`` windows."""
        if self.together == 1:
            return Choose((self.yes, self.no))
        llm = work.study.llms[self.llm]
        sampling: dict[str, Any] = {"max_tokens": 4 * n + 16, "likeliest": _LISTED if self.probabilities else 0}
        if self.is_formed and llm.engine != "transformers":
            sampling["schema"] = _schema(n)
        elif self.is_formed and n <= _MOST_CHOICES:
            space = "" if llm.chat else " "
            sampling["choice"] = tuple(f"{space}{json.dumps(labels)}" for labels in product((0, 1), repeat=n))
        elif not llm.chat:
            sampling["stop"] = ("\n\n",)
        return Generate(**sampling)


def _schema(n: int) -> str:
    """Of ``n`` labels: in an object, since some servers take no other schema."""
    items = {"type": "integer", "enum": [0, 1]}
    labels = {"type": "array", "items": items, "minItems": n, "maxItems": n}
    shape = {"type": "object", "properties": {"labels": labels}, "required": ["labels"], "additionalProperties": False}
    return json.dumps(shape)


def _prompts(cases: Sequence[Case], together: int) -> Iterator[tuple[int, ...]]:
    """Places of the cases that are shown together: of one latent and explanation, in an order that tells nothing."""
    places = range(len(cases))
    for _, group in groupby(places, key=lambda place: (cases[place].latent, cases[place].control)):
        ordered = sorted(group, key=lambda place: cases[place].order)
        yield from (tuple(ordered[start : start + together]) for start in range(0, len(ordered), together))


def _compared(answer: Answer) -> Judgement:
    """The label of one window, out of the probabilities of yes and no."""
    reply = answer.reply
    if reply.error is not None or reply.logprobs is None:
        return Judgement(error=reply.error or "no_logprobs", call=answer.key)
    yes, no = reply.logprobs
    if max(yes, no) == -inf:
        return Judgement(error="no_logprobs", call=answer.key)
    probability = _odds(yes, no)
    return Judgement(prediction=probability > 0.5, probability=probability, call=answer.key)


def _labelled(answer: Answer, n: int) -> list[Judgement]:
    """The labels of ``n`` windows, out of a reply that lists them."""
    reply = answer.reply
    if reply.error is not None:
        return [Judgement(error=reply.error, call=answer.key)] * n
    text = reply.text or ""
    labels, digits = _listed(text) or ([], [])
    if len(labels) != n:
        error = "truncated" if reply.finish_reason == "length" else UNPARSED
        return [Judgement(error=error, call=answer.key)] * n
    return [
        Judgement(prediction=label, probability=probability, call=answer.key)
        for label, probability in zip(labels, _probabilities(reply, digits, n), strict=True)
    ]


def _listed(text: str) -> tuple[list[bool], list[int]] | None:
    """The last list of zeros and ones in a text, and the places of its digits in the text; None where there is none."""
    for found in reversed(list(_LIST.finditer(text))):
        try:
            labels = json.loads(found[0])
        except ValueError:
            continue
        if labels and all(label in (0, 1) for label in labels):
            return [bool(label) for label in labels], [
                found.start() + each.start() for each in _DIGIT.finditer(found[0])
            ]
    return None


def _probabilities(reply: Reply, digits: Sequence[int], n: int) -> list[float | None]:
    """Of each of ``n`` labels the probability of 1 over that of 0; None where the tokens do not show it.

    The reply's tokens are found by their log-probabilities among the likeliest at each place, and in its text by their texts: of
    several that were as likely, the one that comes next there. ``digits``: places of the labels in the text.
    """
    text, found = reply.text or "", dict[int, float]()
    if len(digits) != n:  # labels in other words, as in [true, 0.0]
        return [None] * n
    end = 0  # up to here the text is found; each token that was not found takes a character of it at least
    places = zip(reply.logprobs or (), reply.likeliest, strict=True) if reply.likeliest else ()
    for own, listed in places:
        written = [(text.find(each.token, end), each.token) for each in listed if each.token and each.logprob == own]
        start, token = min((each for each in written if each[0] >= 0), default=(-1, ""))
        if start < 0:
            end += all(
                each.logprob != own for each in listed
            )  # listed ones, as those that end a reply, may have no text
            continue
        end = start + len(token)
        inside = [place for place, digit in enumerate(digits) if start <= digit < end]
        if len(inside) == 1 and re.search("[01]", token):
            by_label = [_likelihood(listed, re.sub("[01]", label, token, count=1)) for label in "10"]
            found[inside[0]] = _odds(*by_label)
    return [found.get(place) for place in range(n)]


def _likelihood(listed: Sequence[Likely], token: str) -> float:
    return next((each.logprob for each in listed if each.token == token), -inf)


def _odds(one: float, other: float) -> float:
    """The first of two probabilities over their sum, from their logarithms, one of which is finite."""
    return round(1 / (1 + exp(min(other - one, 700.0))), 6)
