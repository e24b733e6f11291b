"""What came out of a study, as text: latents, their explanations and scores beside the controls, and the means."""

import numpy as np
import polars as pl

from latentlake.metrics import mean_interval
from latentlake.view import View


def summarize(view: View) -> str:
    """Two tables: AUROC of each latent and explanation, and the means with 95 % intervals over latents.

    A latent without an explanation is in the first table too; in the second, ``latents`` counts those with a score.
    """
    scores = view.scores.filter(pl.col("metric") == "auroc").collect()
    explanations = view.explanations.select("explainer", "dictionary", "latent", "explanation", "error").collect()
    if explanations.is_empty():
        return "No latent has enough windows to be explained; see the columns triage and reason of the table latents."
    with pl.Config(
        tbl_rows=-1,
        tbl_cols=-1,
        fmt_str_lengths=44,
        tbl_width_chars=200,
        float_precision=2,
        tbl_hide_dataframe_shape=True,
        tbl_hide_column_data_types=True,
        tbl_formatting="UTF8_BORDERS_ONLY",
    ):
        return (
            f"AUROC of each latent (and with another latent's explanation, +shuffled)\n{by_latent(scores, explanations)}\n\n"
            f"mean AUROC over latents, with 95 % intervals\n{means(scores)}"
        )


def by_latent(scores: pl.DataFrame, explanations: pl.DataFrame) -> pl.DataFrame:
    """A row a latent and explainer; a column a scorer and control."""
    keys = ["dictionary", "latent", "explainer"]
    named = scores.with_columns(
        column=pl.concat_str("scorer", pl.lit("+") + pl.col("control"), separator=" ", ignore_nulls=True)
    )
    wide = named.sort("column").pivot("column", index=keys, values="value")
    said = explanations.with_columns(explanation=pl.coalesce("explanation", pl.format("none: {}", "error"))).drop(
        "error"
    )
    return (
        said.join(wide, on=keys, how="left")
        .sort(keys)
        .select(*keys, "explanation", *sorted(set(wide.columns) - set(keys)))
    )


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
                "explanation of": "another latent" if control else "the latent",
                "mean": mean,
                "low": low,
                "high": high,
                "latents": group["value"].count(),
                "failed calls": group["n_failed"].sum(),
            }
        )
    return pl.DataFrame(rows)
