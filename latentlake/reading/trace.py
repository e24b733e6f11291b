"""From a score back to what it was made from: judgements, model calls, the explanation, windows, documents, weights, versions."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import polars as pl

from latentlake.catalog import DROPPED, PUBLISHED
from latentlake.errors import LakeError, nearest
from latentlake.measures.aggregates import is_main
from latentlake.measures.comparing import pairs_with, partners
from latentlake.reading.called import with_calls
from latentlake.reading.results import Results, choices_of
from latentlake.reading.view import View
from latentlake.scorers import NONE
from latentlake.tables import TABLES

Number = TypeVar("Number", int, pl.Expr)

_WINDOW = ("shard", "context", "start")
_ASIDE = "^(agreements|embeddings/|comparisons/|report)"  # made of scores or explanations, and not the other way round


@dataclass(frozen=True)
class Trace:
    """What the scores of a latent were made from. Frames are named like the tables whose rows and columns they hold.

    ``scores``: with ``is_main``, whether it is by this metric that latents are compared. ``judgements``: with the ``explanation``
    that was judged (for a control, another latent's), the window's ``sample`` and ``text``, the call, and ``misranked``: the
    share of the windows of the other kind that lie on the wrong side of this one, so that the mean over the windows of a kind is
    1 - AUROC, null of an intruder. ``hypotheses``: with the call of each. A call is null where none was made; ``prompt_text`` is
    its whole prompt, ``asset`` and ``launch`` are who first made it. ``examples``: the latent's windows in all samples, with the
    ``file`` and the ``documents`` that they are text of. ``latents``, ``logits``: the latent's row. ``neighbours``: nearest
    first, with the ``explanation`` of each by the first explainer that has one. ``partners``: of other dictionaries, likewise, as
    `latentlake.measures.comparing.partners` has them. ``continuations``: what the subject says under
    pushes by the latent. ``costs``: of the calls that were first made for the latent, by asset: ``calls``, tokens, ``seconds``
    and ``price``.
    ``versions``: the rows of ``partitions`` under which all this is published, of shards only those of the windows.
    """

    dictionary: str
    latent: int
    scores: pl.DataFrame
    judgements: pl.DataFrame
    explanations: pl.DataFrame
    hypotheses: pl.DataFrame
    examples: pl.DataFrame
    latents: pl.DataFrame
    logits: pl.DataFrame
    neighbours: pl.DataFrame
    partners: pl.DataFrame
    continuations: pl.DataFrame
    dictionaries: pl.DataFrame
    subject: pl.DataFrame
    llms: pl.DataFrame
    costs: pl.DataFrame
    versions: pl.DataFrame


def trace(view: View, dictionary: str, latent: int, explainer: str | None = None, scorer: str | None = None) -> Trace:
    """What the scores of a latent were made from, of one explainer and scorer or of all.

    Frames are empty where nothing is published yet.

    Raises:
        LakeError: there is no such dictionary, latent, explainer or scorer, or the latent was not chosen.
    """
    (found,) = traces(view, dictionary, [latent], explainer, scorer)
    _require_chosen(found.latents, f"latent {latent} of {dictionary!r}")
    return replace(found, judgements=with_calls(view, found.judgements), hypotheses=with_calls(view, found.hypotheses))


def traces(
    results: Results,
    dictionary: str,
    latents: Sequence[int],
    explainer: str | None = None,
    scorer: str | None = None,
) -> list[Trace]:
    """The traces of several latents of a dictionary, in that order, read together; without the calls themselves.

    Of latents that were not chosen there are statistics, and the other frames are empty. ``versions`` are those of all.

    Raises:
        LakeError: there is no such dictionary, latent, explainer or scorer.
    """
    choices = choices_of(results)
    concerned = _concerned(results, choices, dictionary, latents, explainer, scorer)
    own = _own(results, choices, concerned, latents)
    shared = {
        "dictionaries": _rows(results, "dictionaries", concerned).collect(),
        "subject": results.subject.collect(),
        "llms": _rows(results, "llms", concerned).sort("llm").collect(),
        "versions": _versions(
            results, {**concerned, **{name: own["examples"][name].unique() for name in ("sample", "shard")}}
        ),
    }
    parts = {name: rows.partition_by("latent", as_dict=True, maintain_order=True) for name, rows in own.items()}
    return [
        Trace(dictionary, latent, **{name: parts[name].get((latent,), own[name].clear()) for name in own}, **shared)
        for latent in latents
    ]


def _own(
    results: Results, choices: Mapping[str, Any], concerned: Mapping[str, list[Any]], latents: Sequence[int]
) -> dict[str, pl.DataFrame]:
    """The frames of a trace that have rows a latent, of all latents together."""

    def rows(table: str, *order: str) -> pl.DataFrame:
        found = _rows(results, table, concerned, latents)
        return (found.sort(order) if order else found).collect()

    examples = _with_documents(results, rows("examples"))
    judgements = rows("judgements")
    neighbours = rows("neighbours").sort(_nearness(), "neighbour", descending=[True, False])
    others = {*judgements["explanation_latent"].drop_nulls(), *neighbours["neighbour"]}
    said = _explanations(results, choices, concerned, sorted({*latents, *others}))
    hypotheses = rows("hypotheses", "explainer", "hypothesis")
    continuations = rows("continuations", "intervention", "rank", "control", "target")
    return {
        "scores": rows("scores", "explainer", "scorer", "metric", "control").with_columns(is_main=is_main(results)),
        "judgements": ranked(_with_texts(judgements, said, examples, choices)),
        "explanations": said.filter(pl.col("latent").is_in(latents)).sort("explainer"),
        "hypotheses": hypotheses,
        "examples": examples,
        "latents": rows("latents"),
        "logits": rows("logits"),
        "neighbours": _with_said(neighbours, {"dictionary": "dictionary", "neighbour": "latent"}, said, choices),
        "partners": _partners(results, choices, concerned, latents),
        "continuations": continuations,
        "costs": _costs(results, concerned["dictionary"], latents, [judgements, hypotheses, continuations]),
    }


def _concerned(
    results: Results,
    choices: Mapping[str, Any],
    dictionary: str,
    latents: Sequence[int],
    explainer: str | None,
    scorer: str | None,
) -> dict[str, list[Any]]:
    """The values of partition columns under which what is asked about lies."""
    explainers, scorers = _methods(choices, explainer, scorer)
    settings = _settings(choices, explainers, scorers)
    pairs = pairs_with(choices, dictionary)
    width = _width(results, choices, dictionary, latents)
    return {
        "dictionary": [dictionary],
        "block": sorted({_block(latent, choices, width) for latent in latents}),
        "explainer": explainers,
        "scorer": scorers,
        "llm": _models(choices, settings),
        "intervention": _interventions(settings),
        "width": [width],
        "comparison": list(pairs),
        "pair": sorted({pair for own in pairs.values() for pair in own}),
    }


def _block(latent: Number, choices: Mapping[str, Any], width: Number) -> Number:
    """The block of a latent."""
    return latent * int(choices["blocks"]) // width


def _explanations(
    results: Results, choices: Mapping[str, Any], concerned: Mapping[str, list[Any]], latents: Sequence[int]
) -> pl.DataFrame:
    """The explanations of some latents, in whatever blocks these are."""
    (width,) = concerned["width"]
    blocks = sorted({_block(latent, choices, width) for latent in latents})
    return _rows(results, "explanations", {**concerned, "block": blocks}, latents).collect()


def _nearness() -> pl.Expr:
    """By what neighbours are told to be near: decoder directions, and where there are none, firing together."""
    return pl.coalesce("decoder_cosine", "encoder_cosine", "jaccard")


def _with_said(
    rows: pl.DataFrame, keys: Mapping[str, str], said: pl.DataFrame, choices: Mapping[str, Any]
) -> pl.DataFrame:
    """Rows that name a latent of a dictionary, with the ``explanation`` of it by the first explainer, in the order of the study,
    that has one. ``keys``: the columns in which it is named, and those of explanations."""
    order = {name: place for place, name in enumerate(choices["explainers"])}
    there = said.drop_nulls("explanation").sort(pl.col("explainer").replace_strict(order, return_dtype=pl.Int64))
    first = there.unique(list(keys.values()), keep="first", maintain_order=True).select(*keys.values(), "explanation")
    return rows.join(first, left_on=list(keys), right_on=list(keys.values()), how="left", maintain_order="left")


def _partners(
    results: Results, choices: Mapping[str, Any], concerned: Mapping[str, list[Any]], latents: Sequence[int]
) -> pl.DataFrame:
    """The partners of latents in other dictionaries, with what is said of each."""
    (dictionary,) = concerned["dictionary"]
    found = partners(results, concerned["comparison"], concerned["pair"], dictionary, latents)
    if found.is_empty():
        return found.with_columns(explanation=pl.lit(None, pl.String))
    others = found["other"].unique().to_list()
    opened = _rows(results, "dictionaries", {"dictionary": others}).select("width", other="dictionary").collect()
    block = _block(pl.col("partner").cast(pl.Int64), choices, pl.col("width"))
    blocks = found.join(opened, on="other").select(block.unique()).to_series().to_list()
    of = {"dictionary": others, "block": blocks, "explainer": concerned["explainer"]}
    said = _rows(results, "explanations", of, found["partner"].unique().to_list()).collect()
    return _with_said(found, {"other": "dictionary", "partner": "latent"}, said, choices)


def _costs(
    results: Results, dictionary: Sequence[str], latents: Sequence[int], named: Sequence[pl.DataFrame]
) -> pl.DataFrame:
    """What the calls that rows name and that were first made for their latents took, by asset."""
    keys = pl.concat([rows["call"] for rows in named]).drop_nulls().unique().to_list()
    own = (pl.col("dictionary").is_in(dictionary), pl.col("latent").is_in(latents))
    sums = ["tokens_in", "tokens_cached", "tokens_out", "seconds"]
    return (
        results.answers(keys, latents)
        .filter(own)
        .group_by("latent", "asset")
        .agg(
            pl.len().alias("calls"),
            *map(pl.sum, sums),
            pl.when(pl.col("price").count() > 0).then(pl.sum("price")).alias("price"),
        )
        .sort("latent", "asset")
    )


def _rows(
    results: Results, table: str, concerned: Mapping[str, list[Any]], latents: Sequence[int] | None = None
) -> pl.LazyFrame:
    """The rows of a table under the partitions concerned, of some latents or of all; only their files are read."""
    columns = [name for name in TABLES[table].partition_by if name in concerned]
    rows: pl.LazyFrame = getattr(results, table).filter(pl.col(name).is_in(concerned[name]) for name in columns)
    return rows if latents is None else rows.filter(pl.col("latent").is_in(latents))


def _require_known(choices: Mapping[str, Any], section: str, kind: str, name: str) -> None:
    if name not in choices[section]:
        raise LakeError(f"the study {choices['name']!r} has no {kind} {name!r}{nearest(name, choices[section])}")


def _width(results: Results, choices: Mapping[str, Any], dictionary: str, latents: Sequence[int]) -> int:
    """Width of the dictionary, which must have the latents."""
    _require_known(choices, "dictionaries", "dictionary", dictionary)
    rows = results.dictionaries.filter(dictionary=dictionary).collect()
    if rows.is_empty():
        raise LakeError(f"the dictionary {dictionary!r} is not materialized in {results.uri}; run the study first")
    width = int(rows["width"].item())
    for latent in latents:
        if not 0 <= latent < width:
            raise LakeError(f"the dictionary {dictionary!r} has no latent {latent}; its latents are 0 to {width - 1}")
    return width


def _require_chosen(row: pl.DataFrame, where: str) -> None:
    """The latent's row of ``latents`` must say that it was chosen."""
    if row.is_empty():
        raise LakeError(f"the block of {where} is not materialized; run the study first")
    dictionary, triage, is_chosen, reason = row.select("dictionary", "triage", "is_chosen", "reason").row(0)
    if not is_chosen:
        is_poor = triage in ("dead", "rare")
        remedy = (
            "add documents to the corpus or lower selection.min_windows"
            if is_poor
            else f"list it in dictionaries.{dictionary}.latents"
        )
        raise LakeError(
            f"{where} was not chosen and has no scores to trace (triage {triage}: {reason}); to have it explained, "
            f"{remedy} in the study and run it"
        )


def _methods(choices: Mapping[str, Any], explainer: str | None, scorer: str | None) -> tuple[list[str], list[str]]:
    """The explainers and scorers asked about: with a scorer named, the explainers that it judges."""
    for kind, name in (("explainer", explainer), ("scorer", scorer)):
        if name is not None and (kind, name) != ("explainer", NONE):
            _require_known(choices, f"{kind}s", kind, name)
    explainers = [*choices["explainers"], NONE] if explainer is None else [explainer]
    if scorer is None:
        return explainers, list(choices["scorers"])
    judged = choices["scorers"][scorer].get("explainers", [NONE])
    if explainer is not None and explainer not in judged:
        raise LakeError(
            f"the scorer {scorer!r} does not judge the explainer {explainer!r}, but {', '.join(judged)}; name one of "
            f"these, or add it to scorers.{scorer}.explainers in the study and run it"
        )
    return [name for name in explainers if name in judged], [scorer]


def _settings(choices: Mapping[str, Any], explainers: Sequence[str], scorers: Sequence[str]) -> list[Mapping[str, Any]]:
    """The settings of some methods."""
    named = [("explainers", name) for name in explainers if name != NONE] + [("scorers", name) for name in scorers]
    return [choices[section][name] for section, name in named]


def _interventions(settings: Sequence[Mapping[str, Any]]) -> list[str]:
    """The interventions that some methods read."""
    return sorted({each["intervention"] for each in settings if "intervention" in each})


def _models(choices: Mapping[str, Any], settings: Sequence[Mapping[str, Any]]) -> list[str]:
    """The models that some methods use: whatever their settings name that is one."""
    named = {value for each in settings for value in each.values() if isinstance(value, str)}
    return [name for name in choices["llms"] if name in named]


def _with_documents(results: Results, windows: pl.DataFrame) -> pl.DataFrame:
    """Windows with their ``file``, and the ``documents`` of which they hold text, in order."""
    place = (*_WINDOW, "end")
    ended = windows.lazy().with_columns(end=pl.col("start") + pl.col("tokens").list.len())
    places = ended.select(place).unique()
    is_near = [pl.col(name).is_in(windows[name].unique().to_list()) for name in ("shard", "context")]
    documents = (
        results.contexts.filter(is_near)
        .select("shard", "context", "documents")
        .explode("documents", empty_as_null=False)
        .select("shard", "context", pl.col("documents").struct.with_fields(first=pl.field("start")).struct.unnest())
        .select("shard", "context", "document", "first")
        .with_columns(separator=pl.col("first").shift(-1).over("shard", "context", order_by="first") - 1)
    )
    holds_text = pl.col("separator") > pl.max_horizontal("first", "start")  # a context may open with a separator alone
    is_within = (pl.col("first") < pl.col("end")) & holds_text.fill_null(True)
    held = (
        places.join(documents, on=["shard", "context"])
        .filter(is_within)
        .group_by(place)
        .agg(documents=pl.col("document").sort_by("first"))
    )
    files = results.shards.select("shard", "file")
    described = ended.join(held, on=place, how="left").drop("end").join(files, on="shard", how="left")
    return described.sort("sample", "is_activating", "rank", "latent", descending=[False, True, False, False]).collect()


def _with_texts(
    judgements: pl.DataFrame, explanations: pl.DataFrame, examples: pl.DataFrame, choices: Mapping[str, Any]
) -> pl.DataFrame:
    """Judgements with the explanation and the text of the window that were held against each other."""
    samples = {name: _sample(choices, scorer) for name, scorer in choices["scorers"].items()}
    said = explanations.select("explainer", "explanation", explanation_latent="latent")
    texts = examples.select("sample", "latent", *_WINDOW, "text")
    judged = judgements.with_columns(sample=pl.col("scorer").replace_strict(samples, return_dtype=pl.String))
    judged = judged.join(said, on=["explainer", "explanation_latent"], how="left")
    return judged.join(texts, on=["sample", "latent", *_WINDOW], how="left")


def _sample(choices: Mapping[str, Any], scorer: Mapping[str, Any]) -> str | None:
    """The sample whose windows a scorer judges: of one of interventions, the one whose windows begin as the prompts do."""
    if "intervention" in scorer:
        return str(choices["interventions"][scorer["intervention"]]["score"])
    return scorer.get("sample")


def ranked(judgements: pl.DataFrame) -> pl.DataFrame:
    """Judgements with ``misranked``, the worst first; ties count half, and failures have none and come last. An intruder has none
    either: of these the one that was least seen for what it is comes first.
    """
    group = ["latent", "explainer", "scorer", "control"]
    own = [*group, "is_activating"]
    said = pl.coalesce("probability", "measure", pl.col("prediction").cast(pl.Float64))  # as in scores
    below = said.rank().over(group) - said.rank().over(own)
    others = said.count().over(group) - said.count().over(own)
    share = pl.when(others > 0).then(below / others)
    misranked = pl.when("is_activating").then(1 - share).otherwise(share)
    failures_last = pl.coalesce(-pl.col("misranked"), pl.when(explainer=NONE).then("probability"), pl.lit(1))
    return judgements.with_columns(misranked=misranked).sort(*group, failures_last, *_WINDOW)


def _versions(results: Results, concerned: Mapping[str, Iterable[Any]]) -> pl.DataFrame:
    """The rows of published partitions, but for those under a value that is not concerned; oldest first."""
    allowed = [{"column": column, "value": str(value)} for column, values in concerned.items() for value in values]
    known = (pl.col("state").is_in([PUBLISHED, DROPPED]), ~pl.col("asset").str.contains(_ASIDE))
    latest = results.latest().filter(known)
    others = (
        latest.select("asset", "partition", "where")
        .explode("where", empty_as_null=False)
        .unnest("where")
        .join(pl.DataFrame(allowed), on=["column", "value"], how="anti")
    )
    own = latest.join(others, on=["asset", "partition"], how="anti")
    return own.drop("where", "state", "retryable_failures", "is_seen", strict=False).sort("at", "asset", "partition")
