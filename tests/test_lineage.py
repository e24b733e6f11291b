"""Exactly what depends on a change is computed again, and the Dagster UI thinks the same."""

import shutil
from collections.abc import Callable

import pytest
from deltalake import DeltaTable

from latentlake.fakes import FakeLLM, write_coder
from latentlake.scorers.detection import Detection
from resources.lake import LakeResource
from tests.workbench import EVERYTHING, LATENTS, WIDTH, Workbench

EXAMPLES_AND_BELOW = {
    name: n
    for name, n in EVERYTHING.items()
    if name.split("/")[0] in ("examples", "explanations", "scores", "agreements")
}


def comment(bench: Workbench) -> None:
    bench.comment = "# a comment\n"


def prompt_of_detection(bench: Workbench) -> None:
    path = bench.folder / "detection.txt"
    path.write_text(path.read_text().replace("Answer yes or no.", "Say yes or no."))


def prompt_of_explainer(bench: Workbench) -> None:
    path = bench.folder / "pattern.txt"
    path.write_text(path.read_text().replace("spices", "seasonings"))


def scorer_added(bench: Workbench) -> None:
    bench.study["scorers"]["short"] = {**bench.study["scorers"]["embedding"], "windows": 4, "explainers": ["tokens"]}


def scorer_removed(bench: Workbench) -> None:
    del bench.study["scorers"]["surprisal"]


def scorer_judges_another_explainer(bench: Workbench) -> None:
    bench.study["scorers"]["surprisal"]["explainers"] = ["default", "tokens"]


def shard_added(bench: Workbench) -> None:
    bench.write_shard("c", 3)


def dictionary_added(bench: Workbench) -> None:
    write_coder(bench.folder / "coders" / "two", WIDTH, LATENTS, k=8, seed=2)
    bench.study["dictionaries"]["two"] = {"hookpoint": "layers.2", "coder": "coders/two", "latents": 6}


def more_latents(bench: Workbench) -> None:
    bench.study["dictionaries"]["one"]["latents"] = 10


def explainer_added(bench: Workbench) -> None:
    bench.study["explainers"]["few"] = {"method": "tokens", "n": 2}


def sample_seed_changed(bench: Workbench) -> None:
    bench.study["samples"]["test"]["seed"] = 1


def blocks_changed(bench: Workbench) -> None:
    bench.study["blocks"] = 3


def shards_file_changed(bench: Workbench) -> None:
    bench.write_shard("b", 4)


def llm_revision_changed(bench: Workbench) -> None:
    (bench.folder / "embedder" / "config.json").write_text('{"revision": 2}')


def rows_deleted_by_hand(bench: Workbench) -> None:
    table = DeltaTable(bench.lake.open("tiny").path("judgements"))
    table.delete("scorer = 'detection' AND block = 1")


def table_deleted_by_hand(bench: Workbench) -> None:
    shutil.rmtree(bench.lake.open("tiny").path("activations"))


def table_rolled_back(bench: Workbench) -> None:
    """To before the second block's windows were published."""
    table = DeltaTable(bench.lake.open("tiny").path("examples"))
    table.restore(table.version() - 1)


def price_given(bench: Workbench) -> None:
    bench.study["llms"]["judge"]["price"] = {"input": 1.0, "output": 2.0}


def weights_changed(bench: Workbench) -> None:
    write_coder(bench.folder / "coders" / "one", WIDTH, LATENTS, k=8, seed=3)


DOWNSTREAM_OF_EXPLANATIONS = {
    "scores/default/embedding": 2,
    "scores/default/surprisal": 2,
    "scores/default/detection": 2,
    "agreements": 1,
}
ONE_DICTIONARY = {name: n for name, n in EVERYTHING.items() if name not in ("subject", "llms", "contexts")}

SCORES = {name: n for name, n in EVERYTHING.items() if name.startswith(("scores/", "agreements"))}
BY_BLOCK = {name: 3 for name in EVERYTHING if name == "latents" or name in EXAMPLES_AND_BELOW} | {"agreements": 1}

# What lies outside the lake (weights, files) or is done to it by hand Dagster cannot see; the plan can.
OUTSIDE = {
    weights_changed, shards_file_changed, llm_revision_changed, rows_deleted_by_hand, table_deleted_by_hand,
    table_rolled_back,
}  # fmt: skip

