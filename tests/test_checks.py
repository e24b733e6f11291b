"""Checks: what they find, what they keep from publication, and what Dagster and the terminal say of them."""

import copy
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import dagster as dg
import polars as pl
import pytest
import yaml

from assets.events import asset_key
from jobs.progress import LogProgress
from jobs.run import Run, _print_end
from latentlake.catalog import Catalog
from latentlake.checks import CHECKS, Check, Checked, Result, checks_of
from latentlake.errors import LakeError
from latentlake.execute import Executor
from latentlake.flow import Flow
from latentlake.lake import Lake
from latentlake.stages import contexts, latents
from latentlake.study import Study, load_study
from latentlake.tables import TABLES
from latentlake.work import Work
from tests.test_dagster import events, launch
from tests.workbench import STUDY, Workbench

BY_NAME = {check.name: check for check in CHECKS}
WIDTH = 5  # in two blocks: 0 to 2, 3 and 4


@cache
def study() -> Study:
    """The small study, with the packaged prompts."""
    choices = copy.deepcopy(STUDY)
    for section, name in (("explainers", "default"), ("scorers", "detection")):
        del choices[section][name]["prompt"]
    with TemporaryDirectory() as folder:
        path = Path(folder) / "study.yaml"
        path.write_text(yaml.safe_dump(choices))
        return load_study(path)


def find(name: str, stage: str, keys: tuple[str, ...] = (), **frames: pl.DataFrame) -> Result:
    """What a check finds in some rows."""

    def frame(name: str) -> pl.LazyFrame:
        return frames[name].lazy()

    return BY_NAME[name].find(Checked(study(), Flow(study())[stage], keys, frame, frame))


def rows(table: str, *given: Mapping[str, Any]) -> pl.DataFrame:
    """Rows of a table, the columns that are not given being null."""
    return pl.DataFrame(list(given), schema=TABLES[table].empty().schema)


def context(index: int, tokens: list[int], split: str) -> dict[str, Any]:
    return {"shard": "s", "context": index, "tokens": tokens, "split": split}


def test_equal_contexts_in_one_split_pass_and_in_two_do_not() -> None:
    given = [context(0, [1, 2], "explain"), context(1, [2, 1], "score"), context(2, [1, 2], "explain")]
    figures = {"contexts": 3, "explain": 2, "select": 0, "score": 1, "repeated contexts": 1, "in several splits": 0}
    assert find("splits_disjoint", "contexts", contexts=rows("contexts", *given)) == Result(True, figures)
    given[2]["split"] = "select"
    found = find("splits_disjoint", "contexts", contexts=rows("contexts", *given))
    assert (found.passed, found.figures["in several splits"]) == (False, 1)


def test_repeated_keys_are_found_in_every_table() -> None:
    score = {"explainer": "e", "scorer": "s", "dictionary": "one", "block": 0, "latent": 1, "metric": "auroc"}
    judgement = {**score, "shard": "s", "context": 0, "start": 0}
    tables = {"scores": rows("scores", score), "judgements": rows("judgements", judgement, judgement)}
    tables["slices"] = rows("slices", {**score, "decile": 0}, {**score, "decile": 1}, {**score, "source": "random"})
    found = find("keys_unique", "scores/default/embedding", **tables)
    assert not found.passed
    assert str(found) == (
        "scores rows 1, scores repeated keys 0, judgements rows 2, judgements repeated keys 1, slices rows 3, "
        "slices repeated keys 0"
    )
    tables["judgements"] = rows("judgements", judgement, {**judgement, "control": "shuffled"})
    assert find("keys_unique", "scores/default/embedding", **tables).passed


def test_the_keys_of_activations_are_not_read() -> None:
    found = find("keys_unique", "activations", activations=pl.DataFrame({"anything": [1, 2, 2]}))
    assert found.figures == {"activations rows": 3, "activations repeated keys": "none, counted before publication"}


def block_of(block: int, *those: int, **more: Any) -> pl.DataFrame:
    """Rows of some latents, chosen, said to be of a block."""
    common = {"dictionary": "one", "block": block, "triage": "ok", "is_chosen": True, **more}
    return rows("latents", *({"latent": latent, **common} for latent in those))


