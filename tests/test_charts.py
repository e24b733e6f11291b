"""Charts on materialization pages, and the links beside them."""

import base64
import re
import subprocess
import sys
from collections import Counter
from math import floor, log10
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import dagster as dg
import numpy as np
import polars as pl
import pytest

from assets import scores as scores_asset
from assets.events import asset_key
from definitions import build_definitions
from jobs.launch import REASON_TAG
from latentlake.charts import latents, scores, training
from latentlake.charts.svg import image, svg
from latentlake.measures.metrics import mean_interval
from tests.stub import study
from tests.test_dagster import events, launch
from tests.workbench import Workbench

IMAGE = re.compile(r"!\[\]\(data:image/svg\+xml;base64,([A-Za-z0-9+/=]+)\)")
ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def tables(finished: Path) -> dict[str, pl.DataFrame]:
    """Rows of the finished study: all latents, and one scorer's scores and judgements."""
    lake = f"{finished}/study/lake/tiny"
    own = {"explainer": "default", "scorer": "embedding"}
    read = {name: pl.read_delta(f"{lake}/{name}") for name in ("latents", "scores", "judgements")}
    return {name: rows if name == "latents" else rows.filter(**own) for name, rows in read.items()}


def values(chart: Any) -> list[list[dict[str, Any]]]:
    """The rows that each part of a chart shows, in the order of the parts."""
    spec = chart.to_dict()

    def walk(part: Any) -> list[list[dict[str, Any]]]:
        if isinstance(part, list):
            return [rows for each in part for rows in walk(each)]
        if not isinstance(part, dict):
            return []
        own = [spec["datasets"][part["data"]["name"]]] if "data" in part else []
        return own + [rows for key in ("hconcat", "layer") for rows in walk(part.get(key))]

    return walk(spec)


def test_latents_are_shown_by_density_and_triage(tables: dict[str, pl.DataFrame]) -> None:
    rows = tables["latents"]
    histogram, bars, *_ = values(latents.picture(rows))
    fires = [(triage, density) for triage, density in rows.select("triage", "density").iter_rows() if density > 0]
    expected = Counter((triage, floor(4 * log10(density)) / 4) for triage, density in fires)
    assert {(row["triage"], row["low"]): row["latents"] for row in histogram} == expected
    assert all(row["high"] - row["low"] == 0.25 for row in histogram)
    assert {row["triage"]: row["latents"] for row in bars} == Counter(rows["triage"])
    share = 100 * (rows["triage"] == "ok").sum() / rows.height
    assert {row["label"] for row in bars if row["triage"] == "ok"} == {f"{share:.1f} %"}


WHOSE = {None: "the latent", "shuffled": "another latent", "empty": "nothing"}


def test_scores_are_shown_against_the_control(tables: dict[str, pl.DataFrame]) -> None:
    histogram, chance, *_ = values(scores.picture(tables["scores"], tables["judgements"]))
    rows = tables["scores"].filter(metric="auroc").select("control", "value")
    expected = Counter(
        (WHOSE[control], min(floor(round(20 * value, 6)), 19) / 20)
        for control, value in rows.iter_rows()
        if value is not None
    )
    assert {(row["explanation of"], row["low"]): row["latents"] for row in histogram} == expected
    assert chance == [{"auroc": 0.5}]


def test_judgements_are_shown_by_decile_against_silent_windows(tables: dict[str, pl.DataFrame]) -> None:
    rows = tables["judgements"]
    _, _, band, line, silent = values(scores.picture(tables["scores"], rows))
    assert band == line
    assert {row["decile"] for row in line} == {decile + 1 for decile in rows["decile"].drop_nulls()}
    for shown in [*line, *silent]:
        decile = None if shown["decile"] is None else shown["decile"] - 1
        control = {whose: control for control, whose in WHOSE.items()}[shown["explanation of"]]
        own = rows.filter(pl.col("decile").eq_missing(decile), pl.col("control").eq_missing(control))
        assert decile is not None or not own["is_activating"].any()
        means = [np.mean(each["measure"].to_list()) for each in own.partition_by("latent")]
        assert [shown["mean"], shown["low"], shown["high"]] == pytest.approx(mean_interval(np.array(means)), rel=1e-3)
    assert len(silent) == 3


def test_what_a_metric_or_judgement_lacks_is_left_out() -> None:
    rows = pl.DataFrame({"metric": ["auroc", "auroc", "f1"], "control": [None] * 3, "value": [1.0, None, 0.2]})
    assert scores.histogram_of(rows, "auroc").rows() == [("the latent", 1, 0.95, 1.0)]
    both = rows.with_columns(control=pl.Series(["shuffled", None, None])).vstack(
        rows.with_columns(control=pl.Series(["empty", None, None]))
    )
    assert sorted(scores.histogram_of(both, "auroc")["explanation of"]) == ["another latent", "nothing"]
    nothing = {"control": [None], "latent": [1], "decile": [3], "probability": [None], "measure": [None]}
    schema = {"control": pl.String, "decile": pl.Int32, "probability": pl.Float64, "measure": pl.Float64}
    assert scores.judgement_means(pl.DataFrame(nothing, schema_overrides=schema)).is_empty()


