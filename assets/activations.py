"""Activations of every dictionary on every shard."""

import dagster as dg

from assets.preview import rows_preview
from assets.stage import stage_asset
from latentlake.flow import Flow, Stage
from latentlake.stages import activations as core


def activations(flow: Flow, stage: Stage) -> dg.AssetsDefinition:
    """Where latents fire."""
    return stage_asset(
        flow,
        stage,
        core.compute,
        group="corpus",
        kinds={"pytorch"},
        description="Sparse activations, sorted by latent and position. One forward pass over a shard, stopped at the "
        "deepest hookpoint, serves every dictionary that lacks it.",
        preview=rows_preview("activations", ["latent", "position", "activation"]),
    )
