"""Simulation: what a judge is shown of a window, what is made of its digits, and the r that comes of it."""

from collections.abc import Callable, Sequence
from math import atanh, log, sqrt, tanh
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from scipy.stats import pearsonr, t

from latentlake import cli
from latentlake.calls.estimate import Estimator
from latentlake.engines.transformers import TransformersLLM
from latentlake.errors import StudyError
from latentlake.measures import correlation
from latentlake.measures.correlation import pearson, pearson_interval
from latentlake.protocols import Answer, Asked, Call, Choose, Reply
from latentlake.stages import scores
from tests.stub import TIMEOUT, Stub, examples_frame, explanations_frame, latents_frame, reply, rows_of, study
from tests.test_engines_real import smollm2  # noqa: F401 - a fixture
from tests.workbench import Workbench

RIVERS = (["the", " river", "\n"], [0.0, 4.0, 0.0])
SILENT = (["no", "ne", "\t"], [0.0, 0.0, 0.0])
NEVER = float("-inf")
Row = dict[str, Any]


def scorer(**changes: Any) -> dict[str, Any]:
    settings = {"method": "simulation", "explainers": ["default"], "sample": "test", "windows": 4, "llm": "judge"}
    return {"simulation": settings | changes}


def digits(*expected: int | dict[int, float]) -> tuple[float, ...]:
    """Log-probabilities of the digits at each place: all on one, or as given; a tenth is on what is no digit."""
    shares = [{each: 1.0} if isinstance(each, int) else each for each in expected]
    return tuple(log(0.9 * own[digit]) if digit in own else NEVER for own in shares for digit in range(10))


def of_lines(digit: Callable[[str], int]) -> Callable[[Call], Reply]:
    """A judge that says of each token, whatever stands around it, a digit."""

    def answer(call: Call) -> Reply:
        lines = [line.split("\t")[0] for line in call.suffix.split("\n")]
        assert isinstance(call.sampling, Choose)
        shown = lines if call.sampling.after else lines[-1:]
        return reply(logprobs=digits(*map(digit, shown)))

    return answer


def is_river(token: str) -> int:
    return 7 if "river" in token else 1


def simulated(
    windows: Sequence[tuple[int, bool, Sequence[str], Sequence[float]]],
    answering: Callable[[Call], Reply],
    texts: dict[int, str | None] | None = None,
    **changes: Any,
) -> tuple[list[Row], list[Row], list[Row], Stub]:
    """Judgements, scores and slices of latents that are explained, and the stub that was asked."""
    explained = texts or {3: "rivers"}
    latents = latents_frame(**{f"l{latent}": ["x"] for latent in explained})
    stub = Stub(
        answering,
        study(scorers=scorer(**changes)),
        examples__test=examples_frame("test", windows),
        explanations__default=explanations_frame(explained),
        latents=latents,
    )
    found = scores.compute(stub.work("scores/default/simulation"))
    judgements, scored, slices = (rows_of(name, found[name]) for name in ("judgements", "scores", "slices"))
    return judgements, scored, slices, stub


def own(rows: Sequence[Row]) -> list[Row]:
    return [row for row in rows if row["control"] is None]


def test_r_of_expected_digits_as_on_paper() -> None:
    """Digits 0 and 2 with a half each make 1; 6 with a quarter and 2 with three make 3; 8 makes 8. Over four tokens the
    predictions are 1, 8, 3, 0, the activations 0, 4, 2, 2. Means 3 and 2; deviations -2, 5, 0, -3 and -2, 2, 0, 0; products
    4 + 10 = 14; squares 4 + 25 + 9 = 38 and 4 + 4 = 8; r = 14 / sqrt(38 * 8) = 14 / sqrt(304) = 0.802955.
    """
    said = iter([digits({0: 0.5, 2: 0.5}, 8), digits({6: 0.25, 2: 0.75}, 0)])
    answers: dict[str, tuple[float, ...]] = {}

    def answer(call: Call) -> Reply:
        if call.prefix.endswith("Feature: rivers\n"):
            answers[call.suffix] = next(said)
        return reply(logprobs=answers.get(call.suffix, digits(0, 0)))

    windows = [(3, True, ["a", " river"], [0.0, 4.0]), (3, True, [" of", " Rome"], [2.0, 2.0])]
    judgements, scored, _, _ = simulated(windows, answer, negatives=False)
    assert [row["simulated"] for row in own(judgements)] == [[1.0, 8.0], [3.0, 0.0]]
    assert [row["measure"] for row in judgements] == [None] * 4
    (score,) = own(scored)
    assert (score["metric"], score["value"], score["n"], score["error"]) == ("pearson", 0.802955, 2, None)
    assert score["value"] == pytest.approx(14 / sqrt(304), abs=1e-6)


