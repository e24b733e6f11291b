"""Dictionaries held against one another: copies, noise and other spaces of which the truth is known, in a flow of their own."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from safetensors.numpy import load_file, save_file

from latentlake import charts
from latentlake.cli import main
from latentlake.fakes import write_coder
from latentlake.flow import Flow
from latentlake.study import Study
from tests.scene import study_of
from tests.workbench import LATENTS, WIDTH, Workbench

EVERY = {"one": LATENTS, "copy": LATENTS, "half": LATENTS}


def permuted(folder: Path, source: str, name: str, noise: float = 0.0, kept: int = LATENTS, seed: int = 0) -> np.ndarray:
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


def comparing(bench: Workbench, **comparison: Any) -> dict[str, np.ndarray]:
    """The study with a copy of its dictionary, a half copy, and comparisons; returns their orders."""
    orders = {
        "copy": permuted(bench.folder, "one", "copy", noise=0.02),
        "half": permuted(bench.folder, "one", "half", kept=LATENTS // 2, seed=1),
    }
    for name in orders:
        bench.study["dictionaries"][name] = {"hookpoint": "layers.1", "coder": f"coders/{name}", "latents": "all"}
    bench.study["dictionaries"]["one"]["latents"] = "all"
    bench.study["search"] = {"embedder": "embedder"}
    bench.study["scorers"] = {}
    bench.study["explainers"] = {"tokens": {"method": "tokens"}}
    bench.study["comparisons"] = {"all": comparison}
    return orders


def test_walk(workbench: Workbench) -> None:
    orders = comparing(workbench)
    computed = workbench.run()
    print(computed)
    view = workbench.view()
    with pl.Config(tbl_rows=-1, tbl_cols=-1, tbl_width_chars=250):
        print(view.comparisons.collect())
        print(view.similarities.collect())
    rows = view.alignments.filter(pair="copy-one").sort("latent").collect()
    assert rows["decoder_partner"].to_list() == orders["copy"].tolist()
    assert rows["encoder_partner"].to_list() == orders["copy"].tolist()
    charts.svg(charts.alignments(rows))
    Path("/tmp/compare/c.svg").write_text(charts.svg(charts.comparisons(view.comparisons.collect(), view.similarities.collect())))
    assert workbench.stale() == {}
    assert workbench.dagster_stale() == {}
