"""Statistics of every latent of a block, its triage, and whether it is chosen, or why not."""

from typing import Any

import numpy as np
import polars as pl

from latentlake.digest import mix, seed_of
from latentlake.protocols import Subject
from latentlake.study import Selection
from latentlake.study_corpus import SPLITS
from latentlake.windows import Firings, Windows, find_windows, read_firings
from latentlake.work import Tables, Work

BINS = 10  # of the histogram of activations
TOP_TOKENS = 10
DENSE = 0.1  # a latent that fires on more of the tokens than this is called dense
SINGLE = 0.9  # a latent with more of its activation mass than this on one token is called single-token


def compute(work: Work) -> Tables:
    """One row for each latent of a block, whether it ever fires or not."""
    width = int(work.frame("dictionaries").select("width").collect().item())
    first, last = block_range(work.block, work.study.blocks, width)
    windows = find_windows(work.frame("contexts"), work.shards, work.study.selection.window)
    firings = read_firings(work.frame("activations"), windows, pl.col("latent").is_between(first, last - 1))
    latents = np.arange(first, last)
    local = Firings(firings.latent - first, firings.position, firings.activation)
    counted = count_windows(local, windows, len(latents))
    frame = pl.DataFrame({"latent": latents.astype(np.int32), **_statistics(local, windows, len(latents))})
    frame = frame.with_columns(
        *(pl.Series(f"windows_{split}", counted[:, index]) for index, split in enumerate(SPLITS)),
        **_top_tokens(local, windows, len(latents), work.handles.subject()),
    )
    frame = _triage(frame, work.study.selection)
    chosen = _choose(frame, work, width)
    frame = frame.with_columns(is_chosen=chosen["is_chosen"], reason=chosen["reason"], **work.columns(len(frame)))
    return {"latents": frame}


