"""A large lake to look at, and to measure reading on: ``python -m benchmarks.biglake FOLDER [--latents N] [--chosen N]``.

A study of 131,072 latents and some 10 million activations on the texts of the quickstart, made by its own flow, with stand-ins at
the doors. Tokens are words. Of the latents that fire on one, some are the word's own and fire strongly, the others are drawn. The
language model explains by the words that are marked, and judges by whether a text has words of the explanation. So explanations
and scores differ as real ones do, and mean nothing.

The lake is ``FOLDER/lake``. What is there is left as it is, and what is missing is made. Prints the CPU-seconds of each stage
that was computed, and rows, files and bytes of each table.
"""

import argparse
import json
import re
import resource
import shutil
import time
from collections import Counter
from functools import cached_property
from math import ceil
from pathlib import Path
from typing import Any

import dagster as dg
import numpy as np
import polars as pl
import torch
import yaml
from scipy.special import ndtri

from jobs.progress import TerminalProgress
from jobs.run import Run
from latentlake.coders.coder import SparseCoder
from latentlake.corpus import read_documents
from latentlake.dictionaries import coder_of
from latentlake.digest import mix, seed_of
from latentlake.fakes import FakeHandles, FakeLLM, FakeSubject, write_coder
from latentlake.lake import Lake
from latentlake.origins import Origins
from latentlake.protocols import REFUSAL, Call, Firings, Generate, Reply, Tokenized
from latentlake.reading.view import View
from latentlake.study import Study
from latentlake.tables import TABLES
from resources.lake import LakeResource

ROOT = Path(__file__).resolve().parents[1]
TEXTS = ("data/leads/leads_0.jsonl.gz", "data/leads/leads_1.jsonl.gz", "data/more/leads_2.jsonl.gz")
TOKENS = 132_000  # of these texts
BLOCK = 4_096  # latents
WIDTH = 16  # of the subject
FIRST_WORD = 3  # tokens 0 to 2 are unused, BOS and separator
OWN = 2  # one in so many of the latents that fire on a token is its word's own,
COMMON = 10  # where the word occurs as often
_PIECE = re.compile(r" ?\w+| ?[^\w\s]|\s")
_MARKED = re.compile("<<(.*?)>>")
_FORMS = ('the word "{0}"', "{0} and words like it, such as {1}", "texts about {0}", '"{0}" before or after {1}')
_SAID = {word for form in _FORMS for word in re.findall(r"[a-z]+", form)}
_WINDOW = re.compile(r"^\d+\. (.*)$", re.MULTILINE)


