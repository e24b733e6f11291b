"""Neuronpedia's: gzip files of JSON lines, ``MODEL/LAYER-DICTIONARY/features/batch-0.jsonl.gz``; likewise ``activations``,
``explanations``, ``scores``.

Rows have the fields of Neuronpedia's own exports, in their order, and of scores those of its database. What they are of its
import reads first, where it does not know it yet: ``model.jsonl``, ``sourceset.jsonl``, ``source.jsonl`` and ``release.jsonl``
beside them have a row each. What an explanation or score is typed as (`explanationScoreTypeName`, …) must be known there too:
``config/`` has a row for each. The character NUL, which its database refuses, is left out of texts.
"""

from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import polars as pl

from latentlake.digest import digest
from latentlake.errors import InputError
from latentlake.exports import Entry, Form, LeftOut, Rated, Said
from latentlake.exports.given import Given, Part, by_latent
from latentlake.exports.text import (
    Batches,
    as_json,
    latent_of,
    number_of,
    read_lines,
    rest_of,
    text_of,
    without_nul,
)
from latentlake.hookpoints import site_of, transformer_lens
from latentlake.marking import pieces_of
from latentlake.registry import EXPORTS, SCORERS

_ROWS = 1024  # in a batch, as in Neuronpedia's own
_CREATOR = "clkht01d40000jv08hvalcvly"  # the account that Neuronpedia's exports name and its imports know
_MAKER = "latentlake"  # where a name of who made something is wanted
_KINDS = ("features", "activations", "explanations", "scores")
_NO_LISTS = (
    "logits_hist_data_bar_heights", "logits_hist_data_bar_values", "neuron_alignment_indices", "neuron_alignment_l1",
    "neuron_alignment_values", "correlated_neurons_indices", "correlated_neurons_l1", "correlated_neurons_pearson",
    "decoder_weights_dist",
)  # fmt: skip


@EXPORTS.register("neuronpedia")
class Neuronpedia(Form):
    """Features are all latents, activations the windows of all samples in which the chosen ones fire, scores those of the
    latents' own explanations."""

    title = "Neuronpedia"

    def write(self, given: Given, folder: Path) -> None:
        """A folder for each dictionary."""
        with ExitStack() as stack:
            batches: dict[tuple[str, str], Batches] = {}
            for part in given.parts():
                rows = {
                    "features": _features(part),
                    "activations": _activations(part),
                    "explanations": _explanations(part),
                    "scores": _scores(part),
                }
                for kind in _KINDS:
                    key = (_source(part.dictionary), kind)
                    if key not in batches:
                        batches[key] = stack.enter_context(Batches(folder / given.model / "/".join(key), _ROWS))
                    for own in rows[kind]:
                        batches[key].add([without_nul(row) for row in own])
        for dictionary in given.dictionaries:
            _write_lines(folder / given.model / _source(dictionary), _of_what(given, dictionary))
        _write_lines(folder / "config", _config(given))

    def read(self, path: Path) -> Iterator[Entry]:
        """Explanations and scores below a folder, or of one batch. Of a latent's explanations of one type and model, the second
        and later ones count as another explainer's."""
        names: dict[str, tuple[str, str, int]] = {}
        numbers: Counter[tuple[str, int, str]] = Counter()
        for file in _batches(path, "explanations"):
            for place, row in read_lines(file):
                said = _said(row, place)
                numbers[said.source, said.latent, said.explainer] += 1
                n = numbers[said.source, said.latent, said.explainer]
                label = said.explainer if n == 1 else f"{said.explainer} {n}"
                if (own := row.get("id")) is not None:
                    if str(own) in names:
                        raise InputError(
                            f"{place}, field 'id': {own!r:.50} is another explanation too; leave one of them"
                        )
                    names[str(own)] = said.source, label, said.latent
                yield Said(said.source, label, said.latent, said.explanation, place, said.extra)
        for file in _batches(path, "scores") if path.is_dir() else []:
            for place, row in read_lines(file):
                yield _rated(row, place, names)


def _source(dictionary: Mapping[str, Any]) -> str:
    """The name of a dictionary there: layer, and a set; 0 where it reads no block."""
    site = site_of(dictionary["hookpoint"] or "")
    return f"{site.layer if site else 0}-{dictionary['dictionary']}"


def _place(part: Part, latent: int) -> dict[str, Any]:
    return {"modelId": part.given.model, "layer": _source(part.dictionary), "index": str(latent)}


def _id(part: Part, *of: Any) -> str:
    """The same name for the same thing, whenever it is exported."""
    return digest([part.given.choices["name"], part.name, *of])


