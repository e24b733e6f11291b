"""Activations against a dense reference, in whatever batches they come, and what does not fit is refused."""

import random
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import load_file

from latentlake.coders.opening import Source, open_coder
from latentlake.errors import InputError
from latentlake.fakes import FakeSubject, write_coder
from latentlake.protocols import Firings
from latentlake.stages.activations import DROPPED_BITS, encode, round_mantissa, rows_of
from latentlake.tables import TABLES

D, WIDTH, K = 16, 48, 5
HOOKPOINTS = {"one": "layers.1", "two": "layers.2"}
HALF = DROPPED_BITS["half"]
WHERE: dict[str, str | int] = {"dictionary": "one", "shard": "s"}


@pytest.fixture
def coders(tmp_path: Path) -> dict[str, Any]:
    """Two coders with random weights."""
    for seed, name in enumerate(HOOKPOINTS):
        write_coder(tmp_path / name, D, WIDTH, K, seed)
    return {name: open_coder("sparsify", Source(tmp_path / name, name), "cpu") for name in HOOKPOINTS}


@pytest.fixture
def contexts() -> list[list[int]]:
    """Eleven contexts of different lengths."""
    chance = random.Random(0)
    return [[1, *chance.choices(range(3, 60), k=chance.randrange(3, 20))] for _ in range(11)]


@pytest.fixture
def excluded(contexts: list[list[int]]) -> list[list[int]]:
    """BOS, and some other positions; of the last context all."""
    some = [[0, *([2] if len(context) % 2 else [])] for context in contexts[:-1]]
    return [*some, list(range(len(contexts[-1])))]


def firings(keys: np.ndarray) -> list[tuple[int, int, float]]:
    rows = rows_of(keys, WHERE)
    return list(
        zip(rows["latent"].to_pylist(), rows["position"].to_pylist(), rows["activation"].to_pylist(), strict=True)
    )


def dense(directory: Path, inputs: np.ndarray) -> np.ndarray:
    """Activations [n, latents] by the formula: encoder, ReLU, and all but the k largest set to zero."""
    weights = load_file(directory / "sae.safetensors")
    before = np.maximum((inputs - weights["b_dec"]) @ weights["encoder.weight"].T + weights["encoder.bias"], 0)
    least = np.sort(before, axis=1)[:, -K][:, None]
    return np.where(before >= least, before, 0)


class InOrder(FakeSubject):
    """A subject that reads contexts in batches of a given order."""

    def __init__(self, batches: Sequence[list[int]]) -> None:
        super().__init__(D)
        self.batches = batches

    def activations(
        self, contexts: Sequence[Sequence[int]], hookpoints: Sequence[str]
    ) -> Iterator[tuple[list[int], dict[str, torch.Tensor]]]:
        """The batches as given."""
        for batch in self.batches:
            (_, states), *more = [*super().activations([contexts[index] for index in batch], hookpoints)]
            assert not more
            yield batch, states


def test_firings_are_those_of_the_dense_formula(
    tmp_path: Path, coders: dict[str, Any], contexts: list[list[int]], excluded: list[list[int]]
) -> None:
    packed = encode(FakeSubject(D), contexts, excluded, coders, HOOKPOINTS, HALF)
    for name, hookpoint in HOOKPOINTS.items():
        states = [state[hookpoint].numpy() for _, state in FakeSubject(D).activations(contexts, [hookpoint])]
        wanted = dense(tmp_path / name, np.concatenate(states))
        start = 0
        for context, positions in zip(contexts, excluded, strict=True):
            wanted[[start + position for position in positions]] = 0
            start += len(context)
        position, latent = np.nonzero(wanted)
        assert len(position) > 200
        found = firings(packed[name])
        assert {each[:2] for each in found} == set(zip(latent.tolist(), position.tolist(), strict=True))
        for at, on, activation in found:
            assert activation == pytest.approx(wanted[on, at], rel=2**-11 + 1e-5)


def test_firings_are_sorted_and_each_there_once(
    coders: dict[str, Any], contexts: list[list[int]], excluded: list[list[int]]
) -> None:
    for keys in encode(FakeSubject(D), contexts, excluded, coders, HOOKPOINTS, HALF).values():
        places = [each[:2] for each in firings(keys)]
        assert places == sorted(set(places))


def test_a_dictionary_does_not_depend_on_the_others(
    coders: dict[str, Any], contexts: list[list[int]], excluded: list[list[int]]
) -> None:
    together = encode(FakeSubject(D), contexts, excluded, coders, HOOKPOINTS, HALF)
    alone = encode(FakeSubject(D), contexts, excluded, {"two": coders["two"]}, {"two": HOOKPOINTS["two"]}, HALF)
    assert together["two"].tolist() == alone["two"].tolist()
    assert together["one"].tolist() != alone["two"].tolist()


