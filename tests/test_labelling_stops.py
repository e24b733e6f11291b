"""Judges that label windows stop when a latent is decided: in waves, by its own explanation, and with its controls."""

import json
import re
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import polars as pl
import pytest
from pydantic import ValidationError

from latentlake.commands.scores import shown
from latentlake.digest import seed_of
from latentlake.flow import Flow
from latentlake.measures.aggregates import aggregates
from latentlake.measures.stopping import Look, Rule, estimates, levels
from latentlake.protocols import Call, Reply
from latentlake.reading.view import View
from latentlake.scorers.stop import DECIDED, Stop
from latentlake.stages import scores
from tests.stub import TIMEOUT, Answering, Stub, examples_frame, explanations_frame, reply, study
from tests.test_estimate import estimates as estimated
from tests.test_judging import numbered
from tests.workbench import Workbench

WINDOWS = 40
ACCURACIES = {3: 0.95, 4: 0.7, 5: 0.5, 6: 0.9}  # of the judge, by latent's explanation
Window = tuple[int, bool, Sequence[str], Sequence[float]]


def windows(n: int = WINDOWS, latents: Sequence[int] = tuple(ACCURACIES)) -> list[Window]:
    said = {True: "yes", False: "no"}
    return [
        (latent, is_on, [said[is_on], f" {latent}", f" {place}"], [0.0, float(is_on), 0.0])
        for latent in latents
        for is_on in (True, False)
        for place in range(n)
    ]


def says(call: Call) -> Reply:
    """A judge that is right as often as the explanation says, by a hash of the window; of an empty one it knows nothing."""
    described = re.search(r"right (\d+)", call.prefix.rsplit("Description:", 1)[1])
    accuracy = int(described[1]) if described else 50
    labels = []
    for text in numbered(call).values():
        is_right = int(seed_of(text, accuracy)) % 100 < accuracy
        labels.append(int(is_right == text.replace("<<", "").startswith("yes")))
    return reply(json.dumps(labels))


def judged(
    stop: dict[str, Any] | None,
    answering: Answering = says,
    rows: Sequence[Window] | None = None,
    latents: Sequence[int] = tuple(ACCURACIES),
    **more: Any,
) -> tuple[Stub, pl.DataFrame, pl.DataFrame]:
    """What is asked, and the rows of judgements and scores."""
    own = {
        "method": "detection", "explainers": ["default"], "sample": "test", "windows": WINDOWS, "llm": "judge",
        **({} if stop is None else {"stop": stop}), **more,
    }  # fmt: skip
    changed = study(
        scorers={"own": own}, samples={"test": {"split": "score", "windows": 2 * WINDOWS, "negatives": WINDOWS}}
    )
    texts: dict[int, str | None] = {latent: f"right {round(100 * ACCURACIES[latent])}" for latent in latents}
    frames = {
        "explanations__default": explanations_frame(texts),
        "examples__test": examples_frame("test", rows or windows()),
    }
    stub = Stub(answering, changed, **frames)
    found = scores.compute(stub.work("scores/default/own"))
    assert isinstance(found["scores"], pl.DataFrame)
    assert isinstance(found["judgements"], pl.DataFrame)
    return stub, found["judgements"], found["scores"]


def by_latent(
    found: pl.DataFrame, metric: str = "balanced_accuracy", control: str | None = None
) -> dict[int, dict[str, Any]]:
    rows = found.filter(pl.col("metric") == metric, pl.col("control").eq_missing(pl.lit(control)))
    return {row["latent"]: row for row in rows.to_dicts()}


def test_what_is_decided_is_judged_no_further_and_its_controls_stop_with_it() -> None:
    stub, judgements, found = judged({"threshold": 0.7})
    whole, everything, _ = judged(None)
    per_latent = (
        judgements.group_by("latent", "control").len().pivot("control", index="latent", values="len").sort("latent")
    )
    assert per_latent["null"].to_list() == per_latent["empty"].to_list() == per_latent["shuffled"].to_list()
    n = {row["latent"]: row["n"] for row in by_latent(found).values()}
    assert n[4] == 2 * WINDOWS  # as good as the threshold
    assert all(n[latent] < 2 * WINDOWS for latent in (3, 5, 6))
    assert all(row["n"] + row["n_left"] == 2 * WINDOWS for row in found.to_dicts())
    assert len(stub.asked) * 5 == len(judgements)
    assert len(stub.asked) < 0.8 * len(whole.asked)
    assert len(whole.asked) * 5 == len(everything)


