"""Contexts, windows and firings against brute force: which windows count, where latents fire, and around which tokens."""

import random
from functools import cache

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from latentlake.errors import LakeError
from latentlake.sampling.contexts import Contexts, Grid, grid_of
from latentlake.sampling.firings import Activating, Firings, centred, on_grid, read_firings
from latentlake.sections.corpus import SPLITS
from tests.scene import LENGTH, SHARDS, WIDTH, Firing, Place, Scene

SEEDS = pytest.mark.parametrize("seed", range(2))
SPLIT = st.sampled_from([None, *range(len(SPLITS))])


@cache
def scene_of(seed: int, tokens: int = 420) -> Scene:
    """A scene that no test changes."""
    return Scene.drawn(seed, tokens)


@cache
def read(seed: int) -> tuple[Scene, Contexts, Firings]:
    """A scene, its contexts, and where its latents fire."""
    scene = scene_of(seed)
    return scene, scene.contexts(), scene.read(np.arange(WIDTH))


def where(contexts: Contexts, starts: np.ndarray) -> list[tuple[str, int, int]]:
    """Shard, context and place in it of some positions."""
    context = contexts.of[starts]
    inside = starts - contexts.start[context]
    shards = [contexts.shards[shard] for shard in contexts.shard[context]]
    return list(zip(shards, contexts.index[context].tolist(), inside.tolist(), strict=True))


def keys(places: list[Place]) -> list[tuple[str, int, int]]:
    return [(place.shard, place.context, place.start) for place in places]


def split_name(split: int | None) -> str | None:
    return None if split is None else SPLITS[split]


# contexts


@SEEDS
def test_contexts_lie_end_to_end_in_the_order_of_the_shards(seed: int) -> None:
    scene, contexts, _ = read(seed)
    rows = [row for row, _ in scene.ordered()]
    assert contexts.shards == scene.shards
    assert contexts.offsets[:-1].tolist() == list(scene.offsets().values())
    assert contexts.offsets[-1] == contexts.size == sum(len(row["tokens"]) for row in rows)
    assert contexts.tokens.tolist() == [token for row in rows for token in row["tokens"]]
    assert np.diff(contexts.start).tolist() == [len(row["tokens"]) for row in rows]
    assert [scene.shards[shard] for shard in contexts.shard] == [row["shard"] for row in rows]
    assert contexts.index.tolist() == [row["context"] for row in rows]
    assert [SPLITS[split] for split in contexts.split] == [row["split"] for row in rows]
    assert contexts.is_excluded.tolist() == [flag for shard in scene.shards for flag in scene.is_excluded(shard)]
    assert contexts.of.tolist() == [number for number, row in enumerate(rows) for _ in row["tokens"]]


@SEEDS
def test_the_order_of_rows_does_not_matter_to_contexts(seed: int) -> None:
    scene, contexts, _ = read(seed)
    shuffled = Scene(scene.shards)
    shuffled.rows = random.Random(1).sample(scene.rows, len(scene.rows))
    again = shuffled.contexts()
    for name in ("offsets", "tokens", "is_excluded", "start", "split", "shard", "index", "repeats"):
        assert np.array_equal(getattr(again, name), getattr(contexts, name)), name


def test_shards_that_are_not_in_use_do_not_count() -> None:
    scene = Scene.drawn(0, tokens=100)
    before = scene.contexts()
    other = Scene.drawn(0, tokens=100, shards=("d-c-0000",))
    scene.rows = other.rows + scene.rows
    assert np.array_equal(scene.contexts().tokens, before.tokens)
    assert np.array_equal(scene.contexts().repeats, before.repeats)


def test_contexts_of_no_shards_are_none() -> None:
    contexts = Scene(()).contexts()
    assert (contexts.size, len(contexts.split), contexts.offsets.tolist()) == (0, 0, [0])
    assert not len(grid_of(contexts, 4, 4).starts)


@SEEDS
def test_the_hash_of_a_place_is_its_own_whatever_other_shards_there_are(seed: int) -> None:
    scene, contexts, _ = read(seed)
    hashes = contexts.place_hash(np.arange(contexts.size))
    assert len(np.unique(hashes)) == contexts.size
    places = [scene.place(row, first, at, 1) for row, first in scene.ordered() for at in range(len(row["tokens"]))]
    assert hashes.tolist() == [place.hash for place in places]
    alone = scene.contexts(shards=scene.shards[1:])
    assert alone.place_hash(np.arange(alone.size)).tolist() == hashes[contexts.offsets[1] :].tolist()


