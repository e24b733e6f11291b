"""How far scorers agree: by hand, as scipy has it, how often the intervals hold, and from a lake, as table, command, picture."""

import base64
import json
import re
from itertools import combinations
from typing import Any
from xml.etree import ElementTree

import numpy as np
import polars as pl
import pytest
import scipy.stats

from latentlake.charts.agreements import picture
from latentlake.charts.svg import svg
from latentlake.cli import main
from latentlake.errors import LakeError
from latentlake.flow import Flow
from latentlake.measures.agreement import agreements, agreements_of, cells, correlations, interval, pairs
from latentlake.measures.metrics import LEVEL
from latentlake.scorers import NONE
from latentlake.tables import TABLES
from tests.scene import STUDY, study_of
from tests.test_dagster import events
from tests.workbench import Workbench

METRICS = {"a": "auroc", "b": "auroc", "c": "pearson"}
Row = dict[str, Any]


def score(scorer: str, latent: int, value: float | None, explainer: str = "e", **more: Any) -> Row:
    own = {"explainer": explainer, "scorer": scorer, "dictionary": "d", "metric": METRICS.get(scorer, "auroc")}
    return {**own, "latent": latent, "value": value, **more}


def scores(rows: list[Row]) -> pl.LazyFrame:
    return pl.LazyFrame(rows, schema=TABLES["scores"].empty().schema)


def scored(scorer: str, values: list[float | None], explainer: str = "e", **more: Any) -> list[Row]:
    return [score(scorer, latent, value, explainer, **more) for latent, value in enumerate(values)]


def test_correlations_by_hand() -> None:
    # Ranks 1 2 3 4 5 against 2 1 4 3 5: squared differences 1 1 1 1 0, so 1 - 6 * 4 / (5 * 24) = .8. Deviations of the values
    # from their means, -2 -1 0 1 2 and -2 -3 0 -1 6, have products of sum 4 + 3 + 0 - 1 + 12 = 18, squares of sum 10 and 50.
    (row,) = agreements(scores(scored("a", [1, 2, 3, 4, 5]) + scored("b", [2, 1, 4, 3, 10])), METRICS).to_dicts()
    assert row["spearman"] == pytest.approx(0.8)
    assert row["pearson"] == pytest.approx(18 / 500**0.5)
    assert (row["latents"], row["error"], row["metric"], row["other_metric"]) == (5, None, "auroc", "auroc")
    half = scipy.stats.norm.ppf(0.975) * ((1 + 0.8**2 / 2) / 2) ** 0.5
    ends = np.tanh(np.arctanh(0.8) + np.array([-half, half]))
    assert [row["spearman_low"], row["spearman_high"]] == pytest.approx(ends)


@pytest.mark.parametrize("seed", range(3))
def test_correlations_are_those_of_scipy(seed: int) -> None:
    x, y = np.random.default_rng(seed).multivariate_normal([0, 0], [[1, 0.6], [0.6, 1]], 40).T.round(1)  # with ties
    found = correlations(pl.DataFrame({"value": x, "value_other": y}))
    pearson = scipy.stats.pearsonr(x, y)
    ends = pearson.confidence_interval(LEVEL)
    assert [found[f"pearson{end}"] for end in ("", "_low", "_high")] == pytest.approx([pearson.statistic, *ends])
    ranks = scipy.stats.rankdata(x), scipy.stats.rankdata(y)
    assert found["spearman"] == pytest.approx(scipy.stats.pearsonr(*ranks).statistic)
    assert found["spearman_low"] < found["spearman"] < found["spearman_high"]


