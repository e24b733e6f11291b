"""Interventions: prompts up to the first firing, strengths by search, texts side by side, and what explanations make of them."""

import copy
import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import accumulate
from math import inf, nan
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import load_file, save_file
from scipy.stats import t

from latentlake.coders.coder import SparseCoder
from latentlake.coders.neurons import neurons
from latentlake.errors import StudyError
from latentlake.fakes import FakeHandles, FakeLLM, FakeSubject
from latentlake.measures.scoring import averaged
from latentlake.prompts import Prompt
from latentlake.protocols import Answer, Asked, Call, Reply, Score
from latentlake.sampling.prompts import prompts_of
from latentlake.stages import continuations as continuations_stage
from latentlake.stages import explanations, scores
from latentlake.steering.pushes import Push
from latentlake.steering.search import Search, strength_of
from latentlake.steering.steered import Steered
from latentlake.tables import TABLES
from tests.stub import TIMEOUT, Stub, explanations_frame, reply, rows_of, study
from tests.workbench import Workbench, opened

BOS = 1
SECTIONS: dict[str, Any] = {
    "interventions": {"pushed": {"tune": "select", "show": "strong", "score": "test", "kl": [0.33, 1.0]}},
    "scorers": {
        "intervention": {
            "method": "intervention", "explainers": ["default"], "intervention": "pushed", "llm": "judge", "most_prompts": 4,
        },
    },
    "explainers": {"change": {"method": "token_change", "intervention": "pushed", "llm": "judge", "words": 3}},
}  # fmt: skip
PUSHED = study(**SECTIONS)


# prompts


def window(tokens: list[int], activations: list[float], rank: int = 0) -> dict[str, Any]:
    pieces = [f" {token}" for token in tokens]
    return {
        "sample": "s", "dictionary": "one", "block": 0, "latent": 3, "rank": rank, "is_activating": any(activations),
        "source": "quantiles", "decile": 2, "shard": "s", "context": 5, "start": 7 * rank, "tokens": tokens,
        "activations": activations, "text": "".join(pieces), "offsets": list(accumulate(map(len, pieces[:-1]), initial=0)),
    }  # fmt: skip


def frame(*windows: dict[str, Any]) -> pl.LazyFrame:
    return pl.DataFrame(list(windows), schema=TABLES["examples"].empty().schema).lazy()


def test_a_prompt_ends_with_the_first_token_on_which_the_latent_fires() -> None:
    rows = prompts_of(frame(window([11, 12, 13, 14, 15], [0, 0, 2, 0, 9])), BOS, shortest=3)
    assert rows.select("latent", "rank", "decile", "source", "shard", "context", "start").row(0) == (
        3, 0, 2, "quantiles", "s", 5, 0,
    )  # fmt: skip
    assert rows["tokens"].to_list() == [[BOS, 11, 12, 13]]
    assert rows["prompt"].to_list() == [" 11 12 13"]


def test_a_prompt_has_one_bos_or_none() -> None:
    opened = frame(window([BOS, 12, 13, 14], [0, 0, 1, 0]))
    assert prompts_of(opened, BOS, 2)["tokens"].to_list() == [[BOS, 12, 13]]
    assert prompts_of(frame(window([11, 12, 13], [0, 0, 1])), None, 2)["tokens"].to_list() == [[11, 12, 13]]


def test_a_separator_that_is_the_bos_token_stays_in_the_prompt() -> None:
    """Many tokenizers have one token for both."""
    rows = prompts_of(frame(window([11, BOS, 12, 13], [0, 0, 0, 2])), BOS, 2)
    assert rows["tokens"].to_list() == [[BOS, 11, BOS, 12, 13]]


def test_windows_that_fire_too_early_make_no_prompt() -> None:
    """BOS is no token to go on with; and of a latent that fires on every first token no prompt is left."""
    early = [window([11, 12, 13], [4, 0, 0]), window([BOS, 12, 13], [0, 3, 0], 1), window([11, 12, 13], [0, 1, 0], 2)]
    assert prompts_of(frame(*early), BOS, 2)["rank"].to_list() == [2]
    assert prompts_of(frame(*early[:2]), BOS, 2).is_empty()


