"""As the release of arXiv 2410.13928: a module a file, one flat JSON object of latents and their explanations; scores likewise.

``EXPLAINER/DICTIONARY/model.layers.9_feature.json`` is ``{"12": "…"}``, and below ``scores/`` lies for each scorer and metric
``scores/EXPLAINER/SCORER_METRIC/DICTIONARY/model.layers.9_feature.json``, ``{"12": 0.75}``.
"""

from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import IO, Any

import polars as pl

from latentlake.errors import InputError
from latentlake.exports import PROVENANCE, Entry, Form, LeftOut, Rated, Said
from latentlake.exports.given import Given
from latentlake.exports.text import as_json, latent_of, number_of, read_json
from latentlake.registry import EXPORTS

_END = "_feature.json"
_SCORES = "scores"


class _Objects:
    """Files of one JSON object each, to which entries are added in turn."""

    def __init__(self, folder: Path, stack: ExitStack) -> None:
        self._folder, self._stack = folder, stack
        self._files: dict[str, IO[str]] = {}

    def add(self, name: str, latent: int, value: Any) -> None:
        """An entry of a file."""
        is_new = name not in self._files
        if is_new:
            path = self._folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            self._files[name] = self._stack.enter_context(path.open("w", encoding="utf-8", newline=""))
        self._files[name].write(f"{'{' if is_new else ','}\n{as_json(str(latent))}: {as_json(value)}")

    def end(self) -> None:
        """All files are complete."""
        for file in self._files.values():
            file.write("\n}\n")


@EXPORTS.register("paper")
class Paper(Form):
    """Scores are those of the latents' own explanations; those of no explanation lie under ``none``."""

    title = "the paper's release"

    def write(self, given: Given, folder: Path) -> None:
        """A file for each explainer and dictionary, and for each score."""
        with ExitStack() as stack:
            objects = _Objects(folder, stack)
            for part in given.parts():
                end = f"{part.name}/{_module(part.dictionary)}{_END}"
                for row in part.rows("explanations", "explainer").drop_nulls("explanation").iter_rows(named=True):
                    objects.add(f"{row['explainer']}/{end}", row["latent"], row["explanation"])
                scores = part.rows("scores", "explainer", "scorer", "metric")
                for row in scores.filter(pl.col("control").is_null()).drop_nulls("value").iter_rows(named=True):
                    scorer = f"{_SCORES}/{row['explainer']}/{row['scorer']}_{row['metric']}"
                    objects.add(f"{scorer}/{end}", row["latent"], row["value"])
            objects.end()

    def read(self, path: Path) -> Iterator[Entry]:
        """Each file below a folder, or one file. What folders are called says where its entries are from."""
        files = [path] if path.is_file() else sorted(path.rglob("*.json"))
        files = [file for file in files if file.name != PROVENANCE]
        if not files:
            raise InputError(f"{path} holds no file like model.layers.9{_END}; name the folder of the release")
        for file in files:
            folders = file.relative_to(path).parts[:-1] if path.is_dir() else ()
            module = file.name.removesuffix(".json").removesuffix("_feature")
            is_scores = folders[:1] == (_SCORES,)
            rows = read_json(file)
            if not isinstance(rows, dict):
                raise InputError(f'{file} must be one object, {{"latent": …, …}}, and is {rows!r:.50}')
            yield from _entries(file, rows, folders[is_scores:], module, is_scores)


def _entries(
    file: Path, rows: Mapping[str, Any], folders: tuple[str, ...], module: str, is_scores: bool
) -> Iterator[Entry]:
    first = folders[0] if folders else ""
    scorer = folders[1] if is_scores and len(folders) > 2 else "score"
    source = "/".join((*folders[1 + (scorer != "score") :], module))
    for number, (name, value) in enumerate(rows.items(), start=1):
        place = f"{file}, entry {number}"
        latent = latent_of({"latent": name}, "latent", place)
        if not is_scores:
            if not isinstance(value, str | None):
                raise InputError(f"{place}, latent {name}: an explanation must be a text, and is {value!r:.50}")
            yield Said(source, first, latent, value, place)
        elif (rating := number_of({name: value}, name, place)) is None:
            yield LeftOut("scores that are null")
        else:
            yield Rated(source, first, scorer, latent, rating, place)


def _module(dictionary: Mapping[str, Any]) -> str:
    """A hookpoint as the release calls it: the model's own module."""
    module = dictionary["module"] or dictionary["dictionary"]
    return f"model.{str(module).removesuffix('.output')}".replace("/", "-")
