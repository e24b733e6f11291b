"""What came out of a study, as text: latents, their explanations and scores beside the controls, and the means."""

import polars as pl

from latentlake.console import as_text, two_digits, with_interval
from latentlake.measures.aggregates import MAIN, aggregates, is_main, judged, main_metrics
from latentlake.reading.view import View
from latentlake.scorers import NONE, SHUFFLED


def summarize(view: View) -> str:
    """Two tables: the main score of each latent and explanation, and the means with 95 % intervals over latents."""
    scores = view.scores.filter(is_main(view)).collect()
    explanations = view.explanations.select("explainer", "dictionary", "latent", "explanation", "error").collect()
    if explanations.is_empty() and scores.is_empty():
        return "No latent has enough windows to be explained; see the columns triage and reason of the table latents."
    return "\n".join(
        [
            f"{_named(view)} of each latent's explanation; in brackets with another latent's explanation, the control",
            as_text(by_latent(scores, explanations)),
            "",
            f"mean {_named(view)} over latents; what the latents' own explanations have over the controls; with 95 % intervals",
            as_text(means(view)),
        ]
    )


def _named(view: View) -> str:
    """What the scores are, where they are the same."""
    return "AUROC" if set(main_metrics(view).values()) == {"auroc"} else "score"


def by_latent(scores: pl.DataFrame, explanations: pl.DataFrame) -> pl.DataFrame:
    """A row a latent and explainer, a column a scorer: the score, and in brackets the control's, where it has one. What a scorer
    says of a latent by no explanation stands in a row of its own, of the explainer `none`.
    """
    keys = ["dictionary", "latent", "explainer"]
    own, control = scores.filter(pl.col("control").is_null()), scores.filter(control=SHUFFLED)
    value, other = (two_digits(name).fill_null("–") for name in ("value", "value_control"))
    both = own.join(control, on=[*keys, "scorer"], how="left", suffix="_control").with_columns(
        shown=pl.when(pl.col("n_control").is_null()).then(value).otherwise(pl.format("{} ({})", value, other))
    )
    wide = both.sort("scorer").pivot("scorer", index=keys, values="shown")
    said = explanations.with_columns(explanation=pl.coalesce("explanation", pl.format("none: {}", "error"))).drop(
        "error"
    )
    unsaid = own.filter(explainer=NONE).select(keys).unique()
    table = pl.concat([said, unsaid], how="diagonal").join(wide, on=keys, how="left").sort(keys)
    return table.select(*keys, "explanation", pl.exclude(*keys, "explanation")).with_columns(
        pl.exclude(*keys).fill_null("")
    )


def means(view: View) -> pl.DataFrame:
    """A row a dictionary, explainer, scorer and control: mean score over latents, and how far the latents' own lies above it,
    paired over latents, each with its 95 % interval; with the metrics, where there are several."""
    found = aggregates(view, metric=MAIN)
    return found.select(
        "dictionary",
        "explainer",
        "scorer",
        *(["metric"] if found["metric"].n_unique() > 1 else []),
        judged(),
        with_interval("mean", "low", "high"),
        pl.col("latents"),
        with_interval("difference", "difference_low", "difference_high").fill_null("").alias("own less it"),
        pl.col("failed"),
    )
