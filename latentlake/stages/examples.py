"""Windows of the chosen latents: one sample, one block.

What is drawn follows from hashes of (seed, latent, window) alone, not from order, other latents, or how work is split. What all
blocks share (contexts, windows, texts) is read once a run; a block's activations are let go of with it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import polars as pl
import pyarrow as pa

from latentlake.sampling import negatives, samplers
from latentlake.sampling.contexts import Contexts, Grid, grid_of, read_contexts
from latentlake.sampling.firings import Activating, Firings, centred, on_grid, read_firings
from latentlake.sampling.negatives import Negatives, Source
from latentlake.sampling.samplers import Candidates
from latentlake.sampling.similar import Similar
from latentlake.sampling.texts import Texts, read_texts
from latentlake.sections.corpus import SPLITS
from latentlake.sections.samples import SOURCES, Sample
from latentlake.tables import TABLES
from latentlake.work import Tables, Work

_SLICE = 1 << 16  # windows that are described at once


def compute(work: Work) -> Tables:
    """The windows of one sample for the chosen latents of one block."""
    place = _Place(work)
    chosen = work.frame("latents").filter("is_chosen").select("latent").collect()["latent"].sort().to_numpy()
    firings = place.firings(chosen.astype(np.int64))
    seeds = samplers.seeds_of(firings.latents, place.seed)
    candidates = samplers.candidates_of(place.activating(firings), seeds)
    drawn = samplers.draw(place.sample, candidates)
    work.progress.share(0.3)
    others = _negatives(place, firings, candidates, drawn)
    work.progress.share(0.6)
    return {"examples": _rows(place, firings, candidates, drawn, others)}


@dataclass(frozen=True)
class _Place:
    """A sample in its corpus: what all blocks have in common."""

    work: Work

    @cached_property
    def sample(self) -> Sample:
        return self.work.study.samples[self.work.stage.constants["sample"]]

    @property
    def seed(self) -> int:
        return self.work.study.seed + self.sample.seed

    @property
    def split(self) -> int:
        return SPLITS.index(self.sample.split)

    @cached_property
    def length(self) -> int:
        return self.work.study.length_of(self.sample)

    @cached_property
    def contexts(self) -> Contexts:
        work = self.work
        return work.shared(
            "contexts", lambda: read_contexts(work.frame("contexts"), work.shards, work.study.selection.window)
        )

    @cached_property
    def grid(self) -> Grid:
        stride = self.sample.stride or self.length
        return self.work.shared("grid", lambda: grid_of(self.contexts, self.length, stride, self.split))

    @cached_property
    def texts(self) -> Texts:
        work, has_bos = self.work, self.work.study.corpus.bos != "none"
        documents = work.frame("contexts", "documents")
        return work.shared(
            "texts",
            lambda: read_texts(self.contexts, work.frame("contexts"), documents, work.handles.subject, has_bos),
        )

    @cached_property
    def similar(self) -> Similar:
        work, name = self.work, self.sample.embedder
        assert name is not None
        return work.shared(
            "similar",
            lambda: Similar(
                self.grid, self.texts, work.handles.embedder(name), lambda share: work.progress.share(0.3 + 0.3 * share)
            ),
        )

    def firings(self, latents: np.ndarray) -> Firings:
        """Where some latents fire, in the sample's split."""
        kept = self.work.shared("kept", lambda: (self.contexts.split == self.split)[self.contexts.of])
        return read_firings(self.work.frame("activations"), self.contexts, latents, kept)

    def activating(self, firings: Firings) -> Activating:
        """The windows in which they fire."""
        if self.sample.alignment == "centred":
            return centred(firings, self.contexts, self.length, self.grid.stride, self.split)
        return on_grid(firings, self.grid)


def _negatives(place: _Place, firings: Firings, candidates: Candidates, drawn: np.ndarray) -> Negatives:
    """Windows in which the latents do not fire."""
    counts = place.sample.sources
    sources: dict[str, Source] = {}
    if counts:
        sources["random"] = negatives.Random(place.grid, firings, candidates.seeds, place.seed)
    if "token_matched" in counts:
        tokens = _strongest_tokens(place, firings, candidates.windows.only(drawn))
        sources["token_matched"] = negatives.with_tokens(place.grid, tokens, candidates.seeds, place.seed)
    if "similar" in counts:
        sources["similar"] = negatives.Nearest(_nearest(place, candidates.windows.only(drawn), len(firings.latents)))
    for name in counts:
        if name.endswith("neighbours"):
            sources[name] = _of_neighbours(place, firings.latents, candidates.seeds, name)
    return negatives.draw(sources, counts, firings, place.length)


def _strongest_tokens(place: _Place, firings: Firings, windows: Activating) -> np.ndarray:
    """The token on which a latent fires most strongly in each of its windows, int64 [rows, most windows], -1 for none."""
    at = windows.starts + firings.within(windows.rows, windows.starts, place.length).argmax(1)
    return _by_row(place.contexts.tokens[at].astype(np.int64), windows.rows, len(firings.latents))