def study_of(latents: int, chosen: int | None, has_neighbours: bool) -> dict[str, Any]:
    """The study: ten windows to explain by, ten and ten others to judge, two explainers and two scorers."""
    return {
        "name": "big",
        "blocks": max(2, latents // BLOCK),
        "corpus": {"sources": {"leads": {"path": "texts/*.jsonl.gz", "id": "title"}}, "refresh": "all"},
        "subject": {"model": "model"},
        "dictionaries": {"layer1": {"hookpoint": "layers.1", "coder": "coder", "latents": chosen or "all"}},
        "reconstruction": None,
        "neighbours": {"k": 10} if has_neighbours else None,
        "selection": {"min_windows": {"explain": 5, "select": 0, "score": 5}},
        "samples": {
            "shown": {"split": "explain", "sampler": "top", "windows": 10},
            "test": {"split": "score", "windows": 10, "negatives": 10},
        },
        "llms": {
            "reader": {"model": "model", "engine": "transformers", "price": {"input": 0.1, "output": 0.4}},
            "embedder": {"model": "embedder", "engine": "sentence_transformers"},
        },
        "explainers": {
            "tokens": {"method": "tokens"},
            "asked": {"method": "default", "llm": "reader", "sample": "shown", "windows": 5},
        },
        "scorers": {
            "embedding": {
                "method": "embedding", "explainers": ["tokens", "asked"], "sample": "test", "windows": 5, "embedder": "embedder",
            },
            "detection": {
                "method": "detection", "explainers": ["asked"], "sample": "test", "windows": 4, "together": 8, "llm": "reader",
                "is_formed": False, "probabilities": False,
            },
        },
    }  # fmt: skip


class Words(FakeSubject):
    """A subject whose tokens are the words of some texts; what a hookpoint gives are the token and a hash of its place."""

    def __init__(self, texts: list[str]) -> None:
        super().__init__(WIDTH)
        self._counts = Counter(piece for text in texts for piece in _PIECE.findall(text))
        self._pieces = sorted(self._counts)
        self._numbers = {piece: number for number, piece in enumerate(self._pieces, FIRST_WORD)}
        self.vocabulary = FIRST_WORD + len(self._pieces)

    @property
    def counts(self) -> np.ndarray:
        """How often each token occurs, int64 [vocabulary]."""
        return np.array([0] * FIRST_WORD + [self._counts[piece] for piece in self._pieces])

    def tokenize(self, texts: list[str]) -> list[Tokenized]:  # type: ignore[override]
        """The words of each text."""
        found = [list(_PIECE.finditer(text)) for text in texts]
        return [Tokenized([self._numbers[each[0]] for each in own], [each.end() for each in own]) for own in found]

    def detokenize(self, tokens: Any) -> list[str]:
        """The words."""
        return ["".join(self._pieces[token - FIRST_WORD] for token in each if token >= FIRST_WORD) for each in tokens]

    @cached_property
    def head(self) -> torch.Tensor:
        """A vector for each token."""
        return super().head

    def _states(self, context: Any, hookpoint: str) -> np.ndarray:
        places = mix(np.arange(len(context), dtype=np.uint64), seed_of(*map(int, context)))
        states = np.zeros((len(context), WIDTH), dtype=np.float32)
        states[:, 0], states[:, 1], states[:, 2] = context, places >> np.uint64(40), places & np.uint64(0xFFFFFF)
        return states


class Drawn:
    """A sparse coder that keeps the directions of another, and draws what fires by hash. ``k``: latents a token."""

    device = "cpu"

    def __init__(self, coder: SparseCoder, counts: np.ndarray, k: int) -> None:
        self.width, self.directions, self.encoder_directions = coder.width, coder.directions, coder.encoder_directions
        self._k = k
        latents = np.arange(self.width)
        # A word has the more latents the more often it occurs, but not in proportion: latents of frequent words fire more often.
        shares = np.where(counts >= COMMON, counts, 0).astype(float) ** 0.75
        words = np.searchsorted(np.cumsum(shares) / np.sum(shares), _uniform(mix(latents, seed_of("word"))))
        self._own = np.argsort(words, kind="stable")
        self._bounds = np.searchsorted(words[self._own], np.arange(len(counts) + 1))
        weights = np.exp(ndtri(_uniform(mix(latents, seed_of("weight")))))
        self._weights = np.cumsum(weights) / np.sum(weights)

    def encode(self, inputs: torch.Tensor) -> Firings:
        """Of each token some of its word's own latents, of which the first fire more often, and others."""
        states = inputs.numpy().astype(np.uint64)
        places = states[:, 1] << np.uint64(24) | states[:, 2]
        draws = places[:, None] * np.uint64(self._k) + np.arange(self._k, dtype=np.uint64)
        which, strong = (_uniform(mix(draws, seed_of(what))) for what in ("which", "strong"))
        token = states[:, 0].astype(np.int64)
        first, own = self._bounds[token][:, None], np.diff(self._bounds)[token][:, None]
        is_own = (np.arange(self._k) % OWN == 0) & (own > 0)
        near = self._own[np.minimum(first + (which**1.5 * own).astype(np.int64), self.width - 1)]
        latents = np.where(is_own, near, np.searchsorted(self._weights, which))
        values = np.where(is_own, 2 - 2 * np.log(strong), -np.log(strong))
        rows = np.repeat(np.arange(len(token)), self._k)
        _, once = np.unique(rows * self.width + latents.ravel(), return_index=True)
        chosen = (rows[once], latents.ravel()[once], values.ravel()[once].astype(np.float32))
        return Firings(*map(torch.from_numpy, chosen))

    def decode(self, firings: Firings, inputs: torch.Tensor) -> torch.Tensor:
        """Nothing asks for it."""
        raise NotImplementedError


class Reader(FakeLLM):
    """A language model that looks for words, is wrong in one of ten, and says nothing to one prompt of 200."""

    def _reply(self, call: Call) -> Reply:
        drawn = mix(np.arange(16), seed_of(call.prefix, call.suffix)).tolist()
        assert isinstance(call.sampling, Generate)
        tokens_in = (len(call.prefix) + len(call.suffix)) // 4
        if drawn[0] % 200 == 0:
            return Reply(None, None, tokens_in, 0, 0, None, 0.1, error=REFUSAL)
        is_judge = call.suffix.endswith("Labels:")
        text = self._labels(call, drawn) if is_judge else self._explanation(call.suffix, drawn)
        return Reply(text, None, tokens_in, len(call.prefix) // 4, len(text) // 4, "stop", 0.1)

    @staticmethod
    def _explanation(suffix: str, drawn: list[int]) -> str:
        words = [word.strip() for word in _MARKED.findall(suffix)]
        first, *others = [word for word, _ in Counter(words).most_common(3)] or ["nothing"]
        return _FORMS[drawn[1] % len(_FORMS)].format(first, " and ".join(others) or first)

    @staticmethod
    def _labels(call: Call, drawn: list[int]) -> str:
        said = call.prefix.rpartition("Description: ")[2]
        words = {*re.findall(r"\w+", said)} - _SAID
        fits = [bool(words & {*re.findall(r"\w+", window)}) for window in _WINDOW.findall(call.suffix)]
        return json.dumps([int(fit ^ (number % 10 == 0)) for fit, number in zip(fits, drawn[2:], strict=False)])


class Doors:
    """In the place of `resources.models.ModelsResource`: the doors to the stand-ins."""

    def __init__(self, folder: Path, activations: int) -> None:
        self._folder, self._k = folder, ceil(activations / TOKENS)

    def origins(self, study: Study) -> Origins:
        """The files that the study names; these are real."""
        return Origins(study, self._folder / "cache")

    def handles(self, study: Study, origins: Origins, lake: Lake) -> FakeHandles:
        """Stand-ins, but for the directions of the coder."""
        texts = [str(each.text) for shard in origins.shards.values() for each in read_documents(shard)]
        subject = Words(texts)
        return FakeHandles(
            lambda name: Drawn(coder_of(name, origins, lake), subject.counts, self._k), subject, Reader(BLOCK)
        )


class Timed(TerminalProgress):
    """Says of each stage how long the processor took, all threads."""

    def begin(self, stage: str, partitions: int) -> None:
        """The clock starts."""
        super().begin(stage, partitions)
        self._begun = time.process_time()

    def end(self) -> None:
        """The clock stops."""
        super().end()
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
        print(
            f"{self.stage}: {time.process_time() - self._begun:.1f} cpu-s, memory at most {peak:.1f} GB so far",
            flush=True,
        )


def _uniform(hashes: np.ndarray) -> np.ndarray:
    """Numbers between 0 and 1, neither of which occurs."""
    drawn: np.ndarray = ((hashes >> np.uint64(11)).astype(np.float64) + 0.5) / 2**53
    return drawn


def write_inputs(folder: Path, study: dict[str, Any], latents: int) -> Path:
    """What the study names, and its file, where they are not there yet."""
    for directory in ("texts", "model", "embedder", "dagster"):
        (folder / directory).mkdir(parents=True, exist_ok=True)
    for name in TEXTS:
        if not (folder / "texts" / Path(name).name).exists():
            shutil.copy(ROOT / name, folder / "texts")
    config = {"num_hidden_layers": 2, "hidden_size": WIDTH, "num_attention_heads": 1, "model_type": "llama"}
    (folder / "model" / "config.json").write_text(json.dumps(config))
    (folder / "embedder" / "config.json").write_text("{}")
    if not (folder / "coder" / "cfg.json").exists():
        write_coder(folder / "coder", WIDTH, latents, k=1, seed=1)
    path = folder / "study.yaml"
    path.write_text(yaml.safe_dump(study, sort_keys=False))
    return path


def make(folder: Path, study: dict[str, Any], latents: int, activations: int) -> View:
    """The lake, made as far as it is not there."""
    path, lake = write_inputs(folder, study, latents), LakeResource(uri=str(folder / "lake"))
    with dg.DagsterInstance.local_temp(str(folder / "dagster")) as instance:
        run = Run(str(path), instance, lake, Doors(folder, activations), Timed())
        run.execute()
    return View(run.lake)


def report(view: View) -> None:
    """Rows, files and bytes of each table."""
    print(f"{'table':16}{'rows':>12}{'files':>8}{'MB':>10}")
    for name in TABLES:
        if files := view.lake.files(name):
            rows = view.lake.scan(name).select(pl.len()).collect().item()
            print(f"{name:16}{rows:12,}{files:8,}{view.lake.bytes(name) / 1e6:10.1f}")


def main() -> None:
    """Make the lake and print what it holds."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--latents", type=int, default=131_072)
    parser.add_argument("--chosen", type=int, help="of the latents (all that fire enough)")
    parser.add_argument("--activations", type=int, default=10_000_000)
    parser.add_argument("--no-neighbours", action="store_true", help="leave them out: they take half of all time")
    given = parser.parse_args()
    study = study_of(given.latents, given.chosen, not given.no_neighbours)
    report(make(given.folder.resolve(), study, given.latents, given.activations))


if __name__ == "__main__":
    main()