def test_windows_in_which_the_latent_does_not_fire_are_no_prompts() -> None:
    assert prompts_of(frame(window([11, 12, 13], [0, 0, 0])), BOS, 1).is_empty()


# strengths


def searched(divergence: Any, *targets: float) -> Search:
    """A search for targets, all at once, as the stage makes it; measures no step twice."""
    search = Search()
    for _ in range(100):
        wanted = search.wanted(targets)
        if not wanted:
            return search
        assert not search.known.keys() & set(wanted)
        for step in wanted:
            search.add(step, divergence(strength_of(step)))
    raise AssertionError("a search must end")


@settings(deadline=None)
@given(
    scale=st.floats(1e-4, 1e4),
    power=st.floats(1.0, 2.5),
    targets=st.lists(st.floats(0.01, 5.0), min_size=1, max_size=4, unique=True),
)
def test_the_strength_is_found_at_which_a_divergence_is_reached(
    scale: float, power: float, targets: list[float]
) -> None:
    search = searched(lambda strength: (strength / scale) ** power, *targets)
    for target in targets:
        step, kl = search.best(target)
        assert kl == pytest.approx((strength_of(step) / scale) ** power)
        assert abs(kl - target) <= 0.03 * target  # half a step, 2 ** (1 / 64), to the power of 2.5


def test_the_nearest_step_does_not_depend_on_which_targets_are_sought_beside_it() -> None:
    alone = [searched(lambda strength: strength**2 / 900, target).best(target) for target in (0.1, 0.33, 1.0, 3.0)]
    together = searched(lambda strength: strength**2 / 900, 0.1, 0.33, 1.0, 3.0)
    assert [together.best(target) for target in (0.1, 0.33, 1.0, 3.0)] == alone


def test_a_target_out_of_reach_ends_the_search() -> None:
    """However strong the push: the divergence that it comes nearest with is kept."""
    search = searched(lambda strength: 0.4 * strength / (1 + strength), 0.1, 1.0)
    assert search.best(1.0)[1] == pytest.approx(0.4, abs=1e-6)
    assert search.best(0.1)[1] == pytest.approx(0.1, rel=0.03)


def test_a_push_that_overflows_is_beyond_any_target() -> None:
    search = searched(lambda strength: nan if strength > 20 else strength / 100, 0.19, 1.0)
    assert inf in search.known.values()
    assert search.best(1.0)[1] == pytest.approx(0.2, rel=0.03)
    assert search.best(0.19)[1] == pytest.approx(0.19, rel=0.03)


def test_a_divergence_that_is_never_a_number_is_none() -> None:
    assert searched(lambda strength: nan, 1.0).found(1.0)[1:] == (None, "kl_out_of_reach")


def test_a_divergence_that_falls_again_is_crossed_where_it_first_reaches_the_target() -> None:
    search = searched(lambda strength: strength if strength < 8 else 64 / strength, 1.5)
    assert strength_of(search.best(1.5)[0]) == pytest.approx(1.5, rel=0.03)


# scores


def judgement(
    latent: int, control: str | None, target: float, measure: float | None, kl: float = 0.9
) -> dict[str, Any]:
    return {
        "latent": latent, "control": control, "target": target, "measure": measure, "kl": kl,
        "error": "timeout" if measure is None else None,
    }  # fmt: skip


