"""Under a real daemon: exactly what depends on a change is computed, nothing is launched at rest, and a kill costs nothing."""

import json
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import dagster as dg

from latentlake.catalog import Catalog
from tests.prove.tiny import Tiny, tiny_study
from tests.workbench import EVERYTHING, Workbench

SCORES = {
    "scores/default/embedding": 2,
    "scores/default/surprisal": 2,
    "scores/default/detection": 2,
    "agreements": 1,
}


def nothing(_: Tiny) -> None:
    pass


def new_shard(tiny: Tiny) -> None:
    tiny.bench.write_shard("c", 3)


def prompt_of_detection(tiny: Tiny) -> None:
    tiny.edit("detection.txt", "Answer yes or no.", "Say yes or no.")


def prompt_of_explainer(tiny: Tiny) -> None:
    tiny.edit("pattern.txt", "spices", "seasonings")


# what is changed, whether the code location is reloaded, partitions computed, what launches
CHANGES: list[tuple[Callable[[Tiny], None], bool, dict[str, int], set[str]]] = [
    (nothing, False, {}, set()),
    (new_shard, False, {"contexts": 1, "activations": 1}, {"new shards"}),
    (prompt_of_detection, True, {"scores/default/detection": 2, "agreements": 1}, {"nightly"}),
    (prompt_of_explainer, True, {"explanations/default": 2, **SCORES}, {"nightly"}),
]


def launchers(tiny: Tiny, since: float) -> set[str]:
    """What began the launches of the runs since a time."""
    tags = [{tag["key"]: tag["value"] for tag in run["tags"]} for run in tiny.runs(since)]
    return {each["latentlake/launch"].rpartition(" ")[0] for each in tags}


def prove(tiny: Tiny, name: str, since: float, expected: dict[str, int], stale: dict[str, int]) -> None:
    """Wait for rest, and hold what was computed against what was expected; one line of JSON."""
    tiny.settle(since)
    computed, runs = tiny.computed(since), tiny.runs(since)
    row = {"change": name, "stale by plan": str(stale), "computed": str(computed), "runs": len(runs)}
    print(json.dumps({**row, "seconds": round(time.time() - since)}), flush=True)
    assert computed == expected, tiny.dev.report()
    assert {run["status"] for run in runs} <= {"SUCCESS"}, tiny.dev.report()
    if name != "first run":  # schedule and sensor, switched on in one moment, do not see what the other launches
        assert len(runs) == len(expected), tiny.dev.report()  # one range an asset, each launched once
    assert tiny.bench.stale() == {}
    assert tiny.bench.dagster_stale() == {}


def test_only_what_is_downstream_is_launched(tmp_path: Path) -> None:
    with tiny_study(tmp_path) as tiny:
        since = time.time()
        tiny.dev.start()
        tiny.dev.switch_on()
        prove(tiny, "first run", since, EVERYTHING, {})
        for change, is_reloaded, expected, begun in CHANGES:
            since = time.time()
            change(tiny)
            stale = dict(tiny.bench.stale())
            assert dict(tiny.bench.dagster_stale()) == stale
            if is_reloaded:
                tiny.dev.reload()
                since = time.time()
            prove(tiny, change.__name__, since, expected, stale)
            assert launchers(tiny, since) == begun
        assert_edit_is_refused(tiny)


def assert_edit_is_refused(tiny: Tiny) -> None:
    """A study that was edited and not loaded again: ticks say so, and nothing is computed."""
    since = time.time()
    tiny.bench.study["seed"] = 5
    tiny.bench.prepare()
    tiny.dev.wait(lambda: bool(refusals(tiny, since)), "a tick fails")
    message = refusals(tiny, since)[0]
    print(json.dumps({"change": "study edited, not reloaded", "tick": message, "runs": len(tiny.runs(since))}))
    assert "reload the code location" in message
    assert (tiny.computed(since), tiny.runs(since)) == ({}, [])


def refusals(tiny: Tiny, since: float) -> list[str]:
    """What failed ticks of the schedule say."""
    failed = [tick["error"] for tick in tiny.dev.ticks("nightly") if tick["error"] and tick["timestamp"] > since]
    return [json.dumps(error) for error in failed]


def test_what_was_killed_half_way_is_finished(finished: Path, tmp_path: Path) -> None:
    calm = undisturbed(Path(shutil.copytree(finished, tmp_path / "calm")))
    shutil.copytree(finished / "study", tmp_path / "killed" / "study")
    with tiny_study(tmp_path / "killed") as tiny:
        prompt_of_explainer(tiny)
        tiny.dev.start(FAKE_SECONDS="2")
        tiny.dev.switch_on()
        tiny.dev.wait(lambda: is_under_way(tiny, "explanations/default"), "explanations are being made")
        tiny.dev.kill()
        assert is_under_way(tiny, "explanations/default")
        since = time.time()
        tiny.dev.start()
        tiny.settle(since)
        statuses = [run["status"] for run in reversed(tiny.dev.runs())]
        row = {"change": "killed", "computed": str(tiny.computed(since)), "runs": statuses}
        print(json.dumps({**row, "seconds": round(time.time() - since)}))
        assert tiny.computed(since) == {"explanations/default": 2, **SCORES}, tiny.dev.report()
        assert tiny.bench.data_versions() == calm
        assert tiny.bench.dagster_stale() == {}
        assert statuses == ["FAILURE", *["SUCCESS"] * 4], tiny.dev.report()


def undisturbed(folder: Path) -> dict[tuple[str, str], str | None]:
    """Data versions where the same prompt is edited and nothing is killed."""
    with dg.DagsterInstance.local_temp(str(folder / "instance")) as instance:
        bench = Workbench(folder / "study", instance)
        path = bench.folder / "pattern.txt"
        path.write_text(path.read_text().replace("spices", "seasonings"))
        assert bench.run() == {"explanations/default": 2, **SCORES}
        return bench.data_versions()


def is_under_way(tiny: Tiny, asset: str) -> bool:
    """Whether a partition of an asset was begun and is not finished."""
    publications = Catalog(tiny.bench.lake.open("tiny")).publications(asset)
    return any(not each.is_published for each in publications.values())
