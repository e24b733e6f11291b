"""Statistics of every latent of a block, its triage, and whether it is chosen, or why not."""

from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa

from latentlake.digest import mix, seed_of
from latentlake.protocols import Subject
from latentlake.sampling import kernels
from latentlake.sampling.contexts import Contexts, Grid, grid_of, read_contexts
from latentlake.sampling.firings import Firings, on_grid, read_firings
from latentlake.sampling.texts import token_texts
from latentlake.sections.corpus import SPLITS
from latentlake.sections.latents import Selection
from latentlake.work import Tables, Work, block_range

BINS = 10  # of the histogram of activations
TOP_TOKENS = 10
DENSE = 0.1  # a latent that fires on more of the tokens than this is called dense
SINGLE = 0.9  # a latent with more of its activation mass than this on one token is called single-token
POSITION = 0.5  # a latent with more of it than this at one position of its contexts is called position-bound


def compute(work: Work) -> Tables:
    """One row for each latent of a block, whether it ever fires or not."""
    width = int(work.frame("dictionaries").select("width").collect().item())
    own = block_range(work.block, work.study.blocks, width)
    window = work.study.selection.window
    contexts = work.shared("contexts", lambda: read_contexts(work.frame("contexts"), work.shards, window))
    grid = work.shared("grid", lambda: grid_of(contexts, window, window))
    firings = read_firings(work.frame("activations"), contexts, np.arange(own.start, own.stop))
    work.progress.share(0.3)
    counted = count_windows(firings, grid)
    frame = pl.DataFrame({"latent": firings.latents.astype(np.int32), **_statistics(firings, contexts)})
    frame = frame.with_columns(
        *(pl.Series(f"windows_{split}", counted[:, index]) for index, split in enumerate(SPLITS)),
        **_tokens(firings, grid, work.handles.subject()),
    )
    work.progress.share(0.9)
    frame = _triage(frame, work.study.selection)
    chosen = _choose(frame, work, width)
    frame = frame.with_columns(is_chosen=chosen["is_chosen"], reason=chosen["reason"], **work.columns(len(frame)))
    return {"latents": frame}


def count_windows(firings: Firings, grid: Grid) -> np.ndarray:
    """Windows that count in which each latent fires, by split; int64 [latents, splits]."""
    windows = on_grid(firings, grid)
    split = grid.contexts.split[grid.contexts.of[windows.starts]]
    cell, n = windows.rows.astype(np.int64) * len(SPLITS) + split, len(firings.latents)
    return np.bincount(cell, minlength=n * len(SPLITS)).reshape(n, len(SPLITS))


def _statistics(firings: Firings, contexts: Contexts) -> dict[str, Any]:
    """Counts, rates, maximum, histogram, and how far a latent is bound to one position of its contexts."""
    rows, n = firings.rows, len(firings.latents)
    n_tokens, context = np.diff(firings.bounds), contexts.of[firings.positions]
    is_new = np.ones(len(rows), dtype=bool)
    is_new[1:] = (rows[1:] != rows[:-1]) | (context[1:] != context[:-1])
    n_contexts = np.bincount(rows[is_new], minlength=n)
    maximum = np.zeros(n, dtype=np.float32)
    fires = np.flatnonzero(n_tokens)
    if len(fires):
        maximum[fires] = np.maximum.reduceat(firings.activations, firings.bounds[fires])
    bins = np.minimum((firings.activations / maximum[rows] * BINS).astype(np.int64), BINS - 1)
    histogram = np.bincount(rows.astype(np.int64) * BINS + bins, minlength=n * BINS).reshape(n, BINS)
    return {
        "n_tokens": n_tokens,
        "n_contexts": n_contexts,
        "density": n_tokens / max(1, int((~contexts.is_excluded).sum())),
        "context_density": n_contexts / max(1, len(contexts.index)),
        "max_activation": maximum,
        "histogram": pl.Series(histogram.tolist(), dtype=pl.List(pl.Int64)),
        "position_share": _position_share(firings, contexts),
    }


def _position_share(firings: Firings, contexts: Contexts) -> pl.Series:
    """Largest share of its activation mass that a latent has at one position of its contexts; null where it never fires."""
    place = firings.positions - contexts.start[contexts.of[firings.positions]]
    length = int(place.max(initial=0)) + 1
    cell, n = firings.rows.astype(np.int64) * length + place, len(firings.latents)
    mass = np.bincount(cell, weights=firings.activations, minlength=n * length).reshape(n, length)
    return _share(mass.max(axis=1), mass.sum(axis=1))