@pytest.mark.parametrize(
    ("found", "amiss"),
    [
        (block_of(0, 0, 1, 2), {}),
        (block_of(0, 0, 1, 2, is_chosen=False, reason="not drawn"), {}),
        (block_of(0, 0, 1), {"missing": 1}),
        (block_of(0, 0, 1, 2, 3), {"of other blocks": 1}),
        (block_of(1, 0, 1, 2), {"missing": 3, "of other blocks": 3}),
        (block_of(0, 0, 1, 2, is_chosen=False), {"chosen and reason at odds": 3}),
        (block_of(0, 0, 1, 2, reason="not drawn"), {"chosen and reason at odds": 3}),
        (block_of(0), {"missing": 3}),
    ],
)
def test_a_block_holds_its_latents_each_with_a_verdict(found: pl.DataFrame, amiss: dict[str, int]) -> None:
    dictionaries = rows("dictionaries", {"dictionary": "one", "width": WIDTH}, {"dictionary": "other", "width": 9})
    result = find("every_latent_accounted_for", "latents", ("0|one",), latents=found, dictionaries=dictionaries)
    none = {"missing": 0, "of other blocks": 0, "chosen and reason at odds": 0}
    triage = {"ok": found.height} if found.height else {}
    counts = {"latents": found.height, "chosen": found["is_chosen"].sum(), **triage}
    assert result == Result(not amiss, {**counts, **none, **amiss})


@pytest.mark.parametrize(
    ("stage", "table"), [("explanations/default", "explanations"), ("scores/default/detection", "judgements")]
)
def test_failures_are_counted_by_class_and_bounded(stage: str, table: str) -> None:
    def counted(errors: list[str | None]) -> Result:
        return find(
            "failed_calls_bounded", stage, **{table: rows(table, *({"error": each, "call": "k"} for each in errors))}
        )

    assert counted([None] * 19 + ["timeout"]).passed
    assert counted([]).passed
    assert counted(["timeout", "no_reply", "timeout"]) == Result(
        False, {"failed": 3, "of": 3, "share": 1.0, "bound": 0.05, "no_reply": 1, "timeout": 2}
    )


def test_what_no_call_was_made_for_has_not_failed() -> None:
    found = rows(
        "explanations", {"error": "not_single_token"}, {"error": "timeout", "call": "k"}, *[{"error": None}] * 18
    )
    figures = {"failed": 1, "of": 20, "share": 0.05, "bound": 0.05, "not_single_token": 1, "timeout": 1}
    assert find("failed_calls_bounded", "explanations/default", explanations=found) == Result(True, figures)


def controls(*values: float | None) -> Result:
    """The check of controls with these AUROCs, among scores that are none of its business."""
    other = [{"metric": "f1", "control": "shuffled", "value": 1.0}, {"metric": "auroc", "value": 1.0}]
    other += [{"metric": "auroc", "control": "empty", "value": 1.0}]
    given = [{"metric": "auroc", "control": "shuffled", "value": value} for value in values]
    return find("controls_near_chance", "scores/default/embedding", scores=rows("scores", *other, *given))


def test_a_control_far_from_chance_is_found() -> None:
    near = controls(0.4, 0.6, None)
    assert (near.passed, near.figures["mean"], near.figures["latents"]) == (True, 0.5, 2)
    assert near.figures["low"] < 0.4
    far = controls(0.9, 0.9)
    assert far == Result(False, {"mean": 0.9, "low": 0.9, "high": 0.9, "latents": 2, "bound": 0.1})
    assert not controls(0.1).passed
    assert controls() == Result(True, {"latents": 0, "bound": 0.1})


@pytest.mark.parametrize(
    ("stage", "table"), [("examples/test", "examples"), ("scores/default/detection", "judgements")]
)
def test_every_latent_needs_windows_of_both_kinds(stage: str, table: str) -> None:
    def window(latent: int, is_activating: bool) -> dict[str, Any]:
        return {"dictionary": "one", "latent": latent, "is_activating": is_activating}

    given = [window(1, True), window(1, True), window(1, False), window(2, False)]
    found = find("positives_and_negatives", stage, **{table: rows(table, *given)})
    assert (found.passed, found.figures["latents"], found.figures["latents without both"]) == (False, 2, 1)
    assert [found.figures[f"activating {name}"] for name in ("min", "median", "max")] == [0, 1, 2]
    assert find("positives_and_negatives", stage, **{table: rows(table, *given, window(2, True))}).passed
    assert find("positives_and_negatives", stage, **{table: rows(table)}).passed


def test_a_control_without_windows_of_one_kind_is_found() -> None:
    window = {"dictionary": "one", "latent": 1, "is_activating": True}
    given = [window, {**window, "is_activating": False}, {**window, "control": "shuffled"}]
    assert not find("positives_and_negatives", "scores/default/detection", judgements=rows("judgements", *given)).passed


