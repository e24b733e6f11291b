"""Results of a lake written in a form that other tools read: whole or not at all, with what they were made from beside them."""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import polars as pl

from latentlake.digest import digest
from latentlake.errors import LakeError, nearest
from latentlake.exports import PROVENANCE
from latentlake.exports.given import Given, short
from latentlake.files import require_room, whole
from latentlake.reading.results import Results
from latentlake.registry import EXPORTS


def export(
    results: Results,
    form: str,
    folder: Path,
    dictionaries: Sequence[str] = (),
    explainers: Sequence[str] = (),
    model: str | None = None,
    licence: str = "unknown",
    overwrite: bool = False,
    watch: Callable[[Iterable[Any]], Iterable[Any]] = lambda parts: parts,
) -> Path:
    """Write the results of some dictionaries and explainers, of all where none is named; returns the folder.

    ``model``: what the subject is called there; None: the last part of its reference. ``licence``: as the Hugging Face hub names
    them. ``overwrite``: take the place of an earlier export. ``watch``: shows how far the work is.

    Raises:
        LakeError: there is no such form, dictionary or explainer, nothing is explained yet, the model's name is no name of a
            folder, or the folder holds something.
    """
    kind = EXPORTS[form]
    require_room(folder, overwrite, PROVENANCE)
    given = _given(results, dictionaries, explainers, model, licence, watch)
    require_room(folder, overwrite, PROVENANCE)  # reading took a while, in which somebody else may have written there
    with whole(folder) as made:
        kind().write(given, made)
        (made / PROVENANCE).write_text(
            json.dumps(given.provenance, indent=1, sort_keys=True, ensure_ascii=False) + "\n"
        )
    return folder


def _given(
    results: Results,
    dictionaries: Sequence[str],
    explainers: Sequence[str],
    model: str | None,
    licence: str,
    watch: Callable[[Iterable[Any]], Iterable[Any]],
) -> Given:
    present = results.study
    if present is None:
        raise LakeError(f"no study was ever run in {results.uri}; materialize one, or name another lake")
    choices = json.loads(present["choices"])
    for section, kind, names in (("dictionaries", "dictionary", dictionaries), ("explainers", "explainer", explainers)):
        for name in names:
            if name not in choices[section]:
                raise LakeError(
                    f"the study {choices['name']!r} has no {kind} {name!r}{nearest(name, choices[section])}"
                )
    wanted = [name for name in choices["dictionaries"] if name in dictionaries or not dictionaries]
    own = [name for name in choices["explainers"] if name in explainers or not explainers]
    rows = results.dictionaries.filter(pl.col("dictionary").is_in(wanted)).sort("dictionary").collect()
    said = results.explanations.filter(pl.col("dictionary").is_in(wanted), pl.col("explainer").is_in(own))
    if said.filter(pl.col("explanation").is_not_null()).head(1).collect().is_empty():
        raise LakeError(
            f"there is nothing to export: {results.uri} holds no explanation by {', '.join(own) or 'any explainer'} of "
            f"{', '.join(wanted)}; run the study first, or name others"
        )
    subject = results.subject.collect().to_dicts()
    called = short(choices["subject"]["model"]) if model is None else model
    if called in ("", ".", "..") or {"/", "\\", "\0"} & set(called):  # a folder of some forms
        raise LakeError(
            f"a model cannot be called {called!r} there; say by --model what it is called, without / and \\"
        )
    return Given(
        results,
        choices,
        rows.to_dicts(),
        own,
        called,
        licence,
        _provenance(results, choices, present["study"], wanted, own, subject, rows),
        watch,
    )


def _provenance(
    results: Results,
    choices: Mapping[str, Any],
    study: str,
    dictionaries: Sequence[str],
    explainers: Sequence[str],
    subject: list[dict[str, Any]],
    rows: pl.DataFrame,
) -> dict[str, Any]:
    """What results were made from: digests of study, models and coders, and of each asset the code, the runs, and the digest of
    its partitions' data versions. No time of the export: the same lake gives the same."""
    latest = results.latest().filter("is_seen").sort("asset", "partition")
    assets = {
        str(asset): {
            "code_versions": own["code_version"].unique().sort().to_list(),
            "partitions": own.height,
            "data_version": digest(own.select("partition", "data_version").rows()),
            "runs": own["run"].drop_nulls().unique().sort().to_list(),
        }
        for (asset,), own in latest.partition_by("asset", as_dict=True, maintain_order=True).items()
    }
    return {
        "made_by": "latentlake",
        "version": _version(),
        "study": choices["name"],
        "study_digest": study,
        "subject": subject,
        "models": results.llms.sort("llm").collect().to_dicts(),
        "dictionaries": rows.to_dicts(),
        "explainers": {name: choices["explainers"][name] for name in explainers},
        "scorers": choices["scorers"],
        "samples": choices["samples"],
        "assets": assets,
    }


def _version() -> str:
    try:
        return version("latentlake")
    except PackageNotFoundError:  # run from a checkout
        return "unknown"
