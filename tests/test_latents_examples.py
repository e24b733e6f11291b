"""Windows, statistics of latents and samples against brute force, and that no text has two roles for a latent."""

import random
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, cast

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from latentlake.corpus import Document
from latentlake.errors import LakeError
from latentlake.fakes import FakeHandles, FakeLLM, FakeSubject
from latentlake.flow import Flow
from latentlake.stages import examples, latents
from latentlake.stages.contexts import Packing, assign_splits, pack
from latentlake.study import Study
from latentlake.study_corpus import SPLITS, Split
from latentlake.tables import TABLES
from latentlake.windows import Firings, Windows, find_windows, read_firings
from latentlake.work import Work

LENGTH, WIDTH, BLOCKS = 4, 10, 3
SHARDS = ("d-b-0000", "d-a-0000")  # in order of registration, which is not that of their names
BOS, SEPARATOR = FakeSubject.bos, FakeSubject.separator
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
}


@dataclass(frozen=True)
class Firing:
    """One activation, by shard and position in it."""

    shard: str
    latent: int
    position: int
    activation: float


@dataclass(frozen=True)
class Place:
    """A window by brute force. ``text``: its tokens without the excluded ones. ``first``: position in the shard."""

    shard: str
    context: int
    start: int
    split: str
    tokens: tuple[int, ...]
    text: tuple[int, ...]
    first: int


class Scene:
    """Random contexts and firings, with everything that is to be known of them worked out the slow way."""

    def __init__(self, seed: int, contexts: int = 24, shards: Sequence[str] = SHARDS) -> None:
        self.shards = tuple(shards)
        chosen = random.Random(seed)
        split_of: dict[tuple[int, ...], str] = {}
        self.rows: list[dict[str, Any]] = []
        for shard in self.shards:
            for index in range(contexts):
                size = 17 if index + 1 < contexts else 10
                tokens = [BOS, *chosen.choices([SEPARATOR, 100, 101, 102, 200], [1, 3, 3, 3, 1], k=size)]
                excluded = [place for place, token in enumerate(tokens) if token in (BOS, SEPARATOR)]
                split = split_of.setdefault(tuple(tokens), chosen.choices(SPLITS, [4, 2, 4])[0])
                row = {"shard": shard, "context": index, "tokens": tokens, "excluded": excluded, "split": split}
                self.rows.append({**row, "documents": []})
        rates = [0, 0.002, 0.02, 0.05, 0.1, 0.2, 0.4, 0.02, 0.3, 0.001]
        self.firings = [
            Firing(shard, latent, position, chosen.randrange(1, 65) / 8)
            for latent, rate in enumerate(rates)
            for shard in self.shards
            for position, is_excluded in enumerate(self.is_excluded(shard))
            if not is_excluded and chosen.random() < rate
        ]

    def of(self, shard: str) -> list[dict[str, Any]]:
        return [row for row in self.rows if row["shard"] == shard]

    def is_excluded(self, shard: str) -> list[bool]:
        return [place in row["excluded"] for row in self.of(shard) for place in range(len(row["tokens"]))]

    def places(self, length: int = LENGTH) -> list[Place]:
        """All windows that count: whole, and the first of their text."""
        found: dict[tuple[int, ...], Place] = {}
        for shard in self.shards:
            first = 0
            for row in self.of(shard):
                for start in range(0, len(row["tokens"]) - length + 1, length):
                    here = range(start, start + length)
                    text = tuple(row["tokens"][place] for place in here if place not in row["excluded"])
                    tokens = tuple(row["tokens"][place] for place in here)
                    found.setdefault(
                        text, Place(shard, row["context"], start, row["split"], tokens, text, first + start)
                    )
                first += len(row["tokens"])
        return list(found.values())

    def activations(self, latent: int, place: Place) -> list[float]:
        """A latent's activation on each token of a window."""
        known = {
            each.position: each.activation
            for each in self.firings
            if (each.shard, each.latent) == (place.shard, latent)
        }
        return [known.get(place.first + at, 0.0) for at in range(len(place.tokens))]

    def contexts_frame(self) -> pl.LazyFrame:
        return pl.DataFrame(self.rows, schema=TABLES["contexts"].empty().schema).lazy()

    def activations_frame(self) -> pl.LazyFrame:
        rows = [{"dictionary": "one", **vars(each)} for each in self.firings]
        return pl.DataFrame(rows, schema=TABLES["activations"].empty().schema).lazy()

    def windows(self, length: int = LENGTH) -> Windows:
        return find_windows(self.contexts_frame(), self.shards, length)


