"""What is different between two states of a lake: explanations, scores and choices, and why."""

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl

from latentlake.errors import LakeError
from latentlake.measures.metrics import mean_interval
from latentlake.reading.causes import Change, find_changes
from latentlake.reading.view import View

_EXPLAINED = ["explainer", "dictionary", "latent"]
_SCORED = ["explainer", "scorer", "dictionary", "metric", "control"]


@dataclass(frozen=True)
class Diff:
    """What is different between two states; all frames are empty where nothing is.

    ``causes``: the partitions that changed, and why.
    ``study``: choices, a row each: path, old, new (as JSON, null where there was or is none).
    ``prompts``: digests of the study's prompts, a row each: prompt, old, new.
    ``explanations``: explainer, dictionary, latent, kind (`added`, `removed`, `changed`), old, new, error_old, error_new.
    ``scores``: explainer, scorer, dictionary, latent, metric, control, kind, old, new, delta.
    ``means``: explainer, scorer, dictionary, metric, control, latents, old, new, delta with its 95 % interval (low,
    high): means over the latents that have the score in both states, changed or not, where any of them changed.
    """

    causes: tuple[Change, ...]
    study: pl.DataFrame
    prompts: pl.DataFrame
    explanations: pl.DataFrame
    scores: pl.DataFrame
    means: pl.DataFrame

    @property
    def is_empty(self) -> bool:
        """Whether nothing changed."""
        frames = (self.study, self.prompts, self.explanations, self.scores)
        return not self.causes and all(frame.is_empty() for frame in frames)


def diff(before: View, after: View, controls: bool = False) -> Diff:
    """What is different in ``after``. ``controls``: also of the scores of other latents' explanations.

    Raises:
        LakeError: the state before is the later one, or files of one of them were deleted.
    """
    if after.at is not None and (before.at is None or before.at > after.at):
        raise LakeError(f"the state before ({before.at or 'now'}) is later than the one after ({after.at}); swap them")
    scores = _scores(before, after, controls)
    return Diff(
        causes=tuple(find_changes(before, after)),
        study=_study(before, after),
        prompts=_prompts(before, after),
        explanations=_explanations(before, after),
        scores=scores.filter("is_changed").drop("is_changed"),
        means=_means(scores),
    )


def _both(before: pl.LazyFrame, after: pl.LazyFrame, keys: list[str], values: list[str]) -> pl.DataFrame:
    """Rows of two states by key: the columns ``values`` with `_old` and `_new`; kind; is_changed."""
    old, new = (
        frame.select(
            *keys, *(pl.col(name).alias(f"{name}_{side}") for name in values), pl.lit(True).alias(f"is_{side}")
        )
        for frame, side in ((before, "old"), (after, "new"))
    )
    both = old.join(new, on=keys, how="full", coalesce=True, nulls_equal=True).with_columns(
        kind=pl.when(pl.col("is_old").is_null()).then(pl.lit("added"))
        .when(pl.col("is_new").is_null()).then(pl.lit("removed")).otherwise(pl.lit("changed"))
    )  # fmt: skip
    is_other = pl.any_horizontal(pl.col(f"{name}_old").ne_missing(pl.col(f"{name}_new")) for name in values)
    return both.with_columns(is_changed=is_other | (pl.col("kind") != "changed")).sort(keys).collect()


def _explanations(before: View, after: View) -> pl.DataFrame:
    both = _both(before.explanations, after.explanations, _EXPLAINED, ["explanation", "error"])
    both = both.rename({"explanation_old": "old", "explanation_new": "new"})
    return both.filter("is_changed").select(*_EXPLAINED, "kind", "old", "new", "error_old", "error_new")


def _scores(before: View, after: View, controls: bool) -> pl.DataFrame:
    """All scores of two states side by side, changed or not."""
    is_wanted = pl.lit(True) if controls else pl.col("control").is_null()
    old, new = before.scores.filter(is_wanted), after.scores.filter(is_wanted)
    both = _both(old, new, [*_SCORED, "latent"], ["value"]).rename({"value_old": "old", "value_new": "new"})
    keys = ("explainer", "scorer", "dictionary", "latent", "metric", "control")
    return both.select(*keys, "kind", "old", "new", "is_changed", delta=pl.col("new") - pl.col("old"))


def _means(scores: pl.DataFrame) -> pl.DataFrame:
    """Mean change of each score that changed of any latent, paired over latents, with its 95 % interval."""
    rows = []
    for group, own in scores.partition_by(_SCORED, as_dict=True, maintain_order=True).items():
        paired = own.drop_nulls("delta")
        if (paired["delta"] != 0).any():
            mean, low, high = mean_interval(paired["delta"].to_numpy().astype(np.float64))
            averages = (paired[name].mean() for name in ("old", "new"))
            rows.append((*group, paired.height, *averages, mean, low, high))
    numbers = dict.fromkeys(("old", "new", "delta", "low", "high"), pl.Float64)
    schema = {**dict.fromkeys(_SCORED, pl.String), "latents": pl.Int64, **numbers}
    return pl.DataFrame(rows, schema, orient="row").with_columns(pl.col(*numbers).fill_nan(None))


def _study(before: View, after: View) -> pl.DataFrame:
    old, new = (json.loads(view.study["choices"]) if view.study else {} for view in (before, after))
    return _named("path", _differing(old, new))


def _differing(old: Any, new: Any, path: str = "") -> Iterator[tuple[str, str | None, str | None]]:
    """Paths into two trees at which they differ, with what is there as JSON; a mapping that one lacks is one path."""
    if isinstance(old, dict) and isinstance(new, dict):
        for name in {**old, **new}:
            yield from _differing(old.get(name), new.get(name), f"{path}.{name}" if path else name)
    elif old != new:
        yield path, _json(old), _json(new)


def _json(value: Any) -> str | None:
    return None if value is None else json.dumps(value, ensure_ascii=False)


def _prompts(before: View, after: View) -> pl.DataFrame:
    old, new = (
        {each["prompt"]: each["digest"] for each in view.study["prompts"]} if view.study else {}
        for view in (before, after)
    )
    names = [name for name in {**old, **new} if old.get(name) != new.get(name)]
    return _named("prompt", ((name, old.get(name), new.get(name)) for name in names))


def _named(name: str, rows: Iterable[tuple[str, str | None, str | None]]) -> pl.DataFrame:
    return pl.DataFrame(list(rows), dict.fromkeys((name, "old", "new"), pl.String), orient="row")
