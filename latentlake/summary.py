"""What came out of a study, as text: latents, their explanations and scores beside the controls, and the means."""

import polars as pl

from latentlake.aggregates import aggregates, whose
from latentlake.console import as_text, two_digits, with_interval
from latentlake.scorers import SHUFFLED
from latentlake.view import View


def summarize(view: View) -> str:
    """Two tables: AUROC of each latent and explanation, and the means with 95 % intervals over latents."""
    scores = view.scores.filter(pl.col("metric") == "auroc").collect()
    explanations = view.explanations.select("explainer", "dictionary", "latent", "explanation", "error").collect()
    if explanations.is_empty():
        return "No latent has enough windows to be explained; see the columns triage and reason of the table latents."
    return "\n".join(
        [
            "AUROC of each latent's explanation; in brackets with another latent's explanation, the control",
            as_text(by_latent(scores, explanations)),
            "",
            "mean AUROC over latents; what the latents' own explanations have over the controls; with 95 % intervals",
            as_text(means(view)),
        ]
    )


def by_latent(scores: pl.DataFrame, explanations: pl.DataFrame) -> pl.DataFrame:
    """A row a latent and explainer, a column a scorer: the score, and in brackets the control's."""
    keys = ["dictionary", "latent", "explainer"]
    own, control = scores.filter(pl.col("control").is_null()), scores.filter(control=SHUFFLED)
    both = own.join(control, on=[*keys, "scorer"], how="left", suffix="_control").with_columns(
        shown=pl.format("{} ({})", *(two_digits(name).fill_null("–") for name in ("value", "value_control")))
    )
    wide = both.sort("scorer").pivot("scorer", index=keys, values="shown")
    said = explanations.with_columns(explanation=pl.coalesce("explanation", pl.format("none: {}", "error"))).drop(
        "error"
    )
    table = (
        said.join(wide, on=keys, how="left").sort(keys).select(*keys, "explanation", pl.exclude(*keys, "explanation"))
    )
    return table.with_columns(pl.exclude(*keys).fill_null(""))


def means(view: View) -> pl.DataFrame:
    """A row a dictionary, explainer, scorer and control: mean AUROC over latents, and how far the latents' own lies above it,
    paired over latents, each with its 95 % interval."""
    return aggregates(view, metric="auroc").select(
        "dictionary",
        "explainer",
        "scorer",
        whose(),
        with_interval("mean", "low", "high"),
        pl.col("latents"),
        with_interval("difference", "difference_low", "difference_high").fill_null("").alias("own less it"),
        pl.col("failed"),
    )
