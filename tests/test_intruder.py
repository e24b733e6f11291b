"""A judge that sees five windows finds the one in which the latent does not fire, or not; marks and places tell it nothing."""

import json
import re
from collections import Counter
from collections.abc import Callable
from math import inf, log
from typing import Any

import numpy as np
import polars as pl
import pytest
from scipy.stats import binomtest
from sklearn.ensemble import HistGradientBoostingClassifier

from latentlake.errors import StudyError
from latentlake.measures.metrics import wilson_interval
from latentlake.protocols import Call, Choose, Reply
from latentlake.scorers.intruder import Intruder, Trial
from latentlake.stages import scores
from latentlake.tables import TABLES
from tests.stub import TIMEOUT, Stub, latents_frame, reply, rows_of, study

OWN: dict[str, Any] = {"method": "intruder", "sample": "wide", "trials": 20, "llm": "judge"}
WIDE: dict[str, Any] = {"split": "score", "windows": 80, "negatives": 40}
LETTERS = "ABCDE"
LENGTH = 12  # tokens of a window
Window = dict[str, Any]


def windows(
    latents: int = 1, firing: int = 80, silent: int = 40, marks: Callable[[Any], Any] | None = None
) -> pl.DataFrame:
    """Windows of some latents, from 1: the words of those in which they fire begin with f, of the others with s. Deciles go
    round, in another order for each latent.
    """
    chosen = np.random.default_rng(0)
    draw = marks or (lambda chosen: chosen.choice(LENGTH, chosen.integers(1, 4), replace=False))
    rows = []
    for latent in range(1, latents + 1):
        deciles = chosen.permutation(10)
        for is_on, n in ((True, firing), (False, silent)):
            for rank in range(n):
                active = set(draw(chosen)) if is_on else set()
                words = [f" {'f' if is_on else 's'}{rank:02}{place:02}" for place in range(LENGTH)]
                rows.append(
                    {
                        "sample": "wide", "dictionary": "one", "block": 0, "latent": latent, "rank": rank, "is_activating": is_on,
                        "source": "quantiles" if is_on else ("random", "similar")[rank % 2],
                        "decile": int(deciles[rank % 10]) if is_on else None,
                        "shard": "s", "context": 1000 * latent + 2 * rank + is_on, "start": 0, "tokens": [1] * LENGTH,
                        "activations": [float(place in active) for place in range(LENGTH)], "text": "".join(words),
                        "offsets": [place * len(words[0]) for place in range(LENGTH)],
                    }
                )  # fmt: skip
    return pl.DataFrame(rows, schema=TABLES["examples"].empty().schema)


def stub_of(answering: Callable[[Call], Reply], frame: pl.DataFrame, **settings: Any) -> Stub:
    named = {f"l{latent}": ["x"] for latent in frame["latent"].unique().sort()} | {"l0": ["not chosen"]}
    changed = study(scorers={"own": OWN | settings}, samples={"wide": WIDE})
    return Stub(answering, changed, latents=latents_frame(**named), examples__wide=frame)


def made(answering: Callable[[Call], Reply], frame: pl.DataFrame, **settings: Any) -> dict[str, list[dict[str, Any]]]:
    """Rows of the tables of the stage."""
    tables = scores.compute(stub_of(answering, frame, **settings).work("scores/none/own"))
    return {name: rows_of(name, rows) for name, rows in tables.items()}


def lettered(call: Call) -> dict[str, str]:
    return dict(re.findall(r"^([A-E])\. (.*)$", call.suffix, re.MULTILINE))


def picks(letter: str) -> Reply:
    return reply(logprobs=tuple(log(0.8 if each == letter else 0.05) for each in LETTERS))


def intruder_of(call: Call) -> str:
    """The letter of the window whose words begin with s, which no judge but these can know."""
    (found,) = [letter for letter, text in lettered(call).items() if re.match(r"(<<)?s", text)]
    return found


def finds(call: Call) -> Reply:
    return picks(intruder_of(call))


def misses(call: Call) -> Reply:
    return picks("ABCDEA"[LETTERS.index(intruder_of(call)) + 1])


def trials_of(frame: pl.DataFrame, **settings: Any) -> list[Trial]:
    return list(Intruder.model_validate(OWN | settings).shown(frame.lazy(), seed=0))


def marked(text: str) -> list[int]:
    """Places of the tokens that stand between marks."""
    found, inside = [], False
    for part in re.findall(r"<<|>>|[fs]\d{4}", text):
        if part in ("<<", ">>"):
            inside = part == "<<"
        elif inside:
            found.append(int(part[-2:]))
    return found


