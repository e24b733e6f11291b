"""Partitions wanted are covered by ranges, each once; and Dagster's mappings say the same as the flow."""

from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import product
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import dagster as dg
import pytest
import yaml
from dagster._core.definitions.partitions.context import partition_loading_context
from hypothesis import given, settings
from hypothesis import strategies as st

from assets import build_assets
from assets.events import asset_key
from assets.partitions import shards_name
from latentlake.errors import LakeError, StudyError
from latentlake.flow import Flow, Stage
from latentlake.plan import product_ranges
from latentlake.study import Study, load_study
from tests.workbench import STUDY

# Neither in the order of strings nor in the order of numbers.
SHARDS = ["docs-b-0000", "docs-a-0010", "docs-a-0009", "docs-c-0000", "docs-a-10000"]
AXES = {"dictionary": ["zeta", "alpha", "mid"], "block": [str(n) for n in range(12)], "shard": SHARDS}


def study(**changes: Any) -> Study:
    """The workbench's study, with three dictionaries and twelve blocks."""
    one = STUDY["dictionaries"]["one"]
    corpus = {**STUDY["corpus"], "refresh": changes.pop("refresh", "all")}
    wide = {"dictionaries": dict.fromkeys(AXES["dictionary"], one), "blocks": 12, "corpus": corpus}
    packaged = {
        section: {name: {k: v for k, v in entry.items() if k != "prompt"} for name, entry in STUDY[section].items()}
        for section in ("explainers", "scorers")
    }
    with TemporaryDirectory() as folder:
        path = Path(folder) / "study.yaml"
        path.write_text(yaml.safe_dump({**STUDY, **wide, **packaged, **changes}, sort_keys=False))
        return load_study(path)


def stage(*dimensions: str) -> Stage:
    return Stage("s", "s", dimensions, (), ("contexts",), "1")


def covered(of: Stage, ranges: Sequence[tuple[str, str]]) -> list[str]:
    """All partitions in some ranges: along each dimension everything from the first key to the last."""
    keys = []
    for start, end in ranges:
        first, last = of.values(start), of.values(end)
        places = {d: (AXES[d].index(first[d]), AXES[d].index(last[d])) for d in of.dimensions}
        axes = [AXES[d][places[d][0] : places[d][1] + 1] for d in of.dimensions]
        assert all(axes)
        keys += [of.key(dict(zip(of.dimensions, each, strict=True))) for each in product(*axes)]
    return keys


def ranges_of(of: Stage, wanted: Sequence[str]) -> list[tuple[str, str]]:
    return product_ranges(of, wanted, [AXES[d] for d in of.dimensions])


@settings(deadline=None, max_examples=100)
@given(
    st.sampled_from(
        [("shard",), ("block",), ("dictionary", "shard"), ("dictionary", "block"), ("block", "dictionary")]
    ),
    st.data(),
)
def test_ranges_cover_what_is_wanted_once_and_nothing_else(dimensions: tuple[str, ...], data: Any) -> None:
    of = stage(*dimensions)
    everything = [of.key(dict(zip(dimensions, each, strict=True))) for each in product(*(AXES[d] for d in dimensions))]
    wanted = data.draw(st.lists(st.sampled_from(everything), unique=True))
    ranges = ranges_of(of, wanted)
    assert Counter(covered(of, ranges)) == Counter(wanted)
    assert len(ranges) <= len(wanted)


def test_a_stage_without_dimensions_has_one_partition_or_none() -> None:
    assert product_ranges(stage(), [""], []) == [("", "")]
    assert product_ranges(stage(), [], []) == []


@pytest.mark.parametrize("dimensions", [("shard",), ("dictionary", "shard"), ("dictionary", "block")])
def test_everything_is_one_range(dimensions: tuple[str, ...]) -> None:
    of = stage(*dimensions)
    wanted = [of.key(dict(zip(dimensions, each, strict=True))) for each in product(*(AXES[d] for d in dimensions))]
    first, last = (of.key({d: AXES[d][end] for d in dimensions}) for end in (0, -1))
    assert ranges_of(of, wanted) == [(first, last)]


def test_neighbours_that_need_the_same_share_a_range() -> None:
    of = stage("dictionary", "shard")
    keys = [f"{dictionary}|{shard}" for dictionary in ("zeta", "alpha") for shard in SHARDS[2:]]
    assert ranges_of(of, keys) == [(f"zeta|{SHARDS[2]}", f"alpha|{SHARDS[4]}")]