def test_scores_are_means_over_prompts_with_students_interval() -> None:
    values = [0.5, 1.5, 4.0]
    rows = [judgement(1, None, 1.0, value, kl) for value, kl in zip(values, (0.8, 1.0, 1.3), strict=True)]
    rows += [judgement(1, None, 0.33, 0.25), judgement(1, None, 1.0, None)]
    schema = {"latent": pl.Int32, "control": pl.String, "target": pl.Float64, "measure": pl.Float64, "kl": pl.Float64}
    wanted = pl.DataFrame(
        {"latent": [1, 2], "control": [None, None], "error": [None, "no_explanation"]},
        schema={"latent": pl.Int32, "control": pl.String, "error": pl.String},
    )
    found, slices = averaged(
        wanted, pl.DataFrame(rows, schema={**schema, "error": pl.String}), {"nats": "measure", "kl": "kl"}, target=1.0
    )
    low, high = t.interval(0.95, 2, loc=2.0, scale=np.std(values, ddof=1) / np.sqrt(3))
    own = found.row(by_predicate=(pl.col("latent") == 1) & (pl.col("metric") == "nats"), named=True)
    assert (own["value"], own["n"], own["n_failed"]) == (2.0, 4, 1)
    assert (own["low"], own["high"]) == pytest.approx((low, high))
    assert own["worst"] is None and own["best"] is None
    assert own["failures"] == [{"error": "timeout", "n": 1}]
    reached = found.row(by_predicate=(pl.col("latent") == 1) & (pl.col("metric") == "kl"), named=True)
    assert reached["value"] == pytest.approx((0.8 + 1.0 + 1.3) / 3)
    assert found.filter(latent=2)["error"].to_list() == ["no_explanation"] * 2
    curve = slices.filter(metric="nats").sort("target").select("target", "value", "low").rows()
    assert curve == [(0.33, 0.25, None), (1.0, 2.0, pytest.approx(low))]


# texts, by the stage alone


def test_a_text_that_was_not_pushed_so_says_and_a_push_that_overflows_is_an_error() -> None:
    """Of a push beyond the subject's numbers neither text nor divergence means anything."""
    common = {"intervention": "pushed", "dictionary": "one", "block": 0, "latent": 3, "n": 4}
    found = [
        {**common, "target": 0.33, "strength": 1e39, "kl": 0.33},
        {**common, "target": 1.0, "strength": 5.0, "kl": 0.5, "error": "kl_out_of_reach"},
    ]
    stub = Stub(
        None, PUSHED, strengths__pushed=pl.DataFrame(found, schema=TABLES["strengths"].empty().schema),
        examples__test=frame(window(list(range(10, 20)), [0.0] * 9 + [1.0])).collect(),
        dictionaries=pl.DataFrame({"writes": ["h"]}),
    )  # fmt: skip
    subject = FakeSubject(width=4)

    def steer(pushes: Mapping[str, Push], asked: Sequence[Asked]) -> list[Answer]:
        replies = dict(each for batch in Steered(subject, pushes).run([each.call for each in asked]) for each in batch)
        return [Answer("", replies[place]) for place in range(len(asked))]

    handles = FakeHandles(lambda _: SparseCoder(neurons(4, 2)[0], "one"), subject, FakeLLM())
    work = replace(stub.work("continuations/pushed"), handles=handles, steer=steer)
    said = continuations_stage.compute(work)["continuations"]
    assert isinstance(said, pl.DataFrame)
    rows = said.select("target", "strength", "kl", "error", pl.col("text").is_null()).rows()
    assert rows == [
        (None, None, 0.0, None, False),
        (0.33, 1e39, None, "overflow", True),
        (1.0, None, None, "kl_out_of_reach", True),
    ]


# the scorer, every log-probability given by the test


def continuations(latents: list[int], prompts: int = 3) -> pl.DataFrame:
    """Of each latent clean texts, and pushed ones that name the latent; by a random direction, that name nobody."""
    rows = []
    for latent in latents:
        for rank in range(prompts):
            common = {
                "intervention": "pushed", "dictionary": "one", "block": 0, "latent": latent, "rank": rank, "decile": rank,
                "source": "quantiles", "shard": "s", "context": rank, "start": 0, "prompt": f"prompt {rank}", "call": "c",
            }  # fmt: skip
            rows.append({**common, "text": f"clean {rank}", "kl": 0.0})
            for target in (0.33, 1.0):
                push = {"target": target, "strength": 2.0, "kl": target}
                rows.append({**common, **push, "text": f"about l{latent} {rank}"})
                rows.append({**common, **push, "control": "random_direction", "text": f"noise {rank}"})
    return pl.DataFrame(rows, schema=TABLES["continuations"].empty().schema)


