"""On the real quickstart: exactly what depends on a change is computed, the UI agrees, and a kill costs nothing."""

import gzip
import json
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path

import polars as pl
import pytest

from latentlake.fakes import write_coder
from tests.prove.quickstart import Quickstart

SCORES = {**{f"scores/default/{scorer}": 2 for scorer in ("embedding", "surprisal", "detection")}, "agreements": 1}
SMALL = {"scores/default/small": 2}
BELOW = {
    "logits": 2, "examples/strong": 2, "examples/select": 2, "examples/test": 2, "explanations/tokens": 2,
    "explanations/default": 2, "embeddings/tokens": 2, "embeddings/default": 2, "scores/tokens/embedding": 2, **SCORES,
}  # fmt: skip
CHECKED = {"reconstructions": 1}
NEAR = {"neighbours": 2}
NEW_DICTIONARY = {
    "dictionaries": 1,
    "selections": 1,
    **CHECKED,
    "activations": 4,
    **NEAR,
    "latents": 2,
    **BELOW,
    **SMALL,
}


def nothing(_: Quickstart) -> None:
    pass


def comment(quickstart: Quickstart) -> None:
    quickstart.comment = "# a comment\n"


def prompt_of_detection(quickstart: Quickstart) -> None:
    path = quickstart.folder / "detection.txt"
    path.write_text(path.read_text().replace("Answer yes or no.", "Say yes or no."))


def scorer_added(quickstart: Quickstart) -> None:
    small = {**quickstart.study["scorers"]["embedding"], "windows": 20, "explainers": ["default"]}
    quickstart.study["scorers"]["small"] = small


def prompt_of_explainer(quickstart: Quickstart) -> None:
    path = quickstart.folder / "pattern.txt"
    path.write_text(path.read_text().replace("In common: spices", "In common: herbs and spices"))


def half_of_third_file(quickstart: Quickstart, half: int) -> None:
    """A shard of half the documents of the third file: what it costs does not depend on its size."""
    lines = gzip.decompress((quickstart.folder / "data/more/leads_2.jsonl.gz").read_bytes()).splitlines()
    middle = len(lines) // 2
    part = b"\n".join(lines[:middle] if half == 0 else lines[middle:])
    (quickstart.folder / f"data/leads/leads_{2 + half}.jsonl.gz").write_bytes(gzip.compress(part, mtime=0))


def shard_added_doubling(quickstart: Quickstart) -> None:
    half_of_third_file(quickstart, 0)


def refresh_all(quickstart: Quickstart) -> None:
    quickstart.study["corpus"]["refresh"] = "all"


def shard_added_all(quickstart: Quickstart) -> None:
    half_of_third_file(quickstart, 1)


def dictionary_added(quickstart: Quickstart) -> None:
    write_coder(quickstart.folder / "data/coder/random", 576, 4096, k=32, seed=1)
    quickstart.study["dictionaries"]["random9"] = {"hookpoint": "layers.9", "coder": "data/coder/random", "latents": 4}


def more_latents(quickstart: Quickstart) -> None:
    quickstart.study["dictionaries"]["layer9"]["latents"] = 32


CHANGES: list[tuple[Callable[[Quickstart], None], dict[str, int]]] = [
    (nothing, {}),
    (comment, {}),
    (prompt_of_detection, {"scores/default/detection": 2, "agreements": 1}),
    (scorer_added, {**SMALL, "agreements": 1}),
    (prompt_of_explainer, {"explanations/default": 2, "embeddings/default": 2, **SCORES, **SMALL}),
    (shard_added_doubling, {"contexts": 1, "activations": 1}),
    (refresh_all, {**CHECKED, **NEAR, "latents": 2, **BELOW, **SMALL}),
    (shard_added_all, {"contexts": 1, "activations": 1, **CHECKED, **NEAR, "latents": 2, **BELOW, **SMALL}),
    (dictionary_added, NEW_DICTIONARY),
    (more_latents, {"selections": 1, "latents": 2, **BELOW, **SMALL}),
]
# Dagster cannot see that files of weights, the choice of latents, or the choice of shards in use changed.
UNSEEN = {more_latents: {"selections"}, refresh_all: {"latents", "reconstructions", "neighbours"}}


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the quickstart, run once."""
    folder = tmp_path_factory.mktemp("quickstart") / "it"
    computed, calls, seconds = Quickstart(folder).run()
    print(f"\nfirst run: {sum(computed.values())} partitions, {calls} calls, {seconds:.0f} s")
    return folder


def test_only_what_is_downstream_is_computed(finished: Path, tmp_path: Path) -> None:
    quickstart = Quickstart(Path(shutil.copytree(finished, tmp_path / "it")))
    rows = []
    for change, expected in CHANGES:
        change(quickstart)
        plan, seen = quickstart.stale()
        assert dict(seen) == {name: n for name, n in plan.items() if name not in UNSEEN.get(change, set())}
        computed, calls, seconds = quickstart.run()
        assert computed == expected, change.__name__
        assert quickstart.stale() == ({}, {}), change.__name__
        row = {"change": change.__name__, "stale by plan": str(dict(plan)), "stale in the UI": str(dict(seen))}
        rows.append({**row, "computed": str(computed), "calls": calls, "seconds": round(seconds)})
        print(json.dumps(rows[-1]), flush=True)
    assert len(rows) == len(CHANGES)


def test_a_kill_in_the_middle_of_the_explanations_costs_one_batch(finished: Path, tmp_path: Path) -> None:
    calm, killed = (Quickstart(Path(shutil.copytree(finished, tmp_path / name))) for name in ("calm", "killed"))
    for quickstart in (calm, killed):
        (quickstart.folder / "engine.log").unlink(missing_ok=True)
        prompt_of_explainer(quickstart)
    before = killed.ledger_calls()
    _, calls, _ = calm.run()
    process = killed.start()
    while killed.ledger_calls() == before:
        assert process.poll() is None
        time.sleep(0.1)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    kept = killed.ledger_calls() - before
    assert 0 < kept < 72
    computed, made, _ = killed.run()
    repeated = killed.engine_calls() - calm.engine_calls()
    print(
        f"\nkilled after {kept} calls were kept; {made} made afterwards, {calls} by the calm run; repeated: {repeated}"
    )
    assert 0 <= repeated <= 64
    assert computed == {"explanations/default": 2, **SCORES}
    assert killed.data_versions() == calm.data_versions()
    assert killed.stale() == ({}, {})


def test_no_text_has_two_roles_for_a_latent(finished: Path) -> None:
    roles = Quickstart(finished).view().examples.select("dictionary", "latent", "text", "sample")
    both = roles.unique().group_by("dictionary", "latent", "text").agg(pl.col("sample").n_unique())
    assert roles.collect().height > 1000
    assert both.filter(pl.col("sample") > 1).collect().height == 0
