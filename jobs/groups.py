"""Which assets go together: the jobs that the run entry takes by name, and the UI as far as Dagster lets it."""

import dagster as dg
from dagster._core.definitions.unresolved_asset_job_definition import UnresolvedAssetJobDefinition

from assets.events import asset_key
from latentlake.flow import Flow, Stage

_OF_ALL_BLOCKS = "agreements"
# name → what it does, kinds of stages (None: all)
JOBS: dict[str, tuple[str, tuple[str, ...] | None]] = {
    "everything": ("The whole flow.", None),
    "dictionaries": (
        "Coders verified or trained, and how well they reconstruct: to be looked at before anything is made of them.",
        ("subject", "contexts", "coder", "dictionaries", "reconstructions"),
    ),
    "data": (
        "Models, corpus, activations, latents and examples: all that needs no language model but the subject.",
        (
            *("subject", "llms", "selections", "contexts", "coder", "dictionaries", "reconstructions"),
            *("activations", "neighbours", "latents", "logits", "examples"),
            *("strengths", "token_changes", "continuations"),
        ),
    ),
    "compare": ("Dictionaries held against one another.", ("alignments", "comparisons")),
    "explain": ("Explanations of the chosen latents, and their vectors.", ("explanations", "embeddings")),
    "rescore": (
        "Judgements and scores of the explanations there are, and how far scorers agree.",
        ("scores", _OF_ALL_BLOCKS),
    ),
    "report": ("The report, as one HTML file, of a study of which all else is there.", ("report",)),
}


def stages_of(flow: Flow, job: str) -> list[Stage]:
    """The stages of a job, in the order of the flow."""
    kinds = JOBS[job][1]
    return [stage for stage in flow.stages.values() if kinds is None or stage.kind in kinds]


def asset_jobs(flow: Flow) -> dict[str, UnresolvedAssetJobDefinition]:
    """The jobs in the UI, by name. Dagster has them only of assets that are partitioned alike, and none that is called like an
    asset; the others are for the run entry, and in the UI assets of all kinds are materialized from the graph.
    """
    selected = {name: _by_blocks(flow, name) for name in JOBS}
    return {
        name: dg.define_asset_job(name, _selection(stages), description=JOBS[name][0])
        for name, stages in selected.items()
        if len({stage.dimensions for stage in stages}) == 1 and name not in flow.stages
    }


def _by_blocks(flow: Flow, job: str) -> list[Stage]:
    """The stages of a job without the one that has what all blocks came to: beside the others it would keep them from being a
    job in the UI."""
    return [stage for stage in stages_of(flow, job) if stage.kind != _OF_ALL_BLOCKS]


def _selection(stages: list[Stage]) -> dg.AssetSelection:
    return dg.AssetSelection.assets(*(asset_key(stage.name) for stage in stages))
