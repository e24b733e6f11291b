"""Planted latents fire where their rules say, through the whole flow, and what judges make of them is counted right."""

import gzip
import json
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from scipy.stats import binomtest
from sklearn.metrics import cohen_kappa_score

from latentlake.cli import main
from latentlake.coders.planted import fire, read_rules, strengths
from latentlake.errors import InputError, LakeError, StudyError
from latentlake.measures import calibration, planted
from latentlake.sampling.texts import tokens_of
from tests.scene import Scene
from tests.workbench import Workbench

TEXTS = ["a river ran by Rivers", "King of Troy, lot of it", "é, the city of the war"]
RULES: list[dict[str, Any]] = [
    {"kind": "token", "word": "river"},
    {"kind": "class", "words": ["city", "king", "war", "cit"]},
    {"kind": "context", "pattern": r"\b(?:King|city) (?P<fires>of)\b"},
    {"kind": "topic", "topic": "document 2"},
    {"kind": "token", "word": "é"},
]
# what fires, by rule: document, and from which character up to which
FIRES = [
    [(0, 2, 7)],
    [(1, 0, 4), (2, 7, 11), (2, 19, 22)],
    [(1, 5, 7), (2, 12, 14)],
    [(2, 0, 22)],
    [(2, 0, 1)],
]


def written(folder: Path, rules: Any) -> Path:
    path = folder / "latents.json"
    path.write_text(rules if isinstance(rules, str) else json.dumps(rules))
    return path


@pytest.mark.parametrize("length", [6, 9, 200])
def test_a_latent_fires_on_the_tokens_of_what_its_rule_says(tmp_path: Path, length: int) -> None:
    """The fake subject's tokens are bytes, so a character is a token, and the second half of é belongs to the first."""
    scene = Scene(["s"])
    for context in scene.packed(TEXTS, length):
        scene.add("s", context, "score")
    scene.add_documents("s", TEXTS)
    tokens = tokens_of(scene.contexts_frame())
    latents, positions = fire(read_rules(written(tmp_path, RULES)), scene.documents_frame(), tokens)
    where = {row["position"]: (row["number"], row["begin"], row["end"]) for row in tokens.iter_rows(named=True)}
    found = [{where[at] for at in positions[latents == latent].tolist()} for latent in range(len(RULES))]
    wanted = [{(number, at) for number, first, last in each for at in range(first, last)} for each in FIRES]
    assert [{(number, begin) for number, begin, end in each if end > begin} for each in found] == wanted
    flat = [token for row in scene.rows for token in row["tokens"]]
    assert all(chr(flat[at] - 3) in "river" for at in positions[latents == 0].tolist())


def test_strengths_vary_and_follow_from_latent_and_place() -> None:
    positions = np.arange(5000)
    one, other = (strengths(np.full(5000, latent), positions, "s") for latent in (0, 1))
    assert one.min() >= 1
    assert one.max() <= 2
    assert np.abs(np.histogram(one, 10, (1, 2))[0] - 500).max() < 100
    assert abs(np.corrcoef(one, other)[0, 1]) < 0.05
    assert (strengths(np.array([1]), positions[7:8], "s") == other[7:8]).all()
    assert (strengths(np.full(5000, 0), positions, "t") != one).any()


BAD_RULES: dict[str, tuple[Any, str]] = {
    "no list": ({"kind": "token"}, "holds no latent"),
    "no latent": ([], "holds no latent"),
    "no JSON": ("[", "cannot be read as rules"),
    "unknown kind": ([RULES[0], {"kind": "wort"}], "latent 1.*'token'"),
    "no kind": ([{"word": "river"}], "latent 0.*kind"),
    "unknown key": ([{"kind": "token", "word": "a", "words": ["b"]}], "latent 0, words: Extra"),
    "no word": ([{"kind": "token", "word": " "}], "latent 0, word: "),
    "class of one": ([{"kind": "class", "words": ["a"]}], "latent 0, words: "),
    "bad pattern": ([{"kind": "context", "pattern": "(?P<fires>of"}], "is no regular expression"),
    "nothing marked": ([{"kind": "context", "pattern": "King (of)"}], "has no group"),
}