def test_waves_are_of_so_many_ranks_of_both_kinds_and_no_prompt_crosses_them() -> None:
    stub, judgements, _ = judged({"width": 0.01, "wave": 8}, together=3)
    for asked in stub.asked:
        places = [int(text.split()[-1]) for text in numbered(asked.call).values()]
        assert len({place // 8 for place in places}) == 1
    waves = [int(next(iter(numbered(asked.call).values())).split()[-1]) // 8 for asked in stub.asked]
    assert waves == sorted(waves)  # all latents' calls of a wave are handed over before the next
    assert len(judgements) == len(ACCURACIES) * 3 * 2 * WINDOWS


def test_scores_are_what_the_mathematics_says_of_the_counts() -> None:
    _, judgements, found = judged({"threshold": 0.7})
    looks = tuple(Look(n, n, level) for n, level in zip((10, 20, 30, 40), levels((5.0, 10.0, 15.0, 20.0)), strict=True))
    for latent in ACCURACIES:
        own = judgements.filter(pl.col("latent") == latent, pl.col("control").is_null())
        right = [own.filter(is_activating=fires, prediction=fires).height for fires in (True, False)]
        seen = looks[: len(own) // 20]
        one, other = (float(each[0]) for each in estimates(Rule(0.7), seen, *(np.array([each]) for each in right)))
        expected = {"sensitivity": one, "specificity": other, "balanced_accuracy": (one + other) / 2}
        for metric in DECIDED:
            row = by_latent(found, metric)[latent]
            assert row["value"] == pytest.approx(expected[metric], abs=1e-12)
            assert row["low"] <= row["value"] <= row["high"]
            assert row["worst"] == row["best"] == row["value"]
    low, high = by_latent(found)[3]["low"], by_latent(found)[5]["high"]
    assert low > 0.7 > high  # that they are decided is what is reported
    assert by_latent(found, "auroc")[3]["n_left"] > 0


def test_without_a_stop_nothing_changes_nor_does_its_version() -> None:
    _, judgements, found = judged(None)
    assert found["n_left"].is_null().all()
    _, same, all_judged = judged({"width": 0.0001})
    assert same.equals(judgements.with_columns(same["call"]))  # but for which windows are shown together
    plain, other = by_latent(found), by_latent(all_judged)
    assert [row["value"] for row in plain.values()] == pytest.approx([row["value"] for row in other.values()])
    settings = {"method": "detection", "explainers": ["default"], "sample": "test", "windows": 4, "llm": "judge"}
    versions = [
        Flow(study(scorers={"own": {**settings, **more}}))["scores/default/own"].code_version
        for more in ({}, {"stop": None}, {"stop": {"threshold": 0.7}})
    ]
    assert versions[0] == versions[1] != versions[2]
    # as it was before there were stops: with another, all that was ever judged would be judged again
    assert versions[0] == "2.2-06b13381e930f9cb"


def test_neither_the_order_of_latents_nor_other_latents_matter() -> None:
    _, _, together = judged({"threshold": 0.7})
    alone = [judged({"threshold": 0.7}, latents=[latent], rows=windows(latents=[latent]))[2] for latent in ACCURACIES]
    # controls are other latents' explanations
    own = [each.filter(pl.col("control").is_null()) for each in (together, pl.concat(alone))]
    assert own[0].equals(own[1])
    _, _, backwards = judged({"threshold": 0.7}, rows=[*windows(latents=(6, 5)), *windows(latents=(4, 3))])
    assert backwards.equals(together)


@pytest.mark.parametrize("negatives", [["non_activating"], ["wrong_tokens"], ["non_activating", "wrong_tokens"]])
def test_fuzzing_stops_too_and_waves_have_windows_of_each_kind(negatives: list[str]) -> None:
    rows = [row for latent in ACCURACIES for row in windows(2 * WINDOWS, [latent])]
    settings = {"method": "fuzzing", "negatives": negatives, "together": 1, "prompt": "fuzzing"}

    def answering(call: Call) -> Reply:
        is_right = "right 9" in call.prefix.rsplit("Description:", 1)[1]
        fires = re.search(r"yes\s*<<", call.suffix) is not None  # the mark stands on the second token
        return reply(logprobs=(-0.1, -3.0) if fires == is_right else (-3.0, -0.1))

    _, judgements, found = judged({"threshold": 0.7}, answering, rows, **settings)
    n = by_latent(found)[3]["n"]
    per_wave = 10 * (1 + len(negatives))
    assert n % per_wave == 0
    assert n < per_wave * 4
    sources = judgements.filter(pl.col("latent") == 3, pl.col("control").is_null(), ~pl.col("is_activating"))["source"]
    assert sources.n_unique() == len(negatives)
    assert set(sources.value_counts()["count"]) == {n // (1 + len(negatives))}


def test_failed_judgements_make_waves_smaller_and_bound_the_score() -> None:
    def fails(call: Call) -> Reply:
        return TIMEOUT if int(seed_of(call.suffix)) % 4 == 0 else says(call)

    _, judgements, found = judged({"threshold": 0.7}, fails)
    assert judgements["error"].null_count() < len(judgements)
    assert any(row["worst"] < row["value"] < row["best"] for row in by_latent(found).values())
    for row in by_latent(found).values():
        assert 0 <= row["worst"] <= row["value"] <= row["best"] <= 1
        assert row["low"] <= row["value"] <= row["high"]
    _, nothing, empty = judged({"threshold": 0.7}, lambda call: TIMEOUT)
    assert len(nothing) == len(ACCURACIES) * 3 * 2 * WINDOWS  # nothing is decided by failures
    assert empty["value"].is_null().all()
    assert set(empty["n_left"]) == {0}
    assert set(empty["error"]) == {"all_failed"}
    assert set(empty.select("worst", "best").rows()) == {(0.0, 1.0)}  # as where all windows are judged at once


def test_a_class_with_fewer_windows_or_none() -> None:
    few = [*windows(15, [3])[:15], *windows(WINDOWS, [3])[WINDOWS:]]
    _, judgements, found = judged({"threshold": 0.9}, rows=few, latents=[3])
    assert judgements.filter(pl.col("control").is_null())["is_activating"].sum() == 15
    assert by_latent(found)[3]["n_left"] + by_latent(found)[3]["n"] == 15 + WINDOWS
    _, _, none = judged({"threshold": 0.7}, rows=windows(WINDOWS, [3])[:WINDOWS], latents=[3])
    assert by_latent(none)[3]["error"] == "one_class"
    row = by_latent(none, "sensitivity")[3]
    assert (row["n"], row["n_left"]) == (WINDOWS, 0)
    assert 0 < row["low"] < row["value"] <= row["high"] <= 1
    _, _, nothing = judged({"threshold": 0.7}, rows=windows(latents=[9]), latents=[3])
    assert set(nothing["error"]) == {"no_windows", "no_partner"}


def test_calls_are_at_most_what_is_said_and_a_stop_says_when() -> None:
    stub, _, _ = judged({"width": 0.01, "wave": 7}, together=4)
    assert len(stub.asked) == stub.study.scorers["own"].most_calls * len(ACCURACIES)
    assert stub.study.scorers["own"].may_stop
    for wrong in ({}, {"threshold": 1.5}, {"width": 0}, {"wave": 0, "width": 0.1}, {"threshold": 0.7, "depth": 1}):
        with pytest.raises(ValidationError):
            Stop.model_validate(wrong)


def test_what_was_saved_is_shown() -> None:
    fires = {"dictionary": ["one"] * 4, "latent": [*ACCURACIES], "n_tokens": [1] * 4}
    latents = pl.LazyFrame(fires).cast({"latent": pl.Int32})
    for stop in ({"threshold": 0.7}, None):
        _, _, found = judged(stop)
        view = cast(View, SimpleNamespace(scores=found.lazy(), latents=latents))
        rows = aggregates(view, metric="balanced_accuracy")
        assert ("saved" in rows.columns) == ("saved" in shown(rows).columns) == (stop is not None)
        if stop:
            own = by_latent(found).values()
            left, n = (sum(row[name] for row in own) for name in ("n_left", "n"))
            assert rows["saved"].to_list() == pytest.approx([left / (left + n)] * 3)


def test_a_run_judges_in_waves_and_a_second_one_asks_nothing(materialized: Workbench) -> None:
    scorer = materialized.study["scorers"]["detection"]
    scorer["stop"] = {"width": 0.99, "wave": 2}
    materialized.run()
    found = materialized.view().scores.filter(scorer="detection").collect()
    assert (found["n_left"] > 0).any()
    made = len(materialized.llm.made)
    scorer["stop"]["width"] = 0.98  # another version, decided by the same answers
    assert materialized.run() == {"scores/default/detection": 2}
    assert len(materialized.llm.made) == made


def test_an_estimate_says_that_calls_are_at_most_so_many(materialized: Workbench) -> None:
    materialized.study["scorers"]["detection"] |= {"stop": {"threshold": 0.5, "wave": 2}, "yes": " Yes"}
    row = estimated(materialized)["scores/default/detection"]
    assert row["calls_are"] == "at most"
    materialized.run()
    assert 0 < len(materialized.llm.made) <= int(str(row["calls"]))
