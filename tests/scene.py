"""A corpus made by hand in which everything is worked out the slow way, and stages computed from it."""

import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from hashlib import sha256
from itertools import accumulate
from typing import Any, cast

import polars as pl

from latentlake.corpus import Document
from latentlake.fakes import FakeHandles, FakeLLM, FakeSubject
from latentlake.flow import Flow
from latentlake.protocols import Coder
from latentlake.sampling.contexts import Contexts, read_contexts
from latentlake.sampling.firings import Firings, read_firings
from latentlake.sections.corpus import SPLITS
from latentlake.stages import examples, latents
from latentlake.stages.contexts import Context, Packing, pack
from latentlake.study import Study
from latentlake.tables import TABLES
from latentlake.work import Shared, Work, block_range

LENGTH, WIDTH, BLOCKS = 4, 10, 3
SHARDS = ("d-b-0000", "d-a-0000")  # in order of registration, which is not that of their names
BOS, SEPARATOR = FakeSubject.bos, FakeSubject.separator
BETWEEN = "\u2029"  # the text of a separator
LETTER_A = 100  # the token of the letter a
STUDY: dict[str, Any] = {
    "name": "tiny",
    "blocks": BLOCKS,
    "corpus": {"sources": {"d": {"path": "*"}}},
    "subject": {"model": "m"},
    "dictionaries": {"one": {"hookpoint": "h", "coder": "c"}},
    "selection": {"window": LENGTH, "min_windows": {"explain": 3, "select": 1, "score": 3}},
    "samples": {
        "strong": {"split": "explain", "sampler": "top", "windows": 3, "negatives": 2},
        "select": {"split": "select", "sampler": "random", "windows": 4, "negatives": 4},
        "test": {"split": "score", "windows": 12, "negatives": 12},
    },
    "llms": {"embedder": {"model": "e", "engine": "sentence_transformers"}},
}


# hashes, in integers


def seed_of(*parts: str | int) -> int:
    """The seed that names and numbers give."""
    return int.from_bytes(sha256("\x1f".join(map(str, parts)).encode()).digest()[:8], "little")


def mix(value: int, seed: int) -> int:
    """The finalizer of splitmix64."""
    mixed = ((value ^ seed) + 0x9E3779B97F4A7C15) % 2**64
    mixed = (mixed ^ (mixed >> 30)) * 0xBF58476D1CE4E5B9 % 2**64
    mixed = (mixed ^ (mixed >> 27)) * 0x94D049BB133111EB % 2**64
    return mixed ^ (mixed >> 31)


# the corpus


@dataclass(frozen=True)
class Firing:
    """One activation, by shard and position in it."""

    shard: str
    latent: int
    position: int
    activation: float


@dataclass(frozen=True, order=True)
class Place:
    """A window. ``start``: in its context. ``first``: in its shard."""

    shard: str
    context: int
    start: int
    split: str
    tokens: tuple[int, ...]
    first: int

    @property
    def hash(self) -> int:
        """Of where it lies."""
        return mix(self.context << 32 | self.start, 1) ^ seed_of("shard", self.shard)


