"""Dictionaries held against one another: copies, noise and other spaces of which the truth is known, in a flow of their own."""

import json
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from safetensors.numpy import load_file, save_file
from scipy.optimize import linear_sum_assignment

from latentlake.charts import alignments as alignment_charts
from latentlake.charts import comparisons as comparison_charts
from latentlake.charts.svg import svg
from latentlake.cli import main
from latentlake.coders.coder import SparseCoder
from latentlake.coders.opening import Source, open_coder
from latentlake.digest import seed_of
from latentlake.fakes import write_coder
from latentlake.flow import Flow
from latentlake.measures.comparing import by_pair, ordered
from latentlake.measures.likeness import Vectors, likeness
from latentlake.stages import alignments, comparisons
from tests.compared import COMPARISONS, REPORT, comparing, permuted
from tests.scene import Scene, rows_of, study_of, work_of
from tests.workbench import LATENTS, WIDTH, Workbench


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


def test_dictionaries_are_compared_in_a_flow(compared_bench: Workbench, capsys: pytest.CaptureFixture[str]) -> None:
    workbench = compared_bench
    orders = comparing(workbench, **COMPARISONS)
    workbench.study["report"] = REPORT
    assert workbench.stale() == {}
    assert workbench.dagster_stale() == {}
    view = workbench.view()

    # a copy in another order, with a little noise, is found again, by both and whether or not all pairs are looked at
    for comparison in ("every", "near"):
        rows = view.alignments.filter(comparison=comparison, pair="copy-one").sort("latent").collect()
        assert rows["decoder_partner"].to_list() == rows["encoder_partner"].to_list() == orders["copy"].tolist()
        assert rows["is_shared"].all()
    for pair in ("copy-half", "copy-one", "half-one"):
        rows = view.alignments.filter(comparison="every", pair=pair).sort("latent").collect()
        for side, key in (("decoder", "W_dec"), ("encoder", "encoder.weight")):
            compared_by_hand(workbench, rows, side, key)

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
        np.median(np.diag(weights(workbench, "copy", "W_dec") @ weights(workbench, "one", "W_dec")[orders["copy"]].T)),
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
    svg(alignment_charts.picture(rows))
    picture = svg(
        comparison_charts.picture(
            view.comparisons.filter(comparison="every").collect(),
            view.similarities.filter(comparison="every").collect(),
        )
    )
    assert all(name in picture for name in ("half", "explanations of tokens", "another"))
    silent = view.comparisons.collect().with_columns(share_firing=pl.lit(None, pl.Float64))
    assert "that fire" not in svg(comparison_charts.picture(silent, view.similarities.collect().clear()))
    by_pairs = by_pair(view.comparisons.collect(), view.similarities.collect())
    assert by_pairs["pair"].to_list() == ["copy-half", "copy-one", "half-one"] * 2 + ["copy-one"]
    capsys.readouterr()
    lake = ["--lake", str(workbench.folder / "lake")]
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
    before = workbench.data_versions()
    permuted(workbench.folder, "one", "more", seed=2)
    workbench.study["dictionaries"] = {
        "more": {"hookpoint": "layers.1", "coder": "coders/more", "latents": "all"},
        **workbench.study["dictionaries"],
    }
    computed = workbench.run()
    assert {name: n for name, n in computed.items() if name.startswith(("alignments", "comparisons"))} == {
        "alignments/every": 3, "alignments/fires": 3, "comparisons/every": 1, "comparisons/fires": 1,
    }  # fmt: skip
    after = workbench.data_versions()
    assert all(
        after[key] == version for key, version in before.items() if not key[0].startswith(("comparisons/", "report"))
    )

    # what is compared no more is not shown
    workbench.study["comparisons"] = {"every": {"dictionaries": ["one", "copy"]}}
    workbench.run()
    assert workbench.view().alignments.select(pl.col("pair").unique()).collect()["pair"].to_list() == ["copy-one"]
    assert set(workbench.view().comparisons.collect()["pair"]) == {"copy-one"}


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


