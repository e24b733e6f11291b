"""Which latents are near to one another, against matrices worked out whole."""

import random
from fractions import Fraction
from functools import cache
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch

from latentlake.coders import nearest
from latentlake.coders.coder import SparseCoder
from latentlake.coders.nearest import Directions
from latentlake.coders.neurons import neurons
from latentlake.coders.opening import Source, open_coder
from latentlake.stages import neighbours
from latentlake.study import Study
from latentlake.tables import TABLES
from latentlake.work import Shared
from tests.coder_fixtures import VARIANTS, WIDTH, Tensors
from tests.scene import SHARDS, Firing, Scene, rows_of, study_of, work_of

DEAD, ALIKE = (7, 8), (3, 4)  # latents that never fire; two that are nearly the same and fire on the same tokens
K = 5
NEARLY = 1.1e-5  # cosines are told to five digits, of what is computed in single precision
SIDES = {"decoder": "W_dec", "encoder": "encoder.weight"}


@cache
def scene_of(seed: int = 0) -> Scene:
    """Latents that fire alone or along with others, at the same places of several shards."""
    chance, scene = random.Random(seed), Scene([*SHARDS, "d-c-0000"])
    for shard in scene.shards:
        for _ in range(6):
            scene.add_tokens(shard, [100] * 20, "explain")
        crowds = [chance.sample(range(120), 15) for _ in range(6)]
        for latent in range(WIDTH):
            if latent not in (*DEAD, ALIKE[1]):
                own = set(chance.sample(chance.choice(crowds), chance.randrange(1, 12)))
                own |= set(chance.sample(range(120), chance.randrange(6)))
                scene.firings += [Firing(shard, latent, position, 1.0) for position in sorted(own)]
    scene.firings += [
        Firing(each.shard, ALIKE[1], each.position, 2.0) for each in scene.firings if each.latent == ALIKE[0]
    ]
    return scene


def tensors_of() -> Tensors:
    """A coder whose latents 3 and 4 are nearly the same."""
    tensors = {name: each.clone() for name, each in VARIANTS["sparsify"].tensors.items()}
    for name in SIDES.values():
        tensors[name][ALIKE[1]] = 3 * tensors[name][ALIKE[0]] + 1e-4
    return tensors


@pytest.fixture(scope="module")
def coder(tmp_path_factory: pytest.TempPathFactory) -> SparseCoder:
    path = VARIANTS["sparsify"].write(tmp_path_factory.mktemp("coder"), tensors_of())
    return open_coder("sparsify", Source(path, "coder"), "cpu")


def study_with(k: int = K, blocks: int = 1) -> Study:
    return study_of(blocks=blocks, neighbours={"k": k})


def computed(coder: Any, scene: Scene | None = None, k: int = K, blocks: int = 1, width: int = WIDTH) -> pl.DataFrame:
    """The rows of all blocks."""
    shared, found = Shared(), []
    for block in range(blocks):
        work = work_of(
            study_with(k, blocks), "neighbours", scene or scene_of(), block, shared, lambda name: coder, width=width
        )
        found.append(rows_of("neighbours", neighbours.compute(work)))
    return pl.concat(found)


def cosines_of(side: str) -> np.ndarray:
    """Cosines of all pairs."""
    rows = tensors_of()[SIDES[side]].double().numpy()
    unit = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    cosines: np.ndarray = unit @ unit.T
    return cosines


def places(scene: Scene, latent: int) -> set[tuple[str, int]]:
    """The tokens on which a latent fires."""
    return {(each.shard, each.position) for each in scene.firings if each.latent == latent}


def ranked(frame: pl.DataFrame, latent: int, kind: str) -> list[int]:
    """A latent's neighbours of a kind, nearest first; their ranks must follow on each other."""
    own = frame.filter(latent=latent).drop_nulls(f"{kind}_rank").sort(f"{kind}_rank")
    assert own[f"{kind}_rank"].to_list() == list(range(own.height))
    return own["neighbour"].to_list()