# what is found


def test_a_judge_that_always_finds_the_intruder_has_accuracy_one_and_one_that_never_does_has_none() -> None:
    for judge, value in ((finds, 1.0), (misses, 0.0)):
        (row,) = made(judge, windows())["scores"]
        assert (row["explainer"], row["scorer"], row["metric"], row["control"]) == ("none", "own", "accuracy", None)
        assert (row["value"], row["n"], row["n_failed"], row["error"]) == (value, 20, 0, None)
        low, high = wilson_interval(np.array(20.0 * value), np.array(20.0))
        assert (row["low"], row["high"]) == pytest.approx((float(np.clip(low, 0, 1)), float(np.clip(high, 0, 1))))
        assert (row["worst"], row["best"]) == (value, value)


@pytest.mark.parametrize("letter", [*LETTERS, "by chance"])
def test_a_judge_that_knows_nothing_is_at_chance(letter: str) -> None:
    chosen = np.random.default_rng(1)
    rows = made(lambda call: picks(chosen.choice(list(LETTERS)) if letter == "by chance" else letter), windows(20))
    found = [row["prediction"] for row in rows["judgements"]]
    assert len(found) == 400
    assert binomtest(sum(found), len(found), Intruder.chance).pvalue > 0.001


def test_of_answers_that_are_all_as_likely_the_first_counts() -> None:
    rows = made(lambda call: reply(logprobs=(-1.0,) * 5), windows())["judgements"]
    assert {row["probability"] for row in rows} == {0.2}
    assert 0 < sum(row["prediction"] for row in rows) < len(rows)


def test_judgements_name_the_intruder_the_decile_of_the_others_and_what_the_judge_gives_to_it() -> None:
    rows = made(finds, windows())["judgements"]
    assert Counter(row["decile"] for row in rows) == dict.fromkeys(range(10), 2)
    assert [(row["shard"], row["context"]) for row in sorted(rows, key=lambda row: row["context"])] == [
        ("s", 1000 + 2 * rank) for rank in range(20)
    ]
    assert Counter(row["source"] for row in rows) == {"random": 10, "similar": 10}
    assert {(row["is_activating"], row["explanation_latent"], row["measure"]) for row in rows} == {(False, None, None)}
    assert [row["probability"] for row in rows] == pytest.approx([0.8] * 20)
    assert {row["call"] for row in rows} != {None}


def test_accuracy_has_slices_by_decile_and_source() -> None:
    def knows_some(call: Call) -> Reply:
        return finds(call) if re.search(r"s\d[02468]\d\d", lettered(call)[intruder_of(call)]) else misses(call)

    rows = made(knows_some, windows())
    by_source = {row["source"]: row["value"] for row in rows["slices"] if row["source"]}
    assert by_source == {"random": 1.0, "similar": 0.0}
    by_decile = {row["decile"]: (row["value"], row["n"]) for row in rows["slices"] if row["decile"] is not None}
    own = {decile: [row["prediction"] for row in rows["judgements"] if row["decile"] == decile] for decile in range(10)}
    assert by_decile == {decile: (np.mean(found), 2) for decile, found in own.items()}


def test_failures_are_no_wrong_answers() -> None:
    def fails(call: Call) -> Reply:
        return TIMEOUT if re.search(r"s0[0-4]", call.suffix) else finds(call)

    rows = made(fails, windows())
    (row,) = rows["scores"]
    assert (row["value"], row["n"], row["n_failed"], row["worst"], row["best"]) == (1.0, 20, 5, 0.75, 1.0)
    assert row["failures"] == [{"error": "timeout", "n": 5}]
    assert {row["prediction"] for row in rows["judgements"] if row["error"]} == {None}


@pytest.mark.parametrize(
    ("answer", "error"),
    [(TIMEOUT, "timeout"), (reply(), "no_logprobs"), (reply(logprobs=(-inf,) * 5), "no_logprobs")],
    ids=["timeout", "no log-probabilities", "none listed"],
)
def test_without_an_answer_there_is_no_score(answer: Reply, error: str) -> None:
    (row,) = made(lambda call: answer, windows())["scores"]
    assert (row["value"], row["error"], row["n_failed"]) == (None, "all_failed", 20)
    assert (row["worst"], row["best"]) == (0.0, 1.0)
    assert row["failures"] == [{"error": error, "n": 20}]