# change → partitions computed, by asset
CHANGES: list[tuple[Callable[[Workbench], None], dict[str, int]]] = [
    (comment, {}),
    (prompt_of_detection, {"scores/default/detection": 2, "agreements": 1}),
    (prompt_of_explainer, {"explanations/default": 2, **DOWNSTREAM_OF_EXPLANATIONS}),
    (scorer_added, {"scores/tokens/short": 2, "agreements": 1}),
    (scorer_removed, {"agreements": 1}),
    (scorer_judges_another_explainer, {"scores/tokens/surprisal": 2, "agreements": 1}),
    (shard_added, {"contexts": 1, "activations": 1}),
    (dictionary_added, ONE_DICTIONARY),
    (weights_changed, ONE_DICTIONARY | {"selections": 0}),
    (explainer_added, {"explanations/few": 2}),
    (sample_seed_changed, {"examples/test": 2, **SCORES}),
    (blocks_changed, BY_BLOCK),
    (shards_file_changed, {"contexts": 1, "activations": 1, "latents": 2, **EXAMPLES_AND_BELOW}),
    # the explanations come out the same, so only what embeds is scored again
    (
        llm_revision_changed,
        {"llms": 1, "explanations/default": 2, "scores/tokens/embedding": 2, "scores/default/embedding": 2},
    ),
    (rows_deleted_by_hand, {"scores/default/detection": 1}),
    (table_deleted_by_hand, {"activations": 2}),
    (table_rolled_back, {"examples/test": 1}),
    (price_given, {}),
]


@pytest.mark.parametrize(("change", "expected"), CHANGES, ids=[change.__name__ for change, _ in CHANGES])
def test_only_what_is_downstream_is_computed(
    materialized: Workbench, change: Callable[[Workbench], None], expected: dict[str, int]
) -> None:
    change(materialized)
    assert materialized.dagster_stale() == ({} if change in OUTSIDE else materialized.stale())
    assert materialized.run() == {name: n for name, n in expected.items() if n}
    assert materialized.stale() == {}
    assert materialized.dagster_stale() == {}


def test_with_another_version_of_its_code_a_scorer_is_computed_again(
    materialized: Workbench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Detection, "version", "changed")
    assert materialized.dagster_stale() == {"scores/default/detection": 2}
    assert materialized.run() == {"scores/default/detection": 2}  # to the same rows, so that nothing below is stale
    assert materialized.dagster_stale() == {}


def test_after_the_first_run_nothing_is_left(materialized: Workbench) -> None:
    assert materialized.stale() == {}
    assert materialized.dagster_stale() == {}
    assert materialized.run() == {}
    assert materialized.llm.made == []
    assert materialized.subject.contexts_read == 0


def test_with_refresh_all_a_shard_is_read_by_everything_below(materialized: Workbench) -> None:
    materialized.study["corpus"]["refresh"] = "all"
    assert materialized.run() == {}  # two shards are in use either way
    shard_added(materialized)
    assert materialized.run() == {"contexts": 1, "activations": 1, "latents": 2, **EXAMPLES_AND_BELOW}
    assert materialized.dagster_stale() == {}


def test_with_more_latents_only_the_new_ones_are_asked_about(materialized: Workbench) -> None:
    more_latents(materialized)
    assert materialized.dagster_stale() == {}  # the choice of latents lies outside what Dagster sees
    assert materialized.run() == {"selections": 1, "latents": 2, **EXAMPLES_AND_BELOW}
    assert materialized.stale() == materialized.dagster_stale() == {}
    asked = {call.suffix for call in materialized.llm.made}
    before = set(materialized.view().prompts.select("text").collect()["text"]) - asked
    assert asked
    assert before  # the calls of the latents chosen before stand in the ledger and were not made again
    assert not asked & before


def test_what_is_recomputed_to_the_same_rows_makes_nothing_stale(materialized: Workbench) -> None:
    materialized.study["explainers"]["default"]["temperature"] = 0.9  # which the fake does not heed
    assert materialized.run() == {"explanations/default": 2}
    assert len(materialized.llm.made) > 0
    assert materialized.dagster_stale() == {}


def test_what_is_no_longer_in_the_study_is_hidden_and_listed(materialized: Workbench) -> None:
    scorer_removed(materialized)
    materialized.run()
    assert set(materialized.view().scores.collect()["scorer"]) == {"embedding", "detection"}
    assert materialized.prepare().plan().orphans == [
        ("scores/default/surprisal", "0|one"),
        ("scores/default/surprisal", "1|one"),
    ]


def test_the_size_of_batches_changes_nothing(materialized: Workbench) -> None:
    before = materialized.data_versions()
    materialized.llm = FakeLLM(batch=3)
    materialized.lake = LakeResource(uri=str(materialized.folder / "another"))
    materialized.run()
    assert materialized.data_versions() == before
