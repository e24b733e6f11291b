"""Judged windows with what each judge said of them, the wrong ones marked."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import polars as pl
from markupsafe import Markup

from latentlake.pages.rendering import short
from latentlake.pages.windows import highlighted
from latentlake.reading.trace import Trace
from latentlake.scorers import NONE
from latentlake.scorers.fuzzing import WRONG_TOKENS

_PLACE = ["sample", "shard", "context", "start", "is_activating", "source"]
_DIGITS = 9  # the most that a simulation says of a token


class Judge(NamedTuple):
    """A scorer and the explainer whose explanation it judged (`none` where it judges none)."""

    explainer: str
    scorer: str

    @property
    def name(self) -> str:
        """As a heading."""
        return self.scorer if self.explainer == NONE else f"{self.scorer} of {self.explainer}"


def judged_windows(found: Trace, peak: float, most: int | None = None) -> dict[str, Any]:
    """The judges, and the windows that they judged by the latent's own explanations, those of which most were wrong first.

    Of each window: its text, whether the latent fires in it, and the verdict of each judge, None where it has none. Interventions
    judge no windows, but texts, and are left out.
    """
    own = found.judgements.filter(pl.col("control").is_null(), pl.col("target").is_null())
    of = ["explainer", "scorer"]
    judges = [Judge(*row) for row in own.select(of).unique(maintain_order=True).sort(of).iter_rows()]
    seen = ["sample", "shard", "context", "start"]
    texts = found.examples.select(*seen, "text", "offsets", "activations").unique(seen, keep="first")
    windows = own.drop("text").join(texts, on=seen, how="inner").partition_by(_PLACE, maintain_order=True)
    rows = [_row(rows, judges) for rows in windows]
    rows.sort(key=lambda row: (-row["wrong"], not row["fires"], -(row["decile"] or 0)))
    return {"judges": judges, "windows": [{**row, **_texts(row, peak)} for row in rows[:most]], "n": len(rows)}


def _texts(row: Mapping[str, Any], peak: float) -> dict[str, Markup]:
    """The window's text, and as it was simulated."""
    simulated = row["simulated"]
    said = Markup("") if simulated is None else highlighted(row["window"], _DIGITS, [each or 0 for each in simulated])
    return {"text": highlighted(row["window"], peak), "simulated": said}


def _row(rows: pl.DataFrame, judges: list[Judge]) -> dict[str, Any]:
    first = rows.row(0, named=True)
    verdicts = {Judge(row["explainer"], row["scorer"]): verdict(row) for row in rows.iter_rows(named=True)}
    simulated = next((row["simulated"] for row in rows.iter_rows(named=True) if row["simulated"]), None)
    there = [each for each in verdicts.values() if each["is_wrong"] is not None]
    return {
        "window": first,
        "simulated": simulated,
        "fires": first["is_activating"],
        "truth": truth(first),
        "decile": first["decile"],
        "verdicts": [verdicts.get(judge) for judge in judges],
        "wrong": sum(each["is_wrong"] for each in there) / len(there) if there else 0,
    }


def truth(row: Mapping[str, Any]) -> str:
    """Whether the latent fires in a judged window, in words."""
    if row["is_activating"]:
        return f"fires, decile {row['decile'] + 1}"
    if row["source"] == WRONG_TOKENS:
        return "fires, but not on what was marked"
    is_intruder = row["decile"] is not None
    return f"silent, among decile {row['decile'] + 1}" if is_intruder else f"silent, {row['source'].replace('_', ' ')}"


def verdict(row: Mapping[str, Any]) -> dict[str, Any]:
    """What a judge said of a window, by a judgement as `latentlake.reading.trace.ranked` gives it.

    ``is_wrong``: where it labels, whether the label is; else whether more than half of the windows of the other kind lie on the
    wrong side of this one; None where that cannot be said.
    """
    if row["error"]:
        return {"said": row["error"].replace("_", " "), "is_wrong": None, "is_failed": True, "misranked": None}
    said = row["probability"] if row["probability"] is not None else row["measure"]
    number = "" if said is None else short(said)
    if row["prediction"] is None:
        is_wrong = None if row["misranked"] is None else row["misranked"] > 0.5
        return {"said": number, "is_wrong": is_wrong, "is_failed": False, "misranked": row["misranked"]}
    is_intruder = row["explainer"] == NONE and row["decile"] is not None
    labels = ("found", "missed") if is_intruder else ("yes", "no")
    is_wrong = not row["prediction"] if is_intruder else row["prediction"] != row["is_activating"]
    label = labels[0] if row["prediction"] else labels[1]
    return {
        "said": f"{label} {number}".strip(),
        "is_wrong": is_wrong,
        "is_failed": False,
        "misranked": row["misranked"],
    }
