"""Latents found by what is said of them: by words in explanations and top tokens, and by what explanations mean.

Lazy until the last step: of millions of rows the best few come out of a stream, in an order that has nothing to do with how
files lie.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import polars as pl

from latentlake.errors import LakeError, nearest
from latentlake.files import FileFacts
from latentlake.measures.aggregates import main_metrics
from latentlake.origins import model_facts
from latentlake.protocols import Embedder
from latentlake.reading.results import choices_of
from latentlake.reading.view import View
from latentlake.scorers import NONE
from latentlake.sections.models import LLMChoice

_ROW = ["dictionary", "latent", "explainer"]
_SECTIONS = {"dictionary": "dictionaries", "explainer": "explainers", "scorer": "scorers"}
_BETWEEN = "\n"  # no word goes over it
_DIGITS = 5  # of a cosine: those that do not depend on how texts were batched


@dataclass(frozen=True)
class Within:
    """Among what is looked for, None for everything: the latents of one ``dictionary`` or ``triage``, the explanations of one
    ``explainer``, what a ``scorer`` has a score of in its main metric, and that no less than ``least``.
    """

    dictionary: str | None = None
    explainer: str | None = None
    triage: str | None = None
    scorer: str | None = None
    least: float | None = None


EVERYWHERE = Within()


def by_words(view: View, words: str, within: Within = EVERYWHERE, n: int = 20) -> pl.DataFrame:
    """The n latents that fit best of those whose explanation or top tokens hold all of some words, in any case and as parts of
    longer ones; what stands between spaces is a word, and means nothing but itself.

    A row a latent and explainer: ``dictionary``, ``latent``, ``explainer`` and ``explanation`` (null of latents without one),
    ``tokens``, the texts of the latent's top tokens, ``triage``, with a scorer its ``score``, and ``found_in``: `explanation`
    where all words are there, else `tokens`. Best is where most words stand by themselves in the explanation; then where most
    are parts of it; then, if these are all, the shorter explanation, and else where they come earlier among the tokens, of which
    those with most activation mass come first; then by dictionary, latent and explainer.

    Raises:
        LakeError: there are no words, or no such dictionary, explainer or scorer.
    """
    wanted = _words(words)
    _require(view, choices_of(view), within, n)
    said, tokens = _plain(pl.col("explanation").fill_null("")), _plain(pl.col("tokens").list.join(_BETWEEN))
    rows = _described(view, within).with_columns(said=said, top=tokens)
    holds = [pl.concat_str("said", "top", separator=_BETWEEN).str.contains(word, literal=True) for word in wanted]
    parts = pl.sum_horizontal(pl.col("said").str.contains(word, literal=True) for word in wanted)
    whole = pl.sum_horizontal(
        pl.col("said").str.contains(rf"(?:^|\W){pl.escape_regex(word)}(?:\W|$)") for word in wanted
    )
    places = pl.sum_horizontal(pl.col("top").str.find(word, literal=True) for word in wanted)
    is_said = pl.col("parts") == len(wanted)
    rest = pl.when(is_said).then(pl.col("said").str.len_bytes()).otherwise("places")
    found = rows.filter(*holds).with_columns(whole=whole, parts=parts, places=places).with_columns(rest=rest)
    found_in = pl.when(is_said).then(pl.lit("explanation")).otherwise(pl.lit("tokens"))
    best = _first(found, ["whole", "parts"], ["rest"], n)
    return _collected(best.select(*_ROW, "explanation", "tokens", "triage", *_score(within), found_in=found_in))


def by_meaning(view: View, text: str, embedder: Embedder, within: Within = EVERYWHERE, n: int = 20) -> pl.DataFrame:
    """The n explanations that are nearest in meaning to a text. ``embedder``: the one that made their vectors (`embedder_of`).

    Raises:
        LakeError: the text is empty; and as `by_vector`.
    """
    search = _search(choices_of(view))
    (vector,) = embedder.embed([search["query"] + _some(text)])
    return by_vector(view, vector, within, n)


def by_vector(
    view: View, vector: Sequence[float] | np.ndarray, within: Within = EVERYWHERE, n: int = 20
) -> pl.DataFrame:
    """The n explanations whose vectors are nearest to another, such as one of `embeddings`.

    Rows and columns are those of `by_words`, and in the place of ``found_in`` the ``cosine``, to 5 digits, the largest first; of
    equal ones by dictionary, latent and explainer.

    Raises:
        LakeError: the study asks for no search by meaning, nothing is embedded yet, the vector is none of its embedder's, or
            there is no such dictionary, explainer or scorer.
    """
    choices = choices_of(view)
    _search(choices)
    _require(view, choices, within, n)
    near = _vectors(view, within).select(*_ROW, cosine=_cosine(view, np.asarray(vector, dtype=np.float64)))
    best = _collected(_first(_scored(view, within, _in_triage(view, within, near)), ["cosine"], [], n))
    among = [pl.col(name).is_in(best[name].unique().implode()) for name in ("dictionary", "latent")]
    said = _described(view, Within(within.dictionary, within.explainer), among).select(
        *_ROW, "explanation", "tokens", "triage"
    )
    described = best.lazy().join(said, on=_ROW, how="left", maintain_order="left")
    return _collected(described.select(*_ROW, "explanation", "tokens", "triage", *_score(within), "cosine"))


def embedder_of(view: View, home: Path, cache: Path) -> Embedder:
    """The embedder that made the vectors of the study that was written down last, on the CPU, loaded at its first text.

    ``home``: the folder where paths in the study start. ``cache``: of remembered digests.

    Raises:
        LakeError: the study asks for no search by meaning, or nothing is embedded yet, or other weights made the vectors.
        InputError: the model is not here.
    """
    choices = choices_of(view)
    name = _search(choices)["embedder"]
    choice = LLMChoice.model_validate(choices["llms"][name])
    facts = model_facts(choice.model, choice.revision, home, FileFacts(cache))
    known = view.llms.filter(llm=name).select("digest").collect()
    made = view.latest().filter(pl.col("asset").str.starts_with("embeddings/"), "is_seen")
    now = view.latest().filter(asset="llms", partition=name)["data_version"]
    of = made.explode("inputs").unnest("inputs", separator=".").filter(pl.col("inputs.asset") == "llms")
    if made.is_empty() or known.is_empty():
        raise LakeError(_NOT_MADE)
    if set(of["inputs.data_version"]) != set(now) or facts.digest != known.item():
        raise LakeError(
            f"vectors of explanations were made by other weights than those that llms.{name} ({choice.model}) has now; run the "
            "study, which makes them anew, or put the former files back"
        )
    from latentlake.engines.sentence_transformers import SentenceTransformersEmbedder

    return SentenceTransformersEmbedder(facts.path)


_NOT_MADE = "no explanation is embedded yet; run the study"


def _some(text: str) -> str:
    """A text that says something, and that a table could hold."""
    if not text.strip():
        raise LakeError("nothing is looked for; give a word or more")
    if any("\ud800" <= letter <= "\udfff" for letter in text):  # what a terminal makes of bytes that are none
        raise LakeError(f"{text!r} is no text in UTF-8; type it anew")
    return text


def _words(words: str) -> list[str]:
    """The words of a query, each once, as they are compared."""
    return sorted(set(pl.select(_plain(pl.lit(_some(words)))).item().split()))


def _plain(text: pl.Expr) -> pl.Expr:
    """A text with its letters small, and accents written in one way."""
    return text.str.to_lowercase().str.normalize("NFC")


def _search(choices: Mapping[str, Any]) -> dict[str, Any]:
    """The study's section on search."""
    search: dict[str, Any] | None = choices.get("search")
    if search is None:
        raise LakeError(
            f"the study {choices['name']!r} makes no vectors of explanations; add `search: {{embedder: …}}` to it, with one of "
            "its llms that embeds, and run it"
        )
    return search