class Quiet:
    """A progress that tells nobody."""

    def share(self, share: float) -> None:
        """Of what is done."""


def work(study: Study, stage: str, scene: Scene, block: int, **frames: pl.DataFrame) -> Work:
    """One partition of a stage to compute from a scene."""
    inputs = {
        "contexts": scene.contexts_frame(),
        "activations": scene.activations_frame(),
        "dictionaries": pl.LazyFrame({"width": [WIDTH]}),
        **{name: frame.lazy() for name, frame in frames.items()},
    }
    return Work(
        study=study,
        stage=Flow(study)[stage],
        values={"dictionary": "one", "block": str(block)},
        shards=scene.shards,
        origins=cast(Any, None),
        handles=FakeHandles(cast(Any, None), FakeSubject(), FakeLLM()),
        progress=cast(Any, Quiet()),
        read=lambda name, table: inputs[name],
        ask=cast(Any, None),
        keep=cast(Any, None),
    )


def study_of(**changes: Any) -> Study:
    return Study.model_validate({**STUDY, **changes})


def computed_latents(
    scene: Scene, study: Study, choose: str = "all", n: int | None = None, listed: list[int] | None = None
) -> pl.DataFrame:
    """The rows of all blocks of the table ``latents``."""
    wanted = pl.DataFrame(
        {"choose": [choose], "n": [n], "latents": [listed]}, schema_overrides={"latents": pl.List(pl.Int32)}
    )
    tables = [latents.compute(work(study, "latents", scene, block, selections=wanted)) for block in range(study.blocks)]
    rows = [TABLES["latents"].conform(table["latents"]) for table in tables]
    return pl.concat([cast(pl.DataFrame, pl.from_arrow(each)) for each in rows])


def computed_examples(scene: Scene, sample: str, chosen: Sequence[int], study: Study | None = None) -> pl.DataFrame:
    """The rows of the table ``examples`` for some latents."""
    rows = pl.DataFrame(
        {"latent": list(chosen), "is_chosen": [True] * len(chosen)},
        schema={"latent": pl.Int32, "is_chosen": pl.Boolean},
    )
    table = examples.compute(work(study or study_of(), f"examples/{sample}", scene, 0, latents=rows))["examples"]
    return cast(pl.DataFrame, pl.from_arrow(TABLES["examples"].conform(table)))


def place_of(scene: Scene, row: dict[str, Any]) -> Place:
    """The window that a row of ``examples`` says it is; there must be one, and it must count."""
    (place,) = [
        p for p in scene.places() if (p.shard, p.context, p.start) == (row["shard"], row["context"], row["start"])
    ]
    return place


SEEDS = pytest.mark.parametrize("scene", [Scene(seed) for seed in range(2)], ids=range(2))


# windows


@SEEDS
@pytest.mark.parametrize("length", [1, 3, 4, 18])
def test_windows_that_count_are_whole_and_the_first_of_their_text(scene: Scene, length: int) -> None:
    windows = scene.windows(length)
    found = [
        (windows.shards[windows.context_shard[context]], int(windows.context_index[context]), int(start))
        for context, start in zip(
            windows.context[windows.counts], windows.start_in_context[windows.counts], strict=True
        )
    ]
    assert found == [(place.shard, place.context, place.start) for place in scene.places(length)]


@SEEDS
def test_each_position_lies_in_its_context_window_and_split(scene: Scene) -> None:
    windows = scene.windows()
    tokens = [token for shard in scene.shards for row in scene.of(shard) for token in row["tokens"]]
    owners = [
        n for n, row in enumerate(row for shard in scene.shards for row in scene.of(shard)) for _ in row["tokens"]
    ]
    rows = [row for shard in scene.shards for row in scene.of(shard)]
    starts = np.cumsum([0, *(len(row["tokens"]) for row in rows)])
    positions = np.arange(len(tokens))
    assert windows.tokens.tolist() == tokens
    assert windows.contexts_of(positions).tolist() == owners
    found = windows.of(positions)
    assert windows.start[found].tolist() == [
        starts[n] + (at - starts[n]) // LENGTH * LENGTH for at, n in enumerate(owners)
    ]
    assert windows.context[found].tolist() == owners
    assert [SPLITS[split] for split in windows.split[found]] == [rows[n]["split"] for n in owners]
    assert windows.is_excluded.tolist() == [flag for shard in scene.shards for flag in scene.is_excluded(shard)]
    assert len(np.unique(windows.hash)) == len(windows.hash)


