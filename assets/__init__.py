"""What exists: one thin module a stage, in the order of the flow.

What belongs here: which function of the core computes a stage, and what an asset shows (partitions, metadata, previews).
What does not: loops over rows, reading or writing tables, and choices between methods by name.
"""

import dagster as dg

from assets import (
    activations,
    agreements,
    alignments,
    coder,
    comparisons,
    contexts,
    continuations,
    embeddings,
    examples,
    explanations,
    latents,
    logits,
    neighbours,
    plan,
    reconstructions,
    report,
    roots,
    scores,
    strengths,
    token_changes,
)
from assets.links import sources, with_metadata
from latentlake.flow import Flow


def build_assets(flow: Flow) -> list[dg.AssetsDefinition]:
    """The assets of a study, one for each stage of its flow, and the plan."""
    makers = {
        "subject": roots.subject,
        "llms": roots.llms,
        "coder": coder.coder,
        "dictionaries": roots.dictionaries,
        "reconstructions": reconstructions.reconstructions,
        "selections": roots.selections,
        "contexts": contexts.contexts,
        "activations": activations.activations,
        "neighbours": neighbours.neighbours,
        "latents": latents.latents,
        "logits": logits.logits,
        "examples": examples.examples,
        "strengths": strengths.strengths,
        "token_changes": token_changes.token_changes,
        "continuations": continuations.continuations,
        "explanations": explanations.explanations,
        "embeddings": embeddings.embeddings,
        "alignments": alignments.alignments,
        "comparisons": comparisons.comparisons,
        "scores": scores.scores,
        "agreements": agreements.agreements,
        "report": report.report,
    }
    linked = [
        with_metadata(makers[stage.kind](flow, stage), sources(flow, stage, makers[stage.kind]))
        for stage in flow.stages.values()
    ]
    return [*linked, plan.plan(flow)]