def _require(view: View, choices: Mapping[str, Any], within: Within, n: int) -> None:
    """Refuse what would find nothing wherever it looked."""
    for kind, section in _SECTIONS.items():
        name = getattr(within, kind)
        if name is not None and name not in choices[section]:
            known = nearest(name, choices[section])
            raise LakeError(f"the study {choices['name']!r} has no {kind} {name!r}{known}")
    if within.triage is not None:
        there = view.latents.select(pl.col("triage").unique()).collect(engine="streaming")["triage"].sort().to_list()
        if within.triage not in there:
            raise LakeError(f"no latent has the triage {within.triage!r}, only {there}{nearest(within.triage, there)}")
    if within.least is not None and within.scorer is None:
        raise LakeError(f"whose score is to be {within.least:g} or more? Name a scorer as well")
    if n < 1:
        raise LakeError(f"{n} latents are asked for; ask for 1 or more")


def _described(view: View, within: Within, among: Sequence[pl.Expr] = ()) -> pl.LazyFrame:
    """Latents with their top tokens and each of their explanations; without one where no explainer is named.

    ``among``: on columns of latents and explanations both, so that only these are read.
    """
    tokens = pl.col("top_tokens").list.eval(pl.element().struct.field("text"))
    latents = _of(view.latents, within, "dictionary", "triage").filter(*among)
    explanations = _of(view.explanations, within, "dictionary", "explainer").filter(*among)
    own = explanations.filter(pl.col("explanation").is_not_null()).select(*_ROW, "explanation")
    how: Literal["left", "inner"] = "left" if within.explainer is None else "inner"
    described = latents.select("dictionary", "latent", "triage", tokens=tokens).join(own, on=_ROW[:2], how=how)
    return _scored(view, within, described)