@pytest.mark.parametrize("case", BAD_RULES)
def test_bad_rules_are_refused_with_file_and_latent(tmp_path: Path, case: str) -> None:
    rules, said = BAD_RULES[case]
    path = written(tmp_path, rules)
    with pytest.raises(InputError, match=said) as refused:
        read_rules(path)
    assert str(path) in str(refused.value)


# through the flow

WORDS = ("river", "war")


@pytest.fixture
def planting(workbench: Workbench) -> Workbench:
    """A study of planted latents beside a coder, with explanations that are right, nearly right, and wrong."""
    bench, study = workbench, workbench.study
    rules = [*({"kind": "token", "word": word} for word in WORDS), {"kind": "topic", "topic": "a 3"}, RULES[1]]
    written(bench.folder, rules)
    files = {"true": "river war texts cities", "near_miss": "lake peace books towns", "false": "a b c d"}
    for name, said in files.items():
        (bench.folder / f"{name}.json").write_text(json.dumps(dict(enumerate(said.split()))))
    study["dictionaries"]["planted"] = {"planted": "latents.json"}
    study |= {"blocks": 1, "reconstruction": {"tokens": 64}, "neighbours": {"k": 2}}
    study["samples"] = {"test": study["samples"]["test"]}
    study["selection"]["min_windows"] = {"score": 4}
    study["explainers"] = {name: {"method": "imported", "files": {"planted": f"{name}.json"}} for name in files}
    scorer = study["scorers"]["embedding"] | {"explainers": list(files)}
    judge = {**study["scorers"]["detection"], "explainers": list(files)}
    study["scorers"] = {"embedding": scorer, "judge": judge}
    return bench


def test_planted_latents_go_through_the_flow_beside_a_coder(planting: Workbench, capsys: Any) -> None:
    planting.run()
    lake = planting.view()
    assert lake.planted.select("dictionary", "latent", "kind").sort("latent").collect().rows() == [
        ("planted", latent, kind) for latent, kind in enumerate(("token", "token", "topic", "class"))
    ]
    assert lake.reconstructions.collect()["dictionary"].to_list() == ["one"]
    near = lake.neighbours.filter(dictionary="planted").collect()
    assert near["co_occurrence_rank"].count() > 0
    assert near.select("decoder_rank", "encoder_rank").null_count().row(0) == (len(near), len(near))
    windows = lake.examples.filter(pl.col("dictionary") == "planted").collect()
    for latent, word in enumerate(WORDS):
        own = windows.filter(latent=latent)
        assert 0 < own["is_activating"].sum() < len(own)
        marked = [
            "".join(text[at] for at, value in zip(offsets, activations, strict=True) if value)
            for text, offsets, activations in own.select("text", "offsets", "activations").iter_rows()
        ]
        assert all(bool(each) is is_on for each, is_on in zip(marked, own["is_activating"], strict=True))
        assert all(each in word * 2 for each in marked)  # a window may begin or end in the word
    errors = lake.explanations.filter(pl.col("error").is_not_null()).collect()
    assert set(errors["dictionary"]) == {"one"}
    assert set(errors["error"]) == {"not_imported"}
    assert planting.stale() == {}
    assert planting.dagster_stale() == {}

    assert main(["--lake", planting.lake.uri, "calibrate"]) == 0
    shown = capsys.readouterr().out
    assert "true > false" in shown
    assert "Brier" in shown
    rows = planted.ranked(lake)
    assert (
        planted.means(rows).filter(scorer="embedding", kind="all")["latents"].item()
        == rows.filter(scorer="embedding").height
    )


