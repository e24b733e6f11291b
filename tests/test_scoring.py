"""Scores and slices are the metrics of the judgements, as scikit-learn has them, and failures are counted and bound them."""

from collections import Counter
from itertools import product
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import balanced_accuracy_score, f1_score, recall_score, roc_auc_score

from latentlake.measures.metrics import auroc_interval, wilson_interval
from latentlake.measures.scoring import score
from latentlake.tables import TABLES

LABEL_METRICS = ("balanced_accuracy", "f1", "sensitivity", "specificity")
FIGURES = ("value", "low", "high", "worst", "best")

Row = dict[str, Any]


def judgement(is_activating: bool, sure: float, failed: bool = False, **more: Any) -> Row:
    """A judgement of latent 1's own explanation, the label being whether the probability is above one half."""
    answer = {"prediction": None, "probability": None, "error": "timeout"} if failed else {}
    kind = {"source": "quantiles", "decile": 0} if is_activating else {"source": "random", "decile": None}
    own = {"latent": 1, "control": None, "is_activating": is_activating, **kind}
    return {**own, "prediction": sure > 0.5, "probability": sure, "error": None, **answer, **more}


def frame(rows: list[Row]) -> pl.DataFrame:
    schema = TABLES["judgements"].empty().schema
    names = ("latent", "control", "source", "decile", "is_activating", "prediction", "probability", "measure", "error")
    return pl.DataFrame([{"measure": None, **row} for row in rows], schema={name: schema[name] for name in names})


def scored(rows: list[Row], is_labelling: bool = True, asked: list[Row] | None = None) -> tuple[list[Row], list[Row]]:
    """Rows of scores and slices, as the tables take them; of what was judged, or of what was to be."""
    judgements = frame(rows)
    wanted = (
        judgements.select("latent", "control").unique(maintain_order=True).with_columns(error=pl.lit(None, pl.String))
    )
    if asked is not None:
        wanted = pl.DataFrame(asked, schema={"latent": pl.Int32, "control": pl.String, "error": pl.String})
    found = dict(zip(("scores", "slices"), score(wanted, judgements, is_labelling), strict=True))
    where = {"explainer": "e", "scorer": "s", "dictionary": "d", "block": 0}
    tables = (
        TABLES[name].conform(rows.with_columns(pl.lit(value).alias(column) for column, value in where.items()))
        for name, rows in found.items()
    )
    scores, slices = (table.to_pylist() for table in tables)
    for row in (*scores, *slices):
        assert not any(row[name] is not None and np.isnan(row[name]) for name in FIGURES)
        assert (row["value"] is None) == (row["error"] is not None)
    return scores, slices


def by_metric(rows: list[Row], **wanted: Any) -> dict[str, Row]:
    found = [row for row in rows if all(row[name] == value for name, value in wanted.items())]
    assert len({row["metric"] for row in found}) == len(found)
    return {row["metric"]: row for row in found}


JUDGEMENT = st.builds(
    judgement,
    is_activating=st.booleans(),
    sure=st.one_of(st.sampled_from([0.0, 0.25, 0.5, 0.75, 1.0]), st.floats(0, 1)),
    failed=st.sampled_from([False, False, False, True]),
    latent=st.integers(1, 2),
    control=st.sampled_from([None, "shuffled"]),
)


@st.composite
def judged(draw: st.DrawFn) -> list[Row]:
    """Judgements of several latents and controls, with deciles and sources."""
    rows = draw(st.lists(JUDGEMENT, min_size=1, max_size=30))
    for row in rows:
        if row["is_activating"]:
            row["decile"] = draw(st.integers(0, 2))
        else:
            row["source"] = draw(st.sampled_from(["random", "similar"]))
    return rows


def known(rows: list[Row]) -> dict[str, float | None]:
    """The metrics of some judgements by scikit-learn."""
    seen = [row for row in rows if row["error"] is None]
    truth, labels = ([row[name] for row in seen] for name in ("is_activating", "prediction"))
    found: dict[str, float | None] = dict.fromkeys(("auroc", *LABEL_METRICS))
    if True in truth:
        found["sensitivity"] = recall_score(truth, labels, zero_division=0.0)
    if False in truth:
        found["specificity"] = recall_score(truth, labels, pos_label=False, zero_division=0.0)
    if len(set(truth)) == 2:
        found["auroc"] = roc_auc_score(truth, [row["probability"] for row in seen])
        found["balanced_accuracy"] = balanced_accuracy_score(truth, labels)
        found["f1"] = f1_score(truth, labels, zero_division=0.0)
    return found


