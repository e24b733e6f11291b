"""Which latents of one dictionary are which of another, and how near: by what they write, by what they read, or by when they
fire."""

from typing import Any, NamedTuple

import numpy as np
import polars as pl

from latentlake.coders.nearest import Directions
from latentlake.measures.alignment import aligned, aligned_candidates
from latentlake.measures.cooccurrence import Fires, together
from latentlake.protocols import Coder
from latentlake.sections.comparisons import BETWEEN, Comparison
from latentlake.work import Tables, Work

_ROWS = 4096  # latents whose nearest are looked for at once
_NAMES = {
    "decoder": ("decoder_partner", "decoder_cosine"),
    "encoder": ("encoder_partner", "encoder_cosine"),
    "activations": ("activation_partner", "jaccard"),
}


class _Aligned(NamedTuple):
    """Of each latent its partner, -1 for none, and how near that is, NaN for none."""

    partner: np.ndarray
    similarity: np.ndarray


def compute(work: Work) -> Tables:
    """A row for each latent of the first dictionary of a pair."""
    choice = work.study.comparisons[work.stage.constants["comparison"]]
    pair = work.values["pair"].split(BETWEEN)
    known = dict(work.frame("dictionaries").select("dictionary", "width").collect().iter_rows())
    widths = [int(known[name]) for name in pair]
    found = _by_activations(work, choice, pair, widths) if choice.by == "activations" else _sides(work, choice, pair)
    who = {"dictionary": pair[0], "other": pair[1]}
    rows = _rows(found, widths[0], choice.shared).with_columns(
        **{name: pl.lit(value) for name, value in who.items()}, **work.columns(widths[0])
    )
    return {"alignments": rows}


def _sides(work: Work, choice: Comparison, pair: list[str]) -> dict[str, _Aligned | None]:
    """By decoder and by encoder; None where the directions of the two are of different spaces.

    Coders are let go of at once: of many dictionaries only two are held.
    """
    coders = [work.handles.coder(name) for name in pair]
    found: dict[str, _Aligned | None] = {}
    for number, side in enumerate(("decoder", "encoder")):
        one, other = (_directions(coder, side) for coder in coders)
        found[side] = _by_directions(one, other, choice) if one.width == other.width else None
        work.progress.share((number + 1) / 2)
    work.handles.free()
    return found


def _directions(coder: Coder, side: str) -> Directions:
    rows = coder.directions if side == "decoder" else coder.encoder_directions
    assert rows is not None  # the study compares no neurons so
    return Directions(rows, coder.device)


def _by_directions(one: Directions, other: Directions, choice: Comparison) -> _Aligned:
    if max(len(one), len(other)) <= choice.exact:
        partner = aligned(one.all_cosines(other))
    else:
        near = [one.nearest(own, choice.candidates, other) for own in _ranges(len(one))]
        row, column = _pairs(np.concatenate(near))
        cosine = one.cosines(row, column, other)
        partner = aligned_candidates(row, column, cosine, len(one), len(other), _least(choice))
    similarity = np.full(len(one), np.nan)
    row = np.flatnonzero(partner >= 0)
    similarity[row] = one.cosines(row, partner[row], other)
    return _Aligned(partner, similarity)


def _by_activations(work: Work, choice: Comparison, pair: list[str], widths: list[int]) -> dict[str, _Aligned | None]:
    one, other = (
        Fires(work.frame("activations").filter(dictionary=name), width)
        for name, width in zip(pair, widths, strict=True)
    )
    rows, columns, shares = [], [], []
    for own in _ranges(widths[0]):
        fires = together(work.shards, own, one, other)
        row, column = _pairs(fires.most(choice.candidates))
        rows.append(row + own.start)
        columns.append(column)
        shares.append(fires.jaccard(row, column))
        work.progress.share(own.stop / widths[0])
    row, column, jaccard = (np.concatenate(each) for each in (rows, columns, shares))
    partner = aligned_candidates(row, column, jaccard, widths[0], widths[1], _least(choice))
    similarity = np.full(widths[0], np.nan)
    is_pair = partner[row] == column
    similarity[row[is_pair]] = jaccard[is_pair]
    return {"activations": _Aligned(partner, similarity)}


def _least(choice: Comparison) -> float:
    if choice.least is not None:
        return choice.least
    return 0.1 if choice.by == "activations" else 0.5


def _ranges(width: int) -> list[range]:
    return [range(first, min(first + _ROWS, width)) for first in range(0, width, _ROWS)]


def _pairs(near: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Rows and columns of what is nearest to each row, -1 being none."""
    row, rank = np.nonzero(near >= 0)
    return row, near[row, rank]


def _rows(found: dict[str, _Aligned | None], width: int, shared: float) -> pl.DataFrame:
    """The alignments of each latent side by side, and whether they make it a shared one."""
    columns: dict[str, Any] = {"latent": np.arange(width, dtype=np.int32)}
    for side, (partner, similarity) in _NAMES.items():
        own = found.get(side)
        columns[partner] = None if own is None else pl.Series(own.partner, dtype=pl.Int32).replace(-1, None)
        columns[similarity] = None if own is None else pl.Series(own.similarity).fill_nan(None)
    rows = pl.DataFrame(columns)
    is_shared = pl.col("decoder_partner").eq(pl.col("encoder_partner")) & (
        pl.min_horizontal("decoder_cosine", "encoder_cosine") >= shared
    )
    is_known = all(found.get(side) is not None for side in ("decoder", "encoder"))
    return rows.with_columns(is_shared=is_shared.fill_null(False) if is_known else pl.lit(None, pl.Boolean))