@pytest.mark.parametrize("n", [15, 100])
@pytest.mark.parametrize("rho", [0.0, 0.8])
def test_intervals_hold_as_often_as_they_say(n: int, rho: float) -> None:
    times, drawn = 1000, np.random.default_rng(7)
    x = drawn.standard_normal((times, n))
    y = rho * x + (1 - rho**2) ** 0.5 * drawn.standard_normal((times, n))
    true = {"pearson": rho, "spearman": 6 / np.pi * np.arcsin(rho / 2)}  # of two normals; K. Pearson 1907
    found = [correlations(pl.DataFrame({"value": one, "value_other": other})) for one, other in zip(x, y, strict=True)]
    for name, value in true.items():
        held = np.mean([each[f"{name}_low"] <= value <= each[f"{name}_high"] for each in found])
        assert held == pytest.approx(LEVEL, abs=0.028), name  # four standard errors of the simulation


def test_only_own_explanations_and_main_metrics_count() -> None:
    rows = scored("a", [1, 2, 3, 4, 5]) + scored("b", [2, 1, 4, 3, 10])
    beside = scored("a", [5, 4, 3, 2, 1], control="shuffled") + scored("b", [5, 4, 3, 2, 1], metric="f1")
    assert agreements(scores([*beside, *rows]), METRICS).equals(agreements(scores(rows), METRICS))


def test_what_has_no_correlation_says_why() -> None:
    rows = scored("a", [1, 2, 3, None, None, 6]) + scored("b", [None, 3, 4, 5, 6, 7])  # three have both
    rows += scored("c", [0.5, 0.5, 0.5, 0.5, 0.5, 0.1 + 0.4])  # the same but for rounding
    found = agreements(scores(rows), METRICS)
    assert found.select("scorer", "other", "latents", "error").rows() == [
        ("a", "b", 3, "few_latents"), ("a", "c", 4, "constant"), ("b", "c", 5, "constant"),
    ]  # fmt: skip
    measured = pl.selectors.starts_with("spearman", "pearson")
    assert found.select(measured).null_count().row(0) == (3,) * 6


def test_a_scorer_without_any_score_has_rows() -> None:
    found = agreements(scores(scored("a", [1, 2, 3, 4]) + scored("b", [None] * 4)), METRICS)
    assert found.select("latents", "error").rows() == [(0, "few_latents")]


@pytest.mark.parametrize("sign", [1, -1])
def test_full_agreement_has_no_interval(sign: int) -> None:
    (row,) = agreements(
        scores(scored("a", [1, 2, 3, 4]) + scored("b", [sign * 2**n for n in range(4)])), METRICS
    ).to_dicts()
    assert (row["spearman"], row["spearman_low"], row["spearman_high"]) == (pytest.approx(sign), None, None)
    assert abs(row["pearson"]) < 1
    assert row["pearson_low"] < row["pearson"] < row["pearson_high"]
    assert interval(1.0, 0.1) == (None, None)


def test_who_is_held_against_whom() -> None:
    judges = [("e", "b"), ("f", "b"), (NONE, "a"), ("e", "c"), (NONE, "d")]
    assert sorted(pairs(judges)) == [
        ("e", ("e", "b"), ("e", "c")), ("e", ("e", "b"), (NONE, "d")), ("e", ("e", "c"), (NONE, "d")),
        ("e", (NONE, "a"), ("e", "b")), ("e", (NONE, "a"), ("e", "c")),
        ("f", ("f", "b"), (NONE, "d")), ("f", (NONE, "a"), ("f", "b")), (NONE, (NONE, "a"), (NONE, "d")),
    ]  # fmt: skip


def test_what_judges_no_explanation_stands_beside_every_explainer() -> None:
    values: list[list[float | None]] = [list(row) for row in np.random.default_rng(0).random((4, 9))]
    rows = scored("a", values[0], NONE) + scored("b", values[1], "e") + scored("b", values[2], "f")
    found = agreements(scores(rows), METRICS)
    for (explainer, scorer, other, spearman), own in zip(
        found.select("explainer", "scorer", "other", "spearman").iter_rows(), (values[1], values[2]), strict=True
    ):
        assert (scorer, other) == ("a", "b")
        assert spearman == pytest.approx(scipy.stats.spearmanr(values[0], own).statistic), explainer
    both = agreements(scores([*rows, *scored("c", values[3], NONE)]), METRICS)
    assert both.filter(explainer=NONE).select("scorer", "other").rows() == [("a", "c")]
    matrices = cells(both)
    assert set(matrices["explainer"]) == {"e", "f"}  # each is whole
    assert set(matrices.group_by("explainer").len()["len"]) == {6}
    alone = cells(both.filter(explainer=NONE))
    assert set(alone["explainer"]) == {NONE}


