"""From a score back to what it was made from: judgements, model calls, the explanation, windows, documents, weights, versions."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import polars as pl

from latentlake.catalog import DROPPED, PUBLISHED
from latentlake.errors import LakeError, nearest
from latentlake.scorers import NONE
from latentlake.tables import TABLES
from latentlake.view import View

_WINDOW = ("shard", "context", "start")
_CALL = ("key", "model", "revision", "sampling", "draw", "reply", "logprobs", "finish_reason")
_ASIDE = "^(agreements|embeddings/)"  # made of scores or explanations, and not the other way round
_COST = ("tokens_in", "tokens_cached", "tokens_out", "seconds", "price", "asset", "launch", "created_at")


@dataclass(frozen=True)
class Trace:
    """What the scores of a latent were made from. Frames are named like the tables whose rows and columns they hold.

    ``judgements``: with the ``explanation`` that was judged (for a control, another latent's), the window's ``sample`` and
    ``text``, the call, and ``misranked``: the share of the windows of the other kind that lie on the wrong side of this one, so
    that the mean over the windows of a kind is 1 - AUROC, null of an intruder. ``hypotheses``: with the call of each. A call is
    null where none was made; ``prompt_text`` is its whole prompt, ``asset`` and ``launch`` are who first made it. ``examples``:
    the latent's windows in all samples, with the ``file`` and the ``documents`` that they are text of. ``latents``, ``logits``:
    the latent's row. ``continuations``: what the subject says under pushes by the latent.
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
    continuations: pl.DataFrame
    dictionaries: pl.DataFrame
    subject: pl.DataFrame
    llms: pl.DataFrame
    versions: pl.DataFrame


def trace(view: View, dictionary: str, latent: int, explainer: str | None = None, scorer: str | None = None) -> Trace:
    """What the scores of a latent were made from, of one explainer and scorer or of all.

    Frames are empty where nothing is published yet.

    Raises:
        LakeError: there is no such dictionary, latent, explainer or scorer, or the latent was not chosen.
    """
    choices = _choices(view)
    concerned = _concerned(view, choices, dictionary, latent, explainer, scorer)
    latents = _chosen(_rows(view, "latents", concerned, latent), f"latent {latent} of {dictionary!r}")
    examples = _with_documents(view, _rows(view, "examples", concerned, latent).collect())
    judgements = _rows(view, "judgements", concerned, latent).collect()
    judged = [latent, *judgements["explanation_latent"].drop_nulls().unique()]
    explanations = _rows(view, "explanations", concerned).filter(pl.col("latent").is_in(judged)).collect()
    hypotheses = _rows(view, "hypotheses", concerned, latent).sort("explainer", "hypothesis").collect()
    return Trace(
        dictionary,
        latent,
        scores=_rows(view, "scores", concerned, latent).sort("explainer", "scorer", "metric", "control").collect(),
        judgements=_with_calls(view, _ranked(_with_texts(judgements, explanations, examples, choices))),
        explanations=explanations.filter(latent=latent).sort("explainer"),
        hypotheses=_with_calls(view, hypotheses),
        examples=examples,
        latents=latents,
        logits=_rows(view, "logits", concerned, latent).collect(),
        continuations=_rows(view, "continuations", concerned, latent)
        .sort("intervention", "rank", "control", "target")
        .collect(),
        dictionaries=_rows(view, "dictionaries", concerned).collect(),
        subject=view.subject.collect(),
        llms=_rows(view, "llms", concerned).sort("llm").collect(),
        versions=_versions(view, {**concerned, **{name: examples[name].unique() for name in ("sample", "shard")}}),
    )


def _concerned(
    view: View, choices: Mapping[str, Any], dictionary: str, latent: int, explainer: str | None, scorer: str | None
) -> dict[str, list[Any]]:
    """The values of partition columns under which what is asked about lies."""
    explainers, scorers = _methods(choices, explainer, scorer)
    settings = _settings(choices, explainers, scorers)
    return {
        "dictionary": [dictionary],
        "block": [latent * choices["blocks"] // _width(view, choices, dictionary, latent)],
        "explainer": explainers,
        "scorer": scorers,
        "llm": _models(choices, settings),
        "intervention": _interventions(settings),
    }


def _rows(view: View, table: str, concerned: Mapping[str, list[Any]], latent: int | None = None) -> pl.LazyFrame:
    """The rows of a table under the partitions concerned, of one latent or of all; only their files are read."""
    columns = [name for name in TABLES[table].partition_by if name in concerned]
    rows: pl.LazyFrame = getattr(view, table).filter(pl.col(name).is_in(concerned[name]) for name in columns)
    return rows if latent is None else rows.filter(latent=latent)


def _choices(view: View) -> dict[str, Any]:
    """The present study, as it was written down."""
    present = view.catalog.present_study()
    if present is None:
        raise LakeError(f"no study was ever run in {view.lake.uri}; materialize one, or name another lake")
    choices: dict[str, Any] = json.loads(present["choices"])
    return choices


def _require_known(choices: Mapping[str, Any], section: str, kind: str, name: str) -> None:
    if name not in choices[section]:
        raise LakeError(f"the study {choices['name']!r} has no {kind} {name!r}{nearest(name, choices[section])}")


def _width(view: View, choices: Mapping[str, Any], dictionary: str, latent: int) -> int:
    """Width of the dictionary, which must have the latent."""
    _require_known(choices, "dictionaries", "dictionary", dictionary)
    rows = view.dictionaries.filter(dictionary=dictionary).collect()
    if rows.is_empty():
        raise LakeError(f"the dictionary {dictionary!r} is not materialized in {view.lake.uri}; run the study first")
    width = int(rows["width"].item())
    if not 0 <= latent < width:
        raise LakeError(f"the dictionary {dictionary!r} has no latent {latent}; its latents are 0 to {width - 1}")
    return width


def _chosen(rows: pl.LazyFrame, where: str) -> pl.DataFrame:
    """The latent's row of ``latents``, which must say that it was chosen."""
    row = rows.collect()
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
    return row


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


def _with_documents(view: View, windows: pl.DataFrame) -> pl.DataFrame:
    """Windows with their ``file``, and the ``documents`` of which they hold text, in order."""
    place = (*_WINDOW, "end")
    ended = windows.lazy().with_columns(end=pl.col("start") + pl.col("tokens").list.len())
    places = ended.select(place).unique()
    is_near = [pl.col(name).is_in(windows[name].unique().to_list()) for name in ("shard", "context")]
    documents = (
        view.contexts.filter(is_near)
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
    files = view.shards.select("shard", "file")
    described = ended.join(held, on=place, how="left").drop("end").join(files, on="shard", how="left")
    return described.sort("sample", "is_activating", "rank", descending=[False, True, False]).collect()


def _with_texts(
    judgements: pl.DataFrame, explanations: pl.DataFrame, examples: pl.DataFrame, choices: Mapping[str, Any]
) -> pl.DataFrame:
    """Judgements with the explanation and the text of the window that were held against each other."""
    samples = {name: _sample(choices, scorer) for name, scorer in choices["scorers"].items()}
    said = explanations.select("explainer", "explanation", explanation_latent="latent")
    texts = examples.select("sample", *_WINDOW, "text")
    judged = judgements.with_columns(sample=pl.col("scorer").replace_strict(samples, return_dtype=pl.String))
    judged = judged.join(said, on=["explainer", "explanation_latent"], how="left")
    return judged.join(texts, on=["sample", *_WINDOW], how="left")


def _sample(choices: Mapping[str, Any], scorer: Mapping[str, Any]) -> str | None:
    """The sample whose windows a scorer judges: of one of interventions, the one whose windows begin as the prompts do."""
    if "intervention" in scorer:
        return str(choices["interventions"][scorer["intervention"]]["score"])
    return scorer.get("sample")


def _ranked(judgements: pl.DataFrame) -> pl.DataFrame:
    """Judgements with ``misranked``, the worst first; ties count half, and failures have none and come last. An intruder has none
    either: of these the one that was least seen for what it is comes first.
    """
    group = ["explainer", "scorer", "control"]
    own = [*group, "is_activating"]
    said = pl.coalesce("probability", "measure", pl.col("prediction").cast(pl.Float64))  # as in scores
    below = said.rank().over(group) - said.rank().over(own)
    others = said.count().over(group) - said.count().over(own)
    share = pl.when(others > 0).then(below / others)
    misranked = pl.when("is_activating").then(1 - share).otherwise(share)
    failures_last = pl.coalesce(-pl.col("misranked"), pl.when(explainer=NONE).then("probability"), pl.lit(1))
    return judgements.with_columns(misranked=misranked).sort(*group, failures_last, *_WINDOW)


def _with_calls(view: View, rows: pl.DataFrame) -> pl.DataFrame:
    """Rows with the call that each names: its prompt in full, the raw reply, and what it took."""
    # Filters, where a semi join says the same: they reach the files, past what the view does to repeated keys.
    keys = rows["call"].drop_nulls().unique().to_list()
    calls = view.calls.filter(pl.col("key").is_in(keys)).select("prompt", *_CALL, *_COST).collect()
    asked = calls.join(_prompts(view, calls["prompt"]), on="prompt", how="left").drop("prompt")
    return rows.join(asked, left_on="call", right_on="key", how="left", maintain_order="left")


def _prompts(view: View, keys: pl.Series) -> pl.DataFrame:
    """Whole prompts, from what comes first in each; of a chat every message begins with who says it, in a line of its own."""
    line = pl.when(pl.col("prefix").is_null()).then(pl.lit("")).otherwise(pl.lit("\n"))
    said = pl.concat_str(line, pl.lit("["), "role", pl.lit("]\n"))  # null where a text goes on
    part = said.fill_null("") + pl.col("text")
    whole = keys.unique().to_frame("prompt").with_columns(before="prompt", prompt_text=pl.lit(""))
    while whole["before"].count():
        wanted = whole["before"].drop_nulls().unique().to_list()
        found = view.prompts.filter(pl.col("prompt").is_in(wanted)).select("prompt", "prefix", part=part).collect()
        joined = whole.join(found, left_on="before", right_on="prompt", how="left")
        whole = joined.select(
            "prompt", before="prefix", prompt_text=pl.col("part").fill_null("") + pl.col("prompt_text")
        )
    return whole.drop("before")


def _versions(view: View, concerned: Mapping[str, Iterable[Any]]) -> pl.DataFrame:
    """The rows of published partitions, but for those under a value that is not concerned; oldest first."""
    allowed = [{"column": column, "value": str(value)} for column, values in concerned.items() for value in values]
    latest = view.catalog.latest(lists=["where", "inputs", "table_versions"]).collect()
    latest = latest.filter(pl.col("state").is_in([PUBLISHED, DROPPED]), ~pl.col("asset").str.contains(_ASIDE))
    others = (
        latest.select("asset", "partition", "where")
        .explode("where", empty_as_null=False)
        .unnest("where")
        .join(pl.DataFrame(allowed), on=["column", "value"], how="anti")
    )
    own = latest.join(others, on=["asset", "partition"], how="anti")
    return own.drop("where", "state", "retryable_failures").sort("at", "asset", "partition")
