"""Scorers that judge no explanation, from a run to everything that reads scores."""

from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import polars as pl
import pytest

from definitions import build_definitions
from latentlake.charts.scores import picture
from latentlake.charts.svg import svg
from latentlake.checks import checks_of
from latentlake.cli import main
from latentlake.measures import calibration
from latentlake.reading.summary import summarize
from latentlake.reading.trace import trace
from tests.workbench import Workbench, opened

SCORERS = {
    "odd": {"method": "intruder", "sample": "wide", "trials": 12, "llm": "judge"},
    "near": {"method": "example_embedding", "sample": "wide", "windows": 20, "embedder": "embedder"},
}
STAGES = {"scores/none/odd": 2, "scores/none/near": 2}


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workbench]:
    """The small study with samples wide enough, and these scorers beside one of explanations; run once."""
    with opened(tmp_path_factory.mktemp("unexplained")) as bench:
        bench.study["samples"] = {"wide": {"split": "score", "windows": 60, "negatives": 20}}
        bench.study["explainers"] = {"tokens": {"method": "tokens"}}
        embedding = {"method": "embedding", "explainers": ["tokens"], "sample": "wide", "windows": 8}
        bench.study["scorers"] = {**SCORERS, "embedding": {**embedding, "embedder": "embedder"}}
        computed = bench.run()
        assert {name: computed[name] for name in STAGES} == STAGES
        assert bench.run() == {}
        yield bench


