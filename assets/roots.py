"""What the study names outside the lake: the subject, other models, dictionaries, and which latents are wanted."""

import dagster as dg

from assets.preview import rows_preview
from assets.stage import stage_asset
from latentlake.flow import Flow, Stage
from latentlake.stages import roots
from latentlake.work import each


def subject(flow: Flow, stage: Stage) -> dg.AssetsDefinition:
    """The language model that is interpreted."""
    return stage_asset(
        flow,
        stage,
        each(roots.subject),
        group="models",
        kinds={"huggingface"},
        description="The language model that is interpreted, with the digest of its files.",
        preview=rows_preview("subject", ["reference", "revision", "dtype"]),
    )


def llms(flow: Flow, stage: Stage) -> dg.AssetsDefinition:
    """Explainers, judges and embedders."""
    return stage_asset(
        flow,
        stage,
        each(roots.llms),
        group="models",
        kinds={"huggingface"},
        description="The models that explain, judge and embed, with the digests of their files.",
        preview=rows_preview("llms", ["llm", "reference", "revision", "engine"]),
    )


def dictionaries(flow: Flow, stage: Stage) -> dg.AssetsDefinition:
    """Sparse coders."""
    return stage_asset(
        flow,
        stage,
        each(roots.dictionaries),
        group="models",
        kinds={"huggingface"},
        description="Sparse coders and the hookpoints they read, verified against the subject.",
        preview=rows_preview(
            "dictionaries", ["dictionary", "hookpoint", "kind", "family", "control", "format", "width", "d_in", "k"]
        ),
    )


def selections(flow: Flow, stage: Stage) -> dg.AssetsDefinition:
    """Which latents are asked about."""
    return stage_asset(
        flow,
        stage,
        each(roots.selections),
        group="models",
        kinds={"yaml"},
        description="Which latents of each dictionary are to be explained. Apart from `dictionaries`, so that choosing "
        "more latents computes no activation anew.",
        preview=rows_preview("selections", ["dictionary", "choose", "n"]),
    )