def test_all_but_the_same_latents_share_an_explanation(
    workbench: Workbench, capsys: pytest.CaptureFixture[str]
) -> None:
    orders = borrowing(workbench)
    workbench.run()
    before = datetime.now(UTC).isoformat()
    assert workbench.stale() == {}
    assert workbench.dagster_stale() == {}
    view = workbench.view()
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
    workbench.study["explainers"]["tokens"]["n"] = 2
    computed = workbench.run()
    changed = {
        "explanations/tokens": 6,
        "explanations/lent": 6,
        "embeddings/tokens": 6,
        "embeddings/lent": 6,
        "comparisons/every": 1,
    }
    assert computed == changed
    short = workbench.view().explanations.filter(explainer="lent").drop_nulls("explanation").collect()
    assert short["explanation"].str.count_matches(",").max() <= 1

    # two explainers, and one at two moments
    capsys.readouterr()
    command = ["--lake", str(workbench.folder / "lake"), "compare", "--json", "--explainers"]
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
    permuted(workbench.folder, "one", "more", seed=2)
    workbench.study["dictionaries"]["more"] = {"hookpoint": "layers.1", "coder": "coders/more", "latents": "all"}
    computed = workbench.run()
    assert (
        computed["explanations/lent"] == computed["explanations/tokens"] + 2
    )  # those of the lender, which reads all its pairs


def alike(bench: Workbench) -> dict[int, int]:
    """A coder with latents that are all but the same, within blocks and across them; returns of each of these the first."""
    path = bench.folder / "coders" / "one" / "sae.safetensors"
    tensors, drawn = load_file(path), np.random.default_rng(3)
    firsts = {3: 3, 9: 3, 40: 3, 20: 20, 50: 20}
    for latent, first in firsts.items():
        for key in ("encoder.weight", "W_dec"):
            own = tensors[key][first]
            noise = 0.01 * drawn.standard_normal(own.shape).astype(np.float32) * np.linalg.norm(own)
            tensors[key][latent] = own + (noise if latent != first else 0)
    save_file(tensors, path)
    return firsts


def test_all_but_the_same_latents_of_one_dictionary_share_an_explanation(workbench: Workbench) -> None:
    """Whatever the blocks are, and however few neighbours of each are kept."""
    firsts = alike(workbench)
    workbench.study |= {"samples": {}, "scorers": {}, "search": None, "neighbours": {"k": 1}}
    workbench.study["dictionaries"]["one"]["latents"] = [3, 5, 9, 20, 40]
    workbench.study["selection"]["min_windows"] = {"explain": 0, "select": 0, "score": 0}
    workbench.study["explainers"] = {
        "lent": {"method": "borrowed", "explainer": "tokens", "least": 0.95},
        "tokens": {"method": "tokens"},
    }
    found = []
    for blocks in (2, 1, 5):
        workbench.study["blocks"] = blocks
        workbench.run()
        assert workbench.stale() == {}
        assert workbench.dagster_stale() == {}
        rows = workbench.view().hypotheses.filter(explainer="lent").sort("latent").collect()
        found.append(rows.select("latent", "explanation", "from_dictionary", "from_latent").rows())
    assert found[0] == found[1] == found[2]
    own = workbench.view().explanations.filter(explainer="tokens").sort("latent").collect()
    said = dict(zip(own["latent"], own["explanation"], strict=True))
    chosen = [latent for latent in (3, 5, 9, 20, 40) if latent in said]
    explained = {latent for latent in chosen if said[latent] is not None}
    assert len(explained & {3, 9, 40}) > 1
    lenders = {}
    for latent in chosen:
        near = [each for each in explained if firsts.get(each, each) == firsts.get(latent, latent)]
        lenders[latent] = min(near, default=latent)
    assert found[0] == [(latent, said[lenders[latent]], "one", lenders[latent]) for latent in chosen]

    # what is said in one block is borrowed in another, and its staleness with it
    workbench.study["explainers"]["tokens"]["n"] = 2
    assert workbench.run() == {"explanations/tokens": 5, "explanations/lent": 5}


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"explainer": "lent"}, "borrows itself"),
        ({"of": None}, "`comparison` and `of` go together"),
        ({"of": None, "comparison": None}, "`neighbours` is null; leave that out, or name a comparison"),
        ({"comparison": "fires"}, "compares no directions"),
        ({"of": "three"}, "has no pair"),
        ({"of": "tow"}, "refers to dictionaries.tow"),
        ({"comparison": "ovn"}, "refers to comparisons.ovn"),
    ],
)
def test_what_cannot_be_borrowed_is_refused(changed: dict[str, str | None], message: str) -> None:
    every = {**TWO, "three": {"hookpoint": "layers.3", "coder": "three"}}
    lent = {"method": "borrowed", "comparison": "own", "of": "one", "explainer": "tokens", **changed}
    pairs = {"own": {"pairs": [["one", "two"]]}, "fires": {"by": "activations"}}
    with pytest.raises(ValueError, match=message):
        study_of(
            dictionaries=every,
            comparisons=pairs,
            explainers={"tokens": {"method": "tokens"}, "lent": lent},
            neighbours=None,
        )