def window(text: str, latent: int = 1, **more: Any) -> dict[str, Any]:
    return {"dictionary": "one", "latent": latent, "text": text, "is_activating": True, **more}


@pytest.mark.parametrize(
    ("judged", "also"),
    [
        ([window("a"), window("b")], {}),
        ([window("a"), window("c")], {"strong": 1}),
        ([window("c", latent=2)], {}),  # another latent's
        ([window("c"), window("d"), window("e")], {"strong": 1, "select": 1}),
    ],
)
def test_a_text_in_two_roles_is_found(judged: list[dict[str, Any]], also: dict[str, int]) -> None:
    others = {"examples/strong": rows("examples", window("c")), "examples/select": rows("examples", window("d"))}
    found = find("one_role_a_text", "examples/test", examples=rows("examples", *judged), **others)
    counts = {f"also in {name}": also.get(name, 0) for name in ("strong", "select")}
    assert found == Result(not also, {"windows": len(judged), **counts})


def test_sources_that_ran_dry_are_counted() -> None:
    silent = {"is_activating": False, "source": "random"}
    enough = [window("a"), window("b", **silent), window("c", **{**silent, "source": "similar"})]
    assert find("sources_sufficed", "examples/test", examples=rows("examples", *enough)) == Result(
        True, {"random": 1, "similar": 1}
    )
    dry = [*enough, window("d", **silent, in_place_of="similar"), window("e", **silent, in_place_of="similar")]
    assert find("sources_sufficed", "examples/test", examples=rows("examples", *dry)) == Result(
        False, {"random": 3, "similar": 1, "at random in place of similar": 2}
    )


def test_each_stage_has_its_checks() -> None:
    stages = Flow(study()).stages
    by_stage = {name: [each.name for each in checks_of(study(), stage)] for name, stage in stages.items()}
    assert all("keys_unique" in names for names in by_stage.values())
    assert "positives_and_negatives" in by_stage["examples/test"]
    assert "positives_and_negatives" not in by_stage["examples/strong"]  # this sample has no negatives
    assert [check.name for check in CHECKS if check.protects] == ["splits_disjoint", "every_latent_accounted_for"]


def test_targets_are_reached_by_half_of_the_latents_or_that_is_said() -> None:
    reached = [{"latent": n, "target": 1.0, "kl": 1.0} for n in (1, 2)]
    short = {"latent": 3, "target": 1.0, "kl": 0.4, "error": "kl_out_of_reach"}
    of_control = {**short, "latent": 1, "control": "random_direction"}
    found = find("targets_reached", "latents", strengths=rows("strengths", *reached, short, of_control))
    assert found == Result(True, {"latents": 3, "kl_out_of_reach": 1, "short of 1 nats": 1})
    assert not find(
        "targets_reached", "latents", strengths=rows("strengths", reached[0], short, {**short, "latent": 4})
    ).passed


@pytest.mark.parametrize(("kl", "passed"), [(0.6, True), (1.9, True), (0.4, False), (2.1, False)])
def test_a_divergence_of_twice_or_half_the_target_on_other_prompts_is_told(kl: float, passed: bool) -> None:
    said = [{"latent": n, "target": 1.0, "context": n, "kl": kl + n / 10} for n in (-1, 1)]
    others = [{"latent": 1, "kl": 0.0}, {"latent": 1, "target": 1.0, "context": 9, "error": "kl_out_of_reach"}]
    found = find("divergence_carries_over", "latents", continuations=rows("continuations", *said, *others))
    assert (found.passed, found.figures) == (passed, {"1 nats, own direction": kl})


# on a study that was run


def checked(bench: Workbench) -> list[tuple[str, Check, Result]]:
    """Every check of a study, over all that it has published."""
    run = bench.prepare()
    executor = Executor(run.flow, run.lake, run.origins, None, run.progress, "", "")  # type: ignore[arg-type]
    keys: dict[str, list[str]] = {}
    for asset, partition in Catalog(run.lake).publications():
        keys.setdefault(asset, []).append(partition)
    return [(name, *found) for name in run.flow.stages for found in executor.check(name, keys[name])]


def test_all_checks_pass_on_what_a_run_makes(materialized: Workbench) -> None:
    materialized.study["checks"] = {"control": 0.5}  # six latents and fakes that answer by hash are anywhere
    found = checked(materialized)
    unasked = {"reconstructs", "targets_reached", "divergence_carries_over"}  # this study has none of what they are of
    assert {check.name for _, check, _ in found} == set(BY_NAME) - unasked
    assert [(name, check.name, str(result)) for name, check, result in found if not result.passed] == []
    assert next(result for name, _, result in found if name == "latents").figures["latents rows"] == 64