def test_planted_latents_alone_need_no_forward_pass_and_follow_their_rules_and_the_texts(planting: Workbench) -> None:
    del planting.study["dictionaries"]["one"]
    planting.study |= {"explainers": {}, "scorers": {}}
    computed = planting.run()
    assert planting.subject.contexts_read == 0
    assert "reconstructions" not in computed
    path = planting.folder / "latents.json"
    path.write_text(path.read_text().replace('"river"', '"sea"'))
    again = planting.run()
    assert again["dictionaries"] == 1
    assert again["activations"] == 2
    assert "contexts" not in again
    assert "selections" not in again
    path = planting.folder / "docs" / "a.jsonl.gz"  # and a document of another topic
    path.write_bytes(gzip.compress(gzip.decompress(path.read_bytes()).replace(b'"a 3"', b'"b 3"'), mtime=0))
    assert planting.run()["activations"] == 1


def test_a_file_of_explanations_stales_what_lies_downstream_of_it(planting: Workbench) -> None:
    study = planting.study
    study["explainers"] = {"near_miss": study["explainers"]["near_miss"]}
    study["scorers"] = {"embedding": study["scorers"]["embedding"] | {"explainers": ["near_miss"]}}
    planting.run()
    path = planting.folder / "near_miss.json"
    path.write_text(path.read_text().replace("lake", "stream"))
    assert planting.run() == {"explanations/near_miss": 1, "scores/near_miss/embedding": 1}
    study["explainers"]["near_miss"]["files"]["one"] = "one.json"
    (planting.folder / "one.json").write_text('{"0": "of the other dictionary"}')
    assert planting.run() == {"explanations/near_miss": 1}
    path.write_text(path.read_text() + "\n")
    assert planting.run() == {"explanations/near_miss": 1}  # with the same explanations


@pytest.mark.parametrize(
    ("dictionary", "said"),
    [
        ({"planted": "latents.json", "hookpoint": "layers.1"}, "'hookpoint' is of coders"),
        ({"planted": "latents.json", "coder": "coders/one"}, "'coder' is of coders"),
        ({"coder": "coders/one"}, "the key 'hookpoint' is missing"),
    ],
)
def test_a_dictionary_is_planted_or_of_a_coder(planting: Workbench, dictionary: dict[str, str], said: str) -> None:
    planting.study["dictionaries"]["planted"] = dictionary
    with pytest.raises(StudyError, match=said):
        planting.prepare()


def test_planted_latents_are_planted_in_texts(planting: Workbench) -> None:
    planting.study["corpus"]["sources"]["docs"]["tokens"] = "tokens"
    with pytest.raises(StudyError, match="gives tokens"):
        planting.prepare()


# what judges are worth