@SEEDS
def test_a_new_shard_changes_nothing_about_earlier_windows(scene: Scene) -> None:
    both = scene.windows()
    alone = find_windows(scene.contexts_frame(), scene.shards[:1], LENGTH)
    n = len(alone.context)
    assert both.counts[:n].tolist() == alone.counts.tolist()
    assert both.hash[:n].tolist() == alone.hash.tolist()
    assert both.split[:n].tolist() == alone.split.tolist()


@SEEDS
def test_the_order_of_rows_does_not_matter_to_windows(scene: Scene) -> None:
    shuffled = find_windows(
        scene.contexts_frame().collect().sample(fraction=1, shuffle=True, seed=1).lazy(), scene.shards, LENGTH
    )
    for name, value in vars(scene.windows()).items():
        assert np.array_equal(getattr(shuffled, name), value), name


@SEEDS
def test_firings_are_read_in_order_over_all_shards(scene: Scene) -> None:
    shuffled = scene.activations_frame().collect().sample(fraction=1, shuffle=True, seed=1).lazy()
    firings = read_firings(shuffled, scene.windows(), pl.col("latent") > 2)
    offsets = {scene.shards[0]: 0, scene.shards[1]: len(scene.is_excluded(scene.shards[0]))}
    wanted = sorted((f.latent, offsets[f.shard] + f.position, f.activation) for f in scene.firings if f.latent > 2)
    assert list(zip(firings.latent, firings.position, firings.activation, strict=True)) == wanted


@pytest.mark.parametrize("shard", SHARDS)
def test_activations_beyond_their_shard_are_refused(shard: str) -> None:
    scene = Scene(0)
    scene.firings.append(Firing(shard, 3, len(scene.is_excluded(shard)), 1.0))
    with pytest.raises(LakeError):
        read_firings(scene.activations_frame(), scene.windows(), pl.lit(True))


# latents


@settings(deadline=None, max_examples=200)
@given(st.integers(1, 300), st.integers(1, 40))
def test_blocks_divide_the_latents(width: int, blocks: int) -> None:
    ranges = [latents.block_range(block, blocks, width) for block in range(blocks)]
    assert ranges[0][0] == 0
    assert ranges[-1][1] == width
    assert all(one[1] == other[0] for one, other in pairwise(ranges))
    assert all(
        latent * blocks // width == block for block, (first, last) in enumerate(ranges) for latent in range(first, last)
    )