def test_a_judgement_of_one_latent_has_no_interval() -> None:
    rows = {"control": [None], "latent": [1], "decile": [3], "probability": [0.25], "measure": [None]}
    shown = scores.judgement_means(pl.DataFrame(rows, schema_overrides={"control": pl.String}))
    assert shown.fill_nan(None).rows() == [("the latent", 4, 0.25, None, None)]


def test_charts_are_small_pictures_on_white(tables: dict[str, pl.DataFrame]) -> None:
    for drawn in (
        image(latents.picture, crowded()),
        image(latents.picture, tables["latents"]),
        image(scores.picture, tables["scores"], tables["judgements"]),
    ):
        picture = shown(drawn)
        assert picture.find("{*}rect").get("fill") == "white"
        assert len(picture.findall(".//{*}path")) > 20
        assert len(drawn) < 30_000


def crowded() -> pl.DataFrame:
    """Latents of every density that there is, and every triage."""
    density = 10 ** np.linspace(-6, 0, 5000)
    kinds = ["rare", "single_token", "ok", "dense", "dead"]
    return pl.DataFrame({"density": density, "triage": [kinds[place % 5] for place in range(5000)]})


def shown(markdown: str) -> ElementTree.Element:
    """The picture in a preview."""
    found = IMAGE.search(markdown)
    assert found
    return ElementTree.fromstring(base64.b64decode(found[1]))


def test_previews_of_latents_hold_a_chart_also_when_told_again(materialized: Workbench) -> None:
    for event in events(materialized, "latents"):
        assert shown(preview(event)) is not None
        assert "| triage | latents | chosen |" in preview(event)
    launch(materialized, materialized.prepare(), ["latents"], "0|one", "0|one")
    assert events(materialized, "latents")[0].metadata["computed"].value is False
    assert shown(preview(events(materialized, "latents")[0])) is not None


def preview(event: dg.AssetMaterialization) -> str:
    return str(event.metadata["preview"].value)


def test_previews_of_scores_hold_a_chart_of_more_than_a_few_latents(
    tables: dict[str, pl.DataFrame], materialized: Workbench
) -> None:
    whole = scores_asset._preview(study().scorers["embedding"], None, lambda name: tables[name].lazy())
    assert shown(whole) is not None
    assert "| metric | control | mean |" in whole
    assert not any(IMAGE.search(preview(event)) for event in events(materialized, "scores/default/embedding"))


def test_a_loss_curve_of_many_steps_is_drawn_in_means() -> None:
    steps = pl.DataFrame({"step": range(6000), "tokens": range(0, 12000, 2), "variance_unexplained": [0.5] * 6000})
    rows = steps.with_columns(dictionary=pl.lit("d"), auxiliary=0.0, dead=pl.int_range(6000))
    drawn = training.picture(rows).to_dict()
    (points,) = drawn["datasets"].values()
    assert len(points) == 500
    assert points[0]["dead"] == 5.5
    assert svg(training.picture(rows.head(3)))


_AGAIN = """
import sys
from pathlib import Path
from tests.workbench import Workbench, open_instance
folder = Path(sys.argv[1])
with open_instance(folder / "instance") as instance:
    assert Workbench(folder / "study", instance).run() == {}
assert not {"altair", "vl_convert", "vl_convert.vl_convert"} & set(sys.modules)
"""


def test_an_up_to_date_run_draws_nothing(materialized: Workbench) -> None:
    subprocess.run([sys.executable, "-c", _AGAIN, str(materialized.folder.parent)], cwd=ROOT, check=True)


def test_events_say_how_long_and_runs_say_why(materialized: Workbench) -> None:
    first = events(materialized, "contexts")[0]
    assert first.metadata["seconds"].value > 0
    materialized.study["scorers"]["detection"]["windows"] = 3
    assert materialized.run() == {"scores/default/detection": 2, "agreements": 1}
    runs = [run.tags[REASON_TAG] for run in materialized.instance.get_runs(limit=100) if REASON_TAG in run.tags]
    assert "not computed yet" in runs
    assert any(reason.startswith("code version ") for reason in runs)


def test_windows_are_counted_against_what_was_asked(materialized: Workbench) -> None:
    drawn = pl.read_delta(f"{materialized.folder}/lake/tiny/examples").filter(
        sample="test", block=0, is_activating=True
    )
    each = drawn.group_by("latent").len()["len"]
    told = next(event for event in events(materialized, "examples/test") if event.partition == "0|one")
    assert f"| activating | 8 | {len(each)} | {(each == 8).sum()} | {each.min()} |" in preview(told)


def test_assets_link_to_their_table_and_their_code(materialized: Workbench) -> None:
    run = materialized.prepare()
    graph = build_definitions(run.study, lake=materialized.lake).resolve_asset_graph()
    for name, stage in run.flow.stages.items():
        metadata = graph.get(asset_key(name)).metadata
        assert metadata["dagster/uri"] == (materialized.folder / "lake" / "tiny" / stage.tables[0]).as_uri()
        files = [Path(each.file_path) for each in metadata["dagster/code_references"].code_references]
        assert all(file.is_file() for file in files)
        if stage.kind == "scores":
            assert files[1] == ROOT / "latentlake" / "scorers" / f"{stage.constants['scorer']}.py"
