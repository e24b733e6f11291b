"""Which latents a report shows: the best and the worst explained, some drawn by hash, and those that its list has room for.

The same of the same scores, whatever the order of rows: ties go to the lower latent, and what is drawn is drawn by hash.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import polars as pl

from latentlake.digest import mix, seed_of
from latentlake.measures.aggregates import main_metrics
from latentlake.reading.results import Results
from latentlake.scorers import NONE
from latentlake.sections.results import Report


class Judge(NamedTuple):
    """Whose scores rank latents: a scorer in its main metric, and the explainer whose explanations it judges (`none`: it judges
    none)."""

    explainer: str
    scorer: str
    metric: str


class Picks(NamedTuple):
    """Latents of a dictionary: the best first, the worst first, and in the order of their hashes; those of the list, best first,
    of so many ``chosen``. ``values``: scores by latent, of those that have one."""

    best: tuple[int, ...]
    worst: tuple[int, ...]
    random: tuple[int, ...]
    listed: tuple[int, ...]
    chosen: int
    values: Mapping[int, float]

    @property
    def shown(self) -> list[int]:
        """Those that are shown in full, each once."""
        return list(dict.fromkeys([*self.best, *self.worst, *self.random]))


def ranking(results: Results, choices: Mapping[str, Any], report: Report) -> Judge | None:
    """Who ranks latents: the scorer that the report names, or else the study's first that judges explanations, or its first; of
    the explanations that the report names, or else of the first explainer in the study that it judges. None without scorers.
    """
    scorers, metrics = choices["scorers"], main_metrics(results)
    judged = {name: each.get("explainers", []) for name, each in scorers.items()}
    wanted = [report.explainer] if report.explainer else list(choices["explainers"])
    judging = [name for name in scorers if any(each in judged[name] for each in wanted)] or list(scorers)
    scorer = report.scorer or next(iter(judging), None)
    if scorer is None:
        return None
    return Judge(next((each for each in wanted if each in judged[scorer]), NONE), scorer, metrics[scorer])


def picks(results: Results, dictionary: str, judge: Judge | None, report: Report, seed: int) -> Picks:
    """What is shown of a dictionary. Of a million latents only numbers are read, and few are held."""
    there = results.latents.filter(pl.col("is_chosen"), dictionary=dictionary).select("latent")
    chosen = np.sort(there.collect(engine="streaming")["latent"].to_numpy())
    drawn = chosen[np.argsort(mix(chosen, seed_of("report", seed)), kind="stable")]
    if judge is None:
        return Picks((), (), _some(drawn, report.random), _some(np.sort(drawn[: report.listed])), len(chosen), {})
    ranked = results.scores.filter(
        pl.col("control").is_null(),
        pl.col("value").is_not_null(),
        dictionary=dictionary,
        explainer=judge.explainer,
        scorer=judge.scorer,
        metric=judge.metric,
    ).select("latent", "value")
    best = ranked.sort("value", "latent", descending=[True, False]).head(report.best).collect(engine="streaming")
    worst = ranked.sort("value", "latent").head(report.worst).collect(engine="streaming")
    listed, random = drawn[: report.listed], _some(drawn, report.random)
    others = ranked.filter(pl.col("latent").is_in([*listed.tolist(), *random])).collect(engine="streaming")
    values = dict(pl.concat([best, worst, others]).iter_rows())
    ordered = sorted(listed.tolist(), key=lambda latent: (latent not in values, -values.get(latent, 0.0), latent))
    return Picks(tuple(best["latent"]), tuple(worst["latent"]), random, tuple(ordered), len(chosen), values)


def _some(latents: np.ndarray, most: int | None = None) -> tuple[int, ...]:
    return tuple(int(each) for each in latents[:most])
