"""Windows in which latents do not fire: each source keeps its promise, and where it has nothing left a random window says so."""

import random
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from latentlake.fakes import FakeEmbedder, FakeSubject
from latentlake.sampling import similar
from latentlake.sampling.negatives import turns
from latentlake.sections.samples import SOURCES
from latentlake.tables import TABLES
from tests import reference
from tests.reference import RANKS, Latent, expected
from tests.scene import BETWEEN, BOS, LETTER_A, SHARDS, WIDTH, Firing, Place, Scene, examples_of, sampled, without_bos

SEEDS = pytest.mark.parametrize("seed", range(2))
CHOSEN = [0, 2, 3, 4, 5, 6, 7, 8]
EACH = pytest.mark.parametrize("source", SOURCES)
SPREAD = {"random": 2, "decoder_neighbours": 4, "encoder_neighbours": 3, "co_occurring_neighbours": 3, "similar": 4}
MANY = {**SPREAD, "token_matched": 4}


@cache
def scene_of(seed: int, tokens: int = 420) -> Scene:
    """A scene that no test changes."""
    return Scene.drawn(seed, tokens)


def near_of(pairs: Mapping[int, Mapping[str, Sequence[int]]]) -> pl.DataFrame:
    """A table of neighbours: of each latent, by the name of a rank, its neighbours in order."""
    rows = []
    for latent, kinds in pairs.items():
        for other in sorted(set().union(*map(set, kinds.values()))):
            ranks = {name: list(own).index(other) if other in own else None for name, own in kinds.items()}
            pair = {"dictionary": "one", "block": 0, "latent": latent, "neighbour": other, "n_together": 1}
            rows.append({**pair, "decoder_cosine": 0.5, "encoder_cosine": 0.5, "jaccard": 0.5, **ranks})
    columns = TABLES["neighbours"].empty()
    return pl.concat([columns, pl.DataFrame(rows, schema_overrides=columns.schema)], how="diagonal")


@cache
def neighbours(seed: int = 0) -> pl.DataFrame:
    """For each latent three neighbours of each kind, but of the third kind some have fewer."""
    chance = random.Random(seed)
    pairs = {}
    for latent in range(WIDTH):
        others = [each for each in range(WIDTH) if each != latent]
        sizes = (3, 3, latent % 4)
        pairs[latent] = {name: chance.sample(others, n) for name, n in zip(RANKS.values(), sizes, strict=True)}
    return near_of(pairs)


def negatives_of(
    scene: Scene, chosen: Sequence[int], counts: Any, near: pl.DataFrame | None = None, **more: Any
) -> pl.DataFrame:
    """The windows of the sample in which the latents do not fire, by latent and rank."""
    embedder = {"embedder": "embedder"} if isinstance(counts, Mapping) and "similar" in counts else {}
    study = sampled(negatives=counts, **embedder, **more)
    frame = examples_of(scene, chosen, study, frames={"neighbours": neighbours() if near is None else near})
    return frame.filter(~pl.col("is_activating")).sort("latent", "rank")


