"""delphi's result folders: ``explanations/layers.9_latent12.txt``, ``scores/SCORER/layers.9_latent12.txt`` and
``latents/layers.9/0_1023.safetensors``.

Of several explainers each has a result folder of its own. The activations are those of the table ``activations``, of every
latent and context, contexts that are shorter than others being filled up with token 0; where they were dropped there are none.
What a judge measured that is no probability is its ``similarity``.
"""

import json
import os
import re
import shutil
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from safetensors.numpy import save_file

from latentlake.errors import InputError
from latentlake.exports import Entry, Form, LeftOut, Rated, Said
from latentlake.exports.given import Given, Part
from latentlake.exports.text import as_json, number_of, read_json, rest_of
from latentlake.marking import pieces_of
from latentlake.measures.metrics import auroc
from latentlake.registry import EXPORTS

_FILE = re.compile(r"(.+)_latent(\d{1,9})\.(?:txt|json)")
_WINDOW = ("shard", "context", "start")
_SILENT = -1  # the `distance` of a window in which the latent does not fire


@EXPORTS.register("delphi")
class Delphi(Form):
    """Scores are judgements, window by window, of the latents' own explanations, by scorers that judge windows of a sample."""

    title = "delphi"

    def write(self, given: Given, folder: Path) -> None:
        """A result folder, or one an explainer."""
        homes = {name: folder / name if len(given.explainers) > 1 else folder for name in given.explainers}
        modules, latents = _modules(given), next(iter(homes.values())) / "latents"
        corpus = None if given.results.activations.head(1).collect().is_empty() else _Corpus(given)
        for part in given.parts():
            module = modules[part.name]
            _write_explanations(part, module, homes)
            _write_scores(part, module, homes)
            if corpus is not None:
                corpus.write(part, latents / module)
        for home in homes.values():
            if home / "latents" != latents and latents.exists():
                shutil.copytree(latents, home / "latents", copy_function=os.link)

    def read(self, path: Path) -> Iterator[Entry]:
        """A result folder, several of them side by side, or a folder of explanations."""
        homes = (
            [path] if (path / "explanations").is_dir() else sorted(each.parent for each in path.glob("*/explanations"))
        )
        for home in homes:
            label = home.name if home != path else ""
            yield from _said(home / "explanations", label)
            for scorer in sorted(each for each in home.glob("scores/*") if each.is_dir()):
                yield from _rated(scorer, label)
        if not homes:
            yield from _said(path, "")


def _modules(given: Given) -> dict[str, str]:
    """What each dictionary is called there: the hookpoint that it reads, or its own name where others read it too."""
    points = {each["dictionary"]: each["hookpoint"] for each in given.dictionaries}
    readers = Counter(points.values())
    return {name: point if point and readers[point] == 1 else name for name, point in points.items()}