def test_letters_that_a_server_does_not_list_have_no_probability() -> None:
    rows = made(lambda call: reply(logprobs=(-inf, -inf, -1.0, -inf, -inf)), windows())["judgements"]
    assert {(row["prediction"], row["probability"]) for row in rows} == {(True, 1.0), (False, 0.0)}


@pytest.mark.parametrize(
    "frame",
    [windows(firing=30), windows(silent=0), windows(firing=0)],
    ids=["three of each decile", "no intruder", "never fires"],
)
def test_a_latent_with_too_few_windows_has_no_score_and_says_why(frame: pl.DataFrame) -> None:
    rows = made(finds, pl.concat([frame, windows(2).filter(latent=2)]))
    assert [(row["latent"], row["value"], row["error"], row["n"]) for row in rows["scores"]] == [
        (1, None, "few_windows", 0),
        (2, 1.0, None, 20),
    ]


def test_a_block_without_windows_has_no_judgements() -> None:
    rows = made(finds, windows().clear())
    assert (rows["judgements"], rows["scores"], rows["slices"]) == ([], [], [])


# what is shown


def test_each_trial_shows_four_windows_of_a_decile_with_their_marks_and_the_next_intruder() -> None:
    frame = windows(3)
    texts = {(row["latent"], row["text"].strip()): row for row in frame.iter_rows(named=True)}
    for latent in (1, 2, 3):
        found = [each for each in trials_of(frame) if each.row["latent"] == latent]
        assert [each.row["rank"] for each in found] == list(range(20))
        assert len({each.decile for each in found[:10]}) == len({each.decile for each in found[10:]}) == 10
        used = []
        for trial in found:
            for place, text in enumerate(trial.texts):
                row = texts[latent, text.replace("<<", "").replace(">>", "").strip()]
                assert row["is_activating"] == (place != trial.place)
                if row["is_activating"]:
                    used.append(row["rank"])
                    assert row["decile"] == trial.decile
                    assert [float(at in marked(text)) for at in range(LENGTH)] == row["activations"]
        assert sorted(used) == list(range(80))