# which windows count


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 3), st.integers(1, 19), st.integers(0, 20))
def test_windows_count_if_all_their_runs_are_at_their_place(seed: int, run: int, more: int) -> None:
    scene, length = scene_of(seed, tokens=150), run + more
    contexts = scene.contexts(run)
    starts = [
        at for start, end in zip(contexts.start[:-1], contexts.start[1:], strict=True) for at in range(start, end)
    ]
    whole = np.array([at for at in starts if at + length <= contexts.start[contexts.of[at] + 1]], dtype=np.int64)
    kept = whole[contexts.counts(whole, length)]
    assert where(contexts, kept) == keys(scene.places(length, 1, run=run))


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 3), st.integers(1, 19))
def test_a_position_is_repeated_if_a_run_over_it_has_its_place_elsewhere(seed: int, run: int) -> None:
    scene = scene_of(seed, tokens=150)
    contexts, strays = scene.contexts(run), scene.strays(run)
    positions = np.arange(contexts.size)
    wanted = [
        any((shard, context, begin) in strays for begin in range(at - run + 1, at + 1))
        for shard, context, at in where(contexts, positions)
    ]
    assert contexts.is_repeated(positions).tolist() == wanted


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 3), st.integers(1, 18))
def test_every_run_has_one_place_whatever_the_order_of_shards(seed: int, run: int) -> None:
    scene = scene_of(seed, tokens=150)
    places = []
    for shards in (scene.shards, scene.shards[::-1]):
        contexts = scene.contexts(run, shards)
        grid = grid_of(contexts, run, 1)
        runs = [tuple(contexts.tokens[start : start + run].tolist()) for start in grid.starts]
        assert len(set(runs)) == len(runs)
        places.append(dict(zip(runs, where(contexts, grid.starts), strict=True)))
    assert places[0] == places[1] == scene.homes(run)


def test_splits_share_no_run_of_tokens() -> None:
    scene, run = scene_of(0), LENGTH
    runs: dict[str, set[tuple[int, ...]]] = {split: set() for split in SPLITS}
    for length, stride in ((run, run), (run, 1), (run + 1, 2), (7, 3), (7, 11), (18, 18)):
        contexts = scene.contexts(run)
        for start in grid_of(contexts, length, stride).starts:
            own = runs[SPLITS[contexts.split[contexts.of[start]]]]
            own |= {tuple(contexts.tokens[at : at + run].tolist()) for at in range(start, start + length - run + 1)}
    assert all(runs.values())
    assert sum(map(len, runs.values())) == len(set().union(*runs.values()))