def unlike(number: int) -> list[int]:
    """Three letters that no other number has; none is an a."""
    return [LETTER_A - 64 + number // 60**place % 60 for place in range(3)]


def places_of(scene: Scene, frame: pl.DataFrame, length: int = 4, stride: int | None = None) -> list[Place]:
    """The windows that rows speak of."""
    known = {(place.shard, place.context, place.start): place for place in scene.places(length, stride)}
    return [known[row] for row in frame.select("shard", "context", "start").iter_rows()]


# against the reference


def compared(scene: Scene, chosen: Sequence[int], near: pl.DataFrame, **sample: Any) -> pl.DataFrame:
    """The rows of a sample, which must be those of the reference."""
    embedder = {"embedder": "embedder"} if "similar" in sample["negatives"] else {}
    has_bos = all(row["tokens"][0] == BOS for row in scene.rows)
    study = (sampled if has_bos else without_bos)(**sample, **embedder)
    frame = examples_of(scene, chosen, study, frames={"neighbours": near})
    rows = frame.drop("sample", "dictionary", "block").to_dicts()
    assert rows == expected(scene, study, chosen, near)
    return frame


@settings(deadline=None, max_examples=40)
@given(
    seed=st.integers(0, 3),
    counts=st.dictionaries(st.sampled_from(SOURCES), st.integers(1, 7), min_size=1),
    sample=st.fixed_dictionaries(
        {
            "sampler": st.sampled_from(["quantiles", "top", "random", "mix"]),
            "windows": st.integers(1, 12),
            "length": st.sampled_from([4, 5, 6]),
            "stride": st.sampled_from([None, 2, 9]),
            "alignment": st.sampled_from(["grid", "centred"]),
            "seed": st.integers(0, 1),
        }
    ),
)
def test_negatives_are_those_of_the_reference(seed: int, counts: dict[str, int], sample: dict[str, Any]) -> None:
    """But not the similar ones of more windows than are looked at: of equal cosines the index takes any."""
    scene = scene_of(seed, 260)
    windows = scene.places(sample["length"], sample["stride"], "score")
    if "similar" in counts and len(windows) > reference.NEAR:
        counts = {"random" if name == "similar" else name: n for name, n in counts.items()}
    compared(scene, [0, 2, 5, 6, 8], neighbours(seed), negatives=counts, **sample)


@SEEDS
def test_negatives_of_every_source_are_those_of_the_reference(seed: int) -> None:
    scene = scene_of(seed, 240)
    assert 10 < len(scene.places(split="score")) <= reference.NEAR
    frame = compared(scene, CHOSEN, neighbours(seed), negatives={**MANY, "random": 1}, windows=9)
    found = frame.filter(~pl.col("is_activating"))
    assert set(found["source"]) == set(SOURCES)
    assert set(found["in_place_of"].drop_nulls()) >= {"similar", "token_matched", "co_occurring_neighbours"}


# what each source promises


@SEEDS
@EACH
def test_the_latent_fires_in_none_of_them_and_none_comes_twice(seed: int, source: str) -> None:
    scene = scene_of(seed)
    for counts in ({source: 9}, {"random": 3, source: 5} if source != "random" else 12):
        frame = negatives_of(scene, CHOSEN, counts)
        assert frame.height == frame.n_unique(["latent", "shard", "context", "start"])
        for latent, place in zip(frame["latent"], places_of(scene, frame), strict=True):
            assert not any(scene.activations(latent, place))
            assert place.split == "score"
        for latent in CHOSEN:
            silent = len(Latent(scene, sampled().samples["own"], latent, sampled()).silent)
            own = frame.filter(latent=latent)
            n = sum(counts.values()) if isinstance(counts, dict) else counts
            assert own["rank"].to_list() == list(range(min(n, silent)))
            assert not any(any(row) for row in own["activations"])


@SEEDS
@pytest.mark.parametrize("source", RANKS)
@pytest.mark.parametrize("stride", [None, 3])
def test_a_neighbour_of_that_kind_fires_there(seed: int, source: str, stride: int | None) -> None:
    scene, near = scene_of(seed), neighbours()
    frame = negatives_of(scene, CHOSEN, {source: 8}, stride=stride).filter(source=source)
    assert frame.height > 20
    assert frame["in_place_of"].null_count() == frame.height
    for latent, place in zip(frame["latent"], places_of(scene, frame, stride=stride), strict=True):
        own = near.filter(latent=latent).drop_nulls(RANKS[source])["neighbour"]
        assert any(any(scene.activations(other, place)) for other in own)


@SEEDS
@pytest.mark.parametrize("alignment", ["grid", "centred"])
def test_a_token_matched_window_holds_the_strongest_token_of_one_of_the_latents_own(seed: int, alignment: str) -> None:
    scene = scene_of(seed)
    study = sampled(negatives={"token_matched": 8}, windows=3, alignment=alignment)
    frame = examples_of(scene, CHOSEN, study)
    own = frame.filter("is_activating")
    strongest: dict[int, set[int]] = {latent: set() for latent in CHOSEN}
    for latent, tokens, activations in own.select("latent", "tokens", "activations").iter_rows():
        strongest[latent].add(tokens[activations.index(max(activations))])
    found = frame.filter(~pl.col("is_activating"))
    matched = found.filter(source="token_matched")
    assert matched.height > 20
    for latent, place in zip(matched["latent"], places_of(scene, matched), strict=True):
        assert strongest[latent] & set(scene.spoken(place))
    instead = found.filter(source="random")
    assert set(instead["in_place_of"]) == {"token_matched"}
    for latent in instead["latent"].unique():  # a random one stands in where no window with such a token is left
        used = found.filter(latent=latent).select("shard", "context", "start").rows()
        silent = Latent(scene, study.samples["own"], latent, study).silent
        left = [place for place in silent if (place.shard, place.context, place.start) not in used]
        assert not any(strongest[latent] & set(scene.spoken(place)) for place in left)


def test_separators_match_no_token() -> None:
    """A token may have the number of a separator and be none."""
    scene = Scene(SHARDS[:1])
    scene.add_tokens(SHARDS[0], [2, *unlike(0)], "score")  # here it is a token like others
    for number in range(1, 20):
        scene.add_tokens(SHARDS[0], [LETTER_A, 2, *unlike(number)[:2]], "score", excluded=[1])
    scene.add_tokens(SHARDS[0], [*unlike(20), 2], "score")
    scene.firings = [Firing(SHARDS[0], 0, 0, 1.0)]
    study = without_bos(negatives={"token_matched": 3})
    found = examples_of(scene, [0], study).filter(~pl.col("is_activating"))
    assert found["source"].to_list() == ["token_matched", "random", "random"]
    assert found["tokens"].to_list()[0] == [*unlike(20), 2]


@SEEDS
def test_a_similar_window_is_among_the_nearest_to_one_of_the_latents_own(seed: int) -> None:
    scene = scene_of(seed)
    study = sampled(negatives={"similar": 6}, embedder="embedder", windows=4)
    frame = examples_of(scene, CHOSEN, study)
    places = scene.places(split="score")
    assert len(places) > reference.NEAR
    texts = ["".join(scene.pieces(place)) for place in places]
    vectors = FakeEmbedder().embed(texts)
    seen = 0
    for latent in CHOSEN:
        own = frame.filter("is_activating", latent=latent).sort("rank")["text"].to_list()
        found = frame.filter(~pl.col("is_activating"), latent=latent, source="similar").sort("rank")
        silent = [not any(scene.activations(latent, place)) for place in places]
        for rank, text in enumerate(found["text"]):
            cosines = np.round(vectors @ FakeEmbedder().embed([own[rank % len(own)]])[0], 4)
            taken = set(found["text"][:rank])
            free = [
                each
                for each, is_silent, text_ in zip(cosines, silent, texts, strict=True)
                if is_silent and text_ not in taken
            ]
            cosine = cosines[texts.index(text)]
            # of the nearest of all, the first that is free; at the end of these it may be the next window's turn
            if cosine == max(free):
                seen += 1
            else:
                assert sorted(cosines)[-reference.NEAR] >= max(free)
        if not own:
            assert found.is_empty()
    assert seen > 20


def test_what_stands_between_documents_is_text_to_compare() -> None:
    frame = negatives_of(scene_of(0), CHOSEN, {"similar": 6}, windows=4)
    assert any(BETWEEN in text for text in frame.filter(source="similar")["text"])


def test_the_nearest_window_comes_first() -> None:
    scene, chance = Scene(SHARDS[:1]), random.Random(0)
    words = ["".join(chance.choices("abcdefghijklmnopqrst", k=8)) for _ in range(20)]
    for word in words:
        scene.add_tokens(SHARDS[0], FakeSubject().tokenize([word])[0].tokens, "score")
    scene.firings = [Firing(SHARDS[0], 0, 0, 1.0)]
    study = without_bos(negatives={"similar": 19}, embedder="embedder", length=8)
    found = examples_of(scene, [0], study).filter(~pl.col("is_activating"))
    assert found["source"].to_list() == ["similar"] * 19
    first, *others = FakeEmbedder().embed([words[0], *found["text"]])
    cosines = [round(float(other @ first), 4) for other in others]
    assert cosines == sorted(cosines, reverse=True)
    assert len(set(cosines)) > 3
    assert set(found["text"]) == set(words[1:])


def test_a_large_index_finds_similar_windows_whatever_the_order_of_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    scene = scene_of(0)
    exact = negatives_of(scene, CHOSEN, {"similar": 6})
    monkeypatch.setattr(similar, "_EXACT", 10)
    frame = negatives_of(scene, CHOSEN, {"similar": 6})
    turned = Scene(scene.shards[::-1])
    turned.rows, turned.firings, turned.documents = scene.rows, scene.firings, scene.documents
    assert frame.equals(negatives_of(turned, CHOSEN, {"similar": 6}))
    assert not any(any(row) for row in frame["activations"])
    key = ["latent", "rank", "shard", "context", "start"]
    assert frame.join(exact, on=key).height > 0.7 * exact.height
    assert frame.filter(source="similar").height > 0.9 * exact.filter(source="similar").height


# the order of places


@settings(deadline=None, max_examples=100)
@given(st.dictionaries(st.sampled_from(SOURCES), st.integers(1, 30), min_size=1))
def test_places_go_round_the_sources_in_proportion(counts: dict[str, int]) -> None:
    order, total = turns(counts), sum(counts.values())
    assert order == reference.rounds(counts)
    assert Counter(name for name, _ in order) == counts
    for name, count in counts.items():
        assert [turn for each, turn in order if each == name] == list(range(count))
        for first in range(1, total + 1):
            assert abs(sum(each == name for each, _ in order[:first]) - first * count / total) < len(counts)


def test_places_of_equal_shares_take_turns() -> None:
    order = [name for name, _ in turns(dict.fromkeys(SOURCES, 4))]
    assert order == [*SOURCES] * 4


@SEEDS
@pytest.mark.parametrize(
    "counts", [SPREAD, MANY, {"random": 1, "token_matched": 9}], ids=lambda counts: str(len(counts))
)
def test_every_place_is_a_sources_own_or_random_in_its_place(seed: int, counts: dict[str, int]) -> None:
    frame = negatives_of(scene_of(seed), CHOSEN, counts)
    order = [name for name, _ in turns(counts)]
    for latent in CHOSEN:
        own = frame.filter(latent=latent)
        wanted = own.select(pl.coalesce("in_place_of", "source"))["in_place_of"].to_list()
        assert wanted == order[: own.height]  # what is missing at the end are windows that there are not
        assert set(own.drop_nulls("in_place_of")["source"]) <= {"random"}
        assert not own.filter(in_place_of="random").height


def test_the_stand_in_of_a_place_does_not_depend_on_other_places() -> None:
    """A latent without neighbours, and one whose other source has nothing either."""
    scene, near = scene_of(0), near_of({})
    alone = negatives_of(scene, [2], {"decoder_neighbours": 6}, near)
    both = negatives_of(scene, [2], {"decoder_neighbours": 3, "encoder_neighbours": 3}, near)
    key = ["latent", "rank", "shard", "context", "start"]
    assert alone.select(key).equals(both.select(key))
    assert alone["in_place_of"].to_list() == ["decoder_neighbours"] * 6
    assert both["in_place_of"].to_list() == ["decoder_neighbours", "encoder_neighbours"] * 3


def test_neighbours_are_asked_in_turn_the_nearest_first() -> None:
    scene = Scene(SHARDS[:1])
    for number in range(60):
        scene.add_tokens(SHARDS[0], [LETTER_A, *unlike(number)], "score")
    for number in range(60):  # latent 1 fires in the first twenty windows, 2 in the next ten, 3 in one more
        latent = 1 if number < 20 else 2 if number < 30 else 3 if number == 30 else 4
        scene.firings.append(Firing(SHARDS[0], latent, 4 * number, 1.0))
    near = near_of({0: {"decoder_rank": [2, 3, 1], "encoder_rank": [], "co_occurrence_rank": []}})
    found = negatives_of(scene, [0], {"decoder_neighbours": 34}, near)
    fires = {
        place.context: next(each.latent for each in scene.firings if each.position == place.first)
        for place in scene.places()
    }
    asked = [fires[context] for context in found["context"]]
    assert asked[:9] == [2, 3, 1, 2, 1, 1, 2, 1, 1]  # the second has one window, and then it is the third's turn
    assert Counter(asked[:31]) == {1: 20, 2: 10, 3: 1}
    assert found["source"].to_list() == ["decoder_neighbours"] * 31 + ["random"] * 3
    assert found["in_place_of"].to_list() == [None] * 31 + ["decoder_neighbours"] * 3


def test_neighbours_of_other_blocks_are_neighbours_too() -> None:
    scene, near = scene_of(0), near_of({3: {"decoder_rank": [9, 5, 6], "encoder_rank": [8], "co_occurrence_rank": []}})
    found = negatives_of(scene, [3], {"decoder_neighbours": 3, "encoder_neighbours": 3}, near)
    assert set(found["source"]) == {"decoder_neighbours", "encoder_neighbours"}


def test_only_what_a_table_has_of_a_kind_counts() -> None:
    near = near_of({2: {"decoder_rank": [], "encoder_rank": [6], "co_occurrence_rank": []}})
    found = negatives_of(scene_of(0), [2, 3], {"decoder_neighbours": 2, "encoder_neighbours": 2}, near)
    assert found.filter(latent=2)["source"].to_list() == ["random", "encoder_neighbours"] * 2
    assert found.filter(latent=3)["source"].to_list() == ["random"] * 4


# latents that fire nearly everywhere


def crowded(windows: int, silent: Mapping[int, Sequence[int]], positions: int = 4) -> Scene:
    """Windows of four tokens, one a context; of each latent the windows in which it does not fire, and on how many of the tokens
    of the others it does."""
    scene = Scene(SHARDS[:1])
    for number in range(windows):
        scene.add_tokens(SHARDS[0], [LETTER_A, *unlike(number)], "score")
    for latent, own in silent.items():
        for window in range(windows):
            if window not in own:
                scene.firings += [Firing(SHARDS[0], latent, 4 * window + at, 1.0) for at in range(positions)]
    return scene


@pytest.mark.parametrize(
    "counts", [30, {"random": 5, "token_matched": 20}, {"similar": 5, "decoder_neighbours": 25}], ids=str
)
@pytest.mark.parametrize("positions", [1, 4])
def test_a_latent_that_fires_nearly_everywhere_gets_the_silent_windows_there_are(counts: Any, positions: int) -> None:
    silent = {0: [], 1: [17], 2: [0, 3, 399], 3: [*range(100, 120)], 4: [*range(0, 400, 3)]}
    scene = crowded(400, silent, positions)
    near = near_of(
        {latent: {"decoder_rank": [0, 4], "encoder_rank": [], "co_occurrence_rank": []} for latent in range(5)}
    )
    found = negatives_of(scene, [*silent], counts, near)
    n = counts if isinstance(counts, int) else sum(counts.values())
    for latent, windows in silent.items():
        own = found.filter(latent=latent)
        assert own.height == own.n_unique("context") == min(n, len(windows))
        assert set(own["context"]) <= set(windows)


def test_a_dense_latent_draws_as_any_other() -> None:
    silent = {0: [*range(0, 200, 7)], 1: [*range(0, 200, 2)]}
    one, four = (negatives_of(crowded(200, silent, positions), [0, 1], 20) for positions in (1, 4))
    assert one.height == 40
    assert one.drop("activations").equals(four.drop("activations"))


# patience


def test_a_source_that_refuses_too_often_is_given_up() -> None:
    """All windows hold the token on which the latents fire, and they fire in all but two of them."""
    windows, latents = 700, 24
    chance = random.Random(0)
    silent = {latent: sorted(chance.sample(range(windows), 2)) for latent in range(latents)}
    scene = crowded(windows, silent, positions=1)
    frame = compared(scene, [*silent], near_of({}), negatives={"token_matched": 2}, windows=2, seed=1)
    found = frame.filter(~pl.col("is_activating"))
    assert set(found["source"]) == {"token_matched", "random"}
    for latent, own in silent.items():  # random ones are found wherever they are
        assert sorted(found.filter(latent=latent)["context"]) == own
    given_up = found.filter(source="random")
    assert set(given_up["in_place_of"]) == {"token_matched"}
    later = found.join(given_up.filter(rank=0).select("latent"), on="latent").filter(rank=1)
    assert later.height
    assert set(later["source"]) == {"random"}  # what was given up is not asked again
