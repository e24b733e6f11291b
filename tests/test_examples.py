"""Samples against a slow reference in plain integers; and what draws do not depend on, and how they move as a corpus grows."""

import random
from collections import Counter
from functools import cache
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from latentlake.corpus import Document
from latentlake.fakes import FakeSubject
from latentlake.sampling.firings import Activating
from latentlake.sampling.rings import Rings, ordered, points
from latentlake.sampling.samplers import Candidates
from latentlake.sections.corpus import SPLITS, Split
from latentlake.stages.contexts import Packing, assign_splits, pack
from latentlake.study import Study
from latentlake.tables import TABLES
from tests.reference import expected, walk
from tests.scene import (
    BETWEEN,
    BOS,
    LENGTH,
    SEPARATOR,
    SHARDS,
    WIDTH,
    Firing,
    Scene,
    examples_of,
    mix,
    sampled,
    seed_of,
    study_of,
)

CHOSEN = [0, 2, 3, 4, 5, 6, 7, 8]
SEEDS = pytest.mark.parametrize("seed", range(2))
SAMPLERS = pytest.mark.parametrize("sampler", ["quantiles", "top", "random", "mix"])
EVERYTHING = 1000


@cache
def scene_of(seed: int, tokens: int = 420) -> Scene:
    """A scene that no test changes."""
    return Scene.drawn(seed, tokens)


# every row


def rows_of(frame: pl.DataFrame) -> list[dict[str, Any]]:
    """Rows of a table, without what the study says."""
    assert set(frame["sample"]) <= {"own"}
    assert set(frame["dictionary"]) <= {"one"}
    return frame.drop("sample", "dictionary", "block").to_dicts()


@SEEDS
@SAMPLERS
@pytest.mark.parametrize("windows", [1, 3, 12, 25, EVERYTHING])
def test_samples_are_those_of_the_reference(seed: int, sampler: str, windows: int) -> None:
    study = sampled(sampler=sampler, windows=windows, negatives=min(windows, 60) - 1)
    assert rows_of(examples_of(scene_of(seed), CHOSEN, study)) == expected(scene_of(seed), study, CHOSEN)


@settings(deadline=None, max_examples=40)
@given(
    seed=st.integers(0, 3),
    sample=st.fixed_dictionaries(
        {
            "split": st.sampled_from(SPLITS),
            "sampler": st.sampled_from(["quantiles", "top", "random", "mix"]),
            "windows": st.integers(1, 30),
            "negatives": st.integers(0, 12),
            "top": st.sampled_from([0.1, 0.25, 0.5, 0.9]),
            "length": st.sampled_from([None, 4, 5, 8, 11, 17, 18, 19]),
            "stride": st.sampled_from([None, 1, 3, 8, 30]),
            "alignment": st.sampled_from(["grid", "centred"]),
            "seed": st.integers(0, 2),
        }
    ),
    draw=st.integers(0, 2),
)
def test_samples_of_every_kind_are_those_of_the_reference(seed: int, sample: dict[str, Any], draw: int) -> None:
    study, scene = study_of(samples={"own": sample}, seed=draw), scene_of(seed, 200)
    chosen = [0, 2, 5, 6]
    assert rows_of(examples_of(scene, chosen, study)) == expected(scene, study, chosen)


@SAMPLERS
def test_activations_that_were_not_rounded_are_drawn_alike(sampler: str) -> None:
    scene = Scene.drawn(5)
    scene.firings = [
        Firing(each.shard, each.latent, each.position, float(np.float32(each.activation / 3))) for each in scene.firings
    ]
    study = sampled(sampler=sampler, windows=14, negatives=2)
    assert rows_of(examples_of(scene, CHOSEN, study)) == expected(scene, study, CHOSEN)


@SAMPLERS
def test_a_window_of_every_token_of_a_context_is_drawn_alike(sampler: str) -> None:
    study = sampled(sampler=sampler, length=18, stride=5, windows=5, negatives=5)
    rows = examples_of(scene_of(0), CHOSEN, study)
    assert rows.height
    assert rows_of(rows) == expected(scene_of(0), study, CHOSEN)


# rings