@SEEDS
def test_statistics_are_those_of_brute_force(scene: Scene) -> None:
    frame = computed_latents(scene, study_of())
    assert frame["latent"].to_list() == list(range(WIDTH))
    assert frame["block"].to_list() == [latent * BLOCKS // WIDTH for latent in range(WIDTH)]
    tokens = sum(not flag for shard in scene.shards for flag in scene.is_excluded(shard))
    for row in frame.iter_rows(named=True):
        own = [each for each in scene.firings if each.latent == row["latent"]]
        starts = {shard: np.cumsum([0, *(len(each["tokens"]) for each in scene.of(shard))]) for shard in scene.shards}
        contexts = {(each.shard, int(np.searchsorted(starts[each.shard], each.position, "right"))) for each in own}
        largest = max((each.activation for each in own), default=0.0)
        bins = Counter(min(9, int(10 * each.activation / largest)) for each in own)
        assert (row["n_tokens"], row["n_contexts"], row["max_activation"]) == (len(own), len(contexts), largest)
        assert row["density"] == pytest.approx(len(own) / tokens)
        assert row["histogram"] == [bins[n] for n in range(10)]


@SEEDS
def test_windows_are_counted_by_split(scene: Scene) -> None:
    frame = computed_latents(scene, study_of())
    for row in frame.iter_rows(named=True):
        fires = Counter(place.split for place in scene.places() if any(scene.activations(row["latent"], place)))
        assert [row[f"windows_{split}"] for split in SPLITS] == [fires[split] for split in SPLITS]


def seen_by_explainers(scene: Scene) -> dict[tuple[str, int], int]:
    """Token at each (shard, position) of the split explain, without windows whose text has its place elsewhere."""
    places = {(place.shard, place.context, place.start) for place in scene.places()}
    found: dict[tuple[str, int], int] = {}
    for shard in scene.shards:
        position = 0
        for row in scene.of(shard):
            for at, token in enumerate(row["tokens"]):
                start = at // LENGTH * LENGTH
                is_whole = start + LENGTH <= len(row["tokens"])
                if row["split"] == "explain" and (not is_whole or (shard, row["context"], start) in places):
                    found[shard, position] = token
                position += 1
    return found


@SEEDS
def test_top_tokens_are_those_that_explainers_may_see(scene: Scene) -> None:
    seen = seen_by_explainers(scene)
    for row in computed_latents(scene, study_of()).iter_rows(named=True):
        mass: dict[int, float] = defaultdict(float)
        count: Counter[int] = Counter()
        for each in scene.firings:
            token = seen.get((each.shard, each.position))
            if each.latent == row["latent"] and token is not None:
                mass[token] += each.activation
                count[token] += 1
        wanted = sorted(mass, key=lambda token: (-mass[token], token))[:10]
        texts = FakeSubject().detokenize([[token] for token in wanted])
        assert row["top_tokens"] == [
            {"token": token, "text": text, "count": count[token], "mass": mass[token]}
            for token, text in zip(wanted, texts, strict=True)
        ]


def token_scene(activations: dict[int, float]) -> Scene:
    """A context of the split explain, in which latent 0 fires once on each of some tokens and not on 2,000 others."""
    scene = Scene(0, contexts=0, shards=SHARDS[:1])
    tokens = [BOS, *activations, *range(1000, 3000)]
    scene.rows = [
        {"shard": SHARDS[0], "context": 0, "tokens": tokens, "excluded": [0], "split": "explain", "documents": []}
    ]
    scene.firings = [Firing(SHARDS[0], 0, place, value) for place, value in enumerate(activations.values(), start=1)]
    return scene


@pytest.mark.parametrize("scale", [1.0, 2.0**-12])
def test_top_tokens_do_not_depend_on_the_scale_of_activations(scale: float) -> None:
    scene = token_scene({100: scale, 101: 3 * scale, 102: 2 * scale})
    top = computed_latents(scene, study_of())["top_tokens"][0].to_list()
    assert [each["token"] for each in top] == [101, 102, 100]


@pytest.mark.parametrize(
    ("activations", "triage"),
    [
        ({100: 95.0, 101: 5.0}, "single_token"),
        ({100: 50.0, 101: 50.0}, "ok"),
        ({100: 99.0, **dict.fromkeys(range(101, 200), 1.0)}, "ok"),  # half of the mass, nine tenths of the top ten's
    ],
    ids=["one token", "two tokens", "long tail"],
)
def test_single_token_latents_have_nearly_all_their_mass_on_one_token(
    activations: dict[int, float], triage: str
) -> None:
    study = study_of(selection={"window": 1, "min_windows": {}})
    assert computed_latents(token_scene(activations), study)["triage"][0] == triage


@SEEDS
def test_triage_says_what_hinders(scene: Scene) -> None:
    study = study_of()
    for row in computed_latents(scene, study).iter_rows(named=True):
        lacks = [split for split, n in study.selection.min_windows.items() if row[f"windows_{split}"] < n]
        if not row["n_tokens"]:
            assert (row["triage"], row["is_chosen"], row["reason"]) == ("dead", False, "never fires")
        elif lacks:
            assert (row["triage"], row["is_chosen"]) == ("rare", False)
            assert f"windows in the split {lacks[0]}" in row["reason"]
        else:
            assert (row["triage"] == "dense") == (row["density"] > 0.1)
            assert (row["is_chosen"], row["reason"]) == (True, None)


def test_every_triage_of_frequency_occurs() -> None:
    assert {"dead", "rare", "dense", "ok"} <= set(computed_latents(Scene(0), study_of())["triage"])


def chosen(frame: pl.DataFrame) -> list[int]:
    return frame.filter("is_chosen")["latent"].to_list()


@SEEDS
def test_a_list_chooses_those_that_can_be_explained(scene: Scene) -> None:
    able = chosen(computed_latents(scene, study_of()))
    frame = computed_latents(scene, study_of(), "list", listed=[0, 4, 5, 8])
    assert chosen(frame) == [latent for latent in (0, 4, 5, 8) if latent in able]
    left_out = frame.filter(pl.col("latent").is_in(able) & ~pl.col("is_chosen"))
    assert set(left_out["reason"]) == {"not in the study's list"}


@SEEDS
def test_choosing_more_latents_moves_nothing(scene: Scene) -> None:
    able = chosen(computed_latents(scene, study_of()))
    before: set[int] = set()
    for n in (1, 2, 5, 8, 3 * WIDTH):
        frame = computed_latents(scene, study_of(), "n", n=n)
        now = set(chosen(frame))
        assert before <= now <= set(able)
        assert len(now) <= n
        assert set(frame.filter(pl.col("latent").is_in(able) & ~pl.col("is_chosen"))["reason"]) <= {"not drawn"}
        before = now
    assert sorted(before) == able


@pytest.mark.parametrize("n", range(1, 10))
def test_each_block_gives_its_share_of_the_latents_asked_for(n: int) -> None:
    scene = token_scene({100: 1.0})
    scene.firings = [Firing(SHARDS[0], latent, 1, 1.0) for latent in range(WIDTH)]
    frame = computed_latents(scene, study_of(selection={"window": 1, "min_windows": {}}), "n", n=n)
    counts = frame.group_by("block").agg(n=pl.col("is_chosen").sum())["n"]
    assert counts.sum() == n
    assert counts.max() - counts.min() <= 1


# examples

CHOSEN = [2, 3, 4, 5, 6, 7, 8]
SAMPLES = pytest.mark.parametrize("sample", ["strong", "select", "test"])


@SEEDS
@SAMPLES
def test_activating_windows_fire_and_the_others_never_do(scene: Scene, sample: str) -> None:
    choice = study_of().samples[sample]
    frame = computed_examples(scene, sample, CHOSEN)
    candidates = [place for place in scene.places() if place.split == choice.split]
    for latent in CHOSEN:
        fires = {
            is_on: [p for p in candidates if any(scene.activations(latent, p)) == is_on] for is_on in (True, False)
        }
        own = frame.filter(latent=latent)
        for is_on, wanted in ((True, choice.windows), (False, choice.negatives)):
            rows = own.filter(is_activating=is_on).sort("rank").to_dicts()
            drawn = [place_of(scene, row) for row in rows]
            assert len(set(drawn)) == len(drawn) == min(wanted, len(fires[is_on]))
            assert set(drawn) <= set(fires[is_on])
            assert [row["rank"] for row in rows] == list(range(len(rows)))
            assert {row["source"] for row in rows} <= {choice.sampler if is_on else "random"}


@SEEDS
@SAMPLES
def test_rows_say_what_the_window_holds(scene: Scene, sample: str) -> None:
    for row in computed_examples(scene, sample, CHOSEN).iter_rows(named=True):
        place = place_of(scene, row)
        assert tuple(row["tokens"]) == place.tokens
        assert row["activations"] == scene.activations(row["latent"], place)
        assert len(row["pieces"]) == LENGTH
        assert "".join(row["pieces"]) == row["text"]
        assert (row["decile"] is None) == (not row["is_activating"])


@SEEDS
def test_top_is_the_strongest_first(scene: Scene) -> None:
    frame = computed_examples(scene, "strong", CHOSEN).filter("is_activating")
    for latent in CHOSEN:
        strengths = [max(row) for row in frame.filter(latent=latent).sort("rank")["activations"]]
        everything = [max(scene.activations(latent, p)) for p in scene.places() if p.split == "explain"]
        assert strengths == sorted((value for value in everything if value), reverse=True)[:3]


@SEEDS
def test_deciles_are_tenths_by_strength(scene: Scene) -> None:
    study = study_of(samples={"test": {**STUDY["samples"]["test"], "windows": 10_000, "negatives": 0}})
    frame = computed_examples(scene, "test", CHOSEN, study)
    for latent in CHOSEN:
        own = frame.filter(latent=latent).with_columns(strength=pl.col("activations").list.max())
        sizes = own["decile"].value_counts()["count"]
        assert sizes.max() - sizes.min() <= 1
        ends = own.group_by("decile").agg(low=pl.col("strength").min(), high=pl.col("strength").max()).sort("decile")
        assert all(high <= low for high, low in zip(ends["high"], ends["low"][1:], strict=False))


@SEEDS
def test_the_first_windows_of_quantiles_are_spread_over_the_deciles(scene: Scene) -> None:
    study = study_of(samples={"test": {**STUDY["samples"]["test"], "windows": 10_000, "negatives": 0}})
    frame = computed_examples(scene, "test", CHOSEN, study)
    for latent in CHOSEN:
        deciles = frame.filter(latent=latent).sort("rank")["decile"].to_list()
        sizes = Counter(deciles)
        for n in range(1, len(deciles) + 1):
            first = Counter(deciles[:n])
            assert all(first[decile] >= min(size, max(first.values()) - 1) for decile, size in sizes.items())


@SEEDS
@SAMPLES
def test_drawing_fewer_is_the_beginning_of_drawing_more(scene: Scene, sample: str) -> None:
    fewer = study_of(samples={sample: {**STUDY["samples"][sample], "windows": 2, "negatives": 1}})
    more = computed_examples(scene, sample, CHOSEN)
    wanted = more.filter(pl.col("rank") < pl.when("is_activating").then(2).otherwise(1))
    assert computed_examples(scene, sample, CHOSEN, fewer).equals(wanted)


@SEEDS
@SAMPLES
def test_draws_depend_neither_on_other_latents_nor_on_row_order(scene: Scene, sample: str) -> None:
    together = computed_examples(scene, sample, CHOSEN)
    alone = pl.concat([computed_examples(scene, sample, [latent]) for latent in CHOSEN])
    assert together.equals(alone)
    shuffled = Scene(0, contexts=0, shards=scene.shards)
    shuffled.rows = random.Random(1).sample(scene.rows, len(scene.rows))
    shuffled.firings = random.Random(1).sample(scene.firings, len(scene.firings))
    assert together.equals(computed_examples(shuffled, sample, CHOSEN[::-1]))


def test_another_seed_and_another_latent_draw_other_windows() -> None:
    scene = Scene(0)
    # Latents that fire nowhere have the same candidates: only the hash can make them differ.
    before = computed_examples(scene, "test", [50, 51])
    draws = [frame["text"].to_list() for (_,), frame in before.partition_by("latent", as_dict=True).items()]
    assert sorted(draws[0]) != sorted(draws[1])
    assert not before.equals(computed_examples(scene, "test", [50, 51], study_of(seed=1)))


def test_a_new_shard_keeps_the_order_of_the_windows_there_were() -> None:
    everything = {"split": "score", "sampler": "random", "windows": 10_000, "negatives": 10_000}
    study, scene = study_of(samples={"test": everything}), Scene(0)
    before = Scene(0)
    before.shards = scene.shards[:1]
    keys = ["latent", "is_activating", "context", "start"]
    grown = computed_examples(scene, "test", CHOSEN, study).filter(shard=scene.shards[0]).select(keys)
    assert grown.equals(computed_examples(before, "test", CHOSEN, study).select(keys))


@pytest.mark.parametrize("chosen", [[], [50]], ids=["no latents", "a dead latent"])
def test_nothing_to_draw_gives_no_activating_rows(chosen: list[int]) -> None:
    frame = computed_examples(Scene(0), "test", chosen)
    assert frame.filter("is_activating").is_empty()
    assert frame.schema == TABLES["examples"].empty().schema
    assert frame.height == 12 * len(chosen)


def text_scene(text: str) -> Scene:
    """A scene whose windows are the bytes of a text in order, each of them firing, one context a window."""
    tokens = FakeSubject().tokenize([text])[0].tokens
    scene = Scene(0, contexts=0, shards=SHARDS[:1])
    windows = [tokens[at : at + LENGTH] for at in range(0, len(tokens) - LENGTH + 1, LENGTH)]
    scene.rows = [
        {"shard": SHARDS[0], "context": n, "tokens": window, "excluded": [], "split": "score", "documents": []}
        for n, window in enumerate(windows)
    ]
    scene.firings = [Firing(SHARDS[0], 0, position, 1.0) for position in range(len(windows) * LENGTH)]
    return scene


@settings(deadline=None, max_examples=30)
@given(st.text("aé日🎉 \n", min_size=4, max_size=12))
def test_pieces_join_to_the_text_of_the_tokens(text: str) -> None:
    frame = computed_examples(text_scene(text), "test", [0]).filter("is_activating")
    for tokens, pieces in frame.select("tokens", "pieces").iter_rows():
        assert len(pieces) == LENGTH
        assert "".join(pieces) == bytes(token - 3 for token in tokens).decode(errors="replace")


@pytest.mark.parametrize(
    ("text", "pieces"),
    [
        ("abcd", ["a", "b", "c", "d"]),
        ("aéb", ["a", "é", "", "b"]),
        ("🎉", ["🎉", "", "", ""]),
        ("éé", ["é", "", "é", ""]),
        ("日é"[1:] + "ab", ["é", "", "a", "b"]),
    ],
)
def test_a_character_is_with_the_first_of_its_own_tokens(text: str, pieces: list[str]) -> None:
    frame = computed_examples(text_scene(text), "test", [0]).filter("is_activating")
    assert frame["pieces"].to_list() == [pieces]


def test_a_broken_character_ends_at_what_is_whole_by_itself() -> None:
    first, _ = FakeSubject().tokenize(["\xe9"])[0].tokens
    scene = text_scene("abcd")
    scene.rows[0].update(tokens=[first, SEPARATOR, first, 100], excluded=[1])
    scene.firings = [Firing(SHARDS[0], 0, 3, 1.0)]
    row = computed_examples(scene, "test", [0]).row(0, named=True)
    assert row["pieces"] == ["\ufffd", "\u2029", "\ufffd", "a"]


def test_bos_has_no_text_and_a_separator_is_a_paragraph_separator() -> None:
    scene = text_scene("abcd")
    scene.rows[0].update(tokens=[BOS, 100, SEPARATOR, 101], excluded=[0, 2])
    scene.firings = [Firing(SHARDS[0], 0, 1, 1.0)]
    row = computed_examples(scene, "test", [0]).row(0, named=True)
    assert row["pieces"] == ["", "a", "\u2029", "b"]


# no text in two roles


def texts_by_split(scene: Scene, latent: int) -> dict[str, set[str]]:
    """All texts of windows that each split's sample gives a latent."""
    study = study_of(
        samples={
            split: {"split": split, "windows": 10_000, "negatives": 10_000, "sampler": "random"} for split in SPLITS
        }
    )
    return {split: set(computed_examples(scene, split, [latent], study)["text"]) for split in SPLITS}


@pytest.mark.parametrize("seed", range(4))
def test_no_text_has_two_roles_for_a_latent_even_if_documents_repeat(seed: int) -> None:
    chance = random.Random(seed)
    documents = ["".join(chance.choices("ab ", k=chance.randrange(5, 60))) for _ in range(6)]
    scene = Scene(0, contexts=0)
    scene.firings = []
    for shard in SHARDS:
        texts = chance.choices(documents, k=12)
        documents_here = [Document("d", text) for text in texts]
        packed = pack(documents_here, FakeSubject().tokenize(texts), Packing(17, BOS, SEPARATOR))
        for index, (context, split) in enumerate(
            zip(packed, assign_splits([c.tokens for c in packed], Split()), strict=True)
        ):
            scene.rows.append({"shard": shard, "context": index, "split": split, **vars(context)})
        positions = [at for at, is_excluded in enumerate(scene.is_excluded(shard)) if not is_excluded]
        scene.firings += [Firing(shard, 0, at, 1.0) for at in sorted(chance.sample(positions, len(positions) // 3))]
    texts = texts_by_split(scene, 0)
    assert all(texts.values())
    assert sum(map(len, texts.values())) == len(set().union(*texts.values()))


def test_a_line_break_and_a_separator_do_not_make_two_windows_of_one_text() -> None:
    line_break, a, b, c = FakeSubject().tokenize(["\nabc"])[0].tokens
    scene = text_scene("abcdabcd")
    scene.rows[0].update(tokens=[a, b, SEPARATOR, c], excluded=[2], split="explain")
    scene.rows[1].update(tokens=[a, b, line_break, c])
    scene.firings = [Firing(SHARDS[0], 0, 0, 1.0), Firing(SHARDS[0], 0, 4, 1.0)]
    texts = texts_by_split(scene, 0)
    assert not texts["explain"] & texts["score"]


def test_firings_of_no_latent_are_no_rows() -> None:
    empty = Firings(np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0, np.float32))
    assert latents.count_windows(empty, Scene(0).windows(), 3).tolist() == [[0, 0, 0]] * 3
