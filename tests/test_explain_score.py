"""Windows are marked, replies become hypotheses and judgements, and whatever fails is counted and never a value."""

import re
from itertools import groupby
from math import log
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from latentlake.calls.ledger import call_key
from latentlake.explainers import Hypothesis
from latentlake.explainers.tokens import list_tokens
from latentlake.fakes import FakeEmbedder
from latentlake.marking import mark, marked_words
from latentlake.measures.metrics import auroc
from latentlake.protocols import Call, Choose, Generate, Reply, Score
from latentlake.scorers import Case
from latentlake.stages import explanations, scores
from latentlake.stages.explanations import choose
from latentlake.stages.scores import partners
from tests.stub import TIMEOUT, Answering, Stub, examples_frame, explanations_frame, latents_frame, reply, rows_of

# marking

PIECES = st.lists(
    st.tuples(st.sampled_from(["a", " b", "cd", " ", "", "\n", " é,"]), st.sampled_from([0.0, 0.2, 1.0])), max_size=12
)


@settings(deadline=None, max_examples=200)
@given(PIECES, st.sampled_from([0.0, 0.2, 0.5]))
def test_marks_stand_around_the_runs_of_active_tokens(window: list[tuple[str, float]], threshold: float) -> None:
    pieces, activations = [piece for piece, _ in window], [value for _, value in window]
    marked = mark(pieces, activations, threshold, "<<", ">>")
    assert marked.replace("<<", "").replace(">>", "") == "".join(pieces)
    runs = groupby(window, key=lambda each: each[1] > 0 and each[1] >= threshold)
    wanted = ["".join(piece for piece, _ in run).strip() for is_active, run in runs if is_active]
    found = [run.strip() for run in re.findall("<<(.*?)>>", marked, re.DOTALL)]
    assert [run for run in found if run] == [run for run in wanted if run]
    assert marked_words(pieces, activations, threshold) == list(dict.fromkeys(run for run in wanted if run))


@pytest.mark.parametrize(
    ("pieces", "activations", "marked"),
    [
        (["the", " cat", " sat"], [0, 1, 0], "the <<cat>> sat"),
        (["the", " cat", " sat"], [0, 1, 1], "the <<cat sat>>"),
        (["the", " cat", " sat"], [1, 0, 1], "<<the>> cat <<sat>>"),
        (["the", " cat"], [0, 0.2], "the cat"),
        ([], [], ""),
    ],
)
def test_a_mark_opens_after_the_space_of_a_word(pieces: list[str], activations: list[float], marked: str) -> None:
    assert mark(pieces, activations, 0.3, "<<", ">>") == marked


@pytest.mark.parametrize("pieces", [["a", "\n", "b"], ["é", "", "b"], ["a", " ", " b"]], ids=repr)
def test_nothing_is_marked_where_there_is_nothing_to_see(pieces: list[str]) -> None:
    assert mark(pieces, [0, 1, 0], 0.3, "<<", ">>") == "".join(pieces)


# hypotheses and explanations


def hypothesis(selection: float | None, explanation: str | None = "x") -> Hypothesis:
    return Hypothesis("draw", explanation, None if explanation else "empty", selection=selection)


FAILED = hypothesis(None, None)


@pytest.mark.parametrize(
    ("hypotheses", "chosen"),
    [
        ([], None),
        ([FAILED, FAILED], None),
        ([hypothesis(0.4), hypothesis(0.9), hypothesis(0.6)], 1),
        ([hypothesis(0.9), hypothesis(0.9)], 0),
        ([FAILED, hypothesis(0.1)], 1),
        ([hypothesis(None), hypothesis(None)], 0),
        ([hypothesis(None), hypothesis(0.2)], 1),
        ([FAILED, hypothesis(None), hypothesis(None)], 1),
        ([hypothesis(0.0), hypothesis(0.0), hypothesis(0.5)], 2),
    ],
    ids=str,
)
def test_the_best_hypothesis_is_chosen_and_of_equals_the_first(
    hypotheses: list[Hypothesis], chosen: int | None
) -> None:
    assert choose(hypotheses) == chosen


@pytest.mark.parametrize(
    ("texts", "explanation"),
    [
        ([" cat", "cat", "dog", " ", "", "bird", "fish"], "cat, dog, bird"),
        (["\ufffd", "cat\ufffd", " dog"], "dog"),
        ([" ", "\n", "\ufffd"], None),
        ([], None),
    ],
)
def test_a_token_list_names_different_words(texts: list[str], explanation: str | None) -> None:
    found = list_tokens(texts, 3)
    assert found.explanation == explanation
    assert found.error == (None if explanation else "no_tokens")