def _features(part: Part) -> Iterator[list[dict[str, Any]]]:
    promoted = by_latent(part.rows("logits"))
    for row in part.rows("latents").iter_rows(named=True):
        logits = promoted.get(row["latent"], [{}])[0]
        bins = len(row["histogram"])
        hook = transformer_lens(part.dictionary["hookpoint"] or "")
        yield [
            {
                **_place(part, row["latent"]),
                "maxActApprox": row["max_activation"],
                "creatorId": _CREATOR,
                "frac_nonzero": row["density"],
                "freq_hist_data_bar_heights": row["histogram"],
                "freq_hist_data_bar_values": [(n + 0.5) / bins * row["max_activation"] for n in range(bins)],
                **{name: [] for name in _NO_LISTS},
                **_tokens("neg", logits.get("suppressed")),
                **_tokens("pos", logits.get("promoted")),
                "sourceSetName": part.name,
                "topkCosSimIndices": [],
                "topkCosSimValues": [],
                "vector": [],
                "vectorLabel": None,
                "hookName": hook,
                "vectorDefaultSteerStrength": None,
                "hasVector": False,
            }
        ]


def _tokens(sign: str, tokens: list[dict[str, Any]] | None) -> dict[str, Any]:
    tokens = tokens or []
    return {f"{sign}_str": [each["text"] for each in tokens], f"{sign}_values": [each["logit"] for each in tokens]}


def _activations(part: Part) -> Iterator[list[dict[str, Any]]]:
    """Of each latent its windows, the strongest first."""
    sources = ", ".join(part.given.choices["corpus"]["sources"])
    windows = part.rows("examples", "sample", "rank").filter("is_activating")
    for latent, rows in by_latent(windows).items():
        found = []
        for row in rows:
            values = row["activations"]
            found.append(
                {
                    "id": _id(part, "activation", latent, row["sample"], row["rank"]),
                    **_place(part, latent),
                    "creatorId": _CREATOR,
                    "dataIndex": f"{row['shard']}/{row['context']}/{row['start']}",
                    "dataSource": sources,
                    "tokens": pieces_of(row["text"], row["offsets"]),
                    "maxValue": max(values),
                    "minValue": min(values),
                    "values": values,
                    "maxValueTokenIndex": values.index(max(values)),
                    "dfaValues": [],
                    "dfaMaxValue": None,
                    "dfaTargetIndex": None,
                    "binContains": None,
                    "binMin": None,
                    "binMax": None,
                }
            )
        yield sorted(found, key=lambda each: -each["maxValue"])


def _explanations(part: Part) -> Iterator[list[dict[str, Any]]]:
    for row in part.rows("explanations", "explainer").drop_nulls("explanation").iter_rows(named=True):
        yield [
            {
                "id": _id(part, "explanation", row["latent"], row["explainer"]),
                **_place(part, row["latent"]),
                "authorId": _CREATOR,
                "description": row["explanation"],
                "embedding": None,
                "typeName": row["explainer"],
                "explanationModelName": part.given.llm_of("explainers", row["explainer"]),
                "umap_x": 0,
                "umap_y": 0,
                "umap_cluster": 0,
                "umap_log_feature_sparsity": 0,
            }
        ]


def _scores(part: Part) -> Iterator[list[dict[str, Any]]]:
    """Scores of explanations; a place for others Neuronpedia does not have."""
    own = (pl.col("control").is_null(), pl.col("explainer").is_in(part.given.explainers))
    scores = part.rows("scores", "explainer", "scorer", "metric").filter(*own).drop_nulls("value")
    for row in scores.iter_rows(named=True):
        details = {name: row[name] for name in ("scorer", "metric", "low", "high", "n", "n_failed", "worst", "best")}
        yield [
            {
                "id": _id(part, "score", row["latent"], row["explainer"], row["scorer"], row["metric"]),
                "initiatedByUserId": _CREATOR,
                "value": row["value"],
                "explanationId": _id(part, "explanation", row["latent"], row["explainer"]),
                "explanationScoreTypeName": f"{row['scorer']}_{row['metric']}",
                "explanationScoreModelName": part.given.llm_of("scorers", row["scorer"]),
                "jsonDetails": as_json({**details, "study": part.given.provenance["study_digest"]}),
            }
        ]