# grids


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 3), st.integers(LENGTH, 19), st.integers(1, 25), SPLIT)
def test_a_grid_has_the_windows_that_brute_force_finds(seed: int, length: int, stride: int, split: int | None) -> None:
    scene, contexts, _ = read(seed)
    grid = grid_of(contexts, length, stride, split)
    wanted = scene.places(length, stride, split_name(split))
    assert (grid.length, grid.stride) == (length, stride)
    assert where(contexts, grid.starts) == keys(wanted)
    assert (np.diff(grid.starts) > 0).all()
    assert [SPLITS[each] for each in contexts.split[contexts.of[grid.starts]]] == [place.split for place in wanted]


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 3), st.integers(LENGTH, 19), st.integers(1, 25))
def test_each_position_knows_the_windows_that_it_lies_in(seed: int, length: int, stride: int) -> None:
    grid = grid_of(scene_of(seed, 150).contexts(), length, stride)
    wanted = {(at, number) for number, start in enumerate(grid.starts.tolist()) for at in range(start, start + length)}
    found = [(at, int(number)) for of in grid.of for at, number in enumerate(of) if number >= 0]
    assert set(found) == wanted
    assert len(found) == len(wanted)
    assert len(grid.of) == (1 if stride >= length else -(-length // stride))


@SEEDS
def test_the_windows_of_a_grid_do_not_depend_on_the_order_of_shards(seed: int) -> None:
    scene = scene_of(seed)
    there, back = (
        where(contexts, grid_of(contexts, 6, 4).starts)
        for contexts in (scene.contexts(shards=shards) for shards in (scene.shards, scene.shards[::-1]))
    )
    assert there != back
    assert sorted(there) == sorted(back)


# firings


def firings_of(scene: Scene, latents: list[int]) -> list[tuple[int, int, float]]:
    """Latent, position among those of all shards and activation of each firing, in order."""
    offsets = scene.offsets()
    own = [each for each in scene.firings if each.latent in latents]
    return sorted((each.latent, offsets[each.shard] + each.position, each.activation) for each in own)


def listed(firings: Firings) -> list[tuple[int, int, float]]:
    latents = firings.latents[firings.rows].tolist()
    return list(zip(latents, firings.positions.tolist(), firings.activations.tolist(), strict=True))


@SEEDS
@pytest.mark.parametrize("order", ["as stored", "sorted", "shuffled"])
@pytest.mark.parametrize("latents", [[*range(WIDTH)], [4, 5, 6], [2, 5, 8], [0, 50], [7], []], ids=str)
def test_firings_are_read_in_order_over_all_shards(seed: int, order: str, latents: list[int]) -> None:
    scene, contexts, _ = read(seed)
    rows = scene.activations_frame()
    if order != "as stored":
        rows = rows.sample(fraction=1, shuffle=True, seed=1)
    if order == "sorted":
        rows = rows.sort("latent", "position")
    firings = read_firings(rows.lazy(), contexts, np.array(latents, dtype=np.int64))
    wanted = firings_of(scene, latents)
    assert firings.latents.tolist() == latents
    assert listed(firings) == wanted
    assert np.diff(firings.bounds).tolist() == [sum(each[0] == latent for each in wanted) for latent in latents]


@SEEDS
def test_only_the_positions_that_are_kept_are_read(seed: int) -> None:
    scene, contexts, _ = read(seed)
    kept = np.random.default_rng(seed).random(contexts.size) < 0.5
    firings = read_firings(scene.activations_frame().lazy(), contexts, np.arange(WIDTH), kept)
    assert listed(firings) == [each for each in firings_of(scene, [*range(WIDTH)]) if kept[each[1]]]


def test_more_shards_than_two_are_read_in_their_order() -> None:
    scene = Scene.drawn(3, tokens=60, shards=("e", "c", "d", "a", "b"))
    assert listed(scene.read(np.arange(WIDTH))) == firings_of(scene, [*range(WIDTH)])


@pytest.mark.parametrize("shard", SHARDS)
def test_activations_beyond_their_shard_are_refused(shard: str) -> None:
    scene = Scene.drawn(0)
    scene.firings.append(Firing(shard, 3, len(scene.is_excluded(shard)), 1.0))
    with pytest.raises(LakeError, match=shard):
        scene.read(np.arange(WIDTH))


@settings(deadline=None, max_examples=20)
@given(st.integers(0, 1), st.integers(0, 2**32), st.integers(1, 30))
def test_activations_in_any_window_are_those_of_brute_force(seed: int, draw: int, length: int) -> None:
    _, contexts, firings = read(seed)
    dense = np.zeros((WIDTH, contexts.size), dtype=np.float32)
    dense[firings.rows, firings.positions] = firings.activations
    chance = np.random.default_rng(draw)
    rows = chance.integers(0, WIDTH, 50).astype(np.int32)
    starts = chance.integers(0, contexts.size - length + 1, 50)
    windows = np.array([dense[row, at : at + length] for row, at in zip(rows, starts, strict=True)])
    assert np.array_equal(firings.within(rows, starts, length), windows)
    assert np.array_equal(firings.fire(rows, starts, length), windows.any(1))


def test_nothing_fires_where_there_are_no_firings() -> None:
    scene = Scene.drawn(0, tokens=60)
    scene.firings = []
    contexts, firings = scene.contexts(), scene.read(np.arange(3))
    rows, starts = np.array([0, 1, 2], dtype=np.int32), np.array([0, 5, contexts.size - 4])
    assert not firings.fire(rows, starts, 4).any()
    assert not firings.within(rows, starts, 4).any()
    assert not len(on_grid(firings, grid_of(contexts, 4, 2)).starts)
    assert not len(centred(firings, contexts, 4, 4, 0).starts)


# windows in which latents fire


def windows_of(found: Activating, contexts: Contexts) -> list[tuple[int, tuple[str, int, int], float]]:
    return list(zip(found.rows.tolist(), where(contexts, found.starts), found.strength.tolist(), strict=True))


def is_in_order(found: Activating) -> bool:
    rows, starts = found.rows.astype(np.int64), found.starts
    return bool(((np.diff(rows) > 0) | ((np.diff(rows) == 0) & (np.diff(starts) > 0))).all())


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 3), st.integers(LENGTH, 19), st.integers(1, 25), SPLIT)
def test_latents_fire_in_the_windows_that_brute_force_finds(
    seed: int, length: int, stride: int, split: int | None
) -> None:
    scene, contexts, firings = read(seed)
    found = on_grid(firings, grid_of(contexts, length, stride, split))
    assert is_in_order(found)
    places = scene.places(length, stride, split_name(split))
    own = [(latent, place, max(scene.activations(latent, place))) for latent in (0, 2, 5, 6) for place in places]
    wanted = [(latent, *keys([place]), strength) for latent, place, strength in own if strength]
    assert [each for each in windows_of(found, contexts) if each[0] in (0, 2, 5, 6)] == wanted