@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize("k", [1, K, WIDTH - 1, 1000])
def test_the_nearest_by_cosine_are_those_of_all_pairs(coder: SparseCoder, side: str, k: int) -> None:
    frame, cosines = computed(coder, k=k), cosines_of(side)
    for latent in range(WIDTH):
        own = ranked(frame, latent, side)
        found, left = cosines[latent, own], np.delete(cosines[latent], [latent, *own])
        assert len(set(own)) == len(own) == min(k, WIDTH - 1)
        assert (np.diff(found) < NEARLY).all()
        assert found.min() > left.max(initial=-1) - NEARLY
    for latent, other, cosine in frame.select("latent", "neighbour", f"{side}_cosine").iter_rows():
        assert cosine == pytest.approx(cosines[latent, other], abs=NEARLY)


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("k", [1, K, 1000])
def test_those_that_fire_together_most_are_those_of_all_pairs(coder: SparseCoder, seed: int, k: int) -> None:
    scene = scene_of(seed)
    frame, fires = computed(coder, scene, k), [places(scene, latent) for latent in range(WIDTH)]
    for latent in range(WIDTH):
        shares = {
            other: Fraction(len(fires[latent] & fires[other]), len(fires[latent] | fires[other]))
            for other in range(WIDTH)
            if other != latent and fires[latent] & fires[other]
        }
        assert ranked(frame, latent, "co_occurrence") == sorted(shares, key=lambda other: (-shares[other], other))[:k]
    for row in frame.iter_rows(named=True):
        one, other = fires[row["latent"]], fires[row["neighbour"]]
        assert row["n_together"] == len(one & other)
        assert row["jaccard"] == (len(one & other) / len(one | other) if one | other else None)


def test_a_pair_is_one_row_with_its_rank_of_each_kind(coder: SparseCoder) -> None:
    frame = computed(coder)
    assert frame.schema == TABLES["neighbours"].empty().schema
    assert frame.select("latent", "neighbour").is_unique().all()
    assert not frame.filter(pl.col("latent") == pl.col("neighbour")).height
    ranks = frame.select("decoder_rank", "encoder_rank", "co_occurrence_rank")
    assert not ranks.filter(pl.all_horizontal(pl.all().is_null())).height
    both = frame.filter(pl.col("decoder_rank").is_not_null() & pl.col("co_occurrence_rank").is_not_null())
    assert 0 < both.height < frame.height
    assert frame.select("latent", "neighbour").equals(frame.select("latent", "neighbour").sort("latent", "neighbour"))


def test_two_that_are_nearly_the_same_find_each_other(coder: SparseCoder) -> None:
    for one, other in (ALIKE, ALIKE[::-1]):
        row = computed(coder).filter(latent=one, neighbour=other).row(0, named=True)
        assert (row["decoder_rank"], row["encoder_rank"], row["co_occurrence_rank"]) == (0, 0, 0)
        assert row["decoder_cosine"] == pytest.approx(1, abs=1e-4)
        assert row["encoder_cosine"] == pytest.approx(1, abs=1e-4)
        assert row["jaccard"] == 1


def test_a_dead_latent_has_neighbours_by_its_directions_alone(coder: SparseCoder) -> None:
    frame = computed(coder, k=WIDTH)
    for latent in DEAD:
        own = frame.filter(latent=latent)
        assert own.height == WIDTH - 1
        assert own["co_occurrence_rank"].null_count() == own.height
        assert set(own["n_together"]) == {0}
        assert own.filter(pl.col("jaccard").is_null())["neighbour"].to_list() == [
            each for each in DEAD if each != latent
        ]
        assert set(own["jaccard"].drop_nulls()) == {0.0}
    assert not frame.filter(pl.col("neighbour").is_in(DEAD))["co_occurrence_rank"].drop_nulls().len()


def test_latents_that_fire_at_the_same_place_of_different_shards_do_not_fire_together(coder: SparseCoder) -> None:
    scene = Scene(SHARDS)
    for shard in SHARDS:
        scene.add_tokens(shard, [100] * 20, "explain")
    scene.firings = [Firing(SHARDS[0], 0, 5, 1.0), Firing(SHARDS[1], 1, 5, 1.0), Firing(SHARDS[1], 2, 5, 1.0)]
    frame = computed(coder, scene, WIDTH)
    assert [ranked(frame, latent, "co_occurrence") for latent in range(3)] == [[], [2], [1]]
    assert frame.filter(latent=0, neighbour=1)["jaccard"].item() == 0