def block_range(block: int, blocks: int, width: int) -> tuple[int, int]:
    """First latent of a block, and the first after it: the latents with ``latent * blocks // width == block``."""
    return -(-block * width // blocks), -(-(block + 1) * width // blocks)


def count_windows(firings: Firings, windows: Windows, n: int) -> np.ndarray:
    """Windows that count in which each latent fires, by split; int64 [n, splits]."""
    latent, window = _pairs(firings.latent, windows.of(firings.position))
    latent, window = latent[windows.counts[window]], window[windows.counts[window]]
    cell = latent * len(SPLITS) + windows.split[window]
    return np.bincount(cell, minlength=n * len(SPLITS)).reshape(n, len(SPLITS))


def _pairs(latent: np.ndarray, place: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Each (latent, place) that occurs, once; places are windows or contexts."""
    base = int(place.max(initial=0)) + 1
    pairs = np.unique(latent * base + place)
    return pairs // base, pairs % base


def _statistics(firings: Firings, windows: Windows, n: int) -> dict[str, Any]:
    """Counts, density, maximum and histogram of each of n latents."""
    n_tokens = np.bincount(firings.latent, minlength=n)
    in_context, _ = _pairs(firings.latent, windows.contexts_of(firings.position))
    maximum = np.zeros(n, dtype=np.float32)
    np.maximum.at(maximum, firings.latent, firings.activation)
    bins = np.minimum((firings.activation / maximum[firings.latent] * BINS).astype(np.int64), BINS - 1)
    histogram = np.bincount(firings.latent * BINS + bins, minlength=n * BINS).reshape(n, BINS)
    tokens = max(1, int((~windows.is_excluded).sum()))
    return {
        "n_tokens": n_tokens,
        "n_contexts": np.bincount(in_context, minlength=n),
        "density": n_tokens / tokens,
        "max_activation": maximum,
        "histogram": pl.Series(histogram.tolist(), dtype=pl.List(pl.Int64)),
    }


def _top_tokens(firings: Firings, windows: Windows, n: int, subject: Subject) -> dict[str, Any]:
    """The tokens with most activation mass of each latent, in the split that explainers see and no other; and all mass.

    Taken over all splits, or over repeats of windows whose place is in another, they would carry what the scored windows
    hold into the explanation.
    """
    window = windows.of(firings.position)
    seen = (windows.split[window] == SPLITS.index("explain")) & (windows.counts | ~windows.is_whole)[window]
    token = windows.tokens[firings.position[seen]].astype(np.int64)
    vocabulary = int(windows.tokens.max(initial=0)) + 1
    pair, inverse, count = np.unique(firings.latent[seen] * vocabulary + token, return_inverse=True, return_counts=True)
    mass = np.bincount(inverse, weights=firings.activation[seen], minlength=len(pair))
    order = np.lexsort((pair, -mass, pair // vocabulary))
    latent = pair[order] // vocabulary
    rank = np.arange(len(order)) - np.searchsorted(latent, latent)
    order = order[rank < TOP_TOKENS]
    tokens = pair[order] % vocabulary
    texts = dict(
        zip(unique := np.unique(tokens).tolist(), subject.detokenize([[each] for each in unique]), strict=True)
    )
    top: list[list[dict[str, Any]]] = [[] for _ in range(n)]
    for place, token_id in zip(order.tolist(), tokens.tolist(), strict=True):
        entry = {"token": token_id, "text": texts[token_id], "count": int(count[place]), "mass": float(mass[place])}
        top[int(pair[place]) // vocabulary].append(entry)
    fields = {"token": pl.Int32, "text": pl.String, "count": pl.Int64, "mass": pl.Float64}
    total = np.bincount(firings.latent[seen], weights=firings.activation[seen], minlength=n)
    return {"top_tokens": pl.Series(top, dtype=pl.List(pl.Struct(fields))), "mass": total}


def _triage(frame: pl.DataFrame, selection: Selection) -> pl.DataFrame:
    """Add ``triage``, and ``lack``: which windows a latent lacks."""
    lacks = [
        pl.when(pl.col(f"windows_{split}") < n).then(
            pl.format("{} of {} windows in the split " + split, pl.col(f"windows_{split}"), pl.lit(n))
        )
        for split, n in selection.min_windows.items()
    ]
    first = pl.col("top_tokens").list.first().struct.field("mass").fill_null(0)
    is_single = first > SINGLE * pl.col("mass")
    return frame.with_columns(lack=pl.coalesce([*lacks, pl.lit(None, dtype=pl.String)])).with_columns(
        triage=pl.when(pl.col("n_tokens") == 0)
        .then(pl.lit("dead"))
        .when(pl.col("lack").is_not_null())
        .then(pl.lit("rare"))
        .when(pl.col("density") > DENSE)
        .then(pl.lit("dense"))
        .when(is_single)
        .then(pl.lit("single_token"))
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
        wanted = _draw(frame["latent"], is_able, _share(selection["n"], work), work.study.seed)
        why = "not drawn"
    else:
        wanted = pl.Series([True] * len(frame), dtype=pl.Boolean)
        why = ""
    lack = pl.when(pl.col("triage") == "dead").then(pl.lit("never fires")).otherwise(pl.col("lack"))
    return frame.select(
        is_chosen=is_able & wanted,
        reason=pl.when(is_able & wanted).then(None).otherwise(pl.coalesce(lack, pl.lit(why))),
    )


def _share(n: int, work: Work) -> int:
    """How many of the study's n latents fall to this block."""
    return (work.block + 1) * n // work.study.blocks - work.block * n // work.study.blocks


def _draw(latents: pl.Series, is_able: pl.Series, n: int, seed: int) -> pl.Series:
    """The n latents of smallest hash among those that can be explained."""
    hashes = mix(latents.to_numpy().astype(np.uint64), seed_of("choose", seed))
    able = np.flatnonzero(is_able.to_numpy())
    drawn = np.zeros(len(latents), dtype=bool)
    drawn[able[np.argsort(hashes[able], kind="stable")[:n]]] = True
    return pl.Series(drawn)