def test_a_grid_that_overlaps_counts_a_window_once_for_a_latent() -> None:
    _, contexts, firings = read(0)
    grid = grid_of(contexts, 9, 2)
    found = on_grid(firings, grid)
    assert len(set(zip(found.rows.tolist(), found.starts.tolist(), strict=True))) == len(found.starts)
    assert len(found.starts) > len(on_grid(firings, grid_of(contexts, 9, 9)).starts)


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 3), st.integers(LENGTH, 19), st.integers(1, 25), st.integers(0, 2))
def test_windows_around_the_strongest_tokens_are_those_of_brute_force(
    seed: int, length: int, stride: int, split: int
) -> None:
    scene, contexts, firings = read(seed)
    found = centred(firings, contexts, length, stride, split)
    wanted = [
        (latent, *keys([place]), max(scene.activations(latent, place)))
        for latent in (0, 2, 5, 6)
        for place in scene.centred(latent, length, stride, SPLITS[split])
    ]
    assert [each for each in windows_of(found, contexts) if each[0] in (0, 2, 5, 6)] == wanted
    assert is_in_order(found)


def unrepeated(tokens: int, contexts: int, chance: random.Random) -> Scene:
    """Contexts of one split and one shard in which no run comes twice."""
    scene, numbers = Scene(SHARDS[:1]), iter(range(3, 10**6))
    for _ in range(contexts):
        scene.add_tokens(SHARDS[0], [next(numbers) for _ in range(chance.randint(max(1, tokens - 3), tokens))], "score")
    return scene


@settings(deadline=None, max_examples=100)
@given(st.integers(0, 2**32), st.integers(LENGTH, 14), st.integers(1, 16), st.integers(1, 3))
def test_a_window_stands_around_its_strongest_token(draw: int, length: int, stride: int, levels: int) -> None:
    chance = random.Random(draw)
    scene = unrepeated(12, 4, chance)
    rate = chance.choice([0.1, 0.5, 1.0])  # the last: latents that fire everywhere, the borders of contexts included
    scene.firings = [
        Firing(SHARDS[0], latent, position, float(chance.randint(1, levels)))
        for latent in range(2)
        for position in range(len(scene.is_excluded(SHARDS[0])))
        if chance.random() < rate
    ]
    contexts, firings = scene.contexts(), scene.read(np.arange(2))
    found = centred(firings, contexts, length, stride, SPLITS.index("score"))
    after = length // 4
    seen = set()
    for row, start, strength in zip(found.rows, found.starts.tolist(), found.strength.tolist(), strict=True):
        (inside,) = firings.within(np.array([row]), np.array([start]), length).tolist()
        begin, end = contexts.start[contexts.of[start] : contexts.of[start] + 2].tolist()
        peak = start + inside.index(max(inside))
        assert strength == max(inside) > 0
        assert begin <= start <= end - length
        moved = peak + after + 1 - length
        assert start == moved or (start == begin and moved < begin) or (start == end - length and moved > end - length)
        seen.add((int(row), start))
    assert len(seen) == len(found.starts)
    if stride == 1 and length <= 9:  # every firing is a cell's strongest, so the strongest of a context is never lost
        for row in range(2):
            for begin, end in zip(contexts.start[:-1].tolist(), contexts.start[1:].tolist(), strict=True):
                is_own = (firings.rows == row) & (firings.positions >= begin) & (firings.positions < end)
                strongest = firings.activations[is_own].max(initial=0)
                within = found.strength[(found.rows == row) & (found.starts >= begin) & (found.starts < end)]
                assert within.max(initial=0) == (strongest if end - begin >= length else 0)


