"""Of each partition the latest attempt counts, shards keep their order, and the present study is the last one."""

from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from latentlake.catalog import Catalog, Consumed, Made, Publication
from latentlake.corpus import Shard
from latentlake.lake import Lake, Written
from latentlake.sections.corpus import Source
from latentlake.study import Study
from tests.workbench import STUDY

MADE = Publication(
    asset="contexts",
    partition="docs-a-0000",
    attempt=1,
    state="",
    recipe="recipe",
    code_version="1-abc",
    data_version="data",
    rows=3,
    retryable_failures=2,
    study="study",
    run="run",
    at=None,
)
INPUTS = (Consumed("subject", "", "v1"), Consumed("activations", None, "v2"))


def made(asset: str = MADE.asset, partition: str = MADE.partition, attempt: int = 1, recipe: str = "recipe") -> Made:
    publication = MADE._replace(asset=asset, partition=partition, attempt=attempt, recipe=recipe)
    return Made(publication, INPUTS, {"shard": partition}, {"contexts": Written(4, "files")})


@pytest.fixture
def catalog(tmp_path: Path) -> Catalog:
    """The catalog of an empty lake."""
    return Catalog(Lake(str(tmp_path), "tiny"))


def latest(catalog: Catalog) -> Publication:
    return catalog.publications()[MADE.asset, MADE.partition]


def test_an_empty_lake_has_nothing(catalog: Catalog) -> None:
    assert catalog.publications() == {}
    assert catalog.shards() == []
    assert catalog.present_study() is None


def test_a_publication_comes_back_as_it_was_written(catalog: Catalog) -> None:
    catalog.publish(catalog.begin(made()))
    assert latest(catalog)._replace(state="", at=None) == MADE
    assert latest(catalog).is_published
    assert catalog.inputs([(MADE.asset, MADE.partition), ("contexts", "other")]) == {
        (MADE.asset, MADE.partition): INPUTS
    }


def test_a_partition_being_built_is_not_published(catalog: Catalog) -> None:
    catalog.begin(made())
    assert not latest(catalog).is_published


def test_building_hides_what_was_published_until_it_is_published_again(catalog: Catalog) -> None:
    catalog.begin(made(recipe="first"))
    catalog.publish(made(recipe="first"))
    catalog.begin(made(attempt=2, recipe="second"))
    assert (latest(catalog).is_published, latest(catalog).recipe) == (False, "second")
    catalog.publish(made(attempt=2, recipe="second"))
    assert (latest(catalog).is_published, latest(catalog).recipe) == (True, "second")


def test_the_latest_attempt_counts_in_whatever_order_rows_were_written(catalog: Catalog) -> None:
    for attempt in (2, 10, 9):
        catalog.publish(made(attempt=attempt, recipe=f"recipe {attempt}"))
    assert latest(catalog).attempt == 10
    assert latest(catalog).recipe == "recipe 10"


def test_partitions_and_assets_are_apart(catalog: Catalog) -> None:
    catalog.publish(made(partition="a"))
    catalog.begin(made(partition="b"))
    catalog.publish(made(asset="subject", partition=""))
    states = {key: each.is_published for key, each in catalog.publications().items()}
    assert states == {("contexts", "a"): True, ("contexts", "b"): False, ("subject", ""): True}
    assert catalog.publications("contexts").keys() == {("contexts", "a"), ("contexts", "b")}


def shards(*keys: str) -> dict[str, Shard]:
    source = Source(path="*")
    return {
        key: Shard(key, "docs", f"{key}.jsonl", Path("/x") / f"{key}.jsonl", None, 0, 1, "digest", source)
        for key in keys
    }


def test_shards_keep_the_order_in_which_they_were_registered(catalog: Catalog) -> None:
    study = Study.model_validate(STUDY)
    catalog.register(study, ["subject"], shards("b", "c"))
    catalog.register(study, ["subject"], shards("a", "b", "c", "d"))
    assert catalog.shards() == ["b", "c", "a", "d"]


def test_order_puts_new_shards_last_and_leaves_out_what_is_gone(catalog: Catalog) -> None:
    catalog.register(Study.model_validate(STUDY), [], shards("c", "b", "gone"))
    assert catalog.order(["z", "a", "b", "c"]) == ["c", "b", "z", "a"]


@settings(deadline=None, max_examples=25)
@given(st.lists(st.sampled_from("abcdefgh"), unique=True, max_size=6), st.permutations("abcdefgh"))
def test_the_order_of_registered_shards_does_not_depend_on_the_listing(
    tmp_path_factory: pytest.TempPathFactory, registered: Sequence[str], listed: Sequence[str]
) -> None:
    catalog = Catalog(Lake(str(tmp_path_factory.mktemp("lake")), "tiny"))
    catalog.register(Study.model_validate(STUDY), [], shards(*registered))
    ordered = catalog.order(listed)
    assert ordered[: len(registered)] == list(registered)
    assert ordered[len(registered) :] == [shard for shard in listed if shard not in registered]


def test_registering_again_writes_nothing(catalog: Catalog, tmp_path: Path) -> None:
    study = Study.model_validate(STUDY)
    catalog.register(study, ["subject", "contexts"], shards("a", "b"))
    before = sorted(path.name for path in tmp_path.rglob("*.json"))
    catalog.register(study, ["subject", "contexts"], shards("a", "b"))
    assert sorted(path.name for path in tmp_path.rglob("*.json")) == before
    assert catalog.shards() == ["a", "b"]


def test_the_present_study_is_the_last_one_even_if_it_was_there_before(catalog: Catalog) -> None:
    one, other = Study.model_validate(STUDY), Study.model_validate({**STUDY, "seed": 1})
    for ordinal, (study, assets) in enumerate([(one, ["a"]), (other, ["a", "b"]), (one, ["a"])]):
        catalog.register(study, assets, {})
        present = catalog.present_study()
        assert present is not None
        assert (present["ordinal"], present["study"], present["assets"]) == (ordinal, study.digest, assets)
        assert Study.model_validate_json(present["choices"]) == study
