"""What alignments come to: how near the latents of two dictionaries are, and how alike what explainers say of those that are
aligned."""

from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import polars as pl

from latentlake.digest import seed_of
from latentlake.measures.likeness import Vectors, likeness, vectors_of
from latentlake.measures.metrics import mean_interval
from latentlake.sections.comparisons import BETWEEN
from latentlake.tables import TABLES
from latentlake.work import Tables, Work

_NONE = {"is_exact": False, "pairs": 0, "similar": 0, "share": 0.0, "similar_firing": 0, "error": "other_space"}
_IS_BOTH = pl.col("decoder_partner") == pl.col("encoder_partner")
# partner and similarity, by each way of aligning
_WAYS: dict[str, tuple[str | pl.Expr, str | pl.Expr]] = {
    "decoder": ("decoder_partner", "decoder_cosine"),
    "encoder": ("encoder_partner", "encoder_cosine"),
    "both": (
        pl.when(_IS_BOTH).then("decoder_partner").alias("partner"),
        pl.min_horizontal("decoder_cosine", "encoder_cosine"),
    ),
    "activations": ("activation_partner", "jaccard"),
}
_WIDTHS: dict[str, tuple[str, ...]] = {
    "decoder": ("d_out",),
    "encoder": ("d_in",),
    "both": ("d_out", "d_in"),
    "activations": (),
}


class _Aligned(NamedTuple):
    """Latents that have a partner, these, and how near they are."""

    latent: np.ndarray
    partner: np.ndarray
    similarity: np.ndarray


def compute(work: Work) -> Tables:
    """A row for each pair of dictionaries and way of aligning them, and of these one each explainer.

    Explanations of two dictionaries are held at a time; pairs come in the order of their first.
    """
    name = work.stage.constants["comparison"]
    choice, pairs, explainers = work.study.comparisons[name], work.study.pairs(name), sorted(work.study.compared(name))
    known = {row["dictionary"]: row for row in work.frame("dictionaries").collect().iter_rows(named=True)}
    fires = lru_cache(maxsize=2)(lambda dictionary: _fires(work.frame("latents").filter(dictionary=dictionary)))
    vectors = lru_cache(maxsize=2 * len(explainers))(
        lambda explainer, dictionary: vectors_of(work.frame(f"embeddings/{explainer}").filter(dictionary=dictionary))
    )
    sums, alike = [], []
    for number, pair in enumerate(pairs):
        one, other = pair.split(BETWEEN)
        rows = work.frame(f"alignments/{name}").filter(pair=pair).sort("latent").collect()
        for by in ("activations",) if choice.by == "activations" else ("decoder", "encoder", "both"):
            place = {"comparison": name, "pair": pair, "dictionary": one, "other": other, "by": by}
            widths = known[one]["width"], known[other]["width"]
            size = {"latents": widths[0], "other_latents": widths[1]}
            if any(known[one][each] != known[other][each] for each in _WIDTHS[by]):
                sums.append({**place, **size, **_NONE})
                continue
            aligned = _Aligned(*(each.to_numpy() for each in rows.select("latent", *_WAYS[by]).drop_nulls()))
            is_exact = choice.by == "directions" and max(widths) <= choice.exact
            nearness = _nearness(aligned, fires(one), fires(other), choice.shared)
            sums.append({**place, **size, "is_exact": is_exact, **nearness})
            seed = seed_of("exchange", work.study.seed, pair)
            for explainer in explainers:
                figures = _alike(aligned, vectors(explainer, one), vectors(explainer, other), seed)
                alike.append({**place, "explainer": explainer, **figures})
        work.progress.share((number + 1) / len(pairs))
    return {"comparisons": _typed(sums, "comparisons"), "similarities": _typed(alike, "similarities")}


def _fires(latents: pl.LazyFrame) -> np.ndarray:
    """Of each latent of a dictionary whether it fires anywhere."""
    fires: np.ndarray = latents.sort("latent").select(pl.col("n_tokens") > 0).collect().to_series().to_numpy()
    return fires


def _nearness(aligned: _Aligned, fires: np.ndarray, others_fire: np.ndarray, shared: float) -> dict[str, Any]:
    """How near latents are to their partners, and how many near enough."""
    mean, low, high = mean_interval(aligned.similarity)
    is_similar = aligned.similarity >= shared
    similar, least = int(is_similar.sum()), min(fires.sum(), others_fire.sum())
    firing = int((is_similar & fires[aligned.latent] & others_fire[aligned.partner]).sum())
    return {
        "pairs": len(is_similar),
        "mean": mean,
        "low": low,
        "high": high,
        "median": float(np.median(aligned.similarity)) if len(is_similar) else None,
        "similar": similar,
        "share": similar / min(len(fires), len(others_fire)),
        "similar_firing": firing,
        "share_firing": firing / least if least else None,
    }


def _alike(aligned: _Aligned, one: Vectors, other: Vectors, seed: np.uint64) -> dict[str, Any]:
    """How alike explanations of latents and of their partners are, of those that both have one."""
    is_explained = np.isin(aligned.latent, one.latents) & np.isin(aligned.partner, other.latents)
    return likeness(one, other, aligned.latent[is_explained], aligned.partner[is_explained], seed)


def _typed(rows: list[dict[str, Any]], table: str) -> pl.DataFrame:
    """Rows of a table; means of nothing are null."""
    return pl.DataFrame(rows, schema=TABLES[table].empty().schema).with_columns(pl.selectors.float().fill_nan(None))
