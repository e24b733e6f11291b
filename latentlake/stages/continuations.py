"""What the subject says after prompts, clean and pushed: by latents and by directions drawn at random, as strongly
as was found on other prompts.
"""

from math import isnan
from typing import Any

import polars as pl

from latentlake.protocols import Answer, Asked, Call, Steer
from latentlake.sections.interventions import Intervention
from latentlake.steering.pushes import prompts_in, pushes_of
from latentlake.tables import TABLES
from latentlake.work import Tables, Work

OVERFLOW = "overflow"


def compute(work: Work) -> Tables:
    """A row for each chosen latent and prompt, clean, and for each control and target, pushed."""
    name = work.stage.constants["intervention"]
    choice = work.study.interventions[name]
    found = work.frame(f"strengths/{name}").select("latent", "control", "target", "strength", reason="error").collect()
    prompts = prompts_in(work, choice.score, choice.shortest)
    pushed = found.filter(pl.col("reason").is_null())
    clean = pushed.select("latent").unique().with_columns(strength=pl.lit(0.0))
    rows = prompts.join(pl.concat([clean, found], how="diagonal").select(found.columns), on="latent")
    rows = rows.sort("latent", "rank", "control", "target", nulls_last=False).with_row_index("row")
    rows = rows.join(_said(work, choice, rows), on="row", how="left").with_columns(
        error=pl.coalesce("reason", "failed"),
        text=pl.when(pl.col("failed").is_null()).then("text"),
        strength=pl.when(pl.col("reason").is_null(), pl.col("target").is_not_null()).then("strength"),
    )
    made = rows.with_columns(**work.columns(len(rows)))
    schema = TABLES["continuations"].empty().schema
    return {"continuations": made.select(schema.names()).cast(schema)}


def _said(work: Work, choice: Intervention, rows: pl.DataFrame) -> pl.DataFrame:
    """Texts by row, of the rows whose target can be reached; each is drawn once, and then remembered."""
    rows = rows.filter(pl.col("reason").is_null())
    pushes = pushes_of(work, rows["latent"].unique().sort().to_list())

    def call(row: dict[str, Any]) -> Call:
        push = pushes[row["latent"], row["control"]]
        steer = Steer(
            max_tokens=choice.tokens,
            temperature=choice.temperature,
            tokens=tuple(row["tokens"]),
            hookpoint=push.hookpoint,
            direction=None if row["target"] is None else push.name,
            strength=row["strength"],
        )
        return Call("", row["prompt"], steer)

    asked = [Asked(row["latent"], call(row)) for row in rows.iter_rows(named=True)]
    answers = work.steer({push.name: push for push in pushes.values()}, asked) if asked else []
    found = [(row, *_answered(answer)) for row, answer in zip(rows["row"], answers, strict=True)]
    schema = {"row": pl.UInt32, "text": pl.String, "kl": pl.Float64, "failed": pl.String, "call": pl.String}
    return pl.DataFrame(found, schema=schema, orient="row")


def _answered(answer: Answer) -> tuple[str | None, float | None, str | None, str]:
    """Text, divergence, and why there is no text that could be judged. One that ends at once can be: were it a failure, a push
    that ends texts would be judged by those alone that it does not end.
    """
    text, kl = answer.reply.text, answer.reply.kl
    if kl is None or isnan(kl):
        return text, None, OVERFLOW, answer.key
    return text, kl, None, answer.key
