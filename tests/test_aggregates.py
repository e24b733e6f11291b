"""What scores come to over latents, and coders side by side: by hand, as scipy has it, and from a lake."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import polars as pl
import pytest
import scipy.stats
from polars.testing import assert_frame_equal

from latentlake.cli import main
from latentlake.errors import LakeError
from latentlake.measures.aggregates import aggregates, own_means, whose
from latentlake.measures.leaderboard import leaderboard
from latentlake.reading.summary import means, summarize
from latentlake.tables import TABLES
from tests.workbench import Workbench

Row = dict[str, Any]


def frame(table: str, rows: list[Row]) -> pl.LazyFrame:
    """Rows of a table of which some columns are given; the others are null."""
    return pl.DataFrame(rows, schema=TABLES[table].empty().schema).lazy()


def view_of(**tables: list[Row]) -> Any:
    """What readers see of a lake, made of rows."""
    names = ("scores", "slices", "latents", "dictionaries", "explanations", "reconstructions")
    return SimpleNamespace(**{name: frame(name, tables.get(name, [])) for name in names})


def score(latent: int, value: float | None, control: str | None = None, **more: Any) -> Row:
    own = {"explainer": "e", "scorer": "s", "dictionary": "d", "metric": "auroc", "n": 10, "n_failed": 1}
    return {**own, "latent": latent, "value": value, "control": control, **more}


def fires(*counts: int, dictionary: str = "d") -> list[Row]:
    return [{"dictionary": dictionary, "latent": n, "n_tokens": count} for n, count in enumerate(counts)]


OWN, SHUFFLED, EMPTY = [0.9, 0.7, 0.5, 0.6], [0.5, 0.6, 0.6, None], [0.5, 0.5, None, None]
SCORES = [
    score(latent, value, control)
    for control, values in ((None, OWN), ("shuffled", SHUFFLED), ("empty", EMPTY))
    for latent, value in enumerate(values)
]


def test_aggregates_by_hand() -> None:
    found = aggregates(view_of(scores=SCORES, latents=fires(10, 10, 10, 70)))
    assert found["control"].to_list() == [None, "empty", "shuffled"]
    own, empty, shuffled = found.to_dicts()
    assert (own["latents"], own["judgements"], own["failed"]) == (4, 40, 4)
    known = scipy.stats.ttest_1samp(OWN, 0).confidence_interval(0.95)
    assert [own[name] for name in ("mean", "low", "high")] == pytest.approx([0.675, known.low, known.high])
    assert own["firing_weighted"] == pytest.approx((0.9 + 0.7 + 0.5 + 7 * 0.6) / 10)
    levels = np.quantile(OWN, [0, 0.1, 0.25, 0.5, 0.75, 0.9, 1])
    assert [own[name] for name in ("min", "p10", "p25", "median", "p75", "p90", "max")] == pytest.approx(levels)
    assert (own["pairs"], own["difference"], own["above"]) == (None, None, None)
    # Own less shuffled: .4, .1, -.1, paired over the latents that have both.
    known = scipy.stats.ttest_rel(OWN[:3], SHUFFLED[:3]).confidence_interval(0.95)
    names = ("pairs", "difference", "difference_low", "difference_high", "above")
    assert [shuffled[name] for name in names] == pytest.approx([3, 0.4 / 3, known.low, known.high, 2 / 3])
    assert shuffled["firing_weighted"] == pytest.approx(1.7 / 3)  # what has no score has no weight
    assert (empty["latents"], empty["pairs"], empty["difference"], empty["above"]) == (2, 2, pytest.approx(0.3), 1.0)


@pytest.mark.parametrize("metric", [None, "auroc"])
@pytest.mark.parametrize("by", [None, "decile"])
def test_own_means_are_those_of_aggregates(by: Any, metric: str | None) -> None:
    slices = [
        {**row, "decile": decile, "value": row["value"] and row["value"] - decile / 100}
        for row in SCORES
        for decile in (0, 3)
    ]
    slices += [{**row, "metric": "f1"} for row in slices[:3]]
    view = view_of(scores=[*SCORES, score(0, 0.4, metric="f1")], slices=slices, latents=fires(1, 1, 1, 1))
    every = aggregates(view, by, metric).filter(pl.col("control").is_null())
    assert every.height == (1 if by is None else 2) * (2 if metric is None else 1)
    found = own_means(view, by, metric)
    assert_frame_equal(found, every.select(found.columns))


def test_one_latent_has_no_interval_and_none_has_no_mean() -> None:
    rows = [score(0, 0.8), score(0, 0.5, "shuffled"), score(0, None, "empty", error="all_failed")]
    found = aggregates(view_of(scores=rows, latents=fires(5)))
    own, empty, shuffled = found.to_dicts()
    assert (own["mean"], own["low"], own["high"], own["median"]) == (0.8, None, None, 0.8)
    assert (shuffled["difference"], shuffled["difference_low"], shuffled["above"]) == (pytest.approx(0.3), None, 1.0)
    assert (empty["latents"], empty["mean"], empty["low"], empty["firing_weighted"]) == (0, None, None, None)
    assert (empty["failed"], empty["difference"]) == (1, None)
    numbers = found.select(pl.selectors.float())
    assert numbers.fill_nan(None).null_count().equals(numbers.null_count())  # no NaN anywhere


def test_equal_scores_have_an_interval_of_no_width() -> None:
    (row,) = aggregates(view_of(scores=[score(n, 0.5) for n in range(3)], latents=fires(1, 1, 1))).to_dicts()
    assert (row["low"], row["mean"], row["high"]) == (0.5, 0.5, 0.5)


def test_parts_are_apart() -> None:
    slices = [score(n, value, decile=decile) for decile, value in ((0, 0.5), (9, 0.9)) for n in range(2)]
    slices += [score(0, 0.4, "shuffled", decile=9), score(0, 0.7, source="random")]
    view = view_of(scores=SCORES, slices=slices, latents=fires(1, 1))
    found = aggregates(view, by="decile")
    assert found.select("decile", "control", "latents", "mean").rows() == [
        (0, None, 2, 0.5), (9, None, 2, 0.9), (9, "shuffled", 1, 0.4),
    ]  # fmt: skip
    assert found["difference"].to_list() == [None, None, pytest.approx(0.5)]
    assert aggregates(view, by="source").select("source", "latents", "mean").rows() == [("random", 1, 0.7)]


def test_what_no_score_is_of_is_refused() -> None:
    view = view_of(scores=[*SCORES, score(0, 0.5, metric="f1", scorer="labels")], latents=fires(1))
    for wanted, said in (
        ({"metric": "aurocc"}, "there are no scores of the metric 'aurocc', only of .*did you mean 'auroc'"),
        ({"scorer": "embeddings"}, "no scores of the scorer"),
        ({"scorer": "s", "metric": "f1"}, "no scores of metric 'f1' and scorer 's'"),
    ):
        with pytest.raises(LakeError, match=said):
            aggregates(view, **wanted)
    assert aggregates(view, metric="f1", scorer="labels").height == 1


def test_a_lake_without_scores_has_no_aggregates() -> None:
    assert aggregates(view_of()).is_empty()


def test_whose_an_explanation_is_in_words() -> None:
    controls = pl.DataFrame({"control": [None, "shuffled", "empty", "other"]}, schema={"control": pl.String})
    assert controls.select(whose()).to_series().to_list() == ["the latent", "another latent", "nothing", "other"]


def dictionary(name: str, **more: Any) -> Row:
    return {"dictionary": name, "hookpoint": "layers.1", "width": 64, "format": "sparsify", **more}


def test_a_leaderboard_by_hand() -> None:
    rows = [score(n, 0.6, dictionary="a") for n in range(2)] + [
        score(n, 0.8 + n / 10, dictionary="b") for n in range(2)
    ]
    rows += [score(n, 0.5, "shuffled", dictionary=name) for n in range(2) for name in "ab"]
    rows += [score(0, 0.7, "empty", dictionary="b"), score(0, 1.0, metric="f1", dictionary="a")]
    view = view_of(
        scores=rows,
        latents=[*fires(1, 3, dictionary="a"), *fires(1, 3, dictionary="b")],
        dictionaries=[dictionary("a", k=32, kind="sae"), dictionary("b", control="directions"), dictionary("c")],
        explanations=[
            {"dictionary": name, "explainer": "e", "latent": n, "explanation": text}
            for name, texts in (("a", ["x", "y"]), ("b", ["z", None]))
            for n, text in enumerate(texts)
        ],
        reconstructions=[{"dictionary": "a", "l0": 31.5, "variance_unexplained": 0.2, "cross_entropy_added": 0.1}],
    )
    board = leaderboard(view)
    assert board["dictionary"].to_list() == ["b", "a"]
    best, other = board.to_dicts()
    assert (other["k"], other["l0"], other["variance_unexplained"], other["explained"]) == (32, 31.5, 0.2, 2)
    assert (best["k"], best["l0"], best["control"], best["explained"]) == (None, None, "directions", 1)
    assert (best["mean"], best["firing_weighted"]) == (pytest.approx(0.85), pytest.approx(0.875))
    known = scipy.stats.ttest_rel([0.8, 0.9], [0.5, 0.5]).confidence_interval(0.95)
    assert (best["shuffled"], best["over_shuffled"]) == (0.5, pytest.approx(0.35))
    assert (best["over_shuffled_low"], best["over_shuffled_high"]) == pytest.approx((known.low, known.high))
    assert (best["empty"], best["over_empty"], other["empty"]) == (0.7, pytest.approx(0.1), None)
    assert leaderboard(view, metric="f1").select("dictionary", "mean").rows() == [("a", 1.0)]


# from a lake


def test_aggregates_of_a_lake_are_those_of_its_scores(materialized: Workbench) -> None:
    view = materialized.view()
    scores = view.scores.collect()
    found = aggregates(view)
    for row in found.iter_rows(named=True):
        group = {name: row[name] for name in ("dictionary", "explainer", "scorer", "metric")}
        own = scores.filter(pl.col("control").eq_missing(pl.lit(row["control"])), **group)
        assert row["mean"] == pytest.approx(own["value"].mean())
        assert row["latents"] == own["value"].count()
        if row["control"]:
            both = own.join(scores.filter(pl.col("control").is_null(), **group), on="latent", suffix="_own")
            pair = both.drop_nulls(["value", "value_own"])
            known = scipy.stats.ttest_rel(pair["value_own"], pair["value"]).confidence_interval(0.95)
            assert [row["difference_low"], row["difference_high"]] == pytest.approx([known.low, known.high])
    groups = scores.select("dictionary", "explainer", "scorer", "metric", "control").unique()
    assert found.height == groups.height


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["scores"], "own less it"),
        (["scores", "--by", "decile", "--metric", "sensitivity"], "decile"),
        (["scores", "--by", "source", "--metric", "all"], "random"),
        (["leaderboard"], "auroc, explainer default, scorer detection"),
    ],
    ids=" ".join,
)
def test_the_commands_print_tables_that_fit(
    materialized: Workbench, arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    lake = ["--lake", materialized.lake.uri]
    assert main([*lake, *arguments]) == 0
    printed = capsys.readouterr().out
    assert said in printed
    assert max(map(len, printed.splitlines())) <= 160
    assert main([*lake, *arguments, "--json"]) == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert rows
    assert "NaN" not in str(rows)
    assert main([*lake, *arguments[:1], "--scorer", "detecton"]) == 1
    assert "did you mean 'detection'" in capsys.readouterr().err


def test_the_summary_shows_both_controls_within_120_columns(materialized: Workbench) -> None:
    view = materialized.view()
    table = means(view)
    own = table.filter(pl.col("explanation of") == "the latent")
    assert own.height == 4  # an explainer and scorer each
    assert set(own["own less it"]) == {""}
    assert not table.filter(pl.col("explanation of") == "another latent")["own less it"].eq("").any()
    printed = summarize(view).split("mean AUROC", 1)[1]
    assert max(map(len, printed.splitlines())) <= 120


def test_a_lake_with_nothing_to_explain_says_so(workbench: Workbench, tmp_path: Path) -> None:
    assert "No latent has enough windows" in summarize(workbench.view())