@pytest.mark.parametrize("trials", [1, 7, 13])
def test_where_deciles_cannot_all_have_as_many_trials_none_is_preferred(trials: int) -> None:
    found = trials_of(windows(40), trials=trials)
    assert len(found) == 40 * trials
    assert {each.decile for each in found} == set(range(10))
    per_latent = Counter((each.row["latent"], each.decile) for each in found)
    assert max(per_latent.values()) == -(-trials // 10)


def test_a_chat_is_shown_the_same_and_the_answers_are_letters() -> None:
    plain, chat = (stub_of(finds, windows(), llm=llm) for llm in ("judge", "chat"))
    for stub in (plain, chat):
        scores.compute(stub.work("scores/none/own"))
        assert {each.call.sampling for each in stub.asked} == {Choose((" A", " B", " C", " D", " E"))}
        assert {each.latent for each in stub.asked} == {1}
    for one, other in zip(plain.asked, chat.asked, strict=True):
        assert one.call.suffix == f"{other.call.suffix}\nOdd one out:"
        assert other.call.chat is not None
        assert [each.role for each in other.call.chat] == ["system", *["user", "assistant"] * 2]
        assert {each.text for each in other.call.chat if each.role == "assistant"} <= set(LETTERS)


def test_places_and_marks_of_intruders_tell_nothing() -> None:
    """Five places, and of each window where its marks stand and how many there are: no judge of these alone is above chance."""
    skewed = windows(100, marks=lambda chosen: chosen.choice(4 + 2 * chosen.integers(4), chosen.integers(1, 5), False))
    found = trials_of(skewed)
    places = Counter(each.place for each in found)
    assert all(binomtest(places[place], len(found), 0.2).pvalue > 0.001 for place in range(5))
    features, truth = [], []
    for trial in found:
        seen = [marked(text) for text in trial.texts]
        alike = [sum(own == other for other in seen) for own in seen]
        means = [float(np.mean(own)) for own in seen]
        for place, own in enumerate(seen):
            apart = means[place] - np.mean(means)
            features.append([len(own), min(own), max(own), means[place], alike[place], apart, place])
            truth.append(place == trial.place)
    half = len(found) // 2 * 5
    judge = HistGradientBoostingClassifier(max_iter=40, random_state=0).fit(features[:half], truth[:half])
    said = judge.predict_proba(features[half:])[:, 1].reshape(-1, 5).argmax(1)
    right = sum(int(one) == trial.place for one, trial in zip(said, found[half // 5 :], strict=True))
    assert binomtest(right, len(said), 0.2).pvalue > 0.001


def test_no_intruder_is_marked_as_a_window_beside_it_is_but_by_chance() -> None:
    """Marks that were copied from a window of the trial would make a pair, of which one is the intruder."""
    alone = windows(20, marks=lambda chosen: chosen.choice(LENGTH, 6, replace=False))  # 924 ways to mark
    pairs = [marked(each.texts[each.place]) for each in trials_of(alone)]
    same = [
        sum(marked(text) == own for text in each.texts) - 1 for own, each in zip(pairs, trials_of(alone), strict=True)
    ]
    assert sum(same) <= 8  # 1.7 are to be expected of 400 trials
    assert {len(own) for own in pairs} == {6}


# what it does not depend on, and what changes it


def plain(trials: list[Trial]) -> list[Any]:
    return [(each.row["latent"], each.row["rank"], each.decile, each.texts, each.place) for each in trials]


def test_trials_do_not_depend_on_the_order_of_rows_or_on_other_latents() -> None:
    frame = windows(3)
    everything = plain(trials_of(frame))
    assert plain(trials_of(frame.sample(fraction=1, shuffle=True, seed=1))) == everything
    assert plain(trials_of(frame.filter(latent=2))) == [each for each in everything if each[0] == 2]
    other = list(Intruder.model_validate(OWN).shown(frame.lazy(), seed=1))
    assert plain(other) != everything


def test_fewer_trials_are_the_first_of_more() -> None:
    assert plain(trials_of(windows(), trials=5)) == plain(trials_of(windows()))[:5]


@pytest.mark.parametrize("is_activating", [True, False])
def test_a_window_that_is_replaced_changes_few_trials(is_activating: bool) -> None:
    before = windows()
    spared = pl.col("is_activating") != is_activating
    changed = []
    for rank in range(20):
        kept = spared | (pl.col("rank") != rank)
        text = pl.when(kept).then("text").otherwise(pl.col("text").str.replace_all("[fs]", "g"))
        values = pl.when(kept).then("activations").otherwise(pl.col("activations").list.reverse())
        after = before.with_columns(text=text, activations=values)
        pairs = zip(plain(trials_of(before)), plain(trials_of(after)), strict=True)
        changed.append(sum(one != other for one, other in pairs))
    assert min(changed) >= 1
    assert np.mean(changed) <= 2.5
    assert max(changed) <= 6


def test_windows_in_which_nothing_can_be_marked_are_left_out() -> None:
    blank = pl.col("text").str.replace_all(r"\S", " ")
    gone = (pl.col("rank") == 0) & (pl.col("latent") == 1)
    frame = windows().with_columns(text=pl.when(gone).then(blank).otherwise("text"))
    found = trials_of(frame)
    assert [each.row["rank"] for each in found] == list(range(1, 20))  # the decile of the window has one trial less
    assert all("<<" in text for each in found for text in each.texts)


# refusals


@pytest.mark.parametrize(
    ("sample", "settings", "message"),
    [
        ({"windows": 39}, {}, r"scorers\.own judges 40 windows, but samples\.wide draws only 39; let it draw more"),
        ({"negatives": 0}, {}, r"scorers\.own compares windows with others, but samples\.wide has no negatives"),
        (
            {"negatives": {"random": 10, "token_matched": 9}},
            {},
            r"scorers\.own needs 20 windows in which the latent does not fire, but samples\.wide draws only 19; let it draw more",
        ),
        ({"split": "select"}, {}, r"uses samples\.wide of the split select; it needs one of the split score"),
        ({}, {"trials": 0}, "greater than or equal to 1"),
        ({}, {"trials": None}, "integer"),
        ({}, {"marked_above": 0}, "greater than 0"),
        ({}, {"llm": "embedder"}, r"scorers\.own needs a model with the engine"),
        ({}, {"explainers": ["tokens"]}, "unknown key 'explainers'"),
        ({}, {"prompt": "detection"}, "names a prompt that cannot be read"),
    ],
    ids=json.dumps,
)
def test_a_study_that_cannot_be_is_refused(sample: dict[str, Any], settings: dict[str, Any], message: str) -> None:
    assert study(scorers={"own": OWN}, samples={"wide": WIDE})
    with pytest.raises(StudyError, match=message):
        study(scorers={"own": OWN | settings}, samples={"wide": WIDE | sample})