def _nearest(place: _Place, windows: Activating, rows: int) -> np.ndarray:
    """The windows most similar to each of a latent's, int64 [rows, most windows, near], -1 for none."""
    return _by_row(place.similar.nearest(windows.starts), windows.rows, rows)


def _of_neighbours(place: _Place, latents: np.ndarray, seeds: np.ndarray, name: str) -> Source:
    """Windows in which the neighbours of one kind of some latents fire."""
    rank = name.removesuffix("_neighbours").replace("co_occurring", "co_occurrence") + "_rank"
    rows_of = place.work.frame("neighbours").filter(pl.col("latent").is_in(latents.tolist())).drop_nulls(rank)
    near = rows_of.select("latent", "neighbour", rank).sort("latent", rank).collect()
    every = np.unique(near["neighbour"].to_numpy()).astype(np.int64)
    windows = on_grid(place.firings(every), place.grid)
    rows = np.searchsorted(latents, near["latent"].to_numpy())
    lists = _by_row(np.searchsorted(every, near["neighbour"].to_numpy()), rows, len(latents))
    return negatives.of_neighbours(windows, lists, seeds, place.seed)


def _by_row(values: np.ndarray, rows: np.ndarray, n: int) -> np.ndarray:
    """Values, those of a row together, as a matrix with a line for each row, filled up with -1."""
    place = np.arange(len(rows)) - np.searchsorted(rows, rows)
    matrix = np.full((n, max(1, int(place.max(initial=0)) + 1), *values.shape[1:]), -1, dtype=np.int64)
    matrix[rows, place] = values
    return matrix


def _rows(place: _Place, firings: Firings, candidates: Candidates, drawn: np.ndarray, others: Negatives) -> pa.Table:
    """The rows of the table, of each latent the windows in which it does not fire first."""
    own = candidates.windows.only(drawn)
    names = [*SOURCES, place.sample.sampler]
    rows = np.concatenate([others.rows, own.rows])
    is_activating = np.repeat([False, True], [len(others.rows), len(own.rows)])
    order = np.argsort(rows * 2 + is_activating, kind="stable")
    ranks = np.arange(len(own.rows)) - np.searchsorted(own.rows, own.rows)
    instead = np.where(others.wanted == others.source, -1, others.wanted)
    none, sampler = np.full(len(own.rows), -1), np.full(len(own.rows), len(SOURCES))
    columns = {
        "rows": rows,
        "is_activating": is_activating,
        "ranks": np.concatenate([others.ranks, ranks]),
        "starts": np.concatenate([others.starts, own.starts]),
        "source": np.concatenate([others.source, sampler]),
        "in_place_of": np.concatenate([instead, none]),
        "deciles": np.concatenate([np.full(len(others.rows), -1), candidates.deciles[drawn]]),
    }
    parts = [TABLES["examples"].schema.empty_table()]
    for first in range(0, len(order), _SLICE):
        part = {name: column[order[first : first + _SLICE]] for name, column in columns.items()}
        parts.append(_described(place, firings, names, **part))
        work_done = (first + _SLICE) / len(order)
        place.work.progress.share(0.6 + 0.4 * min(1.0, work_done))
    return pa.concat_tables(parts)


def _described(
    place: _Place,
    firings: Firings,
    names: list[str],
    *,
    rows: np.ndarray,
    is_activating: np.ndarray,
    ranks: np.ndarray,
    starts: np.ndarray,
    source: np.ndarray,
    in_place_of: np.ndarray,
    deciles: np.ndarray,
) -> pa.Table:
    """Some rows of the table: what stands at the windows, and how they were drawn."""
    contexts, length = place.contexts, place.length
    context = contexts.of[starts]
    activations = np.zeros((len(rows), length), dtype=np.float32)
    activations[is_activating] = firings.within(rows[is_activating], starts[is_activating], length)
    common = place.work.stage.columns(place.work.values)
    columns = {
        **{name: pa.repeat(pa.scalar(value), len(rows)) for name, value in common.items()},
        "latent": firings.latents[rows],
        "rank": ranks,
        "is_activating": is_activating,
        "source": _named(names, source),
        "in_place_of": _named(names, in_place_of),
        "decile": pa.array(deciles, mask=deciles < 0),
        "shard": _named(contexts.shards, contexts.shard[context]),
        "context": contexts.index[context],
        "start": starts - contexts.start[context],
        "tokens": _lists(contexts.within(contexts.tokens, starts, length)),
        "activations": _lists(activations),
        "text": place.texts.windows(starts, length).to_arrow(),
        "offsets": _lists(place.texts.offsets(starts, length)),
    }
    schema = TABLES["examples"].schema
    return pa.table(columns).select(schema.names).cast(schema)


def _named(names: Sequence[str], indices: np.ndarray) -> pa.Array:
    """Names by number, null for -1."""
    return pa.array(names, pa.string()).take(pa.array(indices.astype(np.int32), mask=indices < 0))


def _lists(matrix: np.ndarray) -> pa.Array:
    """A matrix as a list a row."""
    rows, length = matrix.shape
    return pa.ListArray.from_arrays(np.arange(rows + 1, dtype=np.int32) * length, np.ascontiguousarray(matrix).ravel())