@settings(deadline=None, max_examples=100)
@given(st.data())
def test_a_draw_takes_the_first_candidate_from_its_point_on_that_is_not_refused(data: st.DataObject) -> None:
    rings = data.draw(st.integers(1, 5))
    hashes = data.draw(st.lists(st.integers(0, 2**64 - 1), max_size=20, unique_by=lambda each: each >> 8))
    ring = data.draw(st.lists(st.integers(0, rings - 1), min_size=len(hashes), max_size=len(hashes)))
    refused = data.draw(st.sets(st.integers(0, 20)))
    asking = data.draw(st.lists(st.integers(-1, rings - 1), min_size=1, max_size=8))
    seeds = data.draw(st.lists(st.integers(0, 2**64 - 1), min_size=len(asking), max_size=len(asking)))
    made = Rings(np.array(ring, dtype=np.int64), np.array(hashes, dtype=np.uint64), rings)
    point = points(np.array(seeds, dtype=np.uint64), 3)
    assert point.tolist() == [mix(seed, seed_of("point", 3)) for seed in seeds]
    found = made.draw(
        np.array(asking), point, lambda rows, candidates: np.isin(candidates, list(refused)), patience=None
    )
    for one, at, candidate in zip(asking, point.tolist(), found.tolist(), strict=True):
        own = {number: each for number, (each, where) in enumerate(zip(hashes, ring, strict=True)) if where == one}
        first = walk(own, at, lambda each: each in refused)
        assert candidate == (-1 if first is None else first)


@pytest.mark.parametrize(("patience", "found"), [(3, -1), (4, 3), (None, 3)])
def test_a_draw_gives_up_when_its_patience_ends(patience: int | None, found: int) -> None:
    rings = Rings(np.zeros(5, dtype=np.int64), np.arange(5, dtype=np.uint64) << np.uint64(40), 1)
    asked: list[int] = []

    def refuse(rows: np.ndarray, candidates: np.ndarray) -> np.ndarray:
        asked.extend(candidates.tolist())
        return candidates < 3

    assert rings.draw(np.array([0]), np.array([0], dtype=np.uint64), refuse, patience).tolist() == [found]
    assert asked == [0, 1, 2, 3][: patience or 4]


def test_a_draw_that_is_refused_everywhere_looks_at_each_candidate_once() -> None:
    rings = Rings(np.array([0, 1, 0, 0]), np.array([7, 1, 2**63, 2**40], dtype=np.uint64), 2)
    asked: list[int] = []

    def refuse(rows: np.ndarray, candidates: np.ndarray) -> np.ndarray:
        asked.extend(candidates.tolist())
        return np.ones(len(candidates), dtype=bool)

    assert rings.draw(np.array([0]), np.array([2**62], dtype=np.uint64), refuse, None).tolist() == [-1]
    assert asked == [2, 0, 3]


@settings(deadline=None, max_examples=50)
@given(st.integers(1, 2**20), st.lists(st.tuples(st.integers(0, 2**20), st.integers(0, 2**64 - 1)), max_size=40))
def test_a_quick_sort_sorts_by_group_then_hash(groups: int, pairs: list[tuple[int, int]]) -> None:
    pairs = [(group % groups, each) for group, each in pairs] * 2  # equal ones too, and ones with the same first bits
    pairs += [(group, each ^ 1) for group, each in pairs]
    group = np.array([each for each, _ in pairs], dtype=np.int32)
    hashes = np.array([each for _, each in pairs], dtype=np.uint64)
    order = ordered(group, hashes, groups)
    assert sorted(order.tolist()) == list(range(len(pairs)))
    assert [pairs[each] for each in order] == sorted(pairs)


@settings(deadline=None, max_examples=50)
@given(
    st.lists(st.integers(0, 2**64 - 1), min_size=1, max_size=30, unique_by=lambda each: each >> 8),
    st.integers(0, 2**64 - 1),
)
def test_a_new_candidate_is_all_that_a_draw_can_move_to(hashes: list[int], new: int) -> None:
    seeds = np.arange(50, dtype=np.uint64)
    found = []
    for own in (hashes, [*hashes, new]):
        rings = Rings(np.zeros(len(own), dtype=np.int64), np.array(own, dtype=np.uint64), 1)
        found.append(rings.draw(np.zeros(50, np.int64), points(seeds, 0), lambda rows, each: np.zeros(len(each), bool)))
    before, after = found
    assert ((after == before) | (after == len(hashes))).all()


# strength