def test_the_token_explainer_lists_words_or_says_that_there_are_none() -> None:
    stub = Stub(latents=latents_frame(l0=["not", "chosen"], l2=[" a", "b"], l1=["\ufffd"]))
    tables = explanations.compute(stub.work("explanations/tokens"))
    rows = rows_of("explanations", tables["explanations"])
    assert [(row["latent"], row["explanation"], row["error"]) for row in rows] == [
        (1, None, "no_tokens"),
        (2, "a, b", None),
    ]
    assert [(row["latent"], row["is_chosen"]) for row in rows_of("hypotheses", tables["hypotheses"])] == [
        (1, False),
        (2, True),
    ]


STRONG = examples_frame(
    "strong",
    [
        (1, True, ["the", " cat", " sat"], [0, 9, 0]),
        (1, True, ["a", " dog", " ran"], [0, 4, 3]),
        (2, True, ["red", " wine"], [1, 0]),
        (1, False, ["never", " shown"], [0, 0]),
    ],
)
SELECT = examples_frame(
    "select",
    [
        (1, True, ["cat", " dog"], [1, 1]),
        (1, False, ["zzz", " qqq"], [0, 0]),
        (2, True, ["red"], [1]),
        (2, False, ["xx"], [0]),
    ],
)
LATENTS = latents_frame(l1=["cat", "dog"], l2=["red"], l3=[])


def explained(answering: Answering) -> tuple[Stub, list[dict[str, Any]], list[dict[str, Any]]]:
    stub = Stub(answering, latents=LATENTS, examples__strong=STRONG, examples__select=SELECT)
    tables = explanations.compute(stub.work("explanations/default"))
    return stub, rows_of("explanations", tables["explanations"]), rows_of("hypotheses", tables["hypotheses"])


def test_the_pattern_explainer_shows_marked_windows_of_the_latent_and_no_others() -> None:
    stub, _, _ = explained(lambda call: reply("cats and dogs"))
    assert [(each.latent, each.call.draw) for each in stub.asked] == [(1, 0), (1, 1), (1, 2), (2, 0), (2, 1), (2, 2)]
    suffix = stub.asked[0].call.suffix
    assert "Marked words: cat, dog ran\n- the <<cat>> sat\n- a <<dog ran>>\n" in suffix
    assert "wine" not in suffix
    assert "shown" not in suffix
    assert len({each.call.prefix for each in stub.asked}) == 1
    assert all(isinstance(each.call.sampling, Generate) for each in stub.asked)


def test_the_hypothesis_that_separates_best_is_chosen() -> None:
    texts = {0: "zzz qqq", 1: "cat dog", 2: "else"}
    _, rows, hypotheses = explained(lambda call: reply(texts[call.draw]))
    own = [row for row in hypotheses if row["latent"] == 1]
    assert [row["explanation"] for row in own] == ["zzz qqq", "cat dog", "else", "cat, dog"]
    embed = FakeEmbedder().embed
    for row in own:
        positive, negative, text = embed(["cat dog", "zzz qqq", row["explanation"]])
        assert row["selection"] == auroc(np.array([True, False]), np.array([positive @ text, negative @ text]))
    assert [row["is_chosen"] for row in own] == [False, True, False, False]
    assert next(row for row in rows if row["latent"] == 1)["explanation"] == "cat dog"


def test_a_latent_without_windows_or_words_has_no_explanation_and_says_why() -> None:
    _, rows, hypotheses = explained(lambda call: reply("fine"))
    (row,) = [row for row in rows if row["latent"] == 3]
    assert (row["explanation"], row["call"]) == (None, None)
    assert row["error"] == "no_tokens"
    assert [row["is_chosen"] for row in hypotheses if row["latent"] == 3] == [False]


@pytest.mark.parametrize(
    ("answer", "explanation", "error"),
    [
        (reply(' "cats and dogs." '), "cats and dogs", None),
        (reply("words like <<cat>>"), "words like cat", None),
        (reply("- cats"), "cats", None),
        (reply("..."), None, "empty"),
        (reply(""), None, "empty"),
        (reply(None), None, "empty"),
        (reply("a text that never", finish_reason="length"), None, "truncated"),
        (TIMEOUT, None, "timeout"),
    ],
    ids=str,
)
def test_a_completion_becomes_an_explanation_or_an_error(
    answer: Reply, explanation: str | None, error: str | None
) -> None:
    stub, _, hypotheses = explained(lambda call: answer)
    draws = [row for row in hypotheses if row["source"] == "draw"]
    assert {(row["explanation"], row["error"]) for row in draws} == {(explanation, error)}
    assert [row["call"] for row in draws] == [call_key("rev", each.call) for each in stub.asked]
    assert (draws[0]["selection"] is None) == (explanation is None)