def test_a_judge_is_shown_each_token_in_a_line_and_no_activation() -> None:
    *_, stub = simulated([(3, True, *RIVERS), (3, False, *SILENT)], of_lines(is_river))
    assert {each.call.suffix for each in stub.asked} == {
        "the\tunknown\n river\tunknown\n↵\tunknown",
        "no\tunknown\nne\tunknown\n⇥\tunknown",
    }
    assert {each.call.sampling for each in stub.asked} == {Choose(tuple("0123456789"), after="\t")}


def test_token_by_token_a_judge_sees_what_it_predicted_and_windows_go_in_waves() -> None:
    batches: list[list[Asked]] = []

    class Waves(Stub):
        def ask(self, llm: str, asked: Sequence[Asked]) -> list[Answer]:
            batches.append(list(asked))
            return super().ask(llm, asked)

    stub = Waves(
        of_lines(is_river), study(scorers=scorer(at_once=False)),
        examples__test=examples_frame("test", [(3, True, *RIVERS), (3, False, ["no", "!"], [0.0, 0.0])]),
        explanations__default=explanations_frame({3: "rivers"}), latents=latents_frame(l3=["x"]),
    )  # fmt: skip
    scores.compute(stub.work("scores/default/simulation"))
    said = [sorted({each.call.suffix for each in batch}) for batch in batches]
    assert said == [["no\t", "the\t"], ["no\t1\n!\t", "the\t1\n river\t"], ["the\t1\n river\t7\n↵\t"]]
    assert [len(batch) for batch in batches] == [4, 4, 2]  # the latent's own explanation, and an empty one


def test_both_ways_agree_where_a_judge_looks_at_the_token_alone() -> None:
    windows = [(latent, fires, *(RIVERS if fires else SILENT)) for latent in (3, 4) for fires in (True, True, False)]
    texts = {3: "rivers", 4: "cities"}
    found = [simulated(windows, of_lines(is_river), texts, at_once=at_once)[:3] for at_once in (True, False)]
    at_once, by_token = ([[{**row, "call": None} for row in rows] for rows in each] for each in found)
    assert at_once == by_token
    assert {row["control"] for row in at_once[0]} == {None, "shuffled", "empty"}
    assert len(at_once[0]) == 2 * 3 * 3


def test_scores_do_not_depend_on_how_many_latents_are_summed_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    windows = [
        (latent, fires, *(RIVERS if fires else SILENT)) for latent in (3, 4, 9) for fires in (True, True, True, False)
    ]
    texts = {3: "rivers", 4: "cities", 9: "seas"}
    together = simulated(windows, of_lines(is_river), texts)[:3]
    monkeypatch.setattr(correlation, "_AT_ONCE", 1)
    assert simulated(windows, of_lines(is_river), texts)[:3] == together
    assert {row["latent"] for row in together[1] if row["value"] is not None} == {3, 4, 9}


@pytest.mark.parametrize("at_once", [True, False])
def test_a_failed_call_is_a_failure_of_its_window_alone(at_once: bool) -> None:
    def answer(call: Call) -> Reply:
        if " lake" in call.suffix:
            return TIMEOUT
        return reply(logprobs=None) if " sea" in call.suffix else of_lines(is_river)(call)

    windows = [
        (3, True, *RIVERS), (3, True, ["a", " lake"], [0.0, 1.0]), (3, True, ["a", " sea"], [0.0, 1.0]), (3, False, *SILENT),
    ]  # fmt: skip
    judgements, scored, slices, _ = simulated(windows, answer, at_once=at_once)
    assert [(row["error"], row["simulated"]) for row in own(judgements)] == [
        (None, [1.0, 1.0, 1.0]), (None, [1.0, 7.0, 1.0]), ("timeout", None), ("no_logprobs", None),
    ]  # fmt: skip
    assert all(row["call"] for row in judgements)
    (score,) = own(scored)
    assert (score["n"], score["n_failed"], score["worst"], score["best"]) == (4, 2, None, None)
    assert score["failures"] == [{"error": "no_logprobs", "n": 1}, {"error": "timeout", "n": 1}]
    assert score["value"] == 1
    assert [(row["n"], row["n_failed"]) for row in own(slices)] == [(4, 2)]


def test_tokens_without_text_have_no_line_and_do_not_count() -> None:
    windows = [
        (3, True, ["a", "", " river", ""], [0.0, 9.0, 4.0, 9.0]),
        (3, True, ["", ""], [1.0, 1.0]),
        (3, False, *SILENT),
    ]
    for at_once in (True, False):
        judgements, scored, _, stub = simulated(windows, of_lines(is_river), at_once=at_once)
        _, whole, nothing = own(judgements)
        assert whole["simulated"] == [1.0, None, 7.0, None]
        assert (nothing["simulated"], nothing["error"], nothing["call"]) == (None, "no_text", None)
        assert own(scored)[0]["value"] == 1.0
        assert not any("\n\t" in each.call.suffix for each in stub.asked)