class Scene:
    """Contexts and firings, with everything that is to be known of them worked out the slow way.

    ``rows``, ``documents``: of the tables ``contexts`` and ``documents``. What is drawn at random repeats itself much: few
    letters, documents that are there twice, and activations of few sizes.
    """

    def __init__(self, shards: Sequence[str] = SHARDS) -> None:
        self.shards = tuple(shards)
        self.rows: list[dict[str, Any]] = []
        self.documents: list[dict[str, Any]] = []
        self.firings: list[Firing] = []
        self._told_apart: tuple[list[Firing], int, dict[tuple[int, str], dict[int, float]]] | None = None

    @classmethod
    def drawn(cls, seed: int, tokens: int = 420, shards: Sequence[str] = SHARDS, has_documents: bool = True) -> "Scene":
        """So many tokens a shard, or a few more, and ten latents, of which the first is dead."""
        scene, chosen = cls(shards), random.Random(seed)
        split_of: dict[tuple[int, ...], str] = {}
        known: list[str] = []
        for shard in scene.shards:
            texts: list[str] = []
            while sum(len(text.encode()) + 1 for text in texts) < tokens:
                new = "".join(chosen.choices("abcdé", [3, 3, 3, 3, 1], k=chosen.randrange(1, 24)))
                texts.append(chosen.choice(known) if known and chosen.random() < 0.3 else new)
                known.append(texts[-1])
            for context in scene.packed(texts, 18):
                split = split_of.setdefault(tuple(context.tokens), chosen.choices(SPLITS, [4, 2, 4])[0])
                scene.add(shard, context, split)
            scene.add_documents(shard, texts)
        if not has_documents:
            scene.forget_documents()
        for latent, rate in enumerate([0, 0.002, 0.02, 0.05, 0.1, 0.2, 0.4, 0.02, 0.3, 0.001]):
            scene.fire(latent, rate, chosen)
        return scene

    @staticmethod
    def packed(texts: Sequence[str], length: int, bos: int | None = BOS) -> list[Context]:
        """Documents end to end."""
        documents = [Document(f"document {number}", text) for number, text in enumerate(texts)]
        return pack(documents, FakeSubject().tokenize(texts), Packing(length, bos, SEPARATOR))

    def add(self, shard: str, context: Context, split: str) -> None:
        """Put one more context to the end of a shard."""
        self.rows.append({"shard": shard, "context": len(self.of(shard)), "split": split, **vars(context)})

    def add_tokens(self, shard: str, tokens: Sequence[int], split: str, excluded: Sequence[int] = ()) -> None:
        """Put one more context to the end of a shard, of tokens without documents."""
        self.add(shard, Context(list(tokens), list(excluded), None, []), split)

    def add_documents(self, shard: str, texts: Sequence[str]) -> None:
        """The documents of a shard."""
        self.documents += [
            {"shard": shard, "number": number, "document": f"document {number}", "text": text, "n_tokens": len(text)}
            for number, text in enumerate(texts)
        ]

    def forget_documents(self) -> None:
        """Keep of the documents what a corpus of tokens has."""
        for row in self.rows:
            row["offsets"] = None
            row["documents"] = [{**each, "end_offset": None} for each in row["documents"]]
        self.documents = [{**each, "text": None} for each in self.documents]

    def fire(self, latent: int, rate: float, chosen: random.Random) -> None:
        """Let a latent fire at random places."""
        self.firings += [
            Firing(shard, latent, position, chosen.randrange(1, 65) / 8)
            for shard in self.shards
            for position, is_excluded in enumerate(self.is_excluded(shard))
            if not is_excluded and chosen.random() < rate
        ]

    def of(self, shard: str) -> list[dict[str, Any]]:
        """The contexts of a shard."""
        return [row for row in self.rows if row["shard"] == shard]

    def ordered(self) -> Iterator[tuple[dict[str, Any], int]]:
        """All contexts in the order of the shards, with the position in its shard at which each begins."""
        for shard in self.shards:
            first = 0
            for row in self.of(shard):
                yield row, first
                first += len(row["tokens"])

    def is_excluded(self, shard: str) -> list[bool]:
        """Of each position of a shard whether it carries no activation."""
        return [place in row["excluded"] for row in self.of(shard) for place in range(len(row["tokens"]))]

    def offsets(self) -> dict[str, int]:
        """Position among those of all shards at which each shard begins."""
        sizes = [len(self.is_excluded(shard)) for shard in self.shards]
        return dict(zip(self.shards, accumulate(sizes, initial=0), strict=False))

    def homes(self, run: int) -> dict[tuple[int, ...], tuple[str, int, int]]:
        """The one place of each run of so many tokens: (shard, context, start)."""
        found: dict[tuple[int, ...], tuple[str, int, int]] = {}
        by_hash = sorted(self.rows, key=lambda row: mix(row["context"], 1) ^ seed_of("context", row["shard"]))
        for row in by_hash:
            for start in range(len(row["tokens"]) - run + 1):
                found.setdefault(tuple(row["tokens"][start : start + run]), (row["shard"], row["context"], start))
        return found

    def strays(self, run: int) -> set[tuple[str, int, int]]:
        """Where runs begin that have their place elsewhere: (shard, context, start)."""
        homes = set(self.homes(run).values())
        every = {(row["shard"], row["context"], at) for row in self.rows for at in range(len(row["tokens"]) - run + 1)}
        return every - homes

    def places(
        self, length: int = LENGTH, stride: int | None = None, split: str | None = None, run: int = LENGTH
    ) -> list[Place]:
        """The windows of a grid that count, in order."""
        strays, found = self.strays(run), []
        for row, first in self.ordered():
            for start in range(0, len(row["tokens"]) - length + 1, stride or length):
                runs = {(row["shard"], row["context"], at) for at in range(start, start + length - run + 1)}
                if split in (None, row["split"]) and not runs & strays:
                    found.append(self.place(row, first, start, length))
        return found

    def place(self, row: Mapping[str, Any], first: int, start: int, length: int) -> Place:
        """A window of a context that begins at a position of its shard."""
        tokens = tuple(row["tokens"][start : start + length])
        return Place(row["shard"], row["context"], start, row["split"], tokens, first + start)

    def centred(
        self, latent: int, length: int = LENGTH, stride: int | None = None, split: str | None = None, run: int = LENGTH
    ) -> list[Place]:
        """The windows around a latent's peaks that count, in order."""
        strays, found = self.strays(run), []
        stride = stride or length
        for row, first in self.ordered():
            size = len(row["tokens"])
            own = self.activations(latent, self.place(row, first, 0, size))
            for cell in range(0, size, stride):
                largest = max(own[cell : cell + stride])
                if not largest or size < length or split not in (None, row["split"]):
                    continue
                peak = own.index(largest, cell)
                start = min(max(0, peak - (length - 1 - length // 4)), size - length)
                window = own[start : start + length]
                runs = {(row["shard"], row["context"], at) for at in range(start, start + length - run + 1)}
                if start + window.index(max(window)) == peak and not runs & strays:
                    found.append(self.place(row, first, start, length))
        return found

    def activations(self, latent: int, place: Place) -> list[float]:
        """A latent's activation on each token of a window."""
        known = self._known(latent, place.shard)
        return [known.get(place.first + at, 0.0) for at in range(len(place.tokens))]

    def _known(self, latent: int, shard: str) -> dict[int, float]:
        """Activation by position; told apart once for all firings that there are."""
        if (
            self._told_apart is None
            or self._told_apart[0] is not self.firings
            or self._told_apart[1] != len(self.firings)
        ):
            found: dict[tuple[int, str], dict[int, float]] = {}
            for each in self.firings:
                found.setdefault((each.latent, each.shard), {})[each.position] = each.activation
            self._told_apart = self.firings, len(self.firings), found
        return self._told_apart[2].get((latent, shard), {})

    def spoken(self, place: Place) -> list[int]:
        """The tokens of a window without BOS and separators."""
        (row,) = [row for row in self.of(place.shard) if row["context"] == place.context]
        return [token for at, token in enumerate(place.tokens, start=place.start) if at not in row["excluded"]]

    def pieces(self, place: Place) -> list[str]:
        """The text of each token of a window: as it stands in the documents, or, where there are none, of that token alone."""
        (row,) = [row for row in self.of(place.shard) if row["context"] == place.context]
        texts = {each["number"]: each["text"] for each in self.documents if each["shard"] == place.shard}
        pieces = []
        for at in range(place.start, place.start + len(place.tokens)):
            if at in row["excluded"]:
                pieces.append("" if at == 0 and row["tokens"][at] == BOS else BETWEEN)
                continue
            if row["offsets"] is None:
                pieces += FakeSubject().detokenize([[row["tokens"][at]]])
                assert "\ufffd" not in pieces[-1]
                continue
            segment = max(
                (each for each in row["documents"] if each["start"] <= at), key=lambda each: int(each["start"])
            )
            later = [each["start"] for each in row["documents"] if each["start"] > at]
            last = min([*later, len(row["tokens"])])
            is_last = at + 1 == last or at + 1 in row["excluded"]
            end = segment["end_offset"] if is_last else row["offsets"][at + 1]
            pieces.append(texts[segment["number"]][row["offsets"][at] : end])
        return pieces

    # as the stages read it

    def contexts_frame(self) -> pl.DataFrame:
        """The table ``contexts``."""
        return pl.DataFrame(self.rows, schema=TABLES["contexts"].empty().schema)

    def documents_frame(self) -> pl.DataFrame:
        """The table ``documents``."""
        return pl.DataFrame(self.documents, schema=TABLES["documents"].empty().schema)

    def activations_frame(self) -> pl.DataFrame:
        """The table ``activations``."""
        rows = [{"dictionary": "one", **vars(each)} for each in self.firings]
        return pl.DataFrame(rows, schema=TABLES["activations"].empty().schema)

    def contexts(self, run: int = LENGTH, shards: Sequence[str] | None = None) -> Contexts:
        """The contexts as samples read them."""
        return read_contexts(self.contexts_frame().lazy(), self.shards if shards is None else shards, run)

    def read(self, latents: Any, run: int = LENGTH) -> Firings:
        """Where some latents fire, as samples read it."""
        return read_firings(self.activations_frame().lazy(), self.contexts(run), latents)


# stages


class Quiet:
    """A progress that tells nobody."""

    def share(self, share: float) -> None:
        """Of what is done."""


def study_of(**changes: Any) -> Study:
    """The study of these tests, with some of its sections replaced."""
    return Study.model_validate({**STUDY, **changes})


def sampled(**sample: Any) -> Study:
    """The study with one sample, ``own``."""
    return study_of(samples={"own": {"split": "score", "windows": 12, **sample}})


def without_bos(**sample: Any) -> Study:
    """The same for a corpus whose contexts open with no BOS."""
    corpus = {**STUDY["corpus"], "bos": "none"}
    return study_of(corpus=corpus, samples={"own": {"split": "score", "windows": 12, **sample}})


def no_coder(dictionary: str) -> Coder:
    """For stages that ask for none."""
    raise AssertionError(f"the coder of {dictionary} was asked for")


def work_of(
    study: Study,
    stage: str,
    scene: Scene,
    block: int = 0,
    shared: Shared | None = None,
    coder: Callable[[str], Coder] = no_coder,
    subject: FakeSubject | None = None,
    width: int = WIDTH,
    frames: Mapping[str, pl.DataFrame] | None = None,
) -> Work:
    """One partition of a stage to compute from a scene."""
    inputs = {
        "contexts": scene.contexts_frame(),
        "documents": scene.documents_frame(),
        "activations": scene.activations_frame(),
        "dictionaries": pl.DataFrame({"width": [width]}),
        **(frames or {}),
    }
    return Work(
        study=study,
        stage=Flow(study)[stage],
        values={"dictionary": "one", "block": str(block)},
        shards=scene.shards,
        origins=cast(Any, None),
        handles=FakeHandles(coder, subject or FakeSubject(), FakeLLM()),
        progress=cast(Any, Quiet()),
        read=lambda name, table: inputs[table or name].lazy(),
        ask=cast(Any, None),
        steer=cast(Any, None),
        keep=cast(Any, None),
        put=cast(Any, None),
        shared=shared or Shared(),
    )


def rows_of(table: str, made: Mapping[str, Any]) -> pl.DataFrame:
    """What a stage gave, as the table takes it."""
    return cast(pl.DataFrame, pl.from_arrow(TABLES[table].conform(made[table])))


def latents_of(
    scene: Scene,
    study: Study | None = None,
    choose: str = "all",
    n: int | None = None,
    listed: Sequence[int] | None = None,
) -> pl.DataFrame:
    """The rows of all blocks of the table ``latents``."""
    study, shared = study or study_of(), Shared()
    wanted = pl.DataFrame(
        {"choose": [choose], "n": [n], "latents": [listed]}, schema_overrides={"latents": pl.List(pl.Int32)}
    )
    works = [
        work_of(study, "latents", scene, block, shared, frames={"selections": wanted}) for block in range(study.blocks)
    ]
    return pl.concat([rows_of("latents", latents.compute(each)) for each in works])


def examples_of(
    scene: Scene,
    chosen: Sequence[int],
    study: Study,
    sample: str = "own",
    workers: int = 1,
    subject: FakeSubject | None = None,
    frames: Mapping[str, pl.DataFrame] | None = None,
) -> pl.DataFrame:
    """The rows of all blocks of the table ``examples`` for some latents; ``workers``: blocks computed at the same time."""
    shared, works = Shared(), []
    width = max([WIDTH, *(latent + 1 for latent in chosen)])
    for block in range(study.blocks):
        own = [latent for latent in chosen if latent in block_range(block, study.blocks, width)]
        schema = {"latent": pl.Int32, "is_chosen": pl.Boolean}
        rows = pl.DataFrame({"latent": own, "is_chosen": [True] * len(own)}, schema=schema)
        inputs = {"latents": rows, **(frames or {})}
        works.append(work_of(study, f"examples/{sample}", scene, block, shared, subject=subject, frames=inputs))
    with ThreadPoolExecutor(workers) as pool:
        made = list(pool.map(examples.compute, works))
    return pl.concat([rows_of("examples", each) for each in made])