@pytest.mark.parametrize("blocks", [2, 7, WIDTH])
def test_neighbours_do_not_depend_on_the_number_of_blocks(coder: SparseCoder, blocks: int) -> None:
    frame = computed(coder, blocks=blocks)
    assert frame.drop("block").equals(computed(coder).drop("block"))
    assert frame["block"].to_list() == [latent * blocks // WIDTH for latent in frame["latent"]]


def test_neighbours_do_not_depend_on_the_order_of_rows_and_shards(coder: SparseCoder) -> None:
    scene = scene_of()
    shuffled = Scene(scene.shards[::-1])
    shuffled.rows = scene.rows
    shuffled.firings = random.Random(1).sample(scene.firings, len(scene.firings))
    assert computed(coder, shuffled, blocks=3).equals(computed(coder, blocks=3))


def test_neurons_are_near_by_when_they_fire_alone() -> None:
    frame = computed(SparseCoder(neurons(WIDTH, 4)[0], "neurons"))
    for name in ("decoder_cosine", "encoder_cosine", "decoder_rank", "encoder_rank"):
        assert frame[name].null_count() == frame.height > 0
    assert ranked(frame, ALIKE[0], "co_occurrence")[0] == ALIKE[1]
    assert not frame.filter(pl.col("latent").is_in(DEAD)).height


@pytest.mark.parametrize("blocks", [1, 3])
def test_neurons_that_never_fire_have_no_neighbours(blocks: int) -> None:
    scene = Scene(SHARDS)
    scene.firings = [Firing(SHARDS[0], 2, 5, 1.0)]
    frame = computed(SparseCoder(neurons(6, 4)[0], "neurons"), scene, blocks=blocks, width=6)
    assert frame.is_empty()


class Bare:
    """A coder of so many latents, of which only their directions are asked."""

    device = "cpu"

    def __init__(self, n: int) -> None:
        self.directions, self.encoder_directions = (tensors_of()[name][:n] for name in SIDES.values())


@pytest.mark.parametrize("width", [1, 2, 3])
@pytest.mark.parametrize("blocks", [1, 5])
def test_a_small_dictionary_has_all_pairs(width: int, blocks: int) -> None:
    scene = Scene(SHARDS)
    scene.firings = [Firing(SHARDS[0], 0, 5, 1.0)]
    frame = computed(Bare(width), scene, blocks=blocks, width=width)
    wanted = [(one, other) for one in range(width) for other in range(width) if one != other]
    assert frame.select("latent", "neighbour").rows() == wanted


# directions


def drawn(n: int) -> torch.Tensor:
    return torch.randn(n, 6, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("chunk", [1, 7, 100, 999])
@pytest.mark.parametrize("kinds", [43, 5, 0])
def test_the_nearest_do_not_depend_on_how_many_are_compared_at_once(
    monkeypatch: pytest.MonkeyPatch, chunk: int, kinds: int
) -> None:
    """Nor where many are the same, or zero."""
    rows = drawn(kinds).repeat(10, 1)[:43] if kinds else torch.zeros(43, 6)
    whole = Directions(rows, "cpu").nearest(range(10, 30), 4)
    monkeypatch.setattr(nearest, "_CHUNK", chunk)
    directions = Directions(rows, "cpu")
    assert np.array_equal(directions.nearest(range(10, 30), 4), whole)
    parts = [directions.nearest(range(10, 13), 4), directions.nearest(range(13, 30), 4)]
    assert np.array_equal(np.concatenate(parts), whole)


def test_cosines_do_not_depend_on_how_many_are_computed_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    one, other = np.arange(30), np.arange(30)[::-1].copy()
    whole = Directions(drawn(30), "cpu").cosines(one, other)
    assert whole[0] == pytest.approx(float(torch.cosine_similarity(drawn(30)[0], drawn(30)[29], dim=0)), abs=1e-5)
    monkeypatch.setattr(nearest, "_CHUNK", 20)
    assert np.array_equal(Directions(drawn(30), "cpu").cosines(one, other), whole)


def test_of_equally_near_ones_the_first_come_first() -> None:
    rows = torch.tensor([[1.0, 0.0], [0.0, 2.0], [0.0, 1.0], [3.0, 0.0], [0.0, 5.0], [1.0, 1.0]])
    assert Directions(rows, "cpu").nearest(range(6), 4).tolist() == [
        [3, 5, 1, 2],
        [2, 4, 5, 0],
        [1, 4, 5, 0],
        [0, 5, 1, 2],
        [1, 2, 5, 0],
        [0, 1, 2, 3],
    ]