def test_the_order_of_rows_changes_no_digit() -> None:
    drawn = np.random.default_rng(1)
    rows = scored("a", drawn.random(500).tolist()) + scored("b", drawn.random(500).tolist())
    known = agreements(scores(rows), METRICS)
    for _ in range(5):
        drawn.shuffle(rows)  # type: ignore[arg-type]
        assert agreements(scores(rows), METRICS).equals(known)


def test_dictionaries_are_apart() -> None:
    rows = scored("a", [1, 2, 3, 4]) + scored("b", [1, 2, 4, 3])
    rows += scored("a", [1, 2, 3, 4], dictionary="e") + scored("b", [4, 3, 2, 1.5], dictionary="e")
    assert agreements(scores(rows), METRICS).select("dictionary", "spearman").rows() == [
        ("d", pytest.approx(0.8)), ("e", pytest.approx(-1.0)),
    ]  # fmt: skip


def test_below_the_diagonal_is_spearman_and_above_it_pearson() -> None:
    found = agreements(
        scores(scored("a", [1, 2, 3, 4]) + scored("b", [1, 2, 4, 8]) + scored("c", [1, 9, 2, 3])), METRICS
    )
    matrix = cells(found)
    assert matrix.height == 2 * found.height
    for row, column, name, value in matrix.select("row", "column", "correlation", "value").iter_rows():
        (own,) = found.filter(scorer=min(row, column), other=max(row, column)).to_dicts()
        assert name == ("spearman" if row > column else "pearson")
        assert value == own[name]


# the flow


def with_scorers(**scorers: list[str]) -> Flow:
    llms = STUDY["llms"]
    method = {"method": "embedding", "sample": "test", "windows": 8, "embedder": "embedder"}
    explainers = {name: {"method": "tokens"} for name in ("e", "f")}
    chosen = {name: {**method, "explainers": judged} for name, judged in scorers.items()}
    return Flow(study_of(llms=llms, explainers=explainers, scorers=chosen))


@pytest.mark.parametrize(
    ("scorers", "inputs"),
    [
        ({}, None),
        ({"a": ["e", "f"]}, None),
        ({"a": ["e"], "b": ["f"]}, None),
        ({"b": ["e", "f"], "a": ["e"]}, ["scores/e/a", "scores/e/b"]),
    ],
)
def test_there_are_agreements_where_two_scorers_share_latents(scorers: dict[str, list[str]], inputs: Any) -> None:
    stages = with_scorers(**scorers).stages
    assert ("agreements" in stages) == (inputs is not None)
    if inputs:
        assert [source.stage for source in stages["agreements"].inputs] == inputs
        assert [name for name in stages if name != "report"][-1] == "agreements"


def test_the_order_of_scorers_in_a_study_changes_nothing_and_their_names_do() -> None:
    one, other, renamed = (
        with_scorers(**{name: ["e"] for name in names}).stages["agreements"] for names in ("ab", "ba", "ac")
    )
    assert one == other
    assert one.code_version != renamed.code_version


# from a lake


def test_a_run_correlates_the_scores_it_made(materialized: Workbench) -> None:
    view = materialized.view()
    found = view.agreements.collect()
    own = view.scores.filter(pl.col("control").is_null(), metric="auroc").collect()
    assert set(found["explainer"]) == {"default"}  # the other has one scorer
    for one, other in combinations(("detection", "embedding", "surprisal"), 2):
        (row,) = found.filter(scorer=one, other=other).to_dicts()
        named = [own.filter(explainer="default", scorer=name).select("latent", "value") for name in (one, other)]
        both = named[0].join(named[1], on="latent", suffix="_other").drop_nulls()
        assert row["latents"] == both.height > 3
        assert row["spearman"] == pytest.approx(scipy.stats.spearmanr(both["value"], both["value_other"]).statistic)
    assert found.height == 3