def _vectors(view: View, within: Within) -> pl.LazyFrame:
    return _of(view.embeddings, within, "dictionary", "explainer")


def _of(frame: pl.LazyFrame, within: Within, *columns: str) -> pl.LazyFrame:
    """The rows of a frame under some of the values that are looked under."""
    wanted = {name: getattr(within, name) for name in columns}
    return frame.filter(**{name: value for name, value in wanted.items() if value is not None})


def _in_triage(view: View, within: Within, rows: pl.LazyFrame) -> pl.LazyFrame:
    if within.triage is None:
        return rows
    return rows.join(_of(view.latents, within, "dictionary", "triage"), on=_ROW[:2], how="semi")


def _scored(view: View, within: Within, rows: pl.LazyFrame) -> pl.LazyFrame:
    """Rows with their ``score`` by the scorer looked under, those that have one; as they are where there is none."""
    if within.scorer is None:
        return rows
    scores = _of(view.scores, within, "dictionary", "scorer").filter(
        pl.col("control").is_null(), pl.col("value").is_not_null(), metric=main_metrics(view)[within.scorer]
    )
    if within.least is not None:
        scores = scores.filter(pl.col("value") >= within.least)
    judged = choices_of(view)["scorers"][within.scorer].get("explainers", [NONE])
    keys = _ROW[:2] if judged == [NONE] else _ROW
    return rows.join(scores.select(*keys, score="value"), on=keys)


def _score(within: Within) -> list[str]:
    return [] if within.scorer is None else ["score"]


def _cosine(view: View, vector: np.ndarray) -> pl.Expr:
    """Of each vector with another. Numbers are multiplied and added where they were read: nothing is copied."""
    there = view.embeddings.select(pl.col("vector").list.len()).head(1).collect()
    if there.is_empty():
        raise LakeError(_NOT_MADE)
    length, width = float(np.linalg.norm(vector)), there.item()
    if vector.shape != (width,) or not 0 < length < np.inf:
        raise LakeError(
            f"vectors of explanations have {width} numbers, and are compared with {vector.size} of length {length:g}; embed what "
            "is looked for with the embedder of the study"
        )
    unit = pl.lit((vector / length).tolist(), dtype=pl.Array(pl.Float32, width))
    cosine = (pl.col("vector").list.to_array(width) * unit).arr.sum()
    return cosine.cast(pl.Float64).round(_DIGITS)


def _first(rows: pl.LazyFrame, most: Sequence[str], least: Sequence[str], n: int) -> pl.LazyFrame:
    """The n rows with most of some columns, then least of others."""
    down = [True] * len(most) + [False] * (len(least) + len(_ROW))
    return rows.sort(*most, *least, *_ROW, descending=down, nulls_last=True).head(n)


def _collected(rows: pl.LazyFrame) -> pl.DataFrame:
    return rows.collect(engine="streaming")