def _write(path: Path, value: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(as_json(value), encoding="utf-8", newline="")


def _name(module: str, latent: int) -> str:
    return f"{module.replace('/', '--')}_latent{latent}.txt"


def _write_explanations(part: Part, module: str, homes: Mapping[str, Path]) -> None:
    for row in part.rows("explanations", "explainer").drop_nulls("explanation").iter_rows(named=True):
        _write(homes[row["explainer"]] / "explanations" / _name(module, row["latent"]), row["explanation"])


def _write_scores(part: Part, module: str, homes: Mapping[str, Path]) -> None:
    choices = part.given.choices["scorers"]
    samples = {name: each["sample"] for name, each in choices.items() if each.get("sample") and each.get("explainers")}
    own = (pl.col("control").is_null(), pl.col("scorer").is_in(list(samples)), pl.col("explainer").is_in(list(homes)))
    judged = part.rows("judgements", "explainer", "scorer", *_WINDOW).filter(*own)
    judged = judged.with_columns(sample=pl.col("scorer").replace_strict(samples, return_dtype=pl.String))
    windows = part.rows("examples").select("sample", "latent", *_WINDOW, "activations", "text", "offsets")
    both = judged.join(windows, on=["sample", "latent", *_WINDOW], how="left", maintain_order="left")
    for (explainer, scorer, latent), rows in both.partition_by(
        "explainer", "scorer", "latent", as_dict=True, maintain_order=True
    ).items():
        found = [_judged(row) for row in rows.iter_rows(named=True)]
        _write(homes[str(explainer)] / "scores" / str(scorer) / _name(module, int(str(latent))), found)


def _judged(row: Mapping[str, Any]) -> dict[str, Any]:
    """A judgement. ``distance``: the tenth of strength, 0 the strongest, or that the latent does not fire."""
    text = row["text"] or ""
    known = {
        "str_tokens": pieces_of(text, row["offsets"] or [0]),
        "activations": row["activations"] or [],
        "distance": _SILENT if row["decile"] is None else 9 - row["decile"],
        "activating": row["is_activating"],
        "prediction": row["prediction"],
        "probability": row["probability"],
        "correct": None if row["prediction"] is None else row["prediction"] == row["is_activating"],
    }
    if row["measure"] is not None:
        known["similarity"] = row["measure"]
    return known if row["error"] is None else {**known, "error": row["error"]}


class _Corpus:
    """The tokens of all contexts, and where in them latents fire."""

    def __init__(self, given: Given) -> None:
        order = given.results.shards.sort("ordinal").select("shard").collect()["shard"].to_list()
        rows = given.results.contexts.select("shard", "context", "tokens").collect()
        places = pl.DataFrame(
            {"shard": order, "place": range(len(order))}, schema={"shard": pl.String, "place": pl.Int64}
        )
        rows = rows.join(places, on="shard").sort("place", "context")
        self.lengths = rows["tokens"].list.len().to_numpy().astype(np.int64)
        self.tokens = np.zeros((len(rows), int(self.lengths.max(initial=0))), dtype=np.int64)
        for row, tokens in zip(self.tokens, rows["tokens"], strict=True):
            row[: len(tokens)] = tokens.to_numpy()
        # of each shard the positions at which its contexts begin, and the number of its first context
        self.starts: dict[str, tuple[int, np.ndarray]] = {}
        for shard in rows["shard"].unique(maintain_order=True):
            own = np.flatnonzero((rows["shard"] == shard).to_numpy())
            self.starts[shard] = int(own[0]), np.concatenate([[0], np.cumsum(self.lengths[own])[:-1]])

    def write(self, part: Part, folder: Path) -> None:
        """The activations of a part's latents, in a file that names the first and the last of them."""
        locations, values = [np.zeros((0, 3), dtype=np.int64)], [np.zeros(0, dtype=np.float32)]
        for (shard,), rows in part.rows("activations", "shard", "position").partition_by("shard", as_dict=True).items():
            first, starts = self.starts[str(shard)]
            position = rows["position"].to_numpy().astype(np.int64)
            context = np.searchsorted(starts, position, side="right") - 1
            latent = rows["latent"].to_numpy() - part.latents.start
            locations.append(np.stack([context + first, position - starts[context], latent], axis=1))
            values.append(rows["activation"].to_numpy())
        every, activations = np.concatenate(locations), np.concatenate(values)
        if not len(every):
            return
        order = np.lexsort((every[:, 2], every[:, 1], every[:, 0]))
        kind = np.uint16 if every.max() < 2**16 else np.uint32
        half = activations.astype(np.float16)  # where that loses nothing, as delphi has them
        tensors = {
            "locations": np.ascontiguousarray(every[order].astype(kind)),
            "activations": (half if (half.astype(np.float32) == activations).all() else activations)[order],
            "tokens": self.tokens,
        }
        folder.mkdir(parents=True, exist_ok=True)
        save_file(tensors, folder / f"{part.latents.start}_{part.latents.stop - 1}.safetensors")
        self._write_config(part, folder)

    def _write_config(self, part: Part, folder: Path) -> None:
        corpus = part.given.choices["corpus"]
        facts = {
            "dataset_repo": ", ".join(corpus["sources"]),
            "dataset_split": "train",
            "dataset_name": "",
            "dataset_column": "text",
            "batch_size": 1,
            "cache_ctx_len": self.tokens.shape[1],
            "ctx_len": self.tokens.shape[1],
            "n_tokens": int(self.lengths.sum()),
            "n_splits": len(list(folder.glob("*.safetensors"))),
            "model_name": part.given.model,
            "study": part.given.provenance["study_digest"],
            "coder": part.dictionary["digest"],
        }
        (folder / "config.json").write_text(json.dumps(facts), encoding="utf-8")


def _files(folder: Path) -> list[tuple[Path, str, int]]:
    """Files of latents, with module and number, in the order of these."""
    found = []
    for path in folder.glob("*"):
        if match := _FILE.fullmatch(path.name):
            found.append((match[1].replace("--", "/"), int(match[2]), path))
    if not found:
        raise InputError(f"{folder} holds no file like layers.9_latent0.txt; name a result folder of delphi")
    return [(path, module, latent) for module, latent, path in sorted(found)]


def _others(folder: Path) -> Iterator[Entry]:
    """What else lies among files of latents."""
    for path in folder.glob("*"):
        if not _FILE.fullmatch(path.name):
            yield LeftOut(f"files in {folder.name} that are no latent's")


def _said(folder: Path, label: str) -> Iterator[Entry]:
    for path, module, latent in _files(folder):
        said = read_json(path)
        if not isinstance(said, str):
            raise InputError(f"{path}: an explanation must be a JSON text, and is {said!r:.50}")
        yield Said(module, label, latent, said, str(path))
    yield from _others(folder)


def _rated(folder: Path, label: str) -> Iterator[Entry]:
    for path, module, latent in _files(folder):
        rows = read_json(path)
        if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
            raise InputError(f"{path}: it must be a list of judgements, and is {rows!r:.50}")
        figures = _figures(rows, path)
        if not figures:
            yield LeftOut(f"scores of {folder.name} without judgements of both kinds of windows")
        for metric, (value, n) in figures.items():
            counts = {
                "judgements": n,
                "of": len(rows),
                "fields": sorted({name for row in rows for name in rest_of(row)}),
            }
            yield Rated(module, label, f"{folder.name}_{metric}", latent, value, str(path), counts)
    yield from _others(folder)


def _figures(rows: list[dict[str, Any]], path: Path) -> dict[str, tuple[float, int]]:
    """What judgements come to, with how many count: AUROC of probabilities or similarities, balanced accuracy of labels."""
    judged = [_judgement(row, f"{path}, judgement {number}") for number, row in enumerate(rows, start=1)]
    found: dict[str, tuple[float, int]] = {}
    measured = [(fires, measure) for fires, _, measure in judged if fires is not None and measure is not None]
    if measured:
        fires, measures = (np.array(each) for each in zip(*measured, strict=True))
        value = auroc(fires.astype(bool), measures.astype(float))
        found |= {} if value is None else {"auroc": (value, len(measured))}
    said = [(fires, says) for fires, says, _ in judged if fires is not None and says is not None]
    shares = [
        np.mean([float(says == kind) for fires, says in said if fires == kind] or [np.nan]) for kind in (True, False)
    ]
    if np.isfinite(shares).all():
        found["balanced_accuracy"] = float(np.mean(shares)), len(said)
    return found


def _judgement(row: Mapping[str, Any], place: str) -> tuple[bool | None, bool | None, float | None]:
    """Whether the latent fires, whether the judge says so, and how surely."""
    fires = row.get("activating")
    if fires is None and (distance := number_of(row, "distance", place)) is not None:
        fires = distance != _SILENT
    measure = number_of(row, "probability", place)
    says = row.get("prediction")
    for name, value in (("activating", fires), ("prediction", says)):
        if value not in (None, True, False):  # 0 and 1 in older files
            raise InputError(f"{place}, field {name!r}: it must be true or false, and is {value!r:.50}")
    return (
        None if fires is None else bool(fires),
        None if says is None else bool(says),
        number_of(row, "similarity", place) if measure is None else measure,
    )