def likely(call: Call) -> Reply:
    """An explanation is likelier by a nat a word after a text that it names; the two words are tokens."""
    assert call.sampling == Score(after="\nAbout:")
    text, said = call.suffix.removeprefix("Text: ").split("\nAbout: ")
    return reply(logprobs=(-1.0, -1.0) if said.split()[-1] in text.split() else (-2.0, -2.0))


def scored(stub: Stub, name: str = "intervention") -> dict[str, list[dict[str, Any]]]:
    found = scores.compute(stub.work(f"scores/default/{name}"))
    return {table: rows_of(table, rows) for table, rows in found.items()}


def stub_of(answering: Any = likely, said: pl.DataFrame | None = None, **texts: str | None) -> Stub:
    given = {int(name[1:]): text for name, text in texts.items()}
    said = continuations(list(given)) if said is None else said
    return Stub(answering, PUSHED, continuations__pushed=said, explanations__default=explanations_frame(given))


def test_the_score_is_what_the_push_does_to_the_explanation() -> None:
    """Worked by hand: two words of a nat each, for the latent's own explanation after its own push, and nothing otherwise."""
    found = scored(stub_of(l1="things l1", l2="things l2"))
    nats = {(row["latent"], row["control"]): row["value"] for row in found["scores"] if row["metric"] == "nats"}
    assert nats == {
        (latent, control): 2.0 if control is None else 0.0
        for latent in (1, 2)
        for control in (None, "shuffled", "random_direction")
    }
    reached = {(row["latent"], row["control"]): row["value"] for row in found["scores"] if row["metric"] == "kl"}
    assert set(reached.values()) == {1.0}
    curve = {(row["target"], row["metric"], row["value"]) for row in found["slices"] if row["control"] is None}
    assert curve == {(0.33, "nats", 2.0), (1.0, "nats", 2.0), (0.33, "kl", 0.33), (1.0, "kl", 1.0)}


def test_judgements_say_which_prompt_and_push_they_are_of() -> None:
    rows = scored(stub_of(l1="things l1", l2="things l2"))["judgements"]
    own = [row for row in rows if row["latent"] == 1 and row["control"] is None and row["target"] == 1.0]
    assert [(row["context"], row["decile"], row["kl"], row["measure"]) for row in own] == [
        (rank, rank, 1.0, 2.0) for rank in range(3)
    ]
    assert {row["explanation_latent"] for row in rows if row["latent"] == 1 and row["control"] == "shuffled"} == {2}
    assert {
        row["explanation_latent"] for row in rows if row["control"] == "random_direction" and row["latent"] == 1
    } == {1}


def test_the_first_prompts_by_rank_are_judged() -> None:
    rows = scored(stub_of(said=continuations([1], prompts=9), l1="things l1"))["judgements"]
    assert {row["context"] for row in rows} == {0, 1, 2, 3}  # most_prompts: 4


def test_windows_that_make_no_prompt_are_not_counted() -> None:
    said = continuations([1], prompts=9).filter(pl.col("rank") % 2 == 1)
    assert {row["context"] for row in scored(stub_of(said=said, l1="things l1"))["judgements"]} == {1, 3, 5, 7}


def test_a_failed_call_is_a_failure_of_its_prompt() -> None:
    def failing(call: Call) -> Reply:
        return TIMEOUT if call.suffix.startswith("Text: about l1 2") else likely(call)

    found = scored(stub_of(failing, l1="things l1"))
    own = next(row for row in found["scores"] if row["control"] is None and row["metric"] == "nats")
    assert (own["value"], own["n"], own["n_failed"]) == (2.0, 3, 1)
    assert own["failures"] == [{"error": "timeout", "n": 1}]


@pytest.mark.parametrize("logprobs", [(-inf, -1.0), (nan,), (), None])
def test_log_probabilities_that_are_no_numbers_are_failures(logprobs: tuple[float, ...] | None) -> None:
    found = scored(stub_of(lambda call: reply(logprobs=logprobs), l1="things l1"))
    own = next(row for row in found["scores"] if row["control"] is None and row["metric"] == "nats")
    assert (own["value"], own["error"], own["failures"]) == (None, "all_failed", [{"error": "no_logprobs", "n": 3}])


