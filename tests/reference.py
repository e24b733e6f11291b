"""Samples drawn the slow way: one latent at a time, in plain integers, and loops over sorted lists."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeVar

import numpy as np
import polars as pl

from latentlake.fakes import FakeEmbedder
from latentlake.sections.samples import Sample
from latentlake.study import Study
from tests.scene import Place, Scene, mix, seed_of

T = TypeVar("T")
PATIENCE = 256  # refusals after which a draw from windows of one kind gives up
NEAR = 32  # windows nearest to one that are looked at
SOURCES = (
    "random",
    "decoder_neighbours",
    "encoder_neighbours",
    "co_occurring_neighbours",
    "similar",
    "token_matched",
)
RANKS = dict(zip(SOURCES[1:4], ("decoder_rank", "encoder_rank", "co_occurrence_rank"), strict=True))
Drawn = tuple[
    Place, str, str | None
]  # a window in which a latent does not fire, its source, and the one it stands in for


def walk(ring: Mapping[T, int], point: int, is_refused: Callable[[T], bool], patience: int | None = None) -> T | None:
    """The first on a ring, from a point on and round it, that is not refused. ``ring``: hash of each that is on it."""
    clockwise = sorted(ring, key=lambda each: (ring[each] - point) % 2**64)[:patience]
    return next((each for each in clockwise if not is_refused(each)), None)


def in_turns(ring: Mapping[T, int], seed: int, turns: int) -> list[T]:
    """What a ring gives in some turns, nothing twice."""
    taken: list[T] = []
    for turn in range(min(turns, len(ring))):
        found = walk(ring, point(seed, turn), lambda each: each in taken)
        assert found is not None
        taken.append(found)
    return taken


def point(seed: int, number: int) -> int:
    """Where the draw of a number begins."""
    return mix(seed, seed_of("point", number))


def rounds(counts: Mapping[str, int]) -> list[tuple[str, int]]:
    """The sources in the order of their places, and how often each was asked before."""
    due = [
        ((turn + 0.5) / count, SOURCES.index(name), name, turn)
        for name, count in counts.items()
        for turn in range(count)
    ]
    return [(name, turn) for _, _, name, turn in sorted(due)]


class Latent:
    """One latent's part of a sample, worked out by itself. ``near``: the table ``neighbours``."""

    def __init__(
        self, scene: Scene, sample: Sample, latent: int, study: Study, near: pl.DataFrame | None = None
    ) -> None:
        self.scene, self.sample, self.latent, self._near = scene, sample, latent, near
        self.length = length = sample.length or study.selection.window
        self.grid = scene.places(length, sample.stride, sample.split, study.selection.window)
        self.activations = {place: scene.activations(latent, place) for place in self.grid}
        self.silent = {place for place in self.grid if not any(self.activations[place])}
        own = [place for place in self.grid if place not in self.silent]
        if sample.alignment == "centred":
            own = scene.centred(latent, length, sample.stride, sample.split, study.selection.window)
            self.activations |= {place: scene.activations(latent, place) for place in own}
        self.draw = study.seed + sample.seed
        self.seed = mix(latent, seed_of("latent", self.draw))
        self.hashes = {place: mix(place.hash, self.seed) for place in own}
        self.strength = {place: max(self.activations[place]) for place in own}

    # windows in which it fires

    def drawn(self) -> list[Place]:
        """By rank."""
        found: list[Place] = getattr(self, f"_{self.sample.sampler}")(self.sample.windows)
        return found

    def deciles(self, own: Iterable[Place]) -> dict[Place, int]:
        """Tenths by strength, ties by hash."""
        ordered = sorted(own, key=lambda place: (self.strength[place], self.hashes[place]))
        return {place: rank * 10 // len(ordered) for rank, place in enumerate(ordered)}

    def _top(self, n: int) -> list[Place]:
        return sorted(self.hashes, key=lambda place: (-self.strength[place], self.hashes[place]))[:n]

    def _random(self, n: int) -> list[Place]:
        return in_turns(self.hashes, self.seed, n)

    def _quantiles(self, n: int, own: Sequence[Place] | None = None) -> list[Place]:
        """Round the deciles, in the order of their hashes."""
        deciles = self.deciles(self.hashes if own is None else own)
        seeds = {decile: mix(self.seed ^ seed_of("decile", decile), 0) for decile in range(10)}
        drawn = {
            decile: in_turns({each: self.hashes[each] for each in deciles if deciles[each] == decile}, seed, n)
            for decile, seed in seeds.items()
        }
        order = sorted(seeds, key=lambda decile: seeds[decile])
        found = [drawn[decile][turn] for turn in range(n) for decile in order if turn < len(drawn[decile])]
        return found[:n]

    def _mix(self, n: int) -> list[Place]:
        """A share of the strongest, and between them what quantiles give of the others."""
        n_top = round(n * self.sample.top)
        top = self._top(n_top)
        rest = self._quantiles(n - n_top, [place for place in self.hashes if place not in top])
        places = {place: (rank + 0.25) / n_top for rank, place in enumerate(top)}
        places |= {place: (rank + 0.75) / (n - n_top) for rank, place in enumerate(rest)}
        return sorted(places, key=lambda place: places[place])

    # windows in which it does not

    def negatives(self) -> list[Drawn]:
        """By rank."""
        counts, taken, found = self.sample.sources, set[Place](), list[Drawn]()
        asked = {name: self._source(name) for name in counts}
        by_chance = self._random_source()
        for place, (name, turn) in enumerate(rounds(counts)):

            def is_refused(window: Place) -> bool:
                return window not in self.silent or window in taken

            window, source = asked[name](turn, is_refused), name
            if window is None:
                window, source = by_chance(-1 - place, is_refused), "random"
            if window is not None:
                taken.add(window)
                found.append((window, source, None if source == name else name))
        return found

    def _source(self, name: str) -> Callable[[int, Callable[[Place], bool]], Place | None]:
        """What is asked for the windows of one source: with a turn, and which windows are refused."""
        if name == "random":
            return self._random_source()
        if name == "similar":
            return self._similar_source()
        if name == "token_matched":
            return self._in_turn(self._token_rings())
        return self._in_turn(self._neighbour_rings(RANKS[name]))

    def _random_source(self) -> Callable[[int, Callable[[Place], bool]], Place | None]:
        ring = {place: mix(place.hash, seed_of("random", self.draw)) for place in self.grid}
        return lambda turn, is_refused: walk(ring, point(self.seed, turn), is_refused)

    def _in_turn(self, rings: list[dict[Place, int]]) -> Callable[[int, Callable[[Place], bool]], Place | None]:
        dry: set[int] = set()

        def ask(turn: int, is_refused: Callable[[Place], bool]) -> Place | None:
            for step in range(len(rings)):
                number = (turn + step) % len(rings)
                if number not in dry:
                    window = walk(rings[number], point(self.seed, turn), is_refused, PATIENCE)
                    if window is not None:
                        return window
                    dry.add(number)
            return None

        return ask

    def _token_rings(self) -> list[dict[Place, int]]:
        """Of each token on which it fires most in one of its windows, the windows that hold it."""
        tokens = [place.tokens[self.activations[place].index(self.strength[place])] for place in self.drawn()]
        hashes = {place: mix(place.hash, seed_of("token", self.draw)) for place in self.grid}
        return [
            {place: hashes[place] for place in self.grid if token in self.scene.spoken(place)}
            for token in dict.fromkeys(tokens)
        ]

    def _neighbour_rings(self, rank: str) -> list[dict[Place, int]]:
        """Of each neighbour of a kind, nearest first, the windows in which it fires."""
        assert self._near is not None
        rows = self._near.filter(latent=self.latent).drop_nulls(rank).sort(rank)
        hashes = {place: mix(place.hash, seed_of("neighbours", self.draw)) for place in self.grid}
        return [
            {place: hashes[place] for place in self.grid if any(self.scene.activations(other, place))}
            for other in rows["neighbour"]
        ]

    def _similar_source(self) -> Callable[[int, Callable[[Place], bool]], Place | None]:
        order = sorted(self.grid, key=lambda place: mix(place.hash, seed_of("similar")))
        own = self.drawn()
        texts = ["".join(self.scene.pieces(place)) for place in (*order, *own)]
        vectors = FakeEmbedder().embed(texts)
        cosines = np.round(vectors[len(order) :] @ vectors[: len(order)].T, 4).tolist()
        nearest = [
            [
                place
                for _, _, place in sorted(
                    (-cosine, at, place) for at, (cosine, place) in enumerate(zip(row, order, strict=True))
                )
            ][:NEAR]
            for row in cosines
        ]

        def ask(turn: int, is_refused: Callable[[Place], bool]) -> Place | None:
            for step in range(len(nearest)):
                for window in nearest[(turn + step) % len(nearest)]:
                    if not is_refused(window):
                        return window
            return None

        return ask

    # rows

    def rows(self) -> list[dict[str, Any]]:
        """The rows of the table, as far as they do not follow from the study's names."""
        deciles = self.deciles(self.hashes)
        others = [(place, False, source, instead) for place, source, instead in self.negatives()]
        own = [(place, True, self.sample.sampler, None) for place in self.drawn()]
        return [
            {
                "latent": self.latent,
                "rank": rank,
                "is_activating": is_on,
                "source": source,
                "in_place_of": instead,
                "decile": deciles[place] if is_on else None,
                "shard": place.shard,
                "context": place.context,
                "start": place.start,
                "tokens": list(place.tokens),
                "activations": self.activations[place],
                **self._told(place),
            }
            for each in (others, own)
            for rank, (place, is_on, source, instead) in enumerate(each)
        ]

    def _told(self, place: Place) -> dict[str, Any]:
        """Text and offsets of a window."""
        pieces = self.scene.pieces(place)
        return {"text": "".join(pieces), "offsets": [len("".join(pieces[:at])) for at in range(len(pieces))]}


def expected(
    scene: Scene, study: Study, chosen: Sequence[int], near: pl.DataFrame | None = None, sample: str = "own"
) -> list[dict[str, Any]]:
    """The rows of a sample for some latents."""
    return [row for latent in chosen for row in Latent(scene, study.samples[sample], latent, study, near).rows()]