def _of_what(given: Given, dictionary: Mapping[str, Any]) -> dict[str, list[dict[str, Any]]]:
    """The model, the coder, the set that it is of and the release, by file. Whose the model is and how many layers it has a lake
    does not say, and there must be something."""
    choices, name = given.choices, dictionary["dictionary"]
    by = {"creatorId": _CREATOR, "visibility": "PUBLIC"}
    model = {"id": given.model, "displayName": given.model, "layers": 0, "neuronsPerLayer": 0, "owner": ""}
    release = {
        "name": f"{_MAKER}-{choices['name']}",
        "description": f"Latents as the study {choices['name']} explains them",
        "creatorName": _MAKER,
    }
    of_set = {
        "modelId": given.model,
        "name": name,
        "description": f"{dictionary['width']:,} latents of {dictionary['hookpoint'] or 'the corpus'}",
        "creatorName": _MAKER,
        "releaseName": release["name"],
    }
    source = {
        "id": _source(dictionary),
        "modelId": given.model,
        "setName": name,
        "dataset": ", ".join(choices["corpus"]["sources"]),
        "num_tokens_in_prompt": choices["corpus"].get("context_length"),
        "notes": f"study {given.provenance['study_digest']}, coder {dictionary['digest']}",
    }
    rows: dict[str, dict[str, Any]] = {"release": release, "model": model, "sourceset": of_set, "source": source}
    return {table: [{**row, **by}] for table, row in rows.items()}


def _config(given: Given) -> dict[str, list[dict[str, Any]]]:
    """What explanations and scores are typed as, by file."""
    choices, wanted = given.choices, set(given.explainers)
    scorers = [name for name, each in choices["scorers"].items() if wanted & set(each.get("explainers", []))]
    metrics = {name: SCORERS[choices["scorers"][name]["method"]].metrics for name in scorers}
    made, owned = {"creatorName": _MAKER}, {"creatorName": _MAKER, "creatorId": _CREATOR}
    scored = {
        f"{name}_{metric}": f"{choices['scorers'][name]['method']}: {metric}"
        for name in scorers
        for metric in metrics[name]
    }
    judges = {given.llm_of("scorers", name): "a language model or embedder" for name in scorers}
    asked = {given.llm_of("explainers", name): "a language model" for name in given.explainers}
    explained = {name: choices["explainers"][name]["method"] for name in given.explainers}
    return {
        "explanation_type": _types(explained, owned),
        "explanation_model_type": _types(asked, made),
        "explanation_score_type": _types(scored, owned),
        "explanation_score_model": _types(judges, made),
    }


def _types(said: Mapping[Any, str], by: Mapping[str, str]) -> list[dict[str, Any]]:
    """A row for each name that is one."""
    return [
        {"name": name, "displayName": name, "description": f"latentlake: {what}", **by}
        for name, what in said.items()
        if name is not None
    ]


def _write_lines(folder: Path, tables: Mapping[str, list[dict[str, Any]]]) -> None:
    """A file of lines for each."""
    folder.mkdir(parents=True, exist_ok=True)
    for table, rows in tables.items():
        lines = "".join(f"{as_json(without_nul(row))}\n" for row in rows)
        (folder / f"{table}.jsonl").write_text(lines, encoding="utf-8", newline="")


def _batches(path: Path, kind: str) -> list[Path]:
    """The batches of a kind, by number within their folders."""
    if path.is_file():
        return [path]
    names = [kind, "explanation-scores"] if kind == "scores" else [kind]
    found = [
        file for name in names for pattern in ("*.jsonl", "*.jsonl.gz") for file in path.rglob(f"{name}/{pattern}")
    ]
    if path.name in names:
        found += [*path.glob("*.jsonl"), *path.glob("*.jsonl.gz")]
    if not found and kind == "explanations":
        raise InputError(f"{path} holds no explanations/batch-0.jsonl.gz; name the folder of a model or of a source")
    return sorted(set(found), key=lambda file: (file.parent, [int(n) for n in _digits(file.name)], file.name))


def _digits(name: str) -> list[str]:
    return "".join(character if character.isdigit() else " " for character in name).split()


def _said(row: Mapping[str, Any], place: str) -> Said:
    model = text_of(row, "explanationModelName", place, may_lack=True)
    kind = text_of(row, "typeName", place, may_lack=True)
    source = "/".join(str(text_of(row, name, place)) for name in ("modelId", "layer"))
    known = ("modelId", "layer", "index", "description")
    return Said(
        source,
        " ".join(each for each in (kind, model) if each),
        latent_of(row, "index", place),
        text_of(row, "description", place),
        place,
        rest_of(row, *known),
    )


def _rated(row: Mapping[str, Any], place: str, names: Mapping[str, tuple[str, str, int]]) -> Entry:
    of = str(text_of(row, "explanationId", place))
    kind = text_of(row, "explanationScoreTypeName", place)
    value = number_of(row, "value", place)
    if of not in names:
        return LeftOut("scores of explanations that are not there")
    if value is None:
        return LeftOut("scores that are null")
    source, explainer, latent = names[of]
    rest = rest_of(row, "explanationScoreTypeName", "value", "explanationId")
    return Rated(source, explainer, str(kind), latent, value, place, rest)
