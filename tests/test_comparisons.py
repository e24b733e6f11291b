"""Dictionaries held against one another: copies, noise and other spaces of which the truth is known, in a flow of their own."""

import json
import shutil
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from safetensors.numpy import load_file, save_file
from scipy.optimize import linear_sum_assignment

from latentlake import charts
from latentlake.cli import main
from latentlake.coders.coder import SparseCoder
from latentlake.coders.opening import Source, open_coder
from latentlake.comparing import ordered
from latentlake.digest import seed_of
from latentlake.fakes import write_coder
from latentlake.flow import Flow
from latentlake.likeness import Vectors, likeness
from latentlake.stages import alignments, comparisons
from tests.scene import Scene, rows_of, study_of, work_of
from tests.workbench import LATENTS, WIDTH, Workbench, opened


def permuted(
    folder: Path, source: str, name: str, noise: float = 0.0, kept: int = LATENTS, seed: int = 0
) -> np.ndarray:
    """A coder whose latent i is latent ``order[i]`` of another, the first ``kept`` of these, the others drawn anew."""
    drawn = np.random.default_rng(seed)
    order = drawn.permutation(LATENTS)
    path = folder / "coders" / name
    write_coder(path, WIDTH, LATENTS, k=8, seed=7 + seed)
    tensors, known = load_file(path / "sae.safetensors"), load_file(folder / "coders" / source / "sae.safetensors")
    for key in ("encoder.weight", "W_dec"):
        own = known[key][order]
        own += noise * drawn.standard_normal(own.shape).astype(np.float32) * np.linalg.norm(own, axis=1, keepdims=True)
        is_kept = order < kept
        tensors[key][is_kept] = own[is_kept]
    save_file(tensors, path / "sae.safetensors")
    return order


