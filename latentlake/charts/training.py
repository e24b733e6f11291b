"""How the training of a coder went."""

from __future__ import annotations

from typing import TYPE_CHECKING

import polars as pl

from latentlake.charts.drawing import beside, chart_of

if TYPE_CHECKING:
    import altair as alt

_MOST_STEPS = 500  # of a loss curve, which is no wider in pixels


def picture(steps: pl.DataFrame) -> alt.HConcatChart:
    """Rows of `trainings`: share of variance that each step left unexplained, and latents that counted as dead; of many steps,
    means over neighbours."""
    import altair as alt

    size = -(-steps.height // _MOST_STEPS)
    together = (pl.int_range(pl.len()) // max(1, size)).alias("group")
    thinned = steps.sort("step").group_by(together, maintain_order=True).agg(pl.all().exclude("dictionary").mean())
    lines = chart_of(thinned).mark_line(strokeWidth=1)
    x = alt.X("tokens:Q", title="tokens seen")
    unexplained = alt.Y("variance_unexplained:Q", title="share of variance unexplained", scale=alt.Scale(domainMin=0))
    return beside(lines.encode(x, unexplained), lines.encode(x, alt.Y("dead:Q", title="dead latents")))
