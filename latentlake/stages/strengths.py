"""How strongly latents must be pushed for the subject to be moved as far as is asked.

Latents are compared where they have an equal effect, not where they are pushed alike: for each latent, and for a direction drawn
at random in its place, the strength is found at which the mean divergence over the tuning prompts is the target.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import polars as pl

from latentlake.protocols import Prompted
from latentlake.steering.pushes import CONTROLS, Pushes, prompts_in, pushes_of, subject_of
from latentlake.steering.search import Search, divergences, strength_of
from latentlake.tables import TABLES
from latentlake.work import Tables, Work

WRITES_NOWHERE = "writes_nowhere"
NO_DIRECTION = "no_direction"
NO_PROMPTS = "no_prompts"


def compute(work: Work) -> Tables:
    """A row for each chosen latent, control and target."""
    choice = work.study.interventions[work.stage.constants["intervention"]]
    latents = work.frame("latents").filter("is_chosen").select("latent").collect()["latent"].sort().to_list()
    pushes = pushes_of(work, latents)
    prompts = prompts_in(work, choice.tune, choice.shortest)
    found = {(row["latent"], row["control"], row["target"]): row for row in _tuned(work, pushes, prompts, choice.kl)}
    has_prompts = set(prompts["latent"])
    writes = work.frame("dictionaries").select("writes").collect().item()
    rows: list[dict[str, Any]] = []
    for latent in latents:
        reason = WRITES_NOWHERE if writes is None else _missing(latent, pushes, has_prompts)
        for control in CONTROLS:
            for target in choice.kl:
                row = {"latent": latent, "control": control, "target": target, "n": 0, "error": reason}
                rows.append(found.get((latent, control, target), row))
    made = pl.DataFrame(
        [{**work.stage.columns(work.values), **row} for row in rows], schema=TABLES["strengths"].empty().schema
    )
    return {"strengths": made}


def _missing(latent: int, pushes: Pushes, has_prompts: set[int]) -> str | None:
    if (latent, None) not in pushes:
        return NO_DIRECTION
    return None if latent in has_prompts else NO_PROMPTS


def _tuned(work: Work, pushes: Pushes, prompts: pl.DataFrame, targets: Sequence[float]) -> Iterator[dict[str, Any]]:
    """Strengths of all latents that have a direction and prompts, those whose prompts fit into memory together at once."""
    prompts = prompts.filter(pl.col("latent").is_in([latent for latent, _ in pushes]))
    if prompts.is_empty():
        return
    subject = subject_of(work)
    latents = prompts["latent"].to_list()
    done = 0
    for batch, prompted in subject.prompted(prompts["tokens"].to_list(), latents):
        places: dict[int, list[int]] = {}
        for place, number in enumerate(batch):
            places.setdefault(latents[number], []).append(place)
        yield from _searched(prompted, pushes, places, targets)
        done += len(batch)
        work.progress.share(done / len(latents))


def _searched(
    prompted: Prompted, pushes: Pushes, places: dict[int, list[int]], targets: Sequence[float]
) -> Iterator[dict[str, Any]]:
    """Strengths of latents by the places of their prompts: each round measures one step more of every search."""
    searches = {(latent, control): Search() for latent in places for control in CONTROLS}
    while True:
        wanted = [(key, step) for key, search in searches.items() for step in search.wanted(targets)]
        if not wanted:
            break
        asked = [(places[key[0]], pushes[key], strength_of(step)) for key, step in wanted]
        for (key, step), kl in zip(wanted, divergences(prompted, asked), strict=True):
            searches[key].add(step, kl)
    for (latent, control), search in searches.items():
        for target in targets:
            strength, reached, error = search.found(target)
            found = {"strength": strength, "kl": reached, "error": error}
            yield {"latent": latent, "control": control, "target": target, "n": len(places[latent]), **found}