# controls


@settings(deadline=None, max_examples=100)
@given(st.lists(st.integers(0, 10_000), unique=True, max_size=40), st.integers(0, 5))
def test_partners_are_one_cycle_through_all_latents(latents: list[int], seed: int) -> None:
    found = partners({latent: str(latent) for latent in latents}, seed)
    if len(latents) < 2:
        assert found == {}
        return
    walked = [latents[0]]
    while (after := found[walked[-1]]) != latents[0]:
        walked.append(after)
        assert len(walked) <= len(latents)
    assert sorted(walked) == sorted(latents)
    assert partners({latent: str(latent) for latent in latents[::-1]}, seed) == found


@settings(deadline=None, max_examples=100)
@given(st.dictionaries(st.integers(0, 100), st.sampled_from("abc"), max_size=12))
def test_a_partner_is_the_next_latent_that_is_explained_otherwise(texts: dict[int, str]) -> None:
    order = list(texts)
    if len(order) > 1:
        distinct = partners({latent: str(latent) for latent in texts}, 0)
        order = [order[0]]
        while len(order) < len(texts):
            order.append(distinct[order[-1]])
    wanted = {}
    for place, latent in enumerate(order):
        others = [each for each in (*order[place:], *order[:place]) if texts[each] != texts[latent]]
        wanted |= {latent: others[0]} if others else {}
    assert partners(texts, 0) == wanted


# judging


def windows(*latents: int, positives: int = 5, negatives: int = 5) -> pl.DataFrame:
    """Windows of latents: ``yes n`` where they fire, ``no n`` where not, numbered by context."""
    kinds = [(True, "yes")] * positives + [(False, "no")] * negatives
    rows = [
        (latent, is_on, [word, f" {latent}", f" {n}"], [float(is_on), 0, 0])
        for latent in latents
        for n, (is_on, word) in enumerate(kinds)
    ]
    return examples_frame("test", rows)


def scored(
    scorer: str, texts: dict[int, str | None], examples: pl.DataFrame, answering: Answering | None = None
) -> tuple[Stub, list[dict[str, Any]], list[dict[str, Any]]]:
    stub = Stub(answering, explanations__default=explanations_frame(texts), examples__test=examples)
    tables = scores.compute(stub.work(f"scores/default/{scorer}"))
    return stub, rows_of("judgements", tables["judgements"]), rows_of("scores", tables["scores"])


def window_of(call: Call) -> str:
    """The window in a prompt of detection or surprisal."""
    found = re.search(r"(yes|no) \d+ \d+", call.suffix)
    assert found
    return found.group()


def says_yes(call: Call) -> Reply:
    """A judge that is right, with a certainty that differs from window to window."""
    sure = log(0.6 + 0.03 * int(window_of(call)[-1])), log(0.2)
    return reply(logprobs=sure if "yes" in window_of(call) else sure[::-1])


def by_control(rows: list[dict[str, Any]], metric: str = "auroc") -> dict[tuple[int, str | None], dict[str, Any]]:
    return {(row["latent"], row["control"]): row for row in rows if row["metric"] == metric}


def test_a_latent_s_windows_are_held_against_its_explanation_another_latent_s_and_an_empty_one() -> None:
    texts = {3: "three", 5: "five", 8: "eight"}
    stub, judgements, _ = scored("detection", texts, windows(3, 5, 8, 9), says_yes)
    partner = partners(texts, 0)
    assert len(judgements) == len(stub.asked) == 3 * 3 * 8
    calls = {call_key("rev", asked.call): asked for asked in stub.asked}
    for row in judgements:
        asked = calls[row["call"]]
        wanted = {None: row["latent"], "shuffled": partner[row["latent"]], "empty": None}[row["control"]]
        assert row["explanation_latent"] == wanted
        assert asked.call.prefix.endswith(f"Description: {'' if wanted is None else texts[wanted]}\n")
        assert asked.latent == row["latent"]
        assert window_of(asked.call).split()[:2] == ["yes" if row["is_activating"] else "no", str(row["latent"])]
        assert row["call"] == call_key("rev", asked.call)
    ranks = {(row["latent"], row["control"], row["is_activating"]): 0 for row in judgements}
    for row in judgements:
        ranks[row["latent"], row["control"], row["is_activating"]] += 1
    assert set(ranks.values()) == {4}