def comparing(bench: Workbench, **comparisons: dict[str, Any]) -> dict[str, np.ndarray]:
    """The study with a copy of its dictionary, one of which half is a copy, and comparisons; returns their orders."""
    orders = {
        "copy": permuted(bench.folder, "one", "copy", noise=0.02),
        "half": permuted(bench.folder, "one", "half", kept=LATENTS // 2, seed=1),
    }
    for name in orders:
        bench.study["dictionaries"][name] = {"hookpoint": "layers.1", "coder": f"coders/{name}", "latents": "all"}
    bench.study["dictionaries"]["one"]["latents"] = "all"
    bench.study["search"] = {"embedder": "embedder"}
    bench.study |= {"samples": {}, "scorers": {}, "explainers": {"tokens": {"method": "tokens"}}}
    bench.study["selection"]["min_windows"] = {"explain": 4, "select": 0, "score": 0}
    bench.study["comparisons"] = comparisons
    return orders


def weights(bench: Workbench, name: str, key: str) -> np.ndarray:
    """Directions of a coder, of length 1."""
    rows: np.ndarray = load_file(bench.folder / "coders" / name / "sae.safetensors")[key].astype(np.float64)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def compared_by_hand(bench: Workbench, rows: pl.DataFrame, side: str, key: str) -> None:
    """Cosines of what is aligned are those of the files, and no other alignment has a larger sum."""
    one, other = rows["dictionary"][0], rows["other"][0]
    cosines = weights(bench, one, key) @ weights(bench, other, key).T
    latent, partner = rows["latent"].to_numpy(), rows[f"{side}_partner"].to_numpy()
    assert rows[f"{side}_cosine"].to_list() == pytest.approx(cosines[latent, partner].tolist(), abs=2e-5)
    best = cosines[linear_sum_assignment(cosines, maximize=True)].sum()
    assert rows[f"{side}_cosine"].sum() == pytest.approx(best, abs=1e-3)


COMPARISONS: dict[str, dict[str, Any]] = {
    "every": {},
    "near": {"pairs": [["one", "copy"]], "exact": 0, "explainers": []},
    "fires": {"by": "activations"},
}


@pytest.fixture(scope="module")
def compared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which a study with comparisons was run; to be copied, not changed."""
    folder = tmp_path_factory.mktemp("compared")
    with opened(folder) as bench:
        comparing(bench, **COMPARISONS)
        computed = bench.run()
    names = (
        "alignments/every",
        "alignments/near",
        "alignments/fires",
        "comparisons/every",
        "comparisons/near",
        "comparisons/fires",
    )
    assert [computed[name] for name in names] == [3, 1, 3, 1, 1, 1]
    return folder


@pytest.fixture
def bench(compared: Path, tmp_path: Path) -> Iterator[Workbench]:
    shutil.copytree(compared, tmp_path, dirs_exist_ok=True)
    with opened(tmp_path) as bench:
        yield bench


def test_dictionaries_are_compared_in_a_flow(bench: Workbench, capsys: pytest.CaptureFixture[str]) -> None:
    orders = comparing(bench, **COMPARISONS)
    assert bench.stale() == {}
    assert bench.dagster_stale() == {}
    view = bench.view()

    # a copy in another order, with a little noise, is found again, by both and whether or not all pairs are looked at
    for comparison in ("every", "near"):
        rows = view.alignments.filter(comparison=comparison, pair="copy-one").sort("latent").collect()
        assert rows["decoder_partner"].to_list() == rows["encoder_partner"].to_list() == orders["copy"].tolist()
        assert rows["is_shared"].all()
    for pair in ("copy-half", "copy-one", "half-one"):
        rows = view.alignments.filter(comparison="every", pair=pair).sort("latent").collect()
        for side, key in (("decoder", "W_dec"), ("encoder", "encoder.weight")):
            compared_by_hand(bench, rows, side, key)

    # of one of which half was kept, that half is shared, and little else
    rows = view.alignments.filter(comparison="every", pair="half-one").sort("latent").collect()
    is_kept = orders["half"] < LATENTS // 2
    assert rows["is_shared"].to_numpy()[is_kept].all()
    assert rows["is_shared"].to_numpy()[~is_kept].mean() < 0.2
    sums = {
        (each["pair"], each["by"]): each for each in view.comparisons.filter(comparison="every").collect().to_dicts()
    }
    both = sums["half-one", "both"]
    assert (both["similar"], both["share"]) == (rows["is_shared"].sum(), rows["is_shared"].mean())
    assert sums["copy-one", "both"]["share"] == sums["copy-one", "both"]["share_firing"] == 1
    assert sums["copy-one", "decoder"]["median"] == pytest.approx(
        np.median(np.diag(weights(bench, "copy", "W_dec") @ weights(bench, "one", "W_dec")[orders["copy"]].T)),
        abs=1e-4,
    )

    # what fires on the same tokens is the same, whatever its directions
    by_tokens = (
        view.alignments.filter(comparison="fires", pair="copy-one")
        .drop_nulls("activation_partner")
        .sort("latent")
        .collect()
    )
    assert by_tokens["activation_partner"].to_list() == orders["copy"][by_tokens["latent"].to_numpy()].tolist()
    assert by_tokens.height > LATENTS // 2
    assert by_tokens["is_shared"].null_count() == by_tokens.height
    fires = view.activations.select("dictionary", "shard", "latent", "position").collect()
    for latent, partner, jaccard in by_tokens.select("latent", "activation_partner", "jaccard").head(5).rows():
        one, other = (
            set(fires.filter(dictionary=name, latent=each).select("shard", "position").rows())
            for name, each in (("copy", latent), ("one", partner))
        )
        assert jaccard == pytest.approx(len(one & other) / len(one | other))

    # explanations of what is aligned are more alike than others
    alike = view.similarities.filter(comparison="every", by="decoder", pair="copy-one").collect().row(0, named=True)
    assert alike["mean"] > alike["high"] - 1 > alike["low"] - 1
    assert alike["difference_low"] > 0
    assert alike["mean"] - alike["shuffled"] == pytest.approx(alike["difference"])
    assert view.similarities.filter(comparison="near").collect().is_empty()
    vectors = {
        (row["dictionary"], row["latent"]): np.array(row["vector"]) for row in view.embeddings.collect().to_dicts()
    }
    own = [
        vectors["copy", latent] @ vectors["one", partner]
        for latent, partner in enumerate(orders["copy"])
        if ("copy", latent) in vectors and ("one", partner) in vectors
    ]
    assert alike["pairs"] == len(own)
    assert alike["mean"] == pytest.approx(np.mean(own), abs=1e-4)

    # and all this is shown
    charts.svg(charts.alignments(rows))
    picture = charts.svg(
        charts.comparisons(
            view.comparisons.filter(comparison="every").collect(),
            view.similarities.filter(comparison="every").collect(),
        )
    )
    assert all(name in picture for name in ("half", "explanations of tokens", "another"))
    capsys.readouterr()
    lake = ["--lake", str(bench.folder / "lake")]
    assert main([*lake, "compare", "every"]) == 0
    printed = capsys.readouterr().out
    assert "half-one" in printed
    assert f"{both['share']:.2f}" in printed
    assert main([*lake, "compare", "--json"]) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert {each["comparison"] for each in lines} == {"every", "near", "fires"}
    assert main([*lake, "compare", "evry"]) == 1
    assert "every" in capsys.readouterr().err

    # another dictionary is compared with each, and nothing else is computed anew; nor where these change places
    before = bench.data_versions()
    permuted(bench.folder, "one", "more", seed=2)
    bench.study["dictionaries"] = {
        "more": {"hookpoint": "layers.1", "coder": "coders/more", "latents": "all"},
        **bench.study["dictionaries"],
    }
    computed = bench.run()
    assert {name: n for name, n in computed.items() if name.startswith(("alignments", "comparisons"))} == {
        "alignments/every": 3, "alignments/fires": 3, "comparisons/every": 1, "comparisons/fires": 1,
    }  # fmt: skip
    after = bench.data_versions()
    assert all(after[key] == version for key, version in before.items() if not key[0].startswith("comparisons/"))

    # what is compared no more is not shown
    bench.study["comparisons"] = {"every": {"dictionaries": ["one", "copy"]}}
    bench.run()
    assert bench.view().alignments.select(pl.col("pair").unique()).collect()["pair"].to_list() == ["copy-one"]
    assert set(bench.view().comparisons.collect()["pair"]) == {"copy-one"}


def test_directions_of_other_spaces_say_so(workbench: Workbench) -> None:
    write_coder(workbench.folder / "coders" / "wide", 2 * WIDTH, LATENTS, k=8, seed=1)
    one, other = (coder_in(workbench.folder / "coders" / name) for name in ("one", "wide"))
    rows, sums = made({"one": one, "wide": other})
    assert rows.select("decoder_partner", "encoder_partner", "is_shared").null_count().row(0) == (LATENTS,) * 3
    assert sums["error"].to_list() == ["other_space"] * 3
    assert sums["pairs"].to_list() == [0] * 3


def test_more_latents_on_one_side_leave_some_without_a_partner(workbench: Workbench) -> None:
    write_coder(workbench.folder / "coders" / "few", WIDTH, 20, k=8, seed=1)
    rows, sums = made({name: coder_in(workbench.folder / "coders" / name) for name in ("one", "few")})
    assert (rows.height, rows["dictionary"][0]) == (20, "few")
    rows, sums = made({name: coder_in(workbench.folder / "coders" / of) for name, of in (("a", "one"), ("b", "few"))})
    assert rows["decoder_partner"].count() == 20
    assert sums.filter(by="decoder")["pairs"].item() == 20


@pytest.mark.parametrize("exact", [0, LATENTS])
def test_the_same_is_found_again(exact: int, workbench: Workbench) -> None:
    orders = comparing(workbench)
    assert orders
    coders = {name: coder_in(workbench.folder / "coders" / name) for name in ("one", "half")}
    first, again = (made(coders, exact=exact)[0] for _ in range(2))
    assert first.equals(again)


def coder_in(path: Path) -> SparseCoder:
    return open_coder("sparsify", Source(path, path.name), "cpu")


def made(coders: dict[str, SparseCoder], **comparison: Any) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Rows of `alignments` and of `comparisons` of two coders, all of whose latents fire."""
    study = study_of(
        dictionaries={name: {"hookpoint": "layers.1", "coder": name} for name in coders},
        comparisons={"own": comparison},
    )
    pair, flow = study.pairs("own")[0], Flow(study)
    what = pl.DataFrame(
        [
            {"dictionary": name, "width": each.width, "d_in": each.d_in, "d_out": each.d_out}
            for name, each in coders.items()
        ]
    )
    latents = pl.concat(
        pl.DataFrame({"dictionary": name, "latent": range(each.width), "n_tokens": 1}) for name, each in coders.items()
    )
    frames = {"dictionaries": what, "latents": latents}
    work = work_of(study, "alignments/own", Scene(), coder=coders.__getitem__, frames=frames)
    rows = rows_of("alignments", alignments.compute(replace(work, values={"pair": pair})))
    work = work_of(study, "comparisons/own", Scene(), frames={**frames, "alignments/own": rows})
    assert flow["comparisons/own"].dimensions == ()
    return rows, rows_of("comparisons", comparisons.compute(replace(work, values={})))


TWO = {"one": {"hookpoint": "layers.1", "coder": "one"}, "two": {"hookpoint": "layers.2", "coder": "two"}}
NEURONS = {"hookpoint": "layers.1.mlp.neurons", "coder": "neurons", "k": 4}


@pytest.mark.parametrize(
    ("dictionaries", "comparison", "message"),
    [
        (TWO, {"pairs": [["one", "tow"]]}, "names the dictionary 'tow', which is not there.*two"),
        (TWO, {"dictionaries": ["one", "tow"]}, "'?tow'?, which is not there.*two"),
        (TWO, {"dictionaries": ["one"]}, "not two dictionaries"),
        (TWO, {"pairs": [["one", "one"]]}, "compared with itself"),
        (TWO, {"explainers": ["tokens"]}, "search"),
        (TWO, {"explainers": ["token"]}, "which is not there"),
        ({**TWO, "neurons": NEURONS}, {"pairs": [["one", "neurons"]]}, "by: activations"),
        ({"one": TWO["one"], "neurons": NEURONS}, {}, "finds no two dictionaries"),
    ],
)
def test_what_cannot_be_compared_is_refused_when_the_study_is_read(
    dictionaries: dict[str, Any], comparison: dict[str, Any], message: str
) -> None:
    explainers = {"tokens": {"method": "tokens"}}
    with pytest.raises(ValueError, match=message):
        study_of(dictionaries=dictionaries, comparisons={"own": comparison}, explainers=explainers)


def test_all_that_can_be_compared_is() -> None:
    planted = {"planted": "latents.json"}
    every = {**TWO, "neurons": NEURONS, "planted": planted}
    study = study_of(
        dictionaries=every,
        comparisons={"directions": {}, "fires": {"by": "activations"}, "own": {"pairs": [["two", "one"]]}},
    )
    assert study.pairs("directions") == study.pairs("own") == ("one-two",)
    assert len(study.pairs("fires")) == 6


def test_a_comparison_that_is_added_makes_nothing_else_stale() -> None:
    before, after = Flow(study_of(dictionaries=TWO)), Flow(study_of(dictionaries=TWO, comparisons={"own": {}}))
    assert set(after.stages) - set(before.stages) == {"alignments/own", "comparisons/own"}
    others = {name: stage for name, stage in before.stages.items() if name != "report"}  # which shows the whole study
    assert all(after[name].code_version == stage.code_version for name, stage in others.items())


def test_of_no_explanations_nothing_is_alike() -> None:
    none, empty = np.zeros(0, np.int32), np.zeros((0, 0), np.float32)
    some = Vectors(np.arange(3), np.eye(3, dtype=np.float32))
    found = likeness(some, Vectors(none, empty), none, none, seed_of("exchange"))
    assert found["pairs"] == 0
    assert np.isnan(found["mean"])
    assert "shuffled" not in found
    one = likeness(some, some, np.array([1]), np.array([1]), seed_of("exchange"))
    assert (one["pairs"], one["mean"]) == (1, 1.0)
    assert "shuffled" not in one


def test_names_are_ordered_by_their_numbers() -> None:
    assert ordered(pl.Series(["layer10", "layer9", "layer10b", "a"])) == ["a", "layer9", "layer10", "layer10b"]


def borrowing(bench: Workbench) -> dict[str, np.ndarray]:
    """The study with an explainer that takes the explanations of one dictionary to all others."""
    orders = comparing(bench, every={})
    lent = {"method": "borrowed", "comparison": "every", "of": "one", "explainer": "tokens", "least": 0.9}
    bench.study["explainers"] = {"lent": lent, **bench.study["explainers"]}
    return orders


def test_all_but_the_same_latents_share_an_explanation(bench: Workbench, capsys: pytest.CaptureFixture[str]) -> None:
    orders = borrowing(bench)
    bench.run()
    before = datetime.now(UTC).isoformat()
    assert bench.stale() == {}
    assert bench.dagster_stale() == {}
    view = bench.view()
    said = {
        row["latent"]: row
        for row in view.explanations.filter(dictionary="one", explainer="tokens").collect().to_dicts()
    }
    for dictionary, order in {**orders, "one": np.arange(LATENTS)}.items():
        rows = view.hypotheses.filter(dictionary=dictionary, explainer="lent").sort("latent").collect()
        found = view.explanations.filter(dictionary=dictionary, explainer="lent").sort("latent").collect()
        assert found["latent"].to_list() == rows["latent"].to_list()
        for row, each in zip(rows.to_dicts(), found.to_dicts(), strict=True):
            is_same = dictionary != "half" or order[row["latent"]] < LATENTS // 2
            if not is_same:
                assert (row["error"], row["from_latent"], each["explanation"]) == ("no_partner", None, None)
                continue
            lender = int(order[row["latent"]])
            assert (row["source"], row["from_dictionary"], row["from_latent"]) == ("borrowed", "one", lender)
            if lender in said:
                assert (row["explanation"], row["error"]) == (said[lender]["explanation"], said[lender]["error"])
            else:
                assert (row["explanation"], row["error"]) == (None, "not_explained")

    # what is said of the lender is said of the borrowers, and nothing of the others changes
    bench.study["explainers"]["tokens"]["n"] = 2
    computed = bench.run()
    changed = {
        "explanations/tokens": 6,
        "explanations/lent": 6,
        "embeddings/tokens": 6,
        "embeddings/lent": 6,
        "comparisons/every": 1,
    }
    assert computed == changed
    short = bench.view().explanations.filter(explainer="lent").drop_nulls("explanation").collect()
    assert short["explanation"].str.count_matches(",").max() <= 1

    # two explainers, and one at two moments
    capsys.readouterr()
    command = ["--lake", str(bench.folder / "lake"), "compare", "--json", "--explainers"]
    assert main([*command, "tokens", "lent"]) == 0
    same = {row["dictionary"]: row for row in map(json.loads, capsys.readouterr().out.splitlines())}
    assert same["one"]["explanations"] == pytest.approx(1, abs=1e-4)
    assert same["one"]["explanations_shuffled"] < 0.95
    assert main([*command, "tokens", "tokens", "--from", before]) == 0
    moved = {row["dictionary"]: row for row in map(json.loads, capsys.readouterr().out.splitlines())}
    assert same["one"]["explanations_shuffled"] < moved["one"]["explanations"] < 1
    assert main([*command, "tokens", "default"]) == 1
    assert "have no vectors" in capsys.readouterr().err

    # another dictionary in the comparison makes no borrowed explanation anew but its own
    permuted(bench.folder, "one", "more", seed=2)
    bench.study["dictionaries"]["more"] = {"hookpoint": "layers.1", "coder": "coders/more", "latents": "all"}
    computed = bench.run()
    assert (
        computed["explanations/lent"] == computed["explanations/tokens"] + 2
    )  # those of the lender, which reads all its pairs


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"explainer": "lent"}, "borrows itself"),
        ({"comparison": "fires"}, "compares no directions"),
        ({"of": "three"}, "has no pair"),
        ({"of": "tow"}, "refers to dictionaries.tow"),
        ({"comparison": "ovn"}, "refers to comparisons.ovn"),
    ],
)
def test_what_cannot_be_borrowed_is_refused(changed: dict[str, str], message: str) -> None:
    every = {**TWO, "three": {"hookpoint": "layers.3", "coder": "three"}}
    lent = {"method": "borrowed", "comparison": "own", "of": "one", "explainer": "tokens", **changed}
    pairs = {"own": {"pairs": [["one", "two"]]}, "fires": {"by": "activations"}}
    with pytest.raises(ValueError, match=message):
        study_of(dictionaries=every, comparisons=pairs, explainers={"tokens": {"method": "tokens"}, "lent": lent})