@pytest.mark.parametrize(
    ("size", "length", "stride", "active", "starts"),
    [
        (12, 8, 8, {0: 1.0}, [0]),  # before the first token there is nothing
        (12, 8, 8, {11: 1.0}, [4]),  # nor after the last
        (12, 8, 8, {5: 1.0}, [0]),
        (12, 8, 8, {6: 1.0}, [1]),  # five tokens before the strongest, two after it
        (12, 8, 8, {8: 1.0}, [3]),
        (12, 8, 8, {9: 1.0}, [4]),  # two after it, at the border exactly
        (12, 8, 8, {6: 1.0, 7: 2.0}, [2]),  # one cell, the stronger of them
        (12, 8, 8, {6: 1.0, 7: 1.0}, [1]),  # of equals the first
        (12, 8, 4, {6: 2.0, 8: 1.0}, [1]),  # two cells, the window around the weaker holds the stronger
        (12, 8, 4, {3: 1.0, 8: 1.0}, [0]),  # or an equal one before its own
        (12, 8, 4, {2: 1.0, 11: 1.0}, [0, 4]),
        (8, 8, 8, {3: 1.0}, [0]),  # as long as its context
        (7, 8, 8, {3: 1.0}, []),  # longer than that
        (12, 4, 20, {1: 1.0, 10: 2.0}, [8]),  # one cell for the whole context
        (12, 5, 5, {4: 1.0, 5: 1.0}, [1]),
    ],
)
def test_where_a_window_around_a_token_begins(
    size: int, length: int, stride: int, active: dict[int, float], starts: list[int]
) -> None:
    scene = Scene(SHARDS[:1])
    scene.add_tokens(SHARDS[0], range(1000, 1000 + size), "score")
    scene.add_tokens(SHARDS[0], range(2000, 2020), "score")  # what follows is of another context
    scene.firings = [Firing(SHARDS[0], 0, position, value) for position, value in active.items()]
    scene.firings += [Firing(SHARDS[0], 1, size, 9.0)]
    found = centred(scene.read(np.arange(1)), scene.contexts(), length, stride, SPLITS.index("score"))
    assert found.starts.tolist() == starts


def test_windows_around_tokens_stay_in_their_split() -> None:
    scene, contexts, firings = read(1)
    everything = 0
    for number, split in enumerate(SPLITS):
        found = centred(firings, contexts, LENGTH, LENGTH, number)
        assert {SPLITS[each] for each in contexts.split[contexts.of[found.starts]]} == {split}
        everything += len(found.starts)
    assert everything == sum(len(scene.centred(latent)) for latent in range(WIDTH))


@SEEDS
@pytest.mark.parametrize("alignment", ["grid", "centred"])
def test_the_windows_of_latents_do_not_depend_on_the_order_of_shards(seed: int, alignment: str) -> None:
    scene, found = scene_of(seed), []
    for shards in (scene.shards, scene.shards[::-1]):
        turned = Scene(shards)
        turned.rows, turned.firings = scene.rows, scene.firings
        contexts, firings = turned.contexts(), turned.read(np.arange(WIDTH))
        if alignment == "centred":
            own = centred(firings, contexts, 6, 3, SPLITS.index("score"))
        else:
            own = on_grid(firings, grid_of(contexts, 6, 3, SPLITS.index("score")))
        found.append(windows_of(own, contexts))
    assert found[0] != found[1]
    assert sorted(found[0]) == sorted(found[1])


def test_some_of_the_windows_are_still_in_order() -> None:
    _, contexts, firings = read(0)
    found = on_grid(firings, grid_of(contexts, 4, 4))
    kept = np.arange(len(found.starts)) % 3 == 0
    some = found.only(kept)
    assert windows_of(some, contexts) == windows_of(found, contexts)[::3]


def test_a_grid_is_made_of_what_it_is_given() -> None:
    contexts = scene_of(0).contexts()
    every = grid_of(contexts, 5, 5)
    part = Grid(contexts, 5, 5, every.starts[::2])
    assert part.places.tolist() == every.places[::2].tolist()
    (of,) = part.of
    assert of[part.starts].tolist() == list(range(len(part.starts)))
    assert (of >= 0).sum() == 5 * len(part.starts)


def test_firings_of_a_table_without_rows_are_none() -> None:
    scene = scene_of(0)
    rows = scene.activations_frame().filter(pl.lit(False))
    firings = read_firings(rows.lazy(), scene.contexts(), np.arange(3))
    assert (firings.bounds.tolist(), len(firings.positions)) == ([0, 0, 0, 0], 0)