@pytest.mark.parametrize(
    ("windows", "judge", "reason"),
    [
        ([(3, True, *RIVERS)], lambda token: 2, "one_prediction"),
        ([(3, True, ["a", "b"], [3.0, 3.0])], lambda token: len(token) + ord(token[0]) % 2, "one_activation"),
    ],
)
def test_what_has_no_variance_has_no_r(windows: Any, judge: Callable[[str], int], reason: str) -> None:
    _, scored, slices, _ = simulated(windows, of_lines(judge), negatives=False)
    for row in own(scored) + own(slices):
        assert (row["value"], row["low"], row["high"], row["error"]) == (None, None, None, reason)


def test_where_all_failed_and_where_nothing_was_asked_the_reason_is_told() -> None:
    _, failed, _, _ = simulated([(3, True, *RIVERS)], lambda call: TIMEOUT, negatives=False)
    assert own(failed)[0]["error"] == "all_failed"
    _, silent, _, stub = simulated([(3, True, *RIVERS)], of_lines(is_river), {3: None}, negatives=False)
    assert {row["error"] for row in silent} == {"no_explanation"}
    assert stub.asked == []


def test_a_decile_is_held_with_all_windows_in_which_the_latent_is_silent() -> None:
    drawn = [(3, True, ["a", " river", " b"], [0.0, float(n + 1), 0.5 * n]) for n in range(4)]
    windows = [*drawn, (3, False, *SILENT), (3, False, ["x", " rivers", "y"], [0.0, 0.0, 0.0])]
    frame = examples_frame("test", windows).with_columns(decile=pl.when("is_activating").then(pl.col("rank") // 2))
    for negatives in (True, False):
        stub = Stub(
            of_lines(is_river), study(scorers=scorer(negatives=negatives)), examples__test=frame.cast({"decile": pl.Int32}),
            explanations__default=explanations_frame({3: "rivers"}), latents=latents_frame(l3=["x"]),
        )  # fmt: skip
        found = scores.compute(stub.work("scores/default/simulation"))
        rows = own(rows_of("slices", found["slices"]))
        assert [row["decile"] for row in rows] == [0, 1]
        for row in rows:
            shown = drawn[2 * row["decile"] : 2 * row["decile"] + 2] + (windows[4:] if negatives else [])
            said = [float(is_river(token)) for _, _, pieces, _ in shown for token in pieces]
            true = [value for *_, activations in shown for value in activations]
            assert row["value"] == pytest.approx(pearsonr(said, true).statistic, abs=1e-6)
            assert row["n"] == len(shown)


def test_at_once_needs_a_model_that_reads_prompts() -> None:
    assert study(scorers=scorer(llm="server", at_once=False)).scorers["simulation"].is_by_token
    with pytest.raises(StudyError, match=r"scorers.simulation needs the log-probabilities of a prompt's tokens"):
        study(scorers=scorer(llm="server"))


def test_calls_are_bounded() -> None:
    windows = [(3, fires, *(RIVERS if fires else SILENT)) for fires in (True, False) for _ in range(4)]
    for changes, tokens in (({}, 1), ({"negatives": False}, 1), ({"at_once": False}, 3)):
        *_, stub = simulated(
            [*windows, *((4, *each[1:]) for each in windows)], of_lines(is_river), {3: "a", 4: "b"}, **changes
        )
        settings: Any = stub.study.scorers["simulation"]
        assert len(stub.asked) == 2 * settings.most_calls * tokens
        assert settings.is_by_token == (tokens > 1)


# Intervals


def sums_of(windows: Sequence[tuple[Sequence[float], Sequence[float]]]) -> np.ndarray:
    rows = [(len(x), sum(x), sum(y), *(float(np.dot(a, b)) for a, b in ((x, x), (y, y), (x, y)))) for x, y in windows]
    return np.array(rows)


def test_the_interval_leaves_out_each_window_in_turn() -> None:
    random = np.random.default_rng(1)
    groups = []
    for n in (12, 4, 30):
        x = random.normal(size=(n, 8))
        y = x * random.uniform(0, 1, (n, 1)) + random.normal(size=(n, 8))
        groups.append((x, y))
    sums = np.concatenate([sums_of(list(zip(x, y, strict=True))) for x, y in groups])
    codes = np.repeat(np.arange(3), [len(x) for x, _ in groups])
    low, high = pearson_interval(sums, codes)
    for group, (x, y) in enumerate(groups):
        r = pearsonr(x.ravel(), y.ravel()).statistic
        assert pearson(sums[codes == group].sum(0)) == pytest.approx(r, abs=1e-12)
        left = [
            atanh(pearsonr(np.delete(x, n, 0).ravel(), np.delete(y, n, 0).ravel()).statistic) for n in range(len(x))
        ]
        n = len(x)
        jackknife = t.ppf(0.975, n - 1) * sqrt((n - 1) / n * sum((each - np.mean(left)) ** 2 for each in left))
        half = max(jackknife, 1.959964 / sqrt(n - 3))
        assert (low[group], high[group]) == pytest.approx((tanh(atanh(r) - half), tanh(atanh(r) + half)), abs=1e-6)


def test_where_one_window_is_all_there_is_no_interval_is_given() -> None:
    alone = [([1.0, 7.0], [0.0, 4.0]), *[([1.0, 2.0 + n], [0.0, 0.0]) for n in range(5)]]
    low, high = pearson_interval(sums_of(alone), np.zeros(6, dtype=np.int64))  # without the first no activation varies
    assert np.isnan([low[0], high[0]]).all()
    low, high = pearson_interval(sums_of(alone[:3] + alone[:1]), np.array([0, 0, 0, 1]))  # three windows, and one
    assert np.isnan([low, high]).all()


def test_intervals_hold_what_is_true() -> None:
    """Not less than nine times of ten, whatever the judge finds; docs/decisions/015-intervals.md has more of it."""
    from benchmarks.coverage import pearson_coverages

    for each in pearson_coverages(300):
        assert each.coverage > 0.9, each


# In a whole study


@pytest.mark.parametrize("at_once", [True, False])
def test_a_study_is_simulated_shown_and_traced(
    at_once: bool, materialized: Workbench, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    materialized.study["scorers"] |= scorer(at_once=at_once)
    run = materialized.prepare()
    estimated = Estimator(run.plan(), run.flow, run.lake, run.origins).table()
    (calls, are) = estimated.filter(asset="scores/default/simulation").select("calls", "calls_are").row(0)
    assert materialized.run() == {"scores/default/simulation": 2, "agreements": 1}
    view = materialized.view()
    made = view.calls.filter(asset="scores/default/simulation").collect().height
    assert made == calls if at_once else 0 < made <= calls
    assert are == ("exact" if at_once else "at most")
    rows = view.judgements.filter(scorer="simulation").collect()
    window = materialized.study["selection"]["window"]
    assert set(rows["simulated"].list.len()) == {window}
    assert view.scores.filter(scorer="simulation", metric="pearson").collect()["value"].drop_nulls().len() > 0
    latent = rows["latent"][0]
    monkeypatch.setenv("LATENTLAKE_CACHE", str(materialized.folder / "cache"))
    options = ["--lake", materialized.lake.uri, "--study-file", str(materialized.path)]
    assert cli.main([*options, "prompt", "simulation", "one", str(latent)]) == 0
    said = capsys.readouterr().out
    assert said.count("\tunknown") >= (window if at_once else 1)
    assert cli.main([*options, "trace", "one", str(latent), "--scorer", "simulation"]) == 0
    assert "simulated '" in capsys.readouterr().out


# A real judge


@pytest.mark.parametrize("at_once", [True, False])
def test_a_real_model_predicts_where_a_latent_fires(at_once: bool, smollm2: Path) -> None:  # noqa: F811
    llm = TransformersLLM(smollm2)

    class Real(Stub):
        def ask(self, llm_name: str, asked: Sequence[Asked]) -> list[Answer]:
            self.asked += asked
            pairs = dict(pair for batch in llm.run([each.call for each in asked]) for pair in batch)
            return [Answer(f"{place}", pairs[place]) for place in range(len(asked))]

    texts = ["She swam in the river at noon", "the old river and the sea"]
    others = ["He read the law of the land", "music from the church"]
    rows = [(3, n < 2, text, "river") for n, text in enumerate([*texts, *others])]
    windows = [
        (latent, fires, pieces := [word if not n else f" {word}" for n, word in enumerate(text.split())],
         [4.0 if word in piece and fires else 0.0 for piece in pieces])
        for latent, fires, text, word in rows
    ]  # fmt: skip
    stub = Real(
        None, study(scorers=scorer(at_once=at_once)), examples__test=examples_frame("test", windows),
        explanations__default=explanations_frame({3: "the word river"}), latents=latents_frame(l3=["x"]),
    )  # fmt: skip
    found = scores.compute(stub.work("scores/default/simulation"))
    judgements, scored = rows_of("judgements", found["judgements"]), rows_of("scores", found["scores"])
    assert {row["error"] for row in judgements} == {None}
    assert all(0 <= value <= 9 for row in judgements for value in row["simulated"])
    by_control = {row["control"]: row["value"] for row in scored}
    assert by_control[None] > 0.1
    assert by_control[None] > by_control["empty"]