def test_a_new_shard_is_one_range_over_all_dictionaries() -> None:
    keys = [f"{dictionary}|{SHARDS[-1]}" for dictionary in AXES["dictionary"]]
    assert ranges_of(stage("dictionary", "shard"), keys) == [(f"zeta|{SHARDS[-1]}", f"mid|{SHARDS[-1]}")]


@settings(deadline=None, max_examples=50)
@given(
    st.lists(st.sampled_from(AXES["dictionary"]), min_size=2, max_size=2),
    st.lists(st.sampled_from(SHARDS), min_size=2, max_size=2),
)
def test_keys_and_values_are_inverse(dictionaries: list[str], shards: list[str]) -> None:
    of = stage("dictionary", "shard")
    values = {"dictionary": dictionaries[0], "shard": shards[0]}
    assert of.values(of.key(values)) == values
    assert stage("shard", "dictionary").key(values) == of.key(values)


@pytest.mark.parametrize(("of", "key"), [(stage("shard"), "a|b"), (stage("dictionary", "shard"), "a")])
def test_a_key_of_another_shape_is_refused(of: Stage, key: str) -> None:
    with pytest.raises(LakeError):
        of.values(key)


@pytest.mark.parametrize(
    ("shards", "used"), [(0, 0), (1, 1), (2, 2), (3, 2), (4, 4), (5, 4), (7, 4), (8, 8), (9, 8), (1000, 512)]
)
def test_doubling_uses_the_first_power_of_two(shards: int, used: int) -> None:
    names = [f"s{n}" for n in range(shards)]
    assert list(Flow(study(refresh="doubling")).used_shards(names)) == names[:used]


def test_all_uses_all_shards_and_a_list_the_ones_it_names() -> None:
    assert list(Flow(study(refresh="all")).used_shards(SHARDS)) == SHARDS
    named = [SHARDS[3], SHARDS[0]]
    assert sorted(Flow(study(refresh=named)).used_shards(SHARDS)) == sorted(named)
    with pytest.raises(StudyError, match="docs-b-0000"):
        Flow(study(refresh=["docs-b-000"])).used_shards(SHARDS)


def test_every_stage_comes_after_its_inputs() -> None:
    seen: set[str] = set()
    for each in Flow(study()).stages.values():
        assert {source.stage for source in each.inputs} <= seen
        seen.add(each.name)


@pytest.fixture(scope="module")
def dagster_graph() -> Iterator[tuple[Flow, Any]]:
    """A flow, and its asset graph while an instance that knows the shards is at hand."""
    flow = Flow(study())
    with dg.DagsterInstance.ephemeral() as instance:
        instance.add_dynamic_partitions(shards_name(flow), SHARDS)
        with partition_loading_context(dynamic_partitions_store=instance):
            resources = dict.fromkeys(("lake", "models", "progress"), "not needed")
            yield flow, dg.Definitions(assets=build_assets(flow), resources=resources).resolve_asset_graph()


def test_dagster_has_the_partitions_of_the_flow(dagster_graph: tuple[Flow, Any]) -> None:
    flow, graph = dagster_graph
    for each in flow.stages.values():
        known = graph.get(asset_key(each.name)).partitions_def
        found = list(known.get_partition_keys()) if known else [""]
        assert sorted(found) == sorted(flow.partitions(each, SHARDS))


def test_dagster_maps_partitions_as_the_flow_does(dagster_graph: tuple[Flow, Any]) -> None:
    flow, graph = dagster_graph
    for each in flow.stages.values():
        for key in flow.partitions(each, SHARDS):
            found = graph.get_parents_partitions(asset_key(each.name), key or None).parent_partitions
            wanted = [
                (asset_key(source.stage), above or None)
                for source in each.inputs
                for above in flow.upstream(each, key, source, SHARDS)
            ]
            assert Counter((parent.asset_key, parent.partition_key) for parent in found) == Counter(wanted)
            assert bool(wanted) == bool(each.inputs)


def test_dagster_takes_a_range_as_the_same_product(dagster_graph: tuple[Flow, Any]) -> None:
    flow, graph = dagster_graph
    for name, chosen in (("activations", {"alpha", "mid"}), ("latents", {"zeta", "alpha"}), ("contexts", set())):
        of = flow[name]
        keys = [key for key in flow.partitions(of, SHARDS) if not chosen or chosen & {*of.values(key).values()}]
        wanted = [key for key in keys if not {SHARDS[2], "2", "10"} & {*of.values(key).values()}]
        found = [
            str(each.partition_key)
            for start, end in ranges_of(of, wanted)
            for each in graph.get_partitions_in_range(asset_key(name), dg.PartitionKeyRange(start, end))
        ]
        assert Counter(found) == Counter(wanted)