def test_scores_are_the_metrics_of_the_judgements() -> None:
    _, judgements, rows = scored(
        "detection", {3: "three", 5: "five"}, windows(3, 5), lambda call: reply(logprobs=CHANCE[window_of(call)])
    )
    for (latent, control), row in by_control(rows).items():
        own = [each for each in judgements if (each["latent"], each["control"]) == (latent, control)]
        on = [each["probability"] for each in own if each["is_activating"]]
        off = [each["probability"] for each in own if not each["is_activating"]]
        assert row["value"] == pytest.approx(np.mean([(p > q) + (p == q) / 2 for p in on for q in off]))
        right = [np.mean([p > 0.5 for p in on]), np.mean([q <= 0.5 for q in off])]
        assert by_control(rows, "balanced_accuracy")[latent, control]["value"] == pytest.approx(np.mean(right))
        assert (row["n"], row["n_failed"], row["error"]) == (8, 0, None)
        assert row["low"] <= row["value"] == row["worst"] == row["best"] <= row["high"]


CHANCE = {
    f"{word} {latent} {n}": tuple(np.log(np.random.default_rng([latent, n]).dirichlet([1, 1])).tolist())
    for word in ("yes", "no")
    for latent in (3, 5)
    for n in range(10)
}


def test_failed_judgements_are_counted_and_bound_the_score() -> None:
    def answering(call: Call) -> Reply:
        return TIMEOUT if window_of(call) in ("yes 3 1", "no 3 6") else says_yes(call)

    _, judgements, rows = scored("detection", {3: "three", 5: "five"}, windows(3, 5), answering)
    failed = [row for row in judgements if row["error"]]
    assert len(failed) == 6
    for row in failed:
        assert (row["error"], row["prediction"], row["probability"], row["measure"]) == ("timeout", None, None, None)
        assert row["call"] is not None
    for metric in ("auroc", "balanced_accuracy", "f1"):
        for control in (None, "shuffled"):
            row = by_control(rows, metric)[3, control]
            assert (row["n"], row["n_failed"], row["value"], row["best"]) == (8, 2, 1.0, 1.0)
            assert row["worst"] < 1
            assert by_control(rows, metric)[5, control]["n_failed"] == 0
    # Three of four positives are known to be above three of four negatives; the failed two are at the wrong ends.
    assert by_control(rows)[3, None]["worst"] == pytest.approx(9 / 16)


def test_a_latent_whose_judgements_all_failed_says_so() -> None:
    _, _, rows = scored("detection", {3: "three", 5: "five"}, windows(3, 5), lambda call: TIMEOUT)
    row = by_control(rows)[3, None]
    assert (row["value"], row["n"], row["n_failed"], row["worst"], row["best"]) == (None, 8, 8, 0.0, 1.0)
    assert row["error"] is not None
    assert row["error"] != "one_class"


def test_every_metric_of_a_scorer_counts_failures() -> None:
    rows = scored("detection", {3: "three", 5: "five"}, windows(3, 5), lambda call: TIMEOUT)[2]
    assert {row["metric"] for row in rows} == {"auroc", "balanced_accuracy", "f1", "sensitivity", "specificity"}


def test_a_latent_without_an_explanation_has_a_score_row_with_the_reason() -> None:
    _, judgements, rows = scored("detection", {3: "three", 4: None, 5: "five"}, windows(3, 4, 5), says_yes)
    assert {row["latent"] for row in judgements} == {3, 5}
    assert {row["explanation_latent"] for row in judgements} == {3, 5, None}
    for control in (None, "shuffled", "empty"):
        row = by_control(rows)[4, control]
        assert (row["value"], row["n"], row["n_failed"], row["error"]) == (None, 0, 0, "no_explanation")
        assert by_control(rows)[3, control]["error"] is None


def test_a_block_with_a_single_explanation_has_no_shuffled_control_and_says_why() -> None:
    _, judgements, rows = scored("detection", {3: "three", 4: None}, windows(3, 4), says_yes)
    assert {row["control"] for row in judgements} == {None, "empty"}
    row = by_control(rows)[3, "shuffled"]
    assert (row["value"], row["n"], row["error"]) == (None, 0, "no_partner")
    assert by_control(rows)[3, None]["value"] == 1.0


@pytest.mark.parametrize(
    ("examples", "reason"),
    [(windows(5), "no_windows"), (windows(3, 5, negatives=0), "one_class"), (windows(3, 5, positives=0), "one_class")],
)
def test_a_score_that_is_not_defined_says_why(examples: pl.DataFrame, reason: str) -> None:
    _, _, rows = scored("detection", {3: "three", 5: "five"}, examples, says_yes)
    own = [row for row in rows if row["latent"] == 3 and row["metric"] in ("auroc", "balanced_accuracy", "f1")]
    assert {row["error"] for row in own} == {reason}
    assert {row["value"] for row in own} == {None}