def scores_of(values: dict[str, list[float | None]]) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Rows of ``scores`` and ``planted``: two latents of the kind ``token``, then ``topic``."""
    rows = [
        {"scorer": "s", "dictionary": "d", "latent": latent, "explainer": name, "value": value}
        for name, own in values.items()
        for latent, value in enumerate(own)
    ]
    kinds = [{"dictionary": "d", "latent": latent, "kind": "topic" if latent > 1 else "token"} for latent in range(4)]
    return pl.DataFrame(rows, schema_overrides={"value": pl.Float64}), pl.DataFrame(kinds)


def test_ranks_of_explanations_by_kind() -> None:
    values: dict[str, list[float | None]] = {
        "true": [0.9, 0.5, 0.8, 0.7],
        "near_miss": [0.6, 0.5, 0.9, None],
        "false": [0.4, 0.6, 0.5, 0.1],
    }
    rows = planted.of_truths(*scores_of(values))
    means = {row["kind"]: row for row in planted.means(rows).iter_rows(named=True)}
    assert list(means) == ["token", "topic", "all"]
    assert means["token"]["true"] == pytest.approx(0.7)
    assert means["topic"]["near_miss"] == pytest.approx(0.9)
    assert means["all"]["false"] == pytest.approx(0.4)
    orders = {(r["kind"], r["better"], r["worse"]): r for r in planted.orders(rows).iter_rows(named=True)}
    assert orders["all", "true", "false"]["share"] == 0.75
    interval = binomtest(3, 4).proportion_ci(0.95, method="wilson")
    found = orders["all", "true", "false"]
    assert (found["latents"], found["low"], found["high"]) == (
        4,
        pytest.approx(interval.low),
        pytest.approx(interval.high),
    )
    assert orders["token", "true", "near_miss"]["share"] == 0.75  # a tie counts half
    assert orders["topic", "true", "near_miss"]["latents"] == 1  # one has no AUROC
    assert orders["topic", "true", "near_miss"]["share"] == 0
    assert orders["all", "near_miss", "false"]["share"] == pytest.approx(2 / 3)


def test_an_explainer_that_is_missing_is_named() -> None:
    with pytest.raises(LakeError, match="'false'"):
        planted.of_truths(*scores_of({"true": [0.9], "near_miss": [0.5]}))


def test_two_scorers_agree_or_not_where_the_same_was_asked_of_a_window() -> None:
    truth = [True, True, False, False]
    detection = judgements_of("detection", [0.9, 0.8, 0.2, 0.1], truth)
    # in the second window tokens are marked on which the latent does not fire
    fuzzing = judgements_of("fuzzing", [0.9, 0.2, 0.2, 0.1], [True, False, False, False])
    assert calibration.agreement(pl.concat([detection, fuzzing]))["windows"].to_list() == [3]


def judgements_of(scorer: str, probabilities: list[float | None], truth: list[bool], **more: Any) -> pl.DataFrame:
    rows = [
        {
            "scorer": scorer, "explainer": "true", "dictionary": "d", "latent": 0, "shard": "s", "context": 0, "start": at,
            "is_activating": is_on, "probability": each, "prediction": None if each is None else each > 0.5, "measure": None,
            **{name: own[at] for name, own in more.items()},
        }
        for at, (each, is_on) in enumerate(zip(probabilities, truth, strict=True))
    ]  # fmt: skip
    return pl.DataFrame(
        rows, schema_overrides=dict.fromkeys(("probability", "measure"), pl.Float64) | {"prediction": pl.Boolean}
    )


TRUTH = [True, False, True, True]


def test_probabilities_are_held_against_what_is_true() -> None:
    judged = judgements_of("s", [0.95, 1.0, 0.0, 0.05], TRUTH)
    bins = calibration.reliability(judged)
    assert bins.select("low", "high", "windows", "frequency").rows() == [(0.0, 0.1, 2, 1.0), (0.9, 1.0, 2, 0.5)]
    assert bins["probability"].to_list() == pytest.approx([0.025, 0.975])
    row = calibration.calibration(judged).row(0, named=True)
    assert row["ece"] == pytest.approx((0.975 * 2 + 0.475 * 2) / 4)
    assert row["brier"] == pytest.approx((0.05**2 + 1 + 1 + 0.95**2) / 4)


def test_two_judges_are_compared_on_the_windows_that_both_judged() -> None:
    one = judgements_of("one", [0.9, 0.8, 0.2, 0.1], TRUTH)
    two = judgements_of("two", [0.9, 0.2, 0.8, 0.1], TRUTH)
    measured = judgements_of("three", [None] * 4, TRUTH, measure=[4.0, 3.0, 2.0, 1.0])
    elsewhere = judgements_of("four", [0.5], [True]).with_columns(start=pl.lit(9, pl.Int64))
    found = {row[:2]: row[2:] for row in calibration.agreement(pl.concat([one, two, measured, elsewhere])).iter_rows()}
    assert set(found) == {("one", "two"), ("one", "three"), ("three", "two")}
    labels = [True, True, False, False], [True, False, True, False]
    assert found["one", "two"] == (4, pytest.approx(cohen_kappa_score(*labels)), pytest.approx(0.8))
    assert found["one", "three"] == (4, None, pytest.approx(1.0))


def test_the_planted_data_are_whole() -> None:
    """Each latent of the repository's has the three explanations, none of them twice in one file."""
    folder = Path(__file__).parents[1] / "data" / "planted"
    rules = read_rules(folder / "latents.json")
    for name in planted.TRUTHS:
        said = json.loads((folder / f"{name}.json").read_text())
        assert list(said) == [str(latent) for latent in range(len(rules))]
        assert len(set(said.values())) == len(rules)