@pytest.mark.parametrize("seed", range(3))
def test_the_order_of_batches_does_not_matter(
    coders: dict[str, Any], contexts: list[list[int]], excluded: list[list[int]], seed: int
) -> None:
    order = random.Random(seed).sample(range(len(contexts)), len(contexts))
    batches = [order[:1], order[1:5], order[5:8], order[8:]]
    wanted = encode(FakeSubject(D), contexts, excluded, coders, HOOKPOINTS, HALF)
    shares: list[float] = []
    found = encode(InOrder(batches), contexts, excluded, coders, HOOKPOINTS, HALF, shares.append)
    for name in HOOKPOINTS:
        # Other batches may round sums otherwise: which latents fire where is the same, and how strongly nearly.
        for one, other in zip(firings(found[name]), firings(wanted[name]), strict=True):
            assert one[:2] == other[:2]
            assert one[2] == pytest.approx(other[2], rel=2**-10)
    assert shares == sorted(shares)
    assert shares[-1] == 1


def test_rows_conform_to_the_table(
    coders: dict[str, Any], contexts: list[list[int]], excluded: list[list[int]]
) -> None:
    keys = encode(FakeSubject(D), contexts, excluded, coders, HOOKPOINTS, HALF)["one"]
    rows = TABLES["activations"].conform(rows_of(keys, WHERE))
    assert rows.num_rows == len(keys)
    assert set(rows["dictionary"].to_pylist()) == {"one"}
    assert rows_of(keys[:0], WHERE).num_rows == 0


class Largest:
    """A coder of the greatest width, whose last latent fires."""

    width = 1 << 22

    def encode(self, inputs: torch.Tensor) -> Firings:
        """One firing a row."""
        n = len(inputs)
        return Firings(torch.arange(n), torch.full((n,), self.width - 1), torch.full((n,), 3.0e38))

    def decode(self, firings: Firings, inputs: torch.Tensor) -> torch.Tensor:
        """The stage does not decode."""
        raise AssertionError("activations were decoded")


def test_the_largest_latent_and_activation_fit() -> None:
    keys = encode(FakeSubject(D), [[1, 5]], [[0]], {"one": Largest()}, {"one": "h"}, HALF)["one"]
    assert firings(keys) == [(Largest.width - 1, 1, pytest.approx(3.0e38, rel=2**-11))]


def test_a_shard_of_too_many_tokens_is_refused() -> None:
    context = cast(Any, range((1 << 23) + 1))
    with pytest.raises(InputError, match="documents_per_shard"):
        encode(FakeSubject(D), [context], [[0]], {"one": Largest()}, {"one": "h"}, HALF)


def test_a_dictionary_of_too_many_latents_is_refused() -> None:
    coder = Largest()
    coder.width += 1
    with pytest.raises(InputError, match="dictionary one has"):
        encode(FakeSubject(D), [[1, 5]], [[0]], {"one": coder}, {"one": "h"}, HALF)


NORMAL = st.floats(min_value=2.0**-126, max_value=2.0**127, width=32)


@settings(deadline=None, max_examples=200)
@given(st.lists(NORMAL, min_size=1, max_size=20))
def test_rounding_keeps_eleven_significant_bits(values: list[float]) -> None:
    exact = np.array(values, dtype=np.float32)
    rounded = round_mantissa(exact, HALF)
    assert (np.abs(rounded.astype(np.float64) - exact) <= exact.astype(np.float64) * 2.0**-11).all()
    assert round_mantissa(rounded, HALF).tolist() == rounded.tolist()
    fractions, _ = np.frexp(rounded.astype(np.float64))
    assert (fractions * 2**11 == np.round(fractions * 2**11)).all()


@settings(deadline=None, max_examples=100)
@given(st.lists(NORMAL, min_size=1, max_size=20))
def test_bfloat16_is_torchs(values: list[float]) -> None:
    exact = np.array(values, dtype=np.float32)
    wanted = torch.from_numpy(exact).bfloat16().float().numpy()
    assert round_mantissa(exact, DROPPED_BITS["bfloat16"]).tolist() == wanted.tolist()


@settings(deadline=None, max_examples=100)
@given(st.lists(NORMAL, min_size=2, max_size=20), st.sampled_from(sorted(DROPPED_BITS.values())))
def test_rounding_keeps_the_order(values: list[float], dropped: int) -> None:
    rounded = round_mantissa(np.sort(np.array(values, dtype=np.float32)), dropped)
    assert (np.diff(rounded.astype(np.float64)) >= 0).all()


@pytest.mark.parametrize(
    ("value", "rounded"),
    [(0.0, 0.0), (1.0, 1.0), (1 + 2**-11, 1.0), (1 + 3 * 2**-11, 1 + 2**-9), (1 + 2**-11 + 2**-20, 1 + 2**-10)],
)
def test_ties_are_rounded_to_even(value: float, rounded: float) -> None:
    assert round_mantissa(np.array([value], dtype=np.float32), HALF)[0] == rounded