def printed(bench: Workbench, capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """What a command prints about the study."""
    capsys.readouterr()
    assert main(["--lake", bench.lake.uri, "--study-file", str(bench.path), *arguments]) == 0
    return capsys.readouterr().out


def some(bench: Workbench) -> int:
    """A latent that has trials."""
    found = bench.view().scores.filter(pl.col("scorer") == "odd", pl.col("value").is_not_null()).collect()
    return int(found["latent"].min())  # type: ignore[arg-type]


def test_each_latent_has_a_score_of_each_or_a_reason(bench: Workbench) -> None:
    view = bench.view()
    chosen = view.latents.filter("is_chosen").select("latent").collect()["latent"].sort().to_list()
    for scorer, metric in (("odd", "accuracy"), ("near", "auroc")):
        rows = view.scores.filter(scorer=scorer).sort("latent").collect()
        assert rows["latent"].to_list() == chosen
        assert set(rows["metric"]) == {metric}
        assert set(rows["explainer"]) == {"none"}
        assert rows["control"].null_count() == len(rows)
        assert (rows["value"].is_null() == rows["error"].is_not_null()).all()
        assert rows["value"].count() > 0
    assert view.judgements.filter(scorer="odd").collect()["call"].null_count() == 0


def test_the_summary_has_them_beside_those_of_explanations(bench: Workbench) -> None:
    text = summarize(bench.view())
    by_latent, means = text.split("\n\n")
    assert by_latent.startswith("score of each latent's explanation")
    assert means.startswith("mean score over latents")
    own = [line for line in means.splitlines() if " none " in line]
    assert ["accuracy" in line for line in sorted(own)] in ([True, False], [False, True])
    assert all("the latent" not in line for line in own)
    assert max(map(len, text.splitlines())) <= 160


def test_commands_show_the_main_metric_of_each_scorer(bench: Workbench, capsys: pytest.CaptureFixture[str]) -> None:
    table = printed(bench, capsys, "scores")
    assert {"accuracy", "auroc"} <= set(table.split())
    assert "accuracy" not in printed(bench, capsys, "scores", "--metric", "auroc")
    assert "none" in printed(bench, capsys, "scores", "--by", "decile", "--scorer", "odd")
    board = printed(bench, capsys, "leaderboard")
    assert "accuracy, scorer odd" in board
    assert "auroc, scorer near" in board
    assert "auroc, explainer tokens, scorer embedding" in board


def test_where_there_are_no_scores_commands_say_so(bench: Workbench, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--lake", bench.lake.uri, "--study-file", str(bench.path), "scores", "--by", "target"]) == 1
    assert "there are no scores" in capsys.readouterr().err


def test_prompts_and_plans_know_them(bench: Workbench, capsys: pytest.CaptureFixture[str]) -> None:
    assert "Odd one out:" in printed(bench, capsys, "prompt", "odd")
    calls = printed(bench, capsys, "prompt", "odd", "one", str(some(bench)), "--all")
    assert f"of scores/none/odd about latent {some(bench)} of one" in calls
    assert ", made: Choose(choices=(' A', ' B', ' C', ' D', ' E')" in calls
    assert main(["--study-file", str(bench.path), "prompt", "near"]) == 1
    assert "asks no language model" in capsys.readouterr().err
    bench.study["scorers"]["odd"]["trials"] = 11
    assert bench.stale() == {"scores/none/odd": 2}
    assert "scores/none/odd" in printed(bench, capsys, "plan")
    bench.study["scorers"]["odd"]["trials"] = 12
    bench.prepare()


def test_traces_say_whether_intruders_were_found_the_worst_first(
    bench: Workbench, capsys: pytest.CaptureFixture[str]
) -> None:
    found = trace(bench.view(), "one", some(bench), scorer="odd").judgements
    assert found["probability"].is_sorted()
    assert found["misranked"].null_count() == len(found) > 0
    assert found["text"].null_count() == 0
    text = printed(bench, capsys, "trace", "one", str(some(bench)))
    assert "odd: 3 of " in text
    assert "the intruder among windows of decile " in text
    assert "near: 3 of " in text
    assert "None" not in text
    assert (
        "odd" not in printed(bench, capsys, "trace", "one", str(some(bench)), "--scorer", "near").split("Versions")[0]
    )


def test_calibration_has_nothing_of_them(bench: Workbench) -> None:
    assert set(calibration.judged(bench.view())["scorer"]) == {"embedding"}


def test_checks_are_those_that_apply(bench: Workbench) -> None:
    run = bench.prepare()
    names = {
        stage: {check.name for check in checks_of(run.study, run.flow[stage])}
        for stage in (*STAGES, "scores/tokens/embedding")
    }
    always = {"keys_unique", "failed_calls_bounded"}
    assert names["scores/none/odd"] == always
    assert names["scores/none/near"] == always | {"positives_and_negatives"}
    assert names["scores/tokens/embedding"] == always | {"positives_and_negatives", "controls_near_chance"}


def test_pages_say_what_is_judged_and_where_chance_is(bench: Workbench) -> None:
    graph = build_definitions(bench.prepare().study, lake=bench.lake).resolve_asset_graph()
    said = {
        name: str(graph.get(dg.AssetKey(["scores", *name.split()])).description)
        for name in ("none odd", "tokens embedding")
    }
    assert "no explanation is judged" in said["none odd"]
    assert "Of the metric `accuracy` chance is 0.2." in said["none odd"]
    assert "shuffled among latents and an empty one" in said["tokens embedding"]
    view = bench.view()
    for scorer, metric, chance in (("odd", "accuracy", 0.2), ("near", "auroc", 0.5)):
        rows, judged = (table.filter(scorer=scorer).collect() for table in (view.scores, view.judgements))
        spec = picture(rows, judged, metric, chance).to_dict()
        assert [{metric: chance}] in spec["datasets"].values()
        assert "'legend': None" in str(spec)
        assert "'legend': {" not in str(spec)
        assert svg(picture(rows, judged, metric, chance)).startswith("<svg")


def test_a_study_without_explainers_is_scored_too(workbench: Workbench, tmp_path: Path) -> None:
    workbench.study["samples"] = {"wide": {"split": "score", "windows": 60, "negatives": 20}}
    workbench.study["explainers"], workbench.study["scorers"] = {}, SCORERS
    computed = workbench.run()
    assert {name: computed[name] for name in STAGES} == STAGES
    assert "accuracy" in summarize(workbench.view())