def test_what_cannot_be_pushed_so_far_is_recorded_and_not_scored() -> None:
    said = continuations([1, 2]).with_columns(
        pl.when(latent=2, target=1.0).then(pl.lit("kl_out_of_reach")).otherwise("error").alias("error"),
        pl.when(latent=2, target=1.0).then(None).otherwise("text").alias("text"),
    )
    stub = stub_of(said=said, l1="things l1", l2="things l2")
    found = scored(stub)
    row = next(r for r in found["scores"] if r["latent"] == 2 and r["control"] is None and r["metric"] == "nats")
    assert (row["value"], row["error"], row["failures"]) == (None, "all_failed", [{"error": "kl_out_of_reach", "n": 3}])
    assert not [
        row for row in found["judgements"] if row["error"] and row["call"]
    ]  # nothing was asked, so nothing failed there
    reached = [r for r in found["slices"] if r["latent"] == 2 and r["target"] == 0.33 and r["control"] is None]
    assert {r["value"] for r in reached} == {2.0, 0.33}


def test_every_text_and_explanation_is_asked_once() -> None:
    """Clean texts serve both targets, and the random direction's too."""
    stub = stub_of(l1="things l1")
    scored(stub)
    calls = [each.call.suffix for each in stub.asked]
    assert (
        len(calls) == len(set(calls)) == 3 * 3
    )  # clean, pushed, by a random direction: texts are the same at both targets


def test_the_words_between_text_and_explanation_are_where_it_begins(tmp_path: Path) -> None:
    prompt = Prompt("", "Text: $text\nAbout: $explanation")
    assert prompt.between("text", "explanation") == "\nAbout:"
    for wrong in (
        "$explanation\nText: $text",
        "$text $explanation",
        "$text: $explanation.",
        "$text $other: $explanation",
    ):
        with pytest.raises(ValueError, match="in this order"):
            Prompt("", wrong).between("text", "explanation")
    with pytest.raises(ValueError, match="Yes"):
        Prompt("", "$text: $explanation", cue="Yes").between("text", "explanation")
    (tmp_path / "own.txt").write_text("Texts.\n%%\n$text $explanation\n")
    own = {"intervention": {**SECTIONS["scorers"]["intervention"], "prompt": str(tmp_path / "own.txt")}}
    with pytest.raises(StudyError, match=r"scorers.intervention names a prompt that cannot be read.*in this order"):
        study(**{**SECTIONS, "scorers": own})


# explanations by what a push makes likelier


def test_words_are_shown_by_how_far_they_rise_over_all_prompts() -> None:
    def token(number: int, text: str, rise: float) -> dict[str, Any]:
        return {"token": number, "text": text, "rise": rise}

    one = [token(5, " sea", 0.4), token(6, " the", 0.1)]
    listed = [one, [token(7, " ship", 0.3), token(5, " sea", 0.1), token(8, " a", 0.05)]]
    rows = [
        {
            "intervention": "pushed", "dictionary": "one", "block": 0, "latent": 1, "target": target, "rank": rank, "shard": "s",
            "context": rank, "start": 0, "tokens": tokens,
        }
        for rank, tokens in enumerate(listed)
        for target in (0.33, 1.0)
    ]  # fmt: skip
    latents = pl.DataFrame(
        {"latent": [1, 2], "is_chosen": [True, True]}, schema={"latent": pl.Int32, "is_chosen": pl.Boolean}
    )
    stub = Stub(
        lambda call: reply(" ships at sea"), PUSHED,
        token_changes__pushed=pl.DataFrame(rows, schema=TABLES["token_changes"].empty().schema), latents=latents,
    )  # fmt: skip
    rows = rows_of("explanations", explanations.compute(stub.work("explanations/change"))["explanations"])
    found = {row["latent"]: row for row in rows}
    assert found[1]["explanation"] == "ships at sea"
    assert (found[2]["explanation"], found[2]["error"]) == (None, "no_tokens")
    [asked] = stub.asked
    assert "Likelier: sea, ship, the\n" in asked.call.suffix


