"""Dictionaries that are copies of the small study's, in part or with noise: of their comparison the truth is known."""

from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file, save_file

from latentlake.fakes import write_coder
from tests.workbench import LATENTS, WIDTH, Workbench

# a comparison of every pair, one by the nearest alone and without explanations, and one by activations
COMPARISONS: dict[str, dict[str, Any]] = {
    "every": {},
    "near": {"pairs": [["one", "copy"]], "exact": 0, "explainers": []},
    "fires": {"by": "activations"},
}
PAIRS = {"every": 3, "near": 1, "fires": 3}  # of dictionaries, by comparison
REPORT = {"best": 0, "worst": 0, "random": 3, "listed": 10}  # of each dictionary


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
