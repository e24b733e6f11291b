"""How far the scorers of a dictionary agree over its latents."""

import polars as pl

from latentlake.measures.agreement import agreements
from latentlake.work import Tables, Work


def compute(work: Work) -> Tables:
    """A row for each explainer and two scorers, over the latents of all blocks."""
    scores = pl.concat([work.frame(source.stage) for source in work.stage.inputs])
    return {"agreements": agreements(scores, {name: each.metrics[0] for name, each in work.study.scorers.items()})}
