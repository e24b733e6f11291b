"""What came out of a study, as text: latents, their explanations and scores beside the controls, and the means."""

import numpy as np
import polars as pl

from latentlake.console import as_text
from latentlake.metrics import mean_interval
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
            "mean AUROC over latents, with 95 % intervals",
            as_text(means(scores)),
        ]
    )


def by_latent(scores: pl.DataFrame, explanations: pl.DataFrame) -> pl.DataFrame:
    """A row a latent and explainer, a column a scorer: the score, and in brackets the control's."""
    keys = ["dictionary", "latent", "explainer"]
    own, control = (scores.filter(which) for which in (pl.col("control").is_null(), pl.col("control") == "shuffled"))
    both = own.join(control, on=[*keys, "scorer"], how="left", suffix="_control").with_columns(
        shown=pl.format("{} ({})", _two_digits("value"), _two_digits("value_control"))
    )
    wide = both.sort("scorer").pivot("scorer", index=keys, values="shown")
    said = explanations.with_columns(explanation=pl.coalesce("explanation", pl.format("none: {}", "error"))).drop(
        "error"
    )
    table = (
        said.join(wide, on=keys, how="left").sort(keys).select(*keys, "explanation", pl.exclude(*keys, "explanation"))
    )
    return table.with_columns(pl.exclude(*keys).fill_null(""))


def _two_digits(column: str) -> pl.Expr:
    return pl.col(column).cast(pl.Decimal(10, 2)).cast(pl.String).fill_null("–")


def means(scores: pl.DataFrame) -> pl.DataFrame:
    """A row an explainer, scorer and control: mean AUROC over latents, with its 95 % interval."""
    rows = []
    for (dictionary, explainer, scorer, control), group in sorted(
        scores.partition_by("dictionary", "explainer", "scorer", "control", as_dict=True).items(), key=str
    ):
        mean, low, high = mean_interval(group["value"].drop_nulls().to_numpy().astype(np.float64))
        rows.append(
            {
                "dictionary": dictionary,
                "explainer": explainer,
                "scorer": scorer,
                "explanation of": {None: "the latent", "shuffled": "another latent", "empty": "nothing"}[control],
                "mean": mean,
                "low": low,
                "high": high,
                "latents": group["value"].count(),
                "failed calls": group["n_failed"].sum(),
            }
        )
    return pl.DataFrame(rows)
