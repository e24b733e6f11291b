"""Statistics of latents against brute force, their triage, and which of them are chosen."""

import random
from collections import Counter, defaultdict
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from latentlake.fakes import FakeSubject
from latentlake.sections.corpus import SPLITS
from latentlake.study import Study
from latentlake.work import block_range
from tests.scene import BLOCKS, BOS, LENGTH, SHARDS, WIDTH, Firing, Scene, latents_of, study_of

SEEDS = pytest.mark.parametrize("scene", [Scene.drawn(seed) for seed in range(2)], ids=range(2))


@settings(deadline=None, max_examples=200)
@given(st.integers(1, 300), st.integers(1, 40))
def test_blocks_divide_the_latents(width: int, blocks: int) -> None:
    ranges = [block_range(block, blocks, width) for block in range(blocks)]
    assert [latent for each in ranges for latent in each] == list(range(width))
    assert all(latent * blocks // width == block for block, each in enumerate(ranges) for latent in each)


@SEEDS
def test_statistics_are_those_of_brute_force(scene: Scene) -> None:
    frame = latents_of(scene, study_of())
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
        assert row["context_density"] == pytest.approx(len(contexts) / len(scene.rows))
        assert row["histogram"] == [bins[n] for n in range(10)]


@SEEDS
def test_windows_are_counted_by_split(scene: Scene) -> None:
    frame = latents_of(scene, study_of())
    for row in frame.iter_rows(named=True):
        fires = Counter(place.split for place in scene.places() if any(scene.activations(row["latent"], place)))
        assert [row[f"windows_{split}"] for split in SPLITS] == [fires[split] for split in SPLITS]


def seen_by_explainers(scene: Scene) -> set[tuple[str, int]]:
    """Positions of the split explain (shard, position), without those in a run whose place is elsewhere, unless they lie in a
    window that counts."""
    strays, found = scene.strays(LENGTH), set[tuple[str, int]]()
    for row, first in scene.ordered():
        own = range(len(row["tokens"]))
        if row["split"] == "explain":
            repeated = {
                at
                for _, context, start in strays & {(row["shard"], row["context"], at) for at in own}
                for at in range(start, start + LENGTH)
            }
            found |= {(row["shard"], first + at) for at in own if at not in repeated}
    found |= {(place.shard, place.first + at) for place in scene.places(split="explain") for at in range(LENGTH)}
    return found


def tokens_beside(scene: Scene, step: int) -> dict[tuple[str, int], int]:
    """The token so many places after each position, BOS, separators and other contexts left out."""
    return {
        (row["shard"], first + at): row["tokens"][at + step]
        for row, first in scene.ordered()
        for at in range(len(row["tokens"]))
        if 0 <= at + step < len(row["tokens"]) and at + step not in row["excluded"]
    }


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(("column", "step"), [("tokens_before", -1), ("top_tokens", 0), ("tokens_after", 1)])
def test_tokens_are_those_that_explainers_may_see(seed: int, column: str, step: int) -> None:
    scene = Scene.drawn(seed)
    seen, beside = seen_by_explainers(scene), tokens_beside(scene, step)
    told = 0
    for row in latents_of(scene).iter_rows(named=True):
        mass: dict[int, float] = defaultdict(float)
        count: Counter[int] = Counter()
        total = 0.0
        for each in scene.firings:
            place = (each.shard, each.position)
            if each.latent == row["latent"] and place in seen:
                total += each.activation
                if place in beside:
                    mass[beside[place]] += each.activation
                    count[beside[place]] += 1
        wanted = sorted(mass, key=lambda token: (-mass[token], token))[:10]
        texts = FakeSubject().detokenize([[token] for token in wanted])
        assert row[column] == [
            {"token": token, "text": text, "count": count[token], "mass": mass[token]}
            for token, text in zip(wanted, texts, strict=True)
        ]
        if column == "top_tokens":
            assert row["token_share"] == (mass[wanted[0]] / total if total else None)
        told += len(wanted)
    assert told > 20


@SEEDS
def test_the_share_at_one_position_is_that_of_brute_force(scene: Scene) -> None:
    starts = {(row["shard"], first + at): at for row, first in scene.ordered() for at in range(len(row["tokens"]))}
    for row in latents_of(scene).iter_rows(named=True):
        mass: dict[int, float] = defaultdict(float)
        for each in scene.firings:
            if each.latent == row["latent"]:
                mass[starts[each.shard, each.position]] += each.activation
        assert row["position_share"] == (max(mass.values()) / sum(mass.values()) if mass else None)


@SEEDS
def test_neither_blocks_nor_the_order_of_rows_and_shards_matter(scene: Scene) -> None:
    frame, chance = latents_of(scene), random.Random(1)
    shuffled = Scene(scene.shards[::-1])
    shuffled.rows = chance.sample(scene.rows, len(scene.rows))
    shuffled.firings = chance.sample(scene.firings, len(scene.firings))
    assert latents_of(shuffled).equals(frame)
    for blocks in (1, 7, WIDTH):
        assert latents_of(scene, study_of(blocks=blocks)).drop("block").equals(frame.drop("block"))


def token_scene(activations: dict[int, float]) -> Scene:
    """A context of the split explain, in which latent 0 fires once on each of some tokens and not on 2,000 others."""
    scene = Scene(SHARDS[:1])
    tokens = [BOS, *activations, *[200] * 2000]
    scene.rows = [
        {"shard": SHARDS[0], "context": 0, "tokens": tokens, "excluded": [0], "split": "explain", "documents": []}
    ]
    scene.firings = [Firing(SHARDS[0], 0, place, value) for place, value in enumerate(activations.values(), start=1)]
    return scene


@pytest.mark.parametrize("scale", [1.0, 2.0**-12])
def test_top_tokens_do_not_depend_on_the_scale_of_activations(scale: float) -> None:
    scene = token_scene({100: scale, 101: 3 * scale, 102: 2 * scale})
    top = latents_of(scene, study_of())["top_tokens"][0].to_list()
    assert [each["token"] for each in top] == [101, 102, 100]


def test_of_many_tokens_the_ten_heaviest_are_told_and_of_equals_the_first() -> None:
    scene = token_scene({100 + number: float(number // 4 + 1) for number in range(20)})
    top = latents_of(scene, study_of())["top_tokens"][0].to_list()
    assert [each["token"] for each in top] == [116, 117, 118, 119, 112, 113, 114, 115, 108, 109]
    assert [each["mass"] for each in top] == [5.0] * 4 + [4.0] * 4 + [3.0] * 2


@pytest.mark.parametrize(
    ("activations", "triage"),
    [
        ({100: 95.0, 101: 5.0}, "single_token"),
        ({100: 90.0, 101: 10.0}, "position_bound"),  # nine tenths are not more than nine tenths
        ({100: 50.0, 101: 50.0}, "ok"),
        ({100: 99.0, **dict.fromkeys(range(101, 200), 1.0)}, "ok"),  # half of the mass, nine tenths of the top ten's
    ],
    ids=["one token", "nine tenths", "two tokens", "long tail"],
)
def test_single_token_latents_have_nearly_all_their_mass_on_one_token(
    activations: dict[int, float], triage: str
) -> None:
    study = study_of(selection={"window": 1, "min_windows": {}})
    assert latents_of(token_scene(activations), study)["triage"][0] == triage


def test_a_latent_that_fires_at_one_place_of_its_contexts_is_position_bound() -> None:
    scene, chance = Scene(SHARDS[:1]), random.Random(0)
    for number in range(10):
        tokens = [*chance.choices(range(150, 250), k=2), 100 + number, *chance.choices(range(150, 250), k=17)]
        scene.add_tokens(SHARDS[0], [BOS, *tokens], "explain", excluded=[0])
    scene.firings = [Firing(SHARDS[0], 0, 21 * number + 3, 1.0) for number in range(10)]
    scene.firings += [Firing(SHARDS[0], 1, 21 * number + 4 + number, 1.0) for number in range(10)]
    for latent, n in ((2, 5), (3, 6)):
        places = [3 if number < n else 4 + number for number in range(10)]
        scene.firings += [Firing(SHARDS[0], latent, 21 * number + at, 1.0) for number, at in enumerate(places)]
    frame = latents_of(scene, study_of(selection={"window": LENGTH, "min_windows": {}}))
    assert frame["position_share"].to_list()[:5] == [1.0, 0.1, 0.5, 0.6, None]
    assert frame["triage"].to_list()[:5] == ["position_bound", "ok", "ok", "position_bound", "dead"]


def triaged(row: dict[str, Any], study: Study) -> list[str]:
    """All classes that a latent would be in, the one that it is in first."""
    lacks = any(row[f"windows_{split}"] < n for split, n in study.selection.min_windows.items())
    classes = {
        "dead": not row["n_tokens"],
        "rare": lacks,
        "dense": row["density"] > 0.1,
        "single_token": (row["token_share"] or 0) > 0.9,
        "position_bound": (row["position_share"] or 0) > 0.5,
        "ok": True,
    }
    return [name for name, holds in classes.items() if holds]


@SEEDS
@pytest.mark.parametrize("n", [0, 1, 3])
def test_every_latent_is_in_the_first_class_that_holds(scene: Scene, n: int) -> None:
    study = study_of(selection={"window": LENGTH, "min_windows": {"explain": n, "score": n}})
    for row in latents_of(scene, study).iter_rows(named=True):
        assert row["triage"] == triaged(row, study)[0]


def test_every_class_occurs() -> None:
    """And of each two classes that may hold at once, the first is told."""
    scene, chance = Scene(SHARDS[:1]), random.Random(0)
    for _ in range(20):
        tokens = [BOS, 100, *chance.choices(range(101, 250), k=38)]
        scene.add_tokens(SHARDS[0], tokens, "explain", excluded=[0])
    anywhere = [40 * number + at for number in range(20) for at in range(1, 40)]
    fires = {
        1: [3],
        2: chance.sample(anywhere, 200),
        3: [40 * number + 1 for number in range(20)],  # the same token at the same place
        4: [40 * number + 9 for number in range(20)],
        5: chance.sample(anywhere, 40),
        6: [40 * number + at for number in range(20) for at in (1, 9, 9 + number, 30, 35)],
    }
    for latent, positions in fires.items():
        scene.firings += [Firing(SHARDS[0], latent, at, 1.0) for at in sorted(set(positions))]
    study = study_of(selection={"window": LENGTH, "min_windows": {"explain": 2}})
    rows = latents_of(scene, study).sort("latent").to_dicts()
    found = [row["triage"] for row in rows[:7]]
    assert found == ["dead", "rare", "dense", "single_token", "position_bound", "ok", "dense"]
    assert triaged(rows[3], study) == ["single_token", "position_bound", "ok"]
    assert triaged(rows[1], study)[:3] == ["rare", "single_token", "position_bound"]


@SEEDS
def test_a_latent_is_chosen_unless_something_hinders(scene: Scene) -> None:
    study = study_of()
    for row in latents_of(scene, study).iter_rows(named=True):
        lacks = [split for split, n in study.selection.min_windows.items() if row[f"windows_{split}"] < n]
        if row["triage"] == "dead":
            assert (row["is_chosen"], row["reason"]) == (False, "never fires")
        elif row["triage"] == "rare":
            n, split = row[f"windows_{lacks[0]}"], lacks[0]
            wanted = study.selection.min_windows[split]
            assert (row["is_chosen"], row["reason"]) == (False, f"{n} of {wanted} windows in the split {split}")
        else:
            assert (row["is_chosen"], row["reason"]) == (True, None)


def chosen(frame: pl.DataFrame) -> list[int]:
    return frame.filter("is_chosen")["latent"].to_list()


@SEEDS
def test_a_list_chooses_those_that_can_be_explained(scene: Scene) -> None:
    able = chosen(latents_of(scene, study_of()))
    frame = latents_of(scene, study_of(), "list", listed=[0, 4, 5, 8])
    assert chosen(frame) == [latent for latent in (0, 4, 5, 8) if latent in able]
    left_out = frame.filter(pl.col("latent").is_in(able) & ~pl.col("is_chosen"))
    assert set(left_out["reason"]) == {"not in the study's list"}


@SEEDS
def test_choosing_more_latents_moves_nothing(scene: Scene) -> None:
    able = chosen(latents_of(scene, study_of()))
    before: set[int] = set()
    for n in (1, 2, 5, 8, 3 * WIDTH):
        frame = latents_of(scene, study_of(), "n", n=n)
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
    frame = latents_of(scene, study_of(selection={"window": 1, "min_windows": {}}), "n", n=n)
    counts = frame.group_by("block").agg(n=pl.col("is_chosen").sum())["n"].to_list()
    assert sum(counts) == n
    assert max(counts) - min(counts) <= 1