def is_as_known(row: Row, rows: list[Row]) -> bool:
    wanted = known(rows)[row["metric"]]
    counts = (len(rows), sum(each["error"] is not None for each in rows))
    assert (row["n"], row["n_failed"]) == counts
    assert row["value"] == (None if wanted is None else pytest.approx(wanted, abs=1e-12))
    if wanted is None:
        assert row["error"] == ("all_failed" if counts[0] == counts[1] else "one_class")
        assert (row["low"], row["high"]) == (None, None)
    else:
        assert 0 <= row["low"] <= row["value"] <= row["high"] <= 1
        assert row["low"] < row["high"]
    return True


@settings(deadline=None, max_examples=15)
@given(judged())
def test_scores_and_slices_are_what_scikit_learn_says_of_the_judgements(rows: list[Row]) -> None:
    scores, slices = scored(rows)
    groups = {(row["latent"], row["control"]) for row in rows}
    assert len(scores) == 5 * len(groups)
    for row in scores:
        own = [each for each in rows if (each["latent"], each["control"]) == (row["latent"], row["control"])]
        assert is_as_known(row, own)
        failed = Counter(each["error"] for each in own if each["error"])
        assert {each["error"]: each["n"] for each in row["failures"]} == failed
    said = set()
    for row in slices:
        own = [each for each in rows if (each["latent"], each["control"]) == (row["latent"], row["control"])]
        assert (row["decile"] is None) != (row["source"] is None)
        by = "decile" if row["source"] is None else "source"
        said.add((row["latent"], row["control"], by, row[by], row["metric"]))
        is_class = by == "decile"
        assert is_as_known(row, [e for e in own if e["is_activating"] != is_class or e[by] == row[by]])
    deciles = {(e["latent"], e["control"], "decile", e["decile"]) for e in rows if e["is_activating"]}
    sources = {(e["latent"], e["control"], "source", e["source"]) for e in rows if not e["is_activating"]}
    of_deciles, of_sources = ({"auroc", *LABEL_METRICS} - {lacking} for lacking in ("specificity", "sensitivity"))
    expected = [(*each, m) for each in deciles for m in of_deciles] + [
        (*each, m) for each in sources for m in of_sources
    ]
    assert sorted(map(str, said)) == sorted(map(str, expected))
    assert len(slices) == len(expected)


def outcomes(rows: list[Row]) -> list[list[Row]]:
    """The judgements with each failed one as it might have been: surely yes, surely no, or neither."""
    failed = [n for n, row in enumerate(rows) if row["error"]]
    return [
        [{**row, **dict(zip(failed, chosen, strict=True)).get(n, {})} for n, row in enumerate(rows)]
        for chosen in product(
            [{"probability": p, "prediction": p > 0.5, "error": None} for p in (-1.0, 0.5, 2.0)], repeat=len(failed)
        )
    ]


FEW = st.lists(JUDGEMENT.map(lambda row: {**row, "latent": 1, "control": None}), min_size=1, max_size=9)


@settings(deadline=None, max_examples=30)
@given(FEW.filter(lambda rows: sum(row["error"] is not None for row in rows) <= 3))
def test_the_bounds_are_those_of_all_outcomes_of_what_failed(rows: list[Row]) -> None:
    all_known = [known(each) for each in outcomes(rows)]
    for name, row in by_metric(scored(rows)[0]).items():
        values = [each[name] for each in all_known]
        if values[0] is None:
            assert (row["worst"], row["best"]) == (None, None)
        else:
            assert (row["worst"], row["best"]) == (pytest.approx(min(values)), pytest.approx(max(values)))
            assert row["value"] is None or row["worst"] <= row["value"] + 1e-12 <= row["best"] + 2e-12


def test_scores_by_hand() -> None:
    # Firing: .9 .7 .4, and one failed. Silent: .8 .3 .2, and one failed.
    rows = [judgement(True, p) for p in (0.9, 0.7, 0.4)] + [judgement(False, p) for p in (0.8, 0.3, 0.2)]
    rows += [judgement(True, 0, failed=True), judgement(False, 0, failed=True, error="refused")]
    found = by_metric(scored(rows)[0])
    figures = {name: [row["value"], row["worst"], row["best"]] for name, row in found.items()}
    assert figures == {
        "auroc": pytest.approx([7 / 9, 7 / 16, 14 / 16]),  # 7 of 9 pairs are in order; 7 of 16 are with the failed
        "balanced_accuracy": pytest.approx([2 / 3, 1 / 2, 3 / 4]),
        "f1": pytest.approx([4 / 6, 4 / 8, 6 / 8]),
        "sensitivity": pytest.approx([2 / 3, 2 / 4, 3 / 4]),
        "specificity": pytest.approx([2 / 3, 2 / 4, 3 / 4]),
    }
    assert all(
        row["failures"] == [{"error": "refused", "n": 1}, {"error": "timeout", "n": 1}] for row in found.values()
    )
    assert (found["auroc"]["n"], found["auroc"]["n_failed"]) == (8, 2)
    # Silent windows below the firing ones: 3, 2, 2; firing windows below the silent: 2, 0, 0. Variances 1/3 and 4/3.
    variance = 1 / 3 / (3 * 9) + 4 / 3 / (3 * 9)
    low, high = auroc_interval(*(np.array([each]) for each in (7 / 9, 3.0, 3.0, variance)))
    assert (found["auroc"]["low"], found["auroc"]["high"]) == (pytest.approx(low[0]), pytest.approx(high[0]))
    low, high = wilson_interval(np.array([2.0]), np.array([3.0]))
    assert (found["sensitivity"]["low"], found["sensitivity"]["high"]) == (
        pytest.approx(low[0]),
        pytest.approx(high[0]),
    )


