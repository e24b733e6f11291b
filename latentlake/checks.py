"""Checks of what a stage made: whether it can be so, and the figures that tell.

A check that protects data is made of each partition before it is published, and refuses it. All checks are made of what a
run has published, and told, passed or not; they read the lake and change nothing.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl

from latentlake.flow import Stage
from latentlake.hookpoints import neutral, site_of
from latentlake.measures.metrics import mean_interval
from latentlake.scorers import SHUFFLED
from latentlake.sections.corpus import SPLITS
from latentlake.steering.search import OUT_OF_REACH
from latentlake.study import Study
from latentlake.tables import TABLES

Figures = dict[str, int | float | str]

_UNREAD = "activations"  # tens of millions of rows, whose keys are counted before they are published
_ROWS = {"examples": "examples", "explanations": "explanations", "scores": "judgements"}


@dataclass(frozen=True)
class Checked:
    """What is checked: the partitions ``keys`` of a stage.

    ``frame(name)``: their rows of one of the stage's tables, or of an input (by the stage's name) what they were made
    from. ``beside(stage)``: rows of another stage, partitioned alike, under the same keys as far as it is up
    to date.
    """

    study: Study
    stage: Stage
    keys: Sequence[str]
    frame: Callable[[str], pl.LazyFrame]
    beside: Callable[[str], pl.LazyFrame]


@dataclass(frozen=True)
class Result:
    """Whether a check passed, and the figures behind it; as text, the figures on one line."""

    passed: bool
    figures: Figures

    def __str__(self) -> str:
        return ", ".join(f"{name} {value}" for name, value in self.figures.items())


@dataclass(frozen=True)
class Check:
    """A check of the stages of some kinds.

    ``protects``: what fails it must not be published. ``is_warning``: it may fail though nothing was done wrong.
    ``is_of_all``: it is made over all published partitions whichever a run was for, so that its one result hides none.
    ``applies``: to which stages of these kinds.
    """

    name: str
    description: str
    kinds: tuple[str, ...]
    find: Callable[[Checked], Result]
    protects: bool = False
    is_warning: bool = False
    is_of_all: bool = False
    applies: Callable[[Study, Stage], bool] = lambda study, stage: True


def checks_of(study: Study, stage: Stage) -> list[Check]:
    """The checks that apply to a stage."""
    return [check for check in CHECKS if stage.kind in check.kinds and check.applies(study, stage)]


def keys_unique(checked: Checked) -> Result:
    """Each key occurs once; of each of the stage's tables, rows and repeated keys."""
    figures: Figures = {}
    repeated = 0
    for table in checked.stage.tables:
        if table == _UNREAD:
            rows = checked.frame(table).select(pl.len()).collect().item()
            figures |= {f"{table} rows": rows, f"{table} repeated keys": "none, counted before publication"}
            continue
        keys = checked.frame(table).select(TABLES[table].keys).collect()
        figures |= {f"{table} rows": keys.height, f"{table} repeated keys": keys.height - keys.n_unique()}
        repeated += keys.height - keys.n_unique()
    return Result(not repeated, figures)


def splits_disjoint(checked: Checked) -> Result:
    """Contexts with equal tokens are in one split; contexts by split, and how many repeat another."""
    contexts = checked.frame("contexts").select("split", pl.col("tokens").hash()).collect()
    by_split = dict(contexts.group_by("split").len().iter_rows())
    distinct, divided = contexts["tokens"].n_unique(), contexts.n_unique() - contexts["tokens"].n_unique()
    figures = {
        "contexts": contexts.height,
        **{split: by_split.get(split, 0) for split in SPLITS},
        "repeated contexts": contexts.height - distinct,
        "in several splits": divided,
    }
    return Result(not divided, figures)


def every_latent_accounted_for(checked: Checked) -> Result:
    """A block has a row for each latent of its range and no other, chosen or with a reason; latents by triage."""
    place = ["dictionary", "block", "latent"]
    found = checked.frame("latents").select(*place, "triage", "is_chosen", "reason").collect()
    expected = _expected_latents(checked)
    amiss = {
        "missing": expected.join(found, on=place, how="anti").height,
        "of other blocks": found.join(expected, on=place, how="anti").height,
        "chosen and reason at odds": int((found["is_chosen"] == found["reason"].is_not_null()).sum()),
    }
    triage = dict(found.group_by("triage").len().sort("triage").iter_rows())
    chosen = int(found["is_chosen"].sum())
    return Result(not any(amiss.values()), {"latents": found.height, "chosen": chosen, **triage, **amiss})


