"""Explanations as vectors, by explainer."""

import dagster as dg
import polars as pl

from assets.preview import Frame, table_of
from assets.stage import Preview, stage_asset
from latentlake.flow import Flow, Stage
from latentlake.stages import embeddings as core
from latentlake.work import each

_LATENTS, _NUMBERS = 12, 4


def embeddings(flow: Flow, stage: Stage) -> dg.AssetsDefinition:
    """What the explanations of one explainer mean, as vectors."""
    search, explainer = flow.study.search, stage.constants["explainer"]
    assert search is not None
    return stage_asset(
        flow,
        stage,
        each(core.compute),
        group="explanations",
        kinds={"huggingface"},
        description=f"The explanations of `{explainer}` as vectors of unit length, made by `{search.embedder}`: `latentlake "
        "search --meaning` looks among them.",
        preview=_preview(explainer),
    )


def _preview(explainer: str) -> Preview:
    """Explanations beside the first numbers of their vectors."""

    def preview(frame: Frame) -> str:
        first = pl.col("vector").list.head(_NUMBERS).list.eval(pl.element().round(3).cast(pl.String)).list.join(", ")
        vectors = frame("embeddings").select("latent", first, numbers=pl.col("vector").list.len())
        said = frame(f"explanations/{explainer}").select("latent", "explanation")
        return table_of(said.join(vectors, on="latent").sort("latent").head(_LATENTS).collect())

    return preview