def test_slices_by_hand() -> None:
    rows = [judgement(True, 0.4, decile=0), judgement(True, 0.9, decile=9)]
    rows += [judgement(False, 0.1, source="random"), judgement(False, 0.6, source="similar")]
    scores, slices = scored(rows)
    assert by_metric(scores)["auroc"]["value"] == 0.75
    aurocs = {(row["decile"], row["source"]): row["value"] for row in slices if row["metric"] == "auroc"}
    assert aurocs == {(0, None): 0.5, (9, None): 1.0, (None, "random"): 1.0, (None, "similar"): 0.5}
    assert by_metric(slices, decile=0, source=None)["sensitivity"]["value"] == 0.0
    assert by_metric(slices, source="random", decile=None)["specificity"]["value"] == 1.0
    assert {row["n"] for row in slices} == {3}


def test_a_scorer_that_does_not_label_has_auroc_alone() -> None:
    rows = [judgement(on, 0, prediction=None, probability=None, measure=m) for on, m in ((True, 3.5), (False, -2.0))]
    scores, slices = scored(rows, is_labelling=False)
    assert [(row["metric"], row["value"]) for row in scores] == [("auroc", 1.0)]
    assert {row["metric"] for row in slices} == {"auroc"}


def test_labels_without_probabilities_are_ranked_by_themselves() -> None:
    rows = [judgement(on, p, probability=None) for on, p in ((True, 1), (True, 0), (False, 0), (False, 0))]
    found = by_metric(scored(rows)[0])
    assert found["auroc"]["value"] == found["balanced_accuracy"]["value"] == 0.75


def test_all_judgements_failed() -> None:
    scores, slices = scored([judgement(on, 0, failed=True) for on in (True, True, False)])
    for row in scores:
        assert (row["value"], row["low"], row["high"], row["error"]) == (None, None, None, "all_failed")
        assert (row["worst"], row["best"], row["n"], row["n_failed"]) == (0.0, 1.0, 3, 3)
        assert row["failures"] == [{"error": "timeout", "n": 3}]
    assert {row["error"] for row in slices} == {"all_failed"}


@pytest.mark.parametrize(("is_activating", "there"), [(True, "sensitivity"), (False, "specificity")])
def test_of_one_class_its_rate_alone_is_known(is_activating: bool, there: str) -> None:
    scores, _ = scored([judgement(is_activating, p) for p in (0.9, 0.2)])
    errors = {name: row["error"] for name, row in by_metric(scores).items()}
    assert errors == {name: None if name == there else "one_class" for name in ("auroc", *LABEL_METRICS)}
    assert by_metric(scores)[there]["value"] == 0.5


def test_a_latent_without_judgements_has_rows_with_the_reason() -> None:
    asked = [{"latent": 1, "control": None, "error": None}, {"latent": 2, "control": None, "error": None}]
    asked += [{"latent": 2, "control": "shuffled", "error": "no_partner"}]
    scores, slices = scored([judgement(True, 1.0), judgement(False, 0.0)], asked=asked)
    assert len(scores) == 15
    without = [row for row in scores if row["latent"] == 2]
    assert {(row["control"], row["error"]) for row in without} == {(None, "no_windows"), ("shuffled", "no_partner")}
    assert all((row["n"], row["n_failed"], row["failures"], row["best"]) == (0, 0, [], None) for row in without)
    assert {row["latent"] for row in slices} == {1}


def test_nothing_judged_and_nothing_asked() -> None:
    assert scored([], asked=[]) == ([], [])
    (row, *_), slices = scored([], asked=[{"latent": 4, "control": None, "error": "no_explanation"}])
    assert (row["latent"], row["error"], slices) == (4, "no_explanation", [])


def test_how_latents_are_taken_together_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    chance = np.random.default_rng(0)
    rows = [judgement(n % 2 == 0, float(chance.random()), latent=n // 20) for n in range(200)]
    whole = scored(rows)
    monkeypatch.setattr("latentlake.measures.scoring._AT_ONCE", 3)
    assert scored(rows[::-1]) == whole