def _expected_latents(checked: Checked) -> pl.DataFrame:
    """The latents of the blocks that are checked."""
    stage, blocks = checked.stage, checked.study.blocks
    places = pl.DataFrame([stage.columns(stage.values(key)) for key in checked.keys])
    widths = checked.frame("dictionaries").select("dictionary", "width").collect()
    latents = widths.select("dictionary", "width", latent=pl.int_ranges("width")).explode("latent")
    latents = latents.with_columns(block=pl.col("latent") * blocks // pl.col("width")).drop("width")
    typed = latents.cast({"latent": pl.Int32, "block": pl.Int32})
    return typed.join(places.cast({"block": pl.Int32}), on=["dictionary", "block"], how="semi")


def as_trained(checked: Checked) -> Result:
    """Coders are on the hookpoints that their checkpoints say they were trained on; those that are not, by name."""
    rows = checked.frame("dictionaries").select("dictionary", "hookpoint", "stated_hookpoint").collect()
    elsewhere = {
        name: f"on {here}, trained on {stated}"
        for name, here, stated in rows.iter_rows()
        if stated is not None and site_of(stated) is not None and neutral(stated) != here
    }
    return Result(not elsewhere, {"dictionaries": rows.height, "on another hookpoint": len(elsewhere), **elsewhere})


def reconstructs(checked: Checked) -> Result:
    """Coders leave no larger share of the variance unexplained than the study allows; figures of each.

    Neurons and controls are not bound: they are there to be worse.
    """
    of = checked.frame("dictionaries").select("dictionary", "kind", "control")
    rows = checked.frame("reconstructions").join(of, on="dictionary", how="left").sort("dictionary").collect()
    bound, passed = checked.study.checks.variance_unexplained, True
    figures: Figures = {}
    for row in rows.iter_rows(named=True):
        name, unexplained = row["dictionary"], row["variance_unexplained"]
        figures |= {
            f"{name}: variance unexplained": round(unexplained, 4),
            f"{name}: L0": round(row["l0"], 2),
            f"{name}: cross-entropy added": round(row["cross_entropy_added"], 4),
        }
        is_bound = row["control"] is None and row["kind"] != "neurons"
        passed &= not is_bound or unexplained <= bound  # NaN fails
    return Result(passed, {**figures, "bound": bound})


def failed_calls_bounded(checked: Checked) -> Result:
    """No more explanations or judgements failed than the study allows; those that there are none of, by class.

    Where no call was made nothing failed: a latent that an explainer does not apply to is not counted against it.
    """
    rows = checked.frame(_ROWS[checked.stage.kind]).group_by("error").agg(rows=pl.len(), calls=pl.col("call").count())
    errors = rows.sort("error").collect()
    by_class = dict(errors.drop_nulls("error").select("error", "rows").iter_rows())
    failed, of = int(errors.drop_nulls("error")["calls"].sum()), int(errors["rows"].sum())
    share = failed / max(1, of)
    figures = {"failed": failed, "of": of, "share": round(share, 4), "bound": checked.study.checks.failed_calls}
    return Result(share <= checked.study.checks.failed_calls, {**figures, **by_class})


def controls_near_chance(checked: Checked) -> Result:
    """Another latent's explanation scores an AUROC near 0.5; its mean over latents, with the 95 % interval.

    Where no latent has a control there is nothing to object to.
    """
    controls = checked.frame("scores").filter(control=SHUFFLED, metric="auroc")
    values = controls.select("value").drop_nulls().collect()["value"].to_numpy()
    found = dict(zip(("mean", "low", "high"), mean_interval(values), strict=True))
    bound = checked.study.checks.control
    figures = {name: round(value, 4) for name, value in found.items() if not np.isnan(value)}
    return Result(
        not abs(found["mean"] - 0.5) > bound,  # so that NaN, the mean of nothing, passes
        {**figures, "latents": len(values), "bound": bound},
    )


def positives_and_negatives(checked: Checked) -> Result:
    """Each latent has a window in which it fires and one in which it does not; such windows per latent.

    Of judgements, those of a latent's own explanation and those of the control are counted apart.
    """
    rows = checked.frame(_ROWS[checked.stage.kind])
    apart = ["dictionary", "latent", *(["control"] if checked.stage.kind == "scores" else [])]
    fires = pl.col("is_activating")
    counted = rows.group_by(apart).agg(**{"activating": fires.sum(), "non-activating": (~fires).sum()}).collect()
    lacking = counted.filter((pl.col("activating") == 0) | (pl.col("non-activating") == 0))
    latents, without = (each.n_unique(["dictionary", "latent"]) for each in (counted, lacking))
    figures: Figures = {"latents": latents, "latents without both": without}
    return Result(lacking.is_empty(), {**figures, **_spread(counted.select("activating", "non-activating"))})


def one_role_a_text(checked: Checked) -> Result:
    """No text of a latent's windows is in a sample of another split; windows that are compared, and those that are in two."""
    sample = checked.study.samples[checked.stage.constants["sample"]]
    place, own = ["dictionary", "latent", "text"], checked.frame("examples")
    figures: Figures = {"windows": own.select(pl.len()).collect().item()}
    for name, other in checked.study.samples.items():
        if other.split != sample.split:
            both = own.select(place).join(checked.beside(f"examples/{name}").select(place), on=place, how="semi")
            figures[f"also in {name}"] = both.select(pl.len()).collect(engine="streaming").item()
    return Result(not any(list(figures.values())[1:]), figures)


def sources_sufficed(checked: Checked) -> Result:
    """Every source of negatives had as many windows as it was asked for; windows by source, and those drawn in its place."""
    rows = checked.frame("examples").filter(~pl.col("is_activating"))
    drawn = dict(rows.group_by("source").len().sort("source").collect().iter_rows())
    instead = rows.drop_nulls("in_place_of").group_by("in_place_of").len().sort("in_place_of").collect()
    missing = {f"at random in place of {name}": number for name, number in instead.iter_rows()}
    return Result(not missing, {**drawn, **missing})


def targets_reached(checked: Checked) -> Result:
    """Most latents can be pushed as far as each target asks; those that cannot, by target, and by why not."""
    rows = checked.frame("strengths").filter(pl.col("control").is_null()).select("latent", "target", "error").collect()
    short = rows.filter(error=OUT_OF_REACH).group_by("target").len().sort("target")
    errors = rows.drop_nulls("error").group_by("error").agg(latents=pl.col("latent").n_unique()).sort("error")
    figures: Figures = {"latents": rows["latent"].n_unique(), **dict(errors.iter_rows())}
    figures |= {f"short of {target:g} nats": number for target, number in short.iter_rows()}
    return Result(2 * rows["error"].count() <= len(rows), figures)


def divergence_carries_over(checked: Checked) -> Result:
    """On prompts that were not tuned on, latents move the subject about as far: mean divergence by target and push, between half
    and twice the target.
    """
    pushed = checked.frame("continuations").filter(pl.col("target").is_not_null() & pl.col("error").is_null())
    means = pushed.group_by("target", "control").agg(pl.col("kl").mean()).sort("target", "control", nulls_last=False)
    rows = means.collect().rows()
    figures: Figures = {f"{target:g} nats, {control or 'own direction'}": round(kl, 3) for target, control, kl in rows}
    return Result(all(target / 2 <= kl <= 2 * target for target, _, kl in rows), figures)


def _spread(counts: pl.DataFrame) -> Figures:
    """Minimum, median and maximum of each column; nothing where there are no rows."""
    return {
        f"{column.name} {name}": find(column.to_numpy()).item()
        for column in counts
        if len(column)
        for name, find in (("min", np.min), ("median", np.median), ("max", np.max))
    }


def _has_negatives(study: Study, stage: Stage) -> bool:
    """Whether windows of two kinds are drawn, or judged."""
    if stage.kind == "examples":
        return bool(study.samples[stage.constants["sample"]].sources)
    return "auroc" in study.scorers[stage.constants["scorer"]].metrics


def _is_of_others_too(study: Study, stage: Stage) -> bool:
    """Whether other latents' explanations have an AUROC."""
    return SHUFFLED in study.scorers[stage.constants["scorer"]].controls and _has_negatives(study, stage)


CHECKS = (
    Check(
        "keys_unique",
        "Each key of the table's rows occurs once; `conform` of latentlake/tables/table.py sees to it before publication.",
        (*TABLES, "coder"),
        keys_unique,
    ),
    Check(
        "splits_disjoint",
        "Contexts with equal tokens are in one split, so that nothing an explainer saw judges it.",
        ("contexts",),
        splits_disjoint,
        protects=True,
    ),
    Check(
        "every_latent_accounted_for",
        "A block holds exactly the latents of its range, each of them chosen or with the reason why not.",
        ("latents",),
        every_latent_accounted_for,
        protects=True,
    ),
    Check(
        "as_trained",
        "Coders read the hookpoints that their checkpoints say they were trained on.",
        ("dictionaries",),
        as_trained,
        is_warning=True,
    ),
    Check(
        "reconstructs",
        "The share of variance that a coder leaves unexplained is within the study's `checks.variance_unexplained`: a wrong "
        "scaling, site or model is far beyond; a neighbouring layer may be within.",
        ("reconstructions",),
        reconstructs,
        is_of_all=True,
    ),
    Check(
        "failed_calls_bounded",
        "The share of explanations or judgements that failed is within the study's `checks.failed_calls`.",
        ("explanations", "scores"),
        failed_calls_bounded,
    ),
    Check(
        "controls_near_chance",
        "The mean AUROC of shuffled explanations is within the study's `checks.control` of 0.5.",
        ("scores",),
        controls_near_chance,
        is_warning=True,
        applies=_is_of_others_too,
    ),
    Check(
        "positives_and_negatives",
        "Every latent with windows has one in which it fires and one in which it never does; without, it gets no score.",
        ("examples", "scores"),
        positives_and_negatives,
        is_warning=True,
        applies=_has_negatives,
    ),
    Check(
        "one_role_a_text",
        "No text of a latent's windows is in samples of two splits, so that none that is explained or selected by is judged.",
        ("examples",),
        one_role_a_text,
    ),
    Check(
        "targets_reached",
        "At least half of the latents can be pushed as far as the targets ask; the others are not scored there.",
        ("strengths",),
        targets_reached,
        is_warning=True,
    ),
    Check(
        "divergence_carries_over",
        "The divergence on the prompts that are scored is between half and twice what it was tuned to on others.",
        ("continuations",),
        divergence_carries_over,
        is_warning=True,
    ),
    Check(
        "sources_sufficed",
        "No source of negatives ran dry, so that random windows had to stand in.",
        ("examples",),
        sources_sufficed,
        is_warning=True,
        applies=_has_negatives,
    ),
)
