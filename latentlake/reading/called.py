"""Rows with the model calls that they name: prompts in full, raw replies, and what they took."""

import polars as pl

from latentlake.reading.results import Results

_CALL = ("key", "model", "revision", "sampling", "draw", "reply", "logprobs", "finish_reason")
_COST = ("tokens_in", "tokens_cached", "tokens_out", "seconds", "price", "asset", "launch", "created_at")


def with_calls(results: Results, rows: pl.DataFrame) -> pl.DataFrame:
    """Rows with the call that each names: its prompt in full, the raw reply, and what it took."""
    keys = rows["call"].drop_nulls().unique().to_list()
    calls = results.answers(keys, rows["latent"].unique().to_list()).select("prompt", *_CALL, *_COST)
    asked = calls.join(_prompts(results, calls["prompt"]), on="prompt", how="left").drop("prompt")
    return rows.join(asked, left_on="call", right_on="key", how="left", maintain_order="left")


def _prompts(results: Results, keys: pl.Series) -> pl.DataFrame:
    """Whole prompts, from what comes first in each; of a chat every message begins with who says it, in a line of its own."""
    line = pl.when(pl.col("prefix").is_null()).then(pl.lit("")).otherwise(pl.lit("\n"))
    said = pl.concat_str(line, pl.lit("["), "role", pl.lit("]\n"))  # null where a text goes on
    part = said.fill_null("") + pl.col("text")
    whole = keys.unique().to_frame("prompt").with_columns(before="prompt", prompt_text=pl.lit(""))
    while whole["before"].count():
        wanted = whole["before"].drop_nulls().unique().to_list()
        found = results.prompts.filter(pl.col("prompt").is_in(wanted)).select("prompt", "prefix", part=part).collect()
        joined = whole.join(found, left_on="before", right_on="prompt", how="left")
        whole = joined.select(
            "prompt", before="prefix", prompt_text=pl.col("part").fill_null("") + pl.col("prompt_text")
        )
    return whole.drop("before")
