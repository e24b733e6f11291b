"""How well each dictionary's coder reconstructs."""

import dagster as dg

from assets.preview import rows_preview
from assets.stage import stage_asset
from latentlake.flow import Flow, Stage
from latentlake.stages import reconstructions as core


def reconstructions(flow: Flow, stage: Stage) -> dg.AssetsDefinition:
    """A coder's reconstruction, in numbers."""
    return stage_asset(
        flow,
        stage,
        core.compute,
        group="models",
        kinds={"pytorch"},
        description="How well coders reconstruct real activations: share of variance unexplained, latents that fire on a token, "
        "and how much worse the subject predicts with the reconstruction spliced in.",
        preview=rows_preview(
            "reconstructions", ["dictionary", "variance_unexplained", "l0", "cross_entropy", "cross_entropy_added"]
        ),
    )