def test_a_text_that_ends_at_once_is_judged_like_any_other() -> None:
    """Or a push that ends texts would be judged by those alone that it does not end."""
    said = continuations([1]).with_columns(
        text=pl.when(pl.col("context") == 2, pl.col("target").is_not_null()).then(pl.lit("")).otherwise("text")
    )
    found = scored(stub_of(said=said, l1="things l1"))
    own = next(row for row in found["scores"] if row["control"] is None and row["metric"] == "nats")
    assert (own["value"], own["n"], own["n_failed"]) == (pytest.approx(4 / 3), 3, 0)


# what is refused when the study is read


@pytest.mark.parametrize(
    ("section", "changes", "message"),
    [
        ("interventions", {"pushed": {"tune": "test", "score": "test"}}, "it needs one of the split select"),
        ("interventions", {"pushed": {"tune": "select", "score": "strong"}}, "it needs one of the split score"),
        ("interventions", {"pushed": {"tune": "select", "score": "test", "kl": [1, 1]}}, "named twice"),
        ("interventions", {"pushed": {"tune": "select", "score": "test", "kl": [0]}}, "greater than 0"),
        (
            "interventions",
            {"pushed": {**SECTIONS["interventions"]["pushed"], "shortest": 33}},
            "shortest is 33, .*select have 32",
        ),
        ("interventions", {"pushed": {"tune": "select", "score": "test"}}, "explainers.change reads .*pushed.show"),
        ("scorers", {"intervention": {**SECTIONS["scorers"]["intervention"], "intervention": "pushd"}}, "not there"),
        ("scorers", {"intervention": {**SECTIONS["scorers"]["intervention"], "target": 2.0}}, "target 2, .*0.33, 1"),
        ("scorers", {"intervention": {**SECTIONS["scorers"]["intervention"], "llm": "server"}}, "log-probabilities"),
    ],
)
def test_what_cannot_be_is_refused(section: str, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(StudyError, match=message):
        study(**{**SECTIONS, section: changes})


# through the whole flow, on fakes


PUSHES: dict[str, Any] = {
    "samples": {
        "tuning": {"split": "select", "windows": 4, "length": 16},
        "shown": {"split": "explain", "windows": 4, "length": 16},
        "prompts": {"split": "score", "windows": 6, "length": 16},
    },
    "interventions": {
        "pushed": {"tune": "tuning", "show": "shown", "score": "prompts", "kl": [0.1, 0.5], "shortest": 2, "tokens": 4},
    },
    "explainers": {"change": {"method": "token_change", "intervention": "pushed", "target": 0.5, "llm": "judge"}},
    "scorers": {
        "intervention": {
            "method": "intervention", "explainers": ["default"], "intervention": "pushed", "target": 0.5, "llm": "judge",
        },
    },
}  # fmt: skip
STAGES = {
    "strengths/pushed": 2, "token_changes/pushed": 2, "continuations/pushed": 2, "explanations/change": 2,
    "scores/default/intervention": 2,
}  # fmt: skip


def pushing(bench: Workbench) -> Workbench:
    for section, entries in PUSHES.items():
        bench.study.setdefault(section, {}).update(copy.deepcopy(entries))
    return bench


@pytest.fixture(scope="module")
def pushed(finished: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which the small study was run, and with interventions again; to be copied, not changed."""
    folder = Path(shutil.copytree(finished, tmp_path_factory.mktemp("pushed") / "it"))
    with opened(folder) as bench:
        computed = pushing(bench).run()
        assert {name: computed[name] for name in STAGES} == STAGES
    return folder


@pytest.fixture
def bench(pushed: Path, tmp_path: Path) -> Iterator[Workbench]:
    shutil.copytree(pushed, tmp_path, dirs_exist_ok=True)
    with opened(tmp_path) as bench:
        yield pushing(bench)


def test_an_intervention_runs_from_strengths_to_scores(bench: Workbench) -> None:
    view = bench.view()
    strengths = view.strengths.collect()
    assert len(strengths) == strengths["latent"].n_unique() * 2 * 2
    reached = strengths.filter(pl.col("error").is_null())
    assert len(reached) > len(strengths) / 2
    assert ((reached["kl"] - reached["target"]).abs() <= 0.1 * reached["target"]).all()
    said = view.continuations.collect()
    clean = said.filter(pl.col("target").is_null())
    assert clean["kl"].to_list() == [0.0] * len(clean)
    pushed = said.filter(pl.col("target").is_not_null(), pl.col("error").is_null())
    assert not pushed.is_empty()
    assert pushed["kl"].is_not_null().all()
    rows = view.judgements.filter(scorer="intervention").collect()
    assert set(rows["control"].to_list()) == {None, "shuffled", "random_direction"}
    metrics = view.scores.filter(scorer="intervention").select("metric").unique().collect()["metric"].sort().to_list()
    assert metrics == ["kl", "nats"]
    assert bench.run() == {}


def test_prompts_of_an_intervention_are_of_three_splits(bench: Workbench) -> None:
    """None that strengths were tuned on, or explanations made of, is scored."""
    view = bench.view()
    split = view.contexts.select("shard", "context", "split").collect()
    for table, wanted in (("continuations", "score"), ("token_changes", "explain")):
        rows = getattr(view, table).collect().join(split, on=["shard", "context"], how="left")
        assert set(rows["split"]) == {wanted}


def test_what_changes_makes_stale_what_lies_below_it(bench: Workbench) -> None:
    below = {"continuations/pushed": 2, "scores/default/intervention": 2}
    bench.study["interventions"]["pushed"]["tokens"] = 3
    assert bench.stale() == {"continuations/pushed": 2}
    bench.study["interventions"]["pushed"].update(tokens=4, rising=2)
    assert bench.stale() == {"token_changes/pushed": 2}
    bench.study["interventions"]["pushed"].update(rising=5)
    bench.study["samples"]["prompts"]["seed"] = 5
    assert bench.stale() == {"examples/prompts": 2}
    computed = bench.run()
    assert set(computed) <= {"examples/prompts", *below, "agreements"}


def test_a_text_is_drawn_once_whatever_is_computed_again(bench: Workbench) -> None:
    """With a target more, the texts at the others are those in the ledger, and so are the clean ones."""
    before = bench.view().calls.filter(engine="subject").collect()
    bench.study["interventions"]["pushed"]["kl"] = [0.1, 0.3, 0.5]
    bench.run()
    after = bench.view().calls.filter(engine="subject").collect()
    assert len(before) == before["key"].n_unique()
    assert len(after) == after["key"].n_unique()
    drawn = [json.loads(each) for each in after.join(before, on="key", how="anti")["sampling"]]
    assert drawn
    assert all(each["direction"] is not None for each in drawn)
    assert before.join(after, on="key", how="anti").is_empty()


def test_planted_latents_and_directions_of_length_0_are_recorded_and_not_pushed(materialized: Workbench) -> None:
    bench = pushing(materialized)
    bench.study["scorers"] = {"intervention": bench.study["scorers"]["intervention"]}
    path = bench.folder / "coders" / "one" / "sae.safetensors"
    tensors = load_file(path)
    tensors["W_dec"][:] = 0
    save_file(tensors, path)
    (bench.folder / "planted.json").write_text(
        json.dumps([{"kind": "token", "word": "river"}, {"kind": "token", "word": "city"}])
    )
    bench.study["dictionaries"]["planted"] = {"planted": "planted.json"}
    bench.run()
    errors = bench.view().strengths.select("dictionary", "error").unique().collect().rows()
    assert sorted(errors) == [("one", "no_direction"), ("planted", "writes_nowhere")]
    scores = bench.view().scores.filter(scorer="intervention").select("value").collect()
    assert scores["value"].null_count() == len(scores) > 0