def test_bounds_change_no_recipe(materialized: Workbench) -> None:
    materialized.study["checks"] = {"control": 0.0, "failed_calls": 0.0}
    assert materialized.stale() == {}


def repeat_a_context_in_another_split(work: Work) -> dict[str, Any]:
    """Contexts as they should be, and the first once more where an explainer does not see it."""
    made = contexts_compute(work)
    table = pl.DataFrame(made["contexts"])
    others = {"explain": "score", "select": "score", "score": "explain"}
    first = table.head(1).with_columns(context=pl.lit(table.height, pl.Int32), split=pl.col("split").replace(others))
    return {**made, "contexts": pl.concat([table, first])}


def drop_a_latent(work: Work) -> dict[str, Any]:
    """The latents of a block but one."""
    return {"latents": latents_compute(work)["latents"][1:]}


contexts_compute: Callable[[Work], Any] = contexts.compute
latents_compute: Callable[[Work], Any] = latents.compute


def test_contexts_that_leak_are_not_published(workbench: Workbench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(contexts, "compute", repeat_a_context_in_another_split)
    message = r"contexts\[docs-a-0000\] is not published.* splits_disjoint: contexts \d+, .*in several splits 1\."
    with pytest.raises(LakeError, match=message):
        workbench.run()
    assert not any(asset == "contexts" for asset, _ in workbench.data_versions())
    assert workbench.lake.open("tiny").scan("contexts").collect().is_empty()


def test_a_block_that_lacks_a_latent_replaces_nothing(materialized: Workbench, monkeypatch: pytest.MonkeyPatch) -> None:
    lake: Lake = materialized.lake.open("tiny")
    before = lake.scan("latents").collect()
    materialized.study["seed"] = 1
    monkeypatch.setattr(latents, "compute", drop_a_latent)
    with pytest.raises(LakeError, match=r"latents\[0\|one\] .* every_latent_accounted_for: latents 31, .*missing 1"):
        materialized.run()
    assert ("latents", "0|one") not in materialized.data_versions()
    assert lake.scan("latents").collect().equals(before)


# what Dagster and the terminal say

STAGE = "scores/default/embedding"


@pytest.fixture
def strict(materialized: Workbench) -> tuple[Workbench, Run, dg.ExecuteInProcessResult]:
    """A run of what is up to date, under a bound that its controls exceed."""
    materialized.study["checks"] = {"control": 0.0}
    run = materialized.prepare()
    return materialized, run, launch(materialized, run, [STAGE], "0|one", "1|one")


def test_dagster_hears_of_every_check_of_a_first_run(materialized: Workbench) -> None:
    storage = materialized.instance.event_log_storage
    for name, stage in materialized.prepare().flow.stages.items():
        for check in checks_of(study(), stage):
            history = storage.get_asset_check_execution_history(dg.AssetCheckKey(asset_key(name), check.name), limit=9)
            assert len(history) == 1, (name, check.name)


def test_a_warning_fails_no_run_and_what_is_up_to_date_is_checked_too(
    strict: tuple[Workbench, Run, dg.ExecuteInProcessResult],
) -> None:
    bench, _, result = strict
    assert result.success
    assert bench.llm.made == []
    assert len(result.get_asset_materialization_events()) == 2
    assert len(events(bench, STAGE)) == 4
    told = {each.check_name: each for each in result.get_asset_check_evaluations()}
    assert {name for name, each in told.items() if not each.passed} == {"controls_near_chance"}
    assert told["controls_near_chance"].severity is dg.AssetCheckSeverity.WARN
    assert told["failed_calls_bounded"].severity is dg.AssetCheckSeverity.ERROR
    assert told["failed_calls_bounded"].metadata["of"].value == 288
    assert bench.dagster_stale() == {}


def test_the_terminal_names_the_checks_that_failed_and_no_other(
    strict: tuple[Workbench, Run, dg.ExecuteInProcessResult], capsys: pytest.CaptureFixture[str]
) -> None:
    bench, run, _ = strict
    _print_end(run, bench.lake)
    said = [line for line in capsys.readouterr().out.splitlines() if "check failed" in line]
    assert len(said) == 1
    assert said[0].startswith(f"check failed: {STAGE}, controls_near_chance: mean 0.")


def test_the_log_names_a_check_that_failed(caplog: pytest.LogCaptureFixture) -> None:
    LogProgress().failed("scores, controls_near_chance: mean 0.9")
    assert caplog.messages == ["check failed: scores, controls_near_chance: mean 0.9"]
