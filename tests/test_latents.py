"""Statistics of latents against brute force, their triage, and which of them are chosen."""

import random
from collections import Counter, defaultdict

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from latentlake.fakes import FakeSubject
from latentlake.study_corpus import SPLITS
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


def seen_by_explainers(scene: Scene) -> dict[tuple[str, int], int]:
    """Token at each (shard, position) of the split explain, without those in a run whose place is elsewhere."""
    strays = {
        (shard, context, start + step) for shard, context, start in scene.strays(LENGTH) for step in range(LENGTH)
    }
    found: dict[tuple[str, int], int] = {}
    for shard in scene.shards:
        position = 0
        for row in scene.of(shard):
            for at, token in enumerate(row["tokens"]):
                start = at // LENGTH * LENGTH
                is_whole = start + LENGTH <= len(row["tokens"])
                counts = is_whole and (shard, row["context"], start) not in scene.strays(LENGTH)
                if row["split"] == "explain" and (counts or (shard, row["context"], at) not in strays):
                    found[shard, position] = token
                position += 1
    return found


@SEEDS
def test_top_tokens_are_those_that_explainers_may_see(scene: Scene) -> None:
    seen = seen_by_explainers(scene)
    for row in latents_of(scene, study_of()).iter_rows(named=True):
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
    assert latents_of(token_scene(activations), study)["triage"][0] == triage


@SEEDS
def test_triage_says_what_hinders(scene: Scene) -> None:
    study = study_of()
    for row in latents_of(scene, study).iter_rows(named=True):
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
    assert {"dead", "rare", "dense", "ok"} <= set(latents_of(Scene.drawn(0), study_of())["triage"])


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
    counts = frame.group_by("block").agg(n=pl.col("is_chosen").sum())["n"]
    assert counts.sum() == n
    assert counts.max() - counts.min() <= 1


@SEEDS
@pytest.mark.parametrize(("column", "step"), [("tokens_before", -1), ("tokens_after", 1)])
def test_tokens_beside_are_those_of_brute_force(scene: Scene, column: str, step: int) -> None:
    seen = seen_by_explainers(scene)
    beside: dict[tuple[str, int], int] = {}
    for shard in scene.shards:
        position = 0
        for row in scene.of(shard):
            for at in range(len(row["tokens"])):
                if 0 <= at + step < len(row["tokens"]) and at + step not in row["excluded"]:
                    beside[shard, position] = row["tokens"][at + step]
                position += 1
    for row in latents_of(scene, study_of()).iter_rows(named=True):
        mass: dict[int, float] = defaultdict(float)
        for each in scene.firings:
            place = (each.shard, each.position)
            if each.latent == row["latent"] and place in seen and place in beside:
                mass[beside[place]] += each.activation
        wanted = sorted(mass, key=lambda token: (-mass[token], token))[:10]
        assert [(each["token"], each["mass"]) for each in row[column]] == [(each, mass[each]) for each in wanted]


def test_a_latent_that_fires_at_one_place_of_its_contexts_is_position_bound() -> None:
    scene, chance = Scene(SHARDS[:1]), random.Random(0)
    for number in range(10):
        tokens = [*chance.choices(range(150, 250), k=2), 100 + number, *chance.choices(range(150, 250), k=17)]
        scene.add_tokens(SHARDS[0], [BOS, *tokens], "explain", excluded=[0])
    scene.firings = [Firing(SHARDS[0], 0, 21 * number + 3, 1.0) for number in range(10)]
    scene.firings += [Firing(SHARDS[0], 1, 21 * number + 4 + number, 1.0) for number in range(10)]
    frame = latents_of(scene, study_of(selection={"window": LENGTH, "min_windows": {}}))
    assert frame["position_share"].to_list()[:2] == [1.0, 0.1]
    assert frame["triage"].to_list()[:3] == ["position_bound", "ok", "dead"]