def test_another_scorer_makes_no_other_asset_stale(materialized: Workbench) -> None:
    detection = materialized.study["scorers"]["detection"]
    materialized.study["scorers"]["again"] = {**detection, "windows": 3}
    assert materialized.run() == {"scores/default/again": 2, "agreements": 1}
    assert materialized.view().agreements.collect().height == 6
    detection["windows"] = 2
    assert materialized.run() == {"scores/default/detection": 2, "agreements": 1}
    materialized.study["scorers"]["embedding"]["explainers"].remove("tokens")  # whose scores are not read
    assert materialized.run() == {}
    assert materialized.dagster_stale() == {}
    del materialized.study["scorers"]["again"]
    assert agreements_of(materialized.view()).height == 6  # what is published, until a study without it is registered
    assert materialized.run() == {"agreements": 1}
    assert materialized.view().agreements.collect().height == 3
    del materialized.study["scorers"]["detection"], materialized.study["scorers"]["surprisal"]
    assert materialized.run() == {}
    assert materialized.view().agreements.collect().is_empty()
    with pytest.raises(LakeError, match="no two scorers have scored the same latents"):
        agreements_of(materialized.view())


def test_agreements_that_are_not_up_to_date_are_made_of_the_scores(materialized: Workbench) -> None:
    published = materialized.view().agreements.collect()
    assert agreements_of(materialized.view()).equals(published)
    materialized.study["scorers"]["detection"]["windows"] = 2
    run = materialized.prepare()
    run._compute(run.flow["scores/default/detection"])
    assert materialized.view().agreements.collect().equals(published)
    younger = agreements_of(materialized.view())
    assert not younger.equals(published)
    materialized.run()
    assert materialized.view().agreements.collect().equals(younger)


def test_the_command_prints_the_matrix(materialized: Workbench, capsys: pytest.CaptureFixture[str]) -> None:
    lake = ["--lake", materialized.lake.uri, "agreement"]
    assert main([*lake, "--dictionary", "one", "--explainer", "default"]) == 0
    printed = capsys.readouterr().out.splitlines()
    assert printed[0].startswith("one, explanations of default, 6 latents")
    assert max(map(len, printed)) <= 160
    assert main([*lake, "--json"]) == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert len(rows) == 3
    below = [re.split("  +", line.strip("│ ")) for line in printed[-3:-1]]
    (last,) = [row for row in rows if (row["scorer"], row["other"]) == ("embedding", "surprisal")]
    assert below[-1][0] == "surprisal"
    assert below[-1][2] == "{spearman:.2f} [{spearman_low:.2f}, {spearman_high:.2f}]".format(**last)
    assert main([*lake, "--explainer", "defualt"]) == 1
    assert "did you mean 'default'" in capsys.readouterr().err


def test_the_asset_shows_a_picture_with_the_figures_in_its_cells(materialized: Workbench) -> None:
    (event,) = events(materialized, "agreements")
    preview = str(event.metadata["preview"].value)
    picture = ElementTree.fromstring(base64.b64decode(preview.split("base64,")[1].split(")")[0]))
    said = ["".join(each.itertext()) for each in picture.iter("{http://www.w3.org/2000/svg}text")]
    for row in materialized.view().agreements.collect().iter_rows(named=True):
        for name in ("spearman", "pearson"):
            assert f"{row[name]:.2f}" in said
            assert f"[{row[f'{name}_low']:.2f}, {row[f'{name}_high']:.2f}]" in said
    assert {"detection", "embedding", "surprisal"} <= set(said)
    assert "| dictionary" not in preview
    assert "few_latents" not in said


def test_a_cell_without_a_figure_says_why() -> None:
    rows = agreements(scores(scored("a", [1, 2, 3]) + scored("b", [1, 2, 3])), METRICS)
    assert "few_latents" in svg(picture(rows))