@pytest.mark.parametrize("texts", [{}, {3: None}], ids=["no latents", "no explanations"])
def test_a_block_without_explanations_asks_nothing(texts: dict[int, str | None]) -> None:
    stub, judgements, rows = scored("detection", texts, windows(3), None)
    assert judgements == stub.asked == []
    controls = [(latent, control) for latent in texts for control in (None, "shuffled", "empty")]
    assert sorted(by_control(rows), key=str) == sorted(controls, key=str)
    assert {row["error"] for row in rows} == {"no_explanation" for _ in texts}


def judged(scorer: str, answering: Answering | None, *cases: Case) -> tuple[Stub, list[Any]]:
    stub = Stub(answering)
    work = stub.work(f"scores/default/{scorer}")
    return stub, list(work.study.scorers[scorer].judge(work, cases))


CASE = Case(3, "explained", "yes 3 0")


@pytest.mark.parametrize(
    ("logprobs", "probability", "prediction"),
    [
        ((log(0.6), log(0.2)), 0.75, True),
        ((log(0.2), log(0.6)), 0.25, False),
        ((-1.0, -1.0), 0.5, False),
        ((-1000.0, 0.0), 0.0, False),
        ((0.0, -1000.0), 1.0, True),
        ((float("-inf"), 0.0), 0.0, False),
        ((0.0, float("-inf")), 1.0, True),
    ],
)
def test_detection_compares_yes_and_no(logprobs: tuple[float, float], probability: float, prediction: bool) -> None:
    stub, (found,) = judged("detection", lambda call: reply(logprobs=logprobs), CASE)
    assert (found.probability, found.prediction, found.measure, found.error) == (
        pytest.approx(probability),
        prediction,
        None,
        None,
    )
    assert stub.asked[0].call.sampling == Choose((" yes", " no"))


@pytest.mark.parametrize(
    "answer",
    [TIMEOUT, reply(error="refused"), reply("yes"), reply(logprobs=(float("-inf"), float("-inf")))],
    ids=["retryable", "final", "without logprobs", "neither is possible"],
)
def test_detection_without_an_answer_is_an_error(answer: Reply) -> None:
    stub, (found,) = judged("detection", lambda call: answer, CASE)
    assert found.error
    assert (found.prediction, found.probability, found.measure) == (None, None, None)
    assert found.call == call_key("rev", stub.asked[0].call)


def test_a_window_is_one_line_in_a_prompt() -> None:
    for scorer in ("detection", "surprisal"):
        stub, _ = judged(scorer, lambda call: reply(logprobs=(-1.0, -2.0)), Case(3, "explained", " a\n\n b \t c\n"))
        assert all("a b c" in each.call.suffix for each in stub.asked)
        assert "explained" in stub.asked[-1].call.prefix


def test_surprisal_is_what_the_explanation_adds() -> None:
    def answering(call: Call) -> Reply:
        return reply(logprobs=(-1.0, -0.5) if "various things" in call.prefix else (-0.25, -0.125))

    other = Case(4, "another", "yes 3 0")
    stub, found = judged("surprisal", answering, CASE, other)
    assert [(each.measure, each.prediction, each.probability, each.error) for each in found] == [
        (1.125, None, None, None)
    ] * 2
    assert {each.call.sampling for each in stub.asked} == {Score()}
    # The neutral part of the two cases is one call to the ledger.
    assert len({call_key("rev", each.call) for each in stub.asked}) == 3
    assert found[0].call == call_key("rev", next(each.call for each in stub.asked if "explained" in each.call.prefix))


@pytest.mark.parametrize("where", ["various things", "explained"])
@pytest.mark.parametrize("answer", [TIMEOUT, reply("text")], ids=["failed", "without logprobs"])
def test_surprisal_without_one_of_its_likelihoods_is_an_error(where: str, answer: Reply) -> None:
    _, (found,) = judged("surprisal", lambda call: answer if where in call.prefix else reply(logprobs=(-1.0,)), CASE)
    assert found.error
    assert found.measure is None
    assert found.call is not None


def test_embedding_measures_cosines() -> None:
    cases = [Case(3, "yes 3", "yes 3 0"), Case(3, "yes 3", "no 3 1"), Case(4, "other", "yes 3 0")]
    _, found = judged("embedding", None, *cases)
    for case, each in zip(cases, found, strict=True):
        one, other = FakeEmbedder().embed([case.explanation, case.text])
        assert each.measure == pytest.approx(float(one @ other), abs=1e-5)
        assert (each.prediction, each.probability, each.error, each.call) == (None, None, None, None)