def _tokens(firings: Firings, grid: Grid, subject: Subject) -> dict[str, Any]:
    """The tokens with most activation mass where a latent fires, before it and after it, in the split that explainers see and
    no other; and the share of the mass on the first of them.

    Taken over all splits, or over texts that have their place in another, they would carry what the scored windows hold into
    the explanation.
    """
    contexts = grid.contexts
    is_seen = (contexts.split == SPLITS.index("explain"))[contexts.of[firings.positions]]
    seen = np.flatnonzero(is_seen)
    of_window = grid.of[0][firings.positions[seen]] >= 0
    seen = seen[of_window | ~contexts.is_repeated(firings.positions[seen])]
    rows, positions, activations = firings.rows[seen], firings.positions[seen], firings.activations[seen]
    found = {}
    for name, step in (("tokens_before", -1), ("top_tokens", 0), ("tokens_after", 1)):
        near = np.clip(positions + step, 0, contexts.size - 1)
        is_there = (near == positions + step) & (contexts.of[near] == contexts.of[positions])
        kept = np.flatnonzero(is_there & ~contexts.is_excluded[near])
        bounds = np.searchsorted(rows[kept], np.arange(len(firings.latents) + 1))
        tokens = contexts.tokens[near[kept]].astype(np.uint64)
        found[name] = kernels.heaviest(bounds, tokens, activations[kept], TOP_TOKENS)
    every = np.unique(np.concatenate([token.ravel() for token, _, _ in found.values()]))
    texts = token_texts(subject, every[every >= 0].tolist())
    total = np.bincount(rows, weights=activations, minlength=len(firings.latents))
    return {
        **{name: pl.Series(name, _lists(*each, texts)) for name, each in found.items()},
        "token_share": _share(found["top_tokens"][2][:, 0], total),
    }


def _lists(token: np.ndarray, count: np.ndarray, mass: np.ndarray, texts: dict[int, str]) -> pa.Array:
    """A list of tokens with their texts for each latent. All [latents, tokens]; token -1 for none."""
    is_there = token >= 0
    values = {
        "token": pa.array(token[is_there].astype(np.int32)),
        "text": pa.array([texts[each] for each in token[is_there].tolist()], pa.string()),
        "count": pa.array(count[is_there]),
        "mass": pa.array(mass[is_there]),
    }
    bounds = np.concatenate([[0], np.cumsum(is_there.sum(axis=1))]).astype(np.int32)
    return pa.ListArray.from_arrays(bounds, pa.StructArray.from_arrays(list(values.values()), names=list(values)))


def _share(part: np.ndarray, whole: np.ndarray) -> pl.Series:
    """Part of a whole, null where there is none."""
    return pl.Series(np.divide(part, whole, out=np.full(len(whole), np.nan), where=whole > 0)).fill_nan(None)


def _triage(frame: pl.DataFrame, selection: Selection) -> pl.DataFrame:
    """Add ``triage``, and ``lack``: which windows a latent lacks."""
    lacks = [
        pl.when(pl.col(f"windows_{split}") < n).then(
            pl.format("{} of {} windows in the split " + split, pl.col(f"windows_{split}"), pl.lit(n))
        )
        for split, n in selection.min_windows.items()
    ]
    return frame.with_columns(lack=pl.coalesce([*lacks, pl.lit(None, dtype=pl.String)])).with_columns(
        triage=pl.when(pl.col("n_tokens") == 0)
        .then(pl.lit("dead"))
        .when(pl.col("lack").is_not_null())
        .then(pl.lit("rare"))
        .when(pl.col("density") > DENSE)
        .then(pl.lit("dense"))
        .when(pl.col("token_share") > SINGLE)
        .then(pl.lit("single_token"))
        .when(pl.col("position_share") > POSITION)
        .then(pl.lit("position_bound"))
        .otherwise(pl.lit("ok"))
    )


def _choose(frame: pl.DataFrame, work: Work, width: int) -> pl.DataFrame:
    """Which latents are explained: a filter within the block, so that choosing more moves nothing."""
    selection = work.frame("selections").collect().row(0, named=True)
    is_able = ~frame["triage"].is_in(["dead", "rare"])
    if selection["choose"] == "list":
        wanted = frame["latent"].is_in(selection["latents"])
        why = "not in the study's list"
    elif selection["choose"] == "n":
        wanted = _draw(frame["latent"], is_able, _part(selection["n"], work), work.study.seed)
        why = "not drawn"
    else:
        wanted = pl.Series([True] * len(frame), dtype=pl.Boolean)
        why = ""
    lack = pl.when(pl.col("triage") == "dead").then(pl.lit("never fires")).otherwise(pl.col("lack"))
    return frame.select(
        is_chosen=is_able & wanted,
        reason=pl.when(is_able & wanted).then(None).otherwise(pl.coalesce(lack, pl.lit(why))),
    )


def _part(n: int, work: Work) -> int:
    """How many of the study's n latents fall to this block."""
    return (work.block + 1) * n // work.study.blocks - work.block * n // work.study.blocks


def _draw(latents: pl.Series, is_able: pl.Series, n: int, seed: int) -> pl.Series:
    """The n latents of smallest hash among those that can be explained."""
    hashes = mix(latents.to_numpy().astype(np.uint64), seed_of("choose", seed))
    able = np.flatnonzero(is_able.to_numpy())
    drawn = np.zeros(len(latents), dtype=bool)
    drawn[able[np.argsort(hashes[able], kind="stable")[:n]]] = True
    return pl.Series(drawn)
