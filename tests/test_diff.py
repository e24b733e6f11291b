"""What changed between two moments is what was done between them, and a past state is read as it was."""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

import latentlake
from latentlake.cli import main
from latentlake.errors import LakeError
from latentlake.keeping.prune import prune
from latentlake.lake import Lake
from latentlake.measures.metrics import mean_interval
from latentlake.reading.causes import Change
from latentlake.reading.diff import Diff, diff
from latentlake.reading.moments import around, moment
from latentlake.reading.view import View, as_moment
from latentlake.tables import TABLES
from tests.killed import main as run_through
from tests.test_killed import run as run_until
from tests.test_lineage import more_latents, prompt_of_explainer, scorer_added, scorer_removed, shard_added
from tests.workbench import Workbench, open_instance

Frames = dict[str, list[str]]


def shard_added_and_read(bench: Workbench) -> None:
    bench.study["corpus"]["refresh"] = "all"
    shard_added(bench)


def nothing(_: Workbench) -> None:
    """No change at all."""


CHANGES = (prompt_of_explainer, scorer_added, scorer_removed, more_latents, shard_added_and_read, nothing)


@dataclass(frozen=True)
class History:
    """A study that was changed again and again. ``read``: after the first run and after each change, the moment and what
    readers saw then."""

    lake: Lake
    read: dict[str, tuple[datetime, Frames]]

    def view(self, after: str) -> View:
        """The lake as it was after a change."""
        return View(self.lake, self.read[after][0])

    def diff(self, change: Callable[[Workbench], None]) -> Diff:
        """What a change made different."""
        names = list(self.read)
        return diff(self.view(names[names.index(change.__name__) - 1]), self.view(change.__name__))


def rows_of(view: View) -> Frames:
    """Every table of a lake as readers see it, without order: its rows as JSON."""
    as_json = pl.struct(pl.all()).struct.json_encode()
    return {name: getattr(view, name).select(as_json).collect().to_series().sort().to_list() for name in TABLES}