@settings(deadline=None, max_examples=100)
@given(st.data(), st.booleans())
def test_windows_are_sorted_by_strength_and_equal_ones_by_hash(data: st.DataObject, descending: bool) -> None:
    """Also where the hashes begin alike, and for activations of any size."""
    sizes = data.draw(st.lists(st.integers(0, 12), min_size=1, max_size=3))
    n = sum(sizes)
    strength = data.draw(st.lists(st.sampled_from([2.0**-140, 0.1, 1.0, 1.0 + 2.0**-23, 3e38]), min_size=n, max_size=n))
    begins = st.sampled_from([0, 2**63, 5 * 2**32])
    hashes = data.draw(
        st.lists(st.builds(int.__add__, begins, st.integers(0, 30)), min_size=n, max_size=n, unique=True)
    )
    rows = np.repeat(np.arange(len(sizes), dtype=np.int32), sizes)
    none = np.zeros(n, dtype=np.uint64)
    bounds = np.cumsum([0, *sizes]).astype(np.int64)
    windows = Activating(rows, np.arange(n), np.array(strength, dtype=np.float32), none, bounds)
    candidates = Candidates(windows, np.array(hashes, dtype=np.uint64), np.zeros(len(sizes), dtype=np.uint64))
    sign = -1 if descending else 1
    single = windows.strength.tolist()
    wanted = sorted(range(n), key=lambda each: (rows[each], sign * single[each], hashes[each]))
    assert candidates.by_strength(descending).tolist() == wanted
    if not descending:
        tenths = [place * 10 // size for size in sizes for place in range(size)]
        assert [candidates.deciles[each] for each in wanted] == tenths


# what a row says


@SEEDS
@SAMPLERS
def test_rows_say_what_the_window_holds(seed: int, sampler: str) -> None:
    scene, study = scene_of(seed), sampled(sampler=sampler, windows=12, negatives=9)
    places = {(place.shard, place.context, place.start): place for place in scene.places(split="score")}
    frame = examples_of(scene, CHOSEN, study)
    for row in frame.iter_rows(named=True):
        place = places[row["shard"], row["context"], row["start"]]
        pieces = [
            row["text"][begin:end] for begin, end in zip(row["offsets"], [*row["offsets"][1:], None], strict=True)
        ]
        assert tuple(row["tokens"]) == place.tokens
        assert row["activations"] == scene.activations(row["latent"], place)
        assert pieces == scene.pieces(place)
        assert (row["decile"] is None) == (not row["is_activating"])
        assert any(row["activations"]) == row["is_activating"]
    for (latent, is_on), own in frame.partition_by("latent", "is_activating", as_dict=True).items():
        candidates = [place for place in places.values() if any(scene.activations(latent, place)) == is_on]
        assert own["rank"].to_list() == list(range(own.height))
        assert own.height == own.n_unique(["shard", "context", "start"]) == min(12 if is_on else 9, len(candidates))


@SEEDS
@pytest.mark.parametrize("alignment", ["grid", "centred"])
def test_top_is_the_strongest_first(seed: int, alignment: str) -> None:
    frame = examples_of(scene_of(seed), CHOSEN, sampled(sampler="top", windows=EVERYTHING, alignment=alignment))
    few = examples_of(scene_of(seed), CHOSEN, sampled(sampler="top", windows=3, alignment=alignment))
    for latent in CHOSEN[1:]:
        strengths = [max(row) for row in frame.filter(latent=latent).sort("rank")["activations"]]
        assert strengths
        assert strengths == sorted(strengths, reverse=True)
        assert [max(row) for row in few.filter(latent=latent).sort("rank")["activations"]] == strengths[:3]


@SEEDS
@SAMPLERS
def test_deciles_are_tenths_by_strength_and_none_is_left_out(seed: int, sampler: str) -> None:
    frame = examples_of(scene_of(seed), CHOSEN, sampled(sampler=sampler, windows=EVERYTHING))
    for latent in CHOSEN[1:]:
        own = frame.filter(latent=latent).with_columns(strength=pl.col("activations").list.max())
        n = own.height
        assert sorted(own["decile"]) == [rank * 10 // n for rank in range(n)]
        assert len(set(own["decile"])) == min(n, 10)
        ends = own.group_by("decile").agg(low=pl.col("strength").min(), high=pl.col("strength").max()).sort("decile")
        assert all(high <= low for high, low in zip(ends["high"], ends["low"][1:], strict=False))


@SEEDS
def test_the_decile_of_a_window_does_not_depend_on_how_it_was_drawn(seed: int) -> None:
    key = ["latent", "shard", "context", "start"]
    everything = examples_of(scene_of(seed), CHOSEN, sampled(windows=EVERYTHING)).select(*key, "decile")
    for sampler in ("quantiles", "top", "random", "mix"):
        few = examples_of(scene_of(seed), CHOSEN, sampled(sampler=sampler, windows=7)).select(*key, "decile")
        assert few.join(everything, on=[*key, "decile"]).height == few.height


@SEEDS
def test_the_first_windows_of_quantiles_are_spread_over_the_deciles(seed: int) -> None:
    frame = examples_of(scene_of(seed), CHOSEN, sampled(windows=EVERYTHING))
    for latent in CHOSEN:
        deciles = frame.filter(latent=latent).sort("rank")["decile"].to_list()
        sizes = Counter(deciles)
        for n in range(1, len(deciles) + 1):
            first = Counter(deciles[:n])
            assert all(first[decile] >= min(size, max(first.values()) - 1) for decile, size in sizes.items())


@SEEDS
@pytest.mark.parametrize(
    ("windows", "share"), [(8, 0.25), (8, 0.5), (10, 0.1), (3, 0.9), (1, 0.25), (1, 0.9), (2, 0.1)]
)
def test_a_mix_has_its_share_of_the_strongest(seed: int, windows: int, share: float) -> None:
    mixed = examples_of(scene_of(seed), CHOSEN, sampled(sampler="mix", windows=windows, top=share))
    strongest = examples_of(scene_of(seed), CHOSEN, sampled(sampler="top", windows=EVERYTHING))
    n_top, key = round(windows * share), ["latent", "shard", "context", "start"]
    for latent in CHOSEN[1:]:
        every = strongest.filter(latent=latent).sort("rank").select(key)
        own = mixed.filter(latent=latent).sort("rank")
        assert own.height == min(windows, every.height)
        top = every.head(n_top).rows()
        assert set(top) <= set(own.select(key).rows())
        ranks = [rank for rank, row in enumerate(own.select(key).rows()) if row in top]
        assert [own.select(key).row(rank) for rank in ranks] == top  # the strongest of them first
        if every.height >= windows and 0 < n_top < windows:  # spread over the ranks, not one after the other
            for first in range(1, windows + 1):
                assert abs(sum(rank < first for rank in ranks) - first * n_top / windows) < 1.5


# what draws depend on


@SEEDS
@SAMPLERS
@pytest.mark.parametrize("alignment", ["grid", "centred"])
def test_draws_depend_neither_on_other_latents_nor_on_the_order_of_rows_and_shards(
    seed: int, sampler: str, alignment: str
) -> None:
    scene, chance = scene_of(seed), random.Random(1)
    study = sampled(sampler=sampler, windows=9, negatives=7, alignment=alignment, length=6)
    together = examples_of(scene, CHOSEN, study)
    assert together.equals(pl.concat([examples_of(scene, [latent], study) for latent in CHOSEN]))
    shuffled = Scene(scene.shards[::-1])
    shuffled.rows = chance.sample(scene.rows, len(scene.rows))
    shuffled.firings = chance.sample(scene.firings, len(scene.firings))
    shuffled.documents = chance.sample(scene.documents, len(scene.documents))
    assert together.equals(examples_of(shuffled, CHOSEN[::-1], study))


@cache
def neighbours() -> pl.DataFrame:
    """A table of neighbours, some latents having fewer than others."""
    chance = random.Random(0)
    rows = []
    for latent in range(WIDTH):
        near = chance.sample([each for each in range(WIDTH) if each != latent], 4)
        ranks = [(chance.sample([*range(n), *[None] * (4 - n)], 4)) for n in (4, 4, latent % 4)]
        for place, other in enumerate(near):
            kinds = dict(
                zip(("decoder_rank", "encoder_rank", "co_occurrence_rank"), (r[place] for r in ranks), strict=True)
            )
            pair = {"dictionary": "one", "block": 0, "latent": latent, "neighbour": other, "n_together": 1}
            rows.append({**pair, "decoder_cosine": 0.5, "encoder_cosine": 0.5, "jaccard": 0.5, **kinds})
    return pl.DataFrame(rows, schema=TABLES["neighbours"].empty().schema)


MANY = {
    "random": 3,
    "decoder_neighbours": 5,
    "encoder_neighbours": 2,
    "co_occurring_neighbours": 5,
    "similar": 6,
    "token_matched": 6,
}


def of_many_sources(blocks: int, **sample: Any) -> Study:
    """A study whose sample has negatives of all kinds."""
    own = {"split": "score", "windows": 9, "negatives": MANY, "embedder": "embedder", **sample}
    return study_of(blocks=blocks, samples={"own": own})


@SEEDS
@pytest.mark.parametrize("latents", [[4], [2, 3], [5, 7, 8]], ids=str)
def test_negatives_of_all_sources_do_not_depend_on_other_latents(seed: int, latents: list[int]) -> None:
    frames, study = {"neighbours": neighbours()}, of_many_sources(1)
    together = examples_of(scene_of(seed), CHOSEN, study, frames=frames)
    alone = examples_of(scene_of(seed), latents, study, frames=frames)
    assert alone.equals(together.filter(pl.col("latent").is_in(latents)))


@SEEDS
def test_negatives_of_all_sources_do_not_depend_on_the_order_of_rows_and_shards(seed: int) -> None:
    scene, chance, study = scene_of(seed), random.Random(1), of_many_sources(2)
    shuffled = Scene(scene.shards[::-1])
    shuffled.rows = chance.sample(scene.rows, len(scene.rows))
    shuffled.firings = chance.sample(scene.firings, len(scene.firings))
    shuffled.documents = chance.sample(scene.documents, len(scene.documents))
    near = neighbours()
    before = examples_of(scene, CHOSEN, study, frames={"neighbours": near})
    assert before.equals(
        examples_of(shuffled, CHOSEN, study, frames={"neighbours": near.sample(fraction=1, shuffle=True, seed=1)})
    )


@SEEDS
@pytest.mark.parametrize("blocks", [3, 7])
@pytest.mark.parametrize("alignment", ["grid", "centred"])
def test_draws_do_not_depend_on_the_number_of_blocks(seed: int, blocks: int, alignment: str) -> None:
    frames = {"neighbours": neighbours()}
    made = [
        examples_of(scene_of(seed), CHOSEN, of_many_sources(n, alignment=alignment), frames=frames) for n in (1, blocks)
    ]
    assert made[0].drop("block").equals(made[1].drop("block"))
    assert made[1]["block"].to_list() == [latent * blocks // WIDTH for latent in made[1]["latent"]]


@SEEDS
def test_draws_do_not_depend_on_how_many_blocks_are_computed_at_the_same_time(seed: int) -> None:
    frames, study = {"neighbours": neighbours()}, of_many_sources(7)
    one, two, four = (
        examples_of(scene_of(seed), CHOSEN, study, workers=workers, frames=frames) for workers in (1, 2, 4)
    )
    assert one.equals(two)
    assert one.equals(four)


@SAMPLERS
def test_another_seed_draws_other_windows(sampler: str) -> None:
    drawn = [
        examples_of(scene_of(0), [6, 8], study_of(seed=seed, samples={"own": sample}))
        for seed, sample in [
            (0, {"split": "score", "sampler": sampler, "windows": 8, "negatives": 8}),
            (1, {"split": "score", "sampler": sampler, "windows": 8, "negatives": 8}),
            (0, {"split": "score", "sampler": sampler, "windows": 8, "negatives": 8, "seed": 1}),
        ]
    ]
    assert drawn[1].equals(drawn[2])
    key = ["latent", "rank", "shard", "context", "start"]
    for is_on in (False, True):
        before, after = (frame.filter(is_activating=is_on).select(key) for frame in drawn[:2])
        assert before.height == after.height > 8
        if not (is_on and sampler == "top"):
            assert not before.equals(after)


def test_latents_with_the_same_windows_draw_others() -> None:
    frame = examples_of(scene_of(0), [50, 51], sampled(negatives=12))  # neither ever fires
    one, other = (frame.filter(latent=latent).select("shard", "context", "start").rows() for latent in (50, 51))
    assert len(one) == len(other) == 12
    assert sorted(one) != sorted(other)


@SEEDS
@pytest.mark.parametrize("sampler", ["quantiles", "top", "random"])
@pytest.mark.parametrize("alignment", ["grid", "centred"])
def test_drawing_fewer_is_the_beginning_of_drawing_more(seed: int, sampler: str, alignment: str) -> None:
    sample = {"sampler": sampler, "alignment": alignment}
    more = examples_of(scene_of(seed), CHOSEN, sampled(**sample, windows=EVERYTHING, negatives=50))
    for windows, negatives in ((1, 0), (2, 1), (10, 10), (11, 3), (29, 49)):
        fewer = examples_of(scene_of(seed), CHOSEN, sampled(**sample, windows=windows, negatives=negatives))
        first = pl.when("is_activating").then(windows).otherwise(negatives)
        assert fewer.equals(more.filter(pl.col("rank") < first))


@pytest.mark.parametrize("sampler", ["quantiles", "top", "random", "mix"])
@pytest.mark.parametrize("chosen", [[], [0], [50]], ids=["no latents", "a dead latent", "one beyond all others"])
@pytest.mark.parametrize("alignment", ["grid", "centred"])
def test_nothing_to_draw_gives_no_activating_rows(sampler: str, chosen: list[int], alignment: str) -> None:
    study = sampled(sampler=sampler, negatives=12, alignment=alignment)
    frame = examples_of(scene_of(0), chosen, study)
    assert frame.filter("is_activating").is_empty()
    assert frame.schema == TABLES["examples"].empty().schema
    assert frame.height == 12 * len(chosen)


@pytest.mark.parametrize("chosen", [[], [0]], ids=["no latents", "a dead latent"])
def test_negatives_of_all_sources_of_latents_without_windows_are_random_or_of_neighbours(chosen: list[int]) -> None:
    frame = examples_of(scene_of(0), chosen, of_many_sources(1), frames={"neighbours": neighbours()})
    assert frame.height == sum(MANY.values()) * len(chosen)
    assert set(frame["source"]) <= {"random", "decoder_neighbours", "encoder_neighbours"}
    instead = frame.filter(pl.col("in_place_of").is_in(["similar", "token_matched"]))
    assert instead.height == (MANY["similar"] + MANY["token_matched"]) * len(chosen)


def test_a_length_that_no_context_has_gives_no_rows() -> None:
    for alignment in ("grid", "centred"):
        study = sampled(length=40, negatives=MANY, embedder="embedder", alignment=alignment)
        assert examples_of(scene_of(0), CHOSEN, study, frames={"neighbours": neighbours()}).is_empty()


# no text in two roles


def repeating(draw: int, documents: bool = True) -> Scene:
    """Documents that repeat whole or in part, packed, split by their tokens; two latents."""
    chance, scene = random.Random(draw), Scene()
    known = ["".join(chance.choices("abcde ", k=chance.randrange(5, 60))) for _ in range(6)]
    for shard in SHARDS:
        texts = chance.choices(known, k=10)
        texts += ["".join(chance.choice(known)[chance.randrange(5) :] for _ in range(2)) for _ in range(4)]
        packed = pack(
            [Document("d", text) for text in texts], FakeSubject().tokenize(texts), Packing(17, BOS, SEPARATOR)
        )
        splits = assign_splits([context.tokens for context in packed], Split())
        for context, split in zip(packed, splits, strict=True):
            scene.add(shard, context, split)
        scene.add_documents(shard, texts)
    if not documents:
        scene.forget_documents()
    scene.fire(0, 0.3, chance)
    scene.fire(1, 0.05, chance)
    return scene


SHAPES = st.fixed_dictionaries(
    {
        "length": st.integers(LENGTH, 18),
        "stride": st.one_of(st.none(), st.integers(1, 20)),
        "alignment": st.sampled_from(["grid", "centred"]),
    }
)


def seen(scene: Scene, split: str, shape: dict[str, Any]) -> pl.DataFrame:
    """All windows that a sample of a shape gives the latents from a split."""
    study = sampled(split=split, sampler="random", windows=EVERYTHING, negatives=60, **shape)
    return examples_of(scene, [0, 1], study)


@settings(deadline=None, max_examples=25)
@given(st.integers(0, 2**32), st.lists(SHAPES, min_size=3, max_size=3), st.booleans())
def test_no_text_has_two_roles_for_a_latent_whatever_the_shapes_of_windows(
    draw: int, shapes: list[dict[str, Any]], has_documents: bool
) -> None:
    scene = repeating(draw, has_documents)
    frames = {split: seen(scene, split, shape) for split, shape in zip(SPLITS, shapes, strict=True)}
    texts = [set(frame["text"]) for frame in frames.values()]
    assert sum(map(len, texts)) == len(set().union(*texts))
    runs = [
        {
            tuple(window[at : at + LENGTH])
            for window in frame["tokens"].to_list()
            for at in range(len(window) - LENGTH + 1)
        }
        for frame in frames.values()
    ]
    assert sum(map(len, runs)) == len(set().union(*runs))


@pytest.mark.parametrize("seed", range(3))
def test_all_splits_have_windows_although_documents_repeat(seed: int) -> None:
    scene = repeating(seed)
    assert all(seen(scene, split, {}).filter("is_activating").height > 3 for split in SPLITS)


def test_a_line_break_and_a_separator_do_not_make_two_windows_of_one_text() -> None:
    scene, found = Scene(SHARDS), []
    for shard, texts, split in zip(SHARDS, (["ab", "c"], ["ab\nc"]), SPLITS, strict=False):
        scene.add(shard, Scene.packed(texts, 5)[0], split)
        scene.add_documents(shard, texts)
    scene.firings = [Firing(shard, 0, 1, 1.0) for shard in SHARDS]
    for split in SPLITS[:2]:
        found += examples_of(scene, [0], sampled(split=split, length=5))["text"].to_list()
    assert found == [f"ab{BETWEEN}c", "ab\nc"]


# as the corpus grows


def large(shards: int) -> Scene:
    """So many shards of 64 contexts, next to none of whose runs repeats; six latents that fire in a third of the windows."""
    scene = Scene([f"shard-{number}" for number in range(shards)])
    for number, shard in enumerate(scene.shards):
        chance = random.Random(number)
        for _ in range(64):
            tokens = chance.choices(range(35, 130), k=64)
            scene.add_tokens(shard, tokens, "score")
        for latent in range(6):
            positions = sorted(chance.sample(range(64 * 64), 64 * 5))
            scene.firings += [Firing(shard, latent, at, chance.randrange(1, 257) / 16) for at in positions]
    return scene


@cache
def growing(sampler: str, alignment: str, shards: int) -> pl.DataFrame:
    """The draws from so many shards."""
    sample = {"split": "score", "sampler": sampler, "windows": 40, "negatives": 40, "alignment": alignment}
    study = study_of(selection={"window": 8, "min_windows": {}}, samples={"own": sample}, blocks=1)
    return examples_of(large(shards), range(6), study)


@pytest.mark.parametrize(("before", "after"), [(4, 5), (2, 4)])
@pytest.mark.parametrize(("sampler", "most"), [("random", 1.2), ("quantiles", 1.5)])
@pytest.mark.parametrize("alignment", ["grid", "centred"])
def test_a_new_shard_moves_few_windows(before: int, after: int, sampler: str, most: float, alignment: str) -> None:
    place, window = ["latent", "is_activating", "rank"], ["shard", "context", "start"]
    frames = [growing(sampler, alignment, shards).select(*place, *window) for shards in (before, after)]
    both = frames[0].join(frames[1], on=place, suffix="_after")
    assert both.height == frames[0].height == frames[1].height
    is_same = pl.all_horizontal(pl.col(name) == pl.col(f"{name}_after") for name in window)
    moved = both.group_by("is_activating").agg(share=(~is_same).mean())
    share = (after - before) / after  # of the windows there are
    for is_on, found in moved.iter_rows():
        assert found < share * (most if is_on else 1.2) + 0.03
        assert found > share / 2  # new windows have their part
    stayed = frames[0].join(frames[1], on=["latent", "is_activating", *window], suffix="_after")
    assert stayed.height > 0.5 * both.height * (1 - share)
    assert stayed.filter(pl.col("rank") == pl.col("rank_after")).height > 0.9 * stayed.height


def test_a_new_shard_leaves_the_order_of_the_strongest_alone() -> None:
    before, after = growing("top", "grid", 4), growing("top", "grid", 5)
    key = ["latent", "shard", "context", "start"]
    old = before.filter("is_activating").select(key)
    kept = after.filter("is_activating").select(key).filter(pl.col("shard") != "shard-4")
    for latent in range(6):
        rows = kept.filter(latent=latent).rows()
        assert rows == old.filter(latent=latent).rows()[: len(rows)]


@pytest.mark.parametrize("sampler", ["random", "quantiles"])
def test_draws_are_uniform_over_what_there_is(sampler: str) -> None:
    frame = growing(sampler, "grid", 4)
    for (is_on,), own in frame.partition_by("is_activating", as_dict=True).items():
        counts = Counter(own["shard"])
        assert len(counts) == 4
        assert all(abs(count - own.height / 4) < 4 * (own.height * 3 / 16) ** 0.5 for count in counts.values()), is_on