@pytest.fixture(scope="module")
def history(finished: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[History]:
    """The small study after each of the changes, and then pruned and its catalog compacted."""
    folder = Path(shutil.copytree(finished, tmp_path_factory.mktemp("history") / "it"))
    with open_instance(folder / "instance") as instance:
        bench = Workbench(folder / "study", instance)
        read = {"finished": (datetime.now(UTC), rows_of(bench.view()))}
        for change in CHANGES:
            change(bench)
            bench.run()
            read[change.__name__] = datetime.now(UTC), rows_of(bench.view())
        lake = bench.lake.open("tiny")
        prune(lake, bench.prepare().plan().orphans)
        for table in ("partitions", "scores"):
            lake.compact(table)
        yield History(lake, read)


@pytest.fixture
def copied(history: History, tmp_path: Path) -> History:
    """The same, to be vacuumed."""
    uri = shutil.copytree(history.lake.uri, tmp_path / "lake")
    return History(Lake(str(uri), "tiny"), history.read)


def causes_of(found: Diff, asset: str) -> list[Change]:
    return [each for each in found.causes if each.asset == asset]


def roots_of(found: Diff, asset: str) -> set[tuple[str, str | None, str]]:
    return {root[:3] for each in causes_of(found, asset) for root in each.roots}


def kinds_of(found: Diff) -> dict[str, set[str]]:
    return {each.asset: {other.kind for other in causes_of(found, each.asset)} for each in found.causes}


@pytest.mark.parametrize("after", ["finished", *(change.__name__ for change in CHANGES)])
def test_a_past_state_is_what_was_read_then(history: History, after: str) -> None:
    moment, then = history.read[after]
    assert rows_of(View(history.lake, moment)) == then
    assert rows_of(latentlake.open(history.lake.uri, "tiny", at=moment.isoformat())) == then


def test_a_changed_prompt(history: History) -> None:
    found = history.diff(prompt_of_explainer)
    assert found.study.is_empty()
    assert found.prompts["prompt"].to_list() == ["pattern.txt"]
    assert found.prompts["old"][0] != found.prompts["new"][0]
    scores = ["scores/default/embedding", "scores/default/surprisal", "scores/default/detection"]
    assert kinds_of(found) == {asset: {"changed"} for asset in ("explanations/default", *scores, "agreements")}
    for asset in kinds_of(found):
        assert roots_of(found, asset) == {("explanations/default", None, "code version")}
    cause = causes_of(found, scores[0])[0].cause
    assert (cause.asset, cause.partition, cause.what) == ("explanations/default", "0|one", "data version")
    assert cause.old != cause.new
    assert set(found.explanations["kind"]) == {"changed"}
    assert set(found.explanations["explainer"]) == {"default"}
    assert set(found.scores["explainer"]) == {"default"}


def test_explanations_and_scores_are_those_of_the_two_states(history: History) -> None:
    found, keys = history.diff(prompt_of_explainer), ["explainer", "latent"]
    old, new = (history.view(after).explanations.collect() for after in ("finished", "prompt_of_explainer"))
    assert not found.explanations.is_empty()
    for row in found.explanations.to_dicts():
        where = {name: row[name] for name in keys}
        assert (row["old"], row["new"]) == (
            old.filter(**where)["explanation"][0],
            new.filter(**where)["explanation"][0],
        )
        assert row["old"] != row["new"]
    same = old.join(found.explanations, on=keys, how="anti").select(*keys, "explanation").sort(keys)
    assert same.equals(new.join(found.explanations, on=keys, how="anti").select(same.columns).sort(keys))


def test_means_are_paired_over_all_latents_that_have_the_score_twice(history: History) -> None:
    found = history.diff(prompt_of_explainer)
    wanted = {"explainer": "default", "scorer": "embedding", "metric": "auroc"}
    old, new = (
        history.view(after).scores.filter(pl.col("control").is_null()).filter(**wanted).sort("latent").collect()
        for after in ("finished", "prompt_of_explainer")
    )
    deltas = (new["value"] - old["value"]).to_numpy()
    mean = found.means.filter(**wanted).to_dicts()[0]
    assert mean["latents"] == len(deltas) == 6
    np.testing.assert_allclose([mean["delta"], mean["low"], mean["high"]], mean_interval(deltas))
    np.testing.assert_allclose(mean["new"] - mean["old"], mean["delta"])
    shown = found.scores.filter(**wanted)
    np.testing.assert_allclose(np.sort(shown["delta"].to_numpy()), np.sort(deltas[deltas != 0]))


def test_controls_are_left_out_unless_asked_for(history: History) -> None:
    views = history.view("finished"), history.view("prompt_of_explainer")
    assert diff(*views).scores["control"].null_count() == diff(*views).scores.height
    controls = diff(*views, controls=True)
    assert {"shuffled", None} == set(controls.scores["control"])
    assert controls.scores.filter(pl.col("control").is_null()).equals(diff(*views).scores)
    assert controls.means.filter(pl.col("control").is_null()).equals(diff(*views).means)


def test_an_added_scorer(history: History) -> None:
    found = history.diff(scorer_added)
    assert found.study["path"].to_list() == ["scorers.short"]
    assert found.study["old"].to_list() == [None]
    assert json.loads(found.study["new"][0])["method"] == "embedding"
    assert kinds_of(found) == {"scores/tokens/short": {"added"}, "agreements": {"changed"}}
    assert roots_of(found, "scores/tokens/short") == {("scores/tokens/short", None, "new in the study")}
    assert found.explanations.is_empty()
    assert set(found.scores.select("kind", "scorer", "old").rows()) == {("added", "short", None)}
    assert found.means.is_empty()


def test_a_removed_scorer(history: History) -> None:
    found = history.diff(scorer_removed)
    assert found.study["path"].to_list() == ["scorers.surprisal"]
    assert found.study["new"].to_list() == [None]
    assert kinds_of(found) == {"scores/default/surprisal": {"removed"}, "agreements": {"changed"}}
    assert roots_of(found, "scores/default/surprisal") == {("scores/default/surprisal", None, "no longer in the study")}
    assert set(found.scores.select("kind", "scorer", "new").rows()) == {("removed", "surprisal", None)}


def test_more_latents(history: History) -> None:
    found = history.diff(more_latents)
    assert found.study.rows() == [("dictionaries.one.latents", "6", "10")]
    root = {("selections", "one", "latents asked for")}
    assert {asset: roots_of(found, asset) for asset in kinds_of(found)} == dict.fromkeys(kinds_of(found), root)
    assert {"latents", "examples/test", "explanations/default", "scores/tokens/short"} < kinds_of(found).keys()
    assert not {"contexts", "activations", "subject"} & kinds_of(found).keys()
    assert found.explanations.group_by("explainer", "kind").len().sort("explainer").rows() == [
        ("default", "added", 4),
        ("tokens", "added", 4),
    ]
    assert set(found.scores.filter(pl.col("kind") == "added")["latent"]) == set(found.explanations["latent"])


def test_a_shard_that_everything_reads(history: History) -> None:
    found = history.diff(shard_added_and_read)
    assert found.study.rows() == [("corpus.refresh", '"doubling"', '"all"')]
    root = {("contexts", "docs-c-0000", "new")}
    assert {asset: roots_of(found, asset) for asset in kinds_of(found)} == dict.fromkeys(kinds_of(found), root)
    assert kinds_of(found)["activations"] == {"added"}
    assert kinds_of(found)["scores/default/detection"] == {"changed"}


def test_nothing_changed(history: History, capsys: pytest.CaptureFixture[str]) -> None:
    assert history.diff(nothing).is_empty
    since = history.read["shard_added_and_read"][0].isoformat()
    assert main(["--lake", history.lake.uri, "diff", "--from", since]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "nothing changed"


def test_what_comes_out_the_same_is_said_to_be_the_same(materialized: Workbench) -> None:
    since = datetime.now(UTC)
    materialized.study["explainers"]["default"]["temperature"] = 0.9  # which the fake does not heed
    materialized.run()
    found = diff(View(materialized.view().lake, since), materialized.view())
    assert {(each.asset, each.is_same) for each in found.causes} == {("explanations/default", True)}
    assert found.study["path"].to_list() == ["explainers.default.temperature"]
    assert found.explanations.is_empty()
    assert found.scores.is_empty()


def test_from_before_everything_all_is_added(history: History) -> None:
    before = View(history.lake, as_moment("2000-01-01"))
    assert all(rows == [] for rows in rows_of(before).values())
    found = diff(before, history.view("finished"))
    assert {kind for kinds in kinds_of(found).values() for kind in kinds} == {"added"}
    assert set(found.scores["kind"]) == {"added"}
    assert found.explanations.height == history.view("finished").explanations.collect().height


def test_states_in_the_wrong_order_are_refused(history: History) -> None:
    with pytest.raises(LakeError, match="swap them"):
        diff(View(history.lake), history.view("finished"))


def test_what_is_being_built_is_not_seen(finished: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(finished, tmp_path / "it"))
    prompt_of_explainer_in(folder / "study")
    assert run_until(folder, "publish:scores/default/surprisal") < 0
    lake = Lake(str(folder / "study" / "lake"), "tiny")
    killed = datetime.now(UTC)
    then = View(lake, killed)
    assert rows_of(then) == rows_of(View(lake))
    assert set(then.judgements.filter(scorer="surprisal").collect()["block"]) == {1}
    stopped = [each for each in diff(View(lake, started_of(lake)), then).causes if each.kind == "removed"]
    assert [(each.asset, each.partition, each.cause.what) for each in stopped] == [
        ("scores/default/surprisal", "0|one", "begun again and not finished")
    ]
    run_through(folder, "never")
    assert set(then.judgements.filter(scorer="surprisal").collect()["block"]) == {1}
    finished_then = [each for each in diff(then, View(lake)).causes if each.kind == "added"]
    assert [each.cause.what for each in finished_then] == ["finished"]


def prompt_of_explainer_in(study: Path) -> None:
    prompt = study / "pattern.txt"
    prompt.write_text(prompt.read_text().replace("spices", "seasonings"))


def started_of(lake: Lake) -> datetime:
    """Just before the last change of the study."""
    last: datetime = View(lake).studies.select(pl.col("at").max()).collect().item()
    return last - timedelta(microseconds=1)


def last_run(view: View, asset: str) -> str:
    """The run that last published a partition of an asset."""
    rows = view.partitions.filter(asset=asset, state="published").sort("at").collect()
    return str(rows["run"][-1])


def test_a_run_is_the_moment_at_which_it_last_published(history: History) -> None:
    view = View(history.lake)
    run = last_run(history.view("prompt_of_explainer"), "explanations/default")
    published = view.partitions.filter(run=run, state="published").select(pl.col("at").max()).collect().item()
    assert moment(view, run) == moment(view, run[:8]) == published


def test_around_a_run_is_what_it_changed_and_the_study_that_it_was_the_first_to_have(history: History) -> None:
    view = View(history.lake)
    run = last_run(history.view("prompt_of_explainer"), "explanations/default")
    found = diff(*(View(history.lake, at) for at in around(view, run)))
    assert kinds_of(found) == {"explanations/default": {"changed"}}
    assert found.prompts["prompt"].to_list() == ["pattern.txt"]
    assert found.explanations.equals(history.diff(prompt_of_explainer).explanations)


def test_around_the_first_run_there_was_nothing_before(history: History) -> None:
    first = View(history.lake).partitions.sort("at").collect()["run"][0]
    since, until = around(View(history.lake), first)
    assert View(history.lake, since).study is None
    assert set(kinds_of(diff(View(history.lake, since), View(history.lake, until)))) == {"subject"}


def test_a_pruned_scorer_does_not_move_the_run_that_made_it(history: History) -> None:
    view = View(history.lake)
    run = last_run(history.view("prompt_of_explainer"), "scores/default/surprisal")
    assert "pruned" in set(view.partitions.filter(run=run).collect()["state"])
    assert around(view, run)[1] < history.read["prompt_of_explainer"][0]


@pytest.mark.parametrize("text", ["ffffff-no-such-run", "abc", "yesterday"])
def test_an_unknown_run_is_refused_and_the_last_ones_named(history: History, text: str) -> None:
    view = View(history.lake)
    for ask in (moment, around):
        with pytest.raises(LakeError, match="no run begins with") as refused:
            ask(view, text)
        assert last_run(view, "agreements") in str(refused.value)


def test_a_beginning_of_several_runs_is_refused(history: History, monkeypatch: pytest.MonkeyPatch) -> None:
    view = View(history.lake)
    rows = view.partitions.with_columns(run=pl.lit("abcdef-") + pl.col("run"))
    monkeypatch.setattr(View, "partitions", rows, raising=False)
    with pytest.raises(LakeError, match="runs begin with 'abcdef'"):
        moment(view, "abcdef")


def test_a_run_that_published_nothing_is_no_moment(history: History, monkeypatch: pytest.MonkeyPatch) -> None:
    view = View(history.lake)
    run = last_run(view, "latents")
    monkeypatch.setattr(View, "partitions", view.partitions.filter(state="building"), raising=False)
    with pytest.raises(LakeError, match="published nothing"):
        moment(view, run)


def test_a_moment_without_an_offset_is_local_time() -> None:
    local = datetime(2026, 3, 1, 12, 30)
    assert as_moment("2026-03-01T12:30+02:00") == datetime(2026, 3, 1, 10, 30, tzinfo=UTC)
    assert as_moment("2026-03-01T12:30") == as_moment(local) == local.astimezone(UTC)
    assert as_moment("2026-03-01") == datetime(2026, 3, 1).astimezone(UTC)


def test_a_moment_to_come_is_refused(history: History) -> None:
    later = (datetime.now(UTC) + timedelta(days=1)).isoformat()
    for ask in (lambda: moment(View(history.lake), later), lambda: latentlake.open(history.lake.uri, at=later)):
        with pytest.raises(LakeError, match="yet to come"):
            ask()
    with pytest.raises(LakeError, match="is no date or time"):
        latentlake.open(history.lake.uri, at="last week")


def test_a_vacuumed_state_is_refused_with_the_remedy(copied: History, capsys: pytest.CaptureFixture[str]) -> None:
    assert copied.lake.vacuum("scores", 0) > 0
    with pytest.raises(LakeError, match=r"can no longer be read.*vacuum with more hours"):
        _ = copied.view("finished").scores
    since = copied.read["finished"][0].isoformat()
    assert main(["--lake", copied.lake.uri, "diff", "--from", since]) == 1
    assert "can no longer be read" in capsys.readouterr().err
    # What stands since is not lost with the files of others: of the removed scorer, which was pruned.
    assert rows_of(copied.view("nothing")) == copied.read["nothing"][1]


def test_a_state_whose_log_is_gone_is_refused(copied: History) -> None:
    copied.lake.checkpoint("scores")
    for log in sorted(Path(copied.lake.path("scores"), "_delta_log").glob("*.json"))[:-1]:
        log.unlink()
    with pytest.raises(LakeError, match="its log was deleted"):
        _ = copied.view("finished").scores
    assert rows_of(View(copied.lake)) == copied.read["nothing"][1] | {
        "partitions": rows_of(View(copied.lake))["partitions"]
    }


def shown(history: History, capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """What the command prints for a changed prompt."""
    moments = [history.read[after][0].isoformat() for after in ("finished", "prompt_of_explainer")]
    arguments = (*arguments, "--from", moments[0], "--to", moments[1])
    assert main(["--lake", history.lake.uri, "diff", *arguments]) == 0
    return capsys.readouterr().out


def test_the_command_says_what_and_why(history: History, capsys: pytest.CaptureFixture[str]) -> None:
    text, found = shown(history, capsys, "--all"), history.diff(prompt_of_explainer)
    order = [
        "partitions, and why",
        "prompt pattern.txt: ",
        "explanations: ",
        "mean change",
        "    - ",
        "largest changes",
    ]
    assert sorted(order, key=text.index) == order
    for row in found.explanations.to_dicts():
        assert f"    - {row['old']}\n    + {row['new']}" in text
    causes = [line.split() for line in text.splitlines() if line.startswith("  scores/default/detection")]
    assert [line[:6] for line in causes] == [
        ["scores/default/detection", "2", "changed", "explanations/default:", "code", "version"]
    ]


def test_the_command_shows_few_rows_unless_told_otherwise(history: History, capsys: pytest.CaptureFixture[str]) -> None:
    assert "(10 of " in shown(history, capsys)
    assert len(shown(history, capsys)) < len(shown(history, capsys, "--all"))


def test_the_command_as_json(history: History, capsys: pytest.CaptureFixture[str]) -> None:
    told: dict[str, Any] = json.loads(shown(history, capsys, "--json"))
    found = history.diff(prompt_of_explainer)
    assert datetime.fromisoformat(told["from"]) == history.read["finished"][0]
    assert told["scores"] == found.scores.to_dicts()
    assert told["means"] == found.means.to_dicts()
    assert {each["asset"] for each in told["causes"]} == kinds_of(found).keys()


def test_the_command_for_a_run(history: History, capsys: pytest.CaptureFixture[str]) -> None:
    run = last_run(history.view("scorer_added"), "scores/tokens/short")
    assert main(["--lake", history.lake.uri, "diff", run[:8]]) == 0
    assert "new in the study" in capsys.readouterr().out


@pytest.mark.parametrize("arguments", [[], ["--to", "2026-01-01"], ["abcdef12", "--from", "2026-01-01"]])
def test_the_command_asks_for_a_run_or_a_moment(
    history: History, arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--lake", history.lake.uri, "diff", *arguments]) == 1
    assert "name a RUN" in capsys.readouterr().err


def test_the_command_loads_no_model(history: History) -> None:
    code = (
        "import sys; from latentlake.cli import main\n"
        f"main(['--lake', {history.lake.uri!r}, 'diff', '--from', '2026-01-01'])\n"
        "sys.exit(bool({'torch', 'transformers', 'dagster'} & set(sys.modules)))"
    )
    assert (
        subprocess.run([sys.executable, "-W", "ignore", "-c", code], capture_output=True, check=False).returncode == 0
    )
