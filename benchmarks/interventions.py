"""What intervention scoring is worth: ``python -m benchmarks.interventions [--lake FOLDER]``.

Writes a coder whose decoder directions are rows of the subject's unembedding (data/promoting/words.json), runs
studies/promoting.yaml into a lake of its own (or the one given; what is up to date there is not computed again), and prints how
often the true explanation of a latent scores above a false one, above another latent's, and above its own under a random
direction, at equal divergence.
"""

import argparse
import json
import os
import subprocess
import sys
from math import floor
from pathlib import Path

import numpy as np
import polars as pl
import torch
from safetensors.torch import save_file
from scipy.stats import binomtest

from benchmarks.quickstart import ROOT, open_quickstart
from latentlake.console import as_text
from latentlake.reading.view import View, open_lake

STUDY = ROOT / "studies" / "promoting.yaml"
_FIRING = 0.005  # share of the tokens on which a latent fires


def main() -> int:
    """Write the coder, run the study and print the figures; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lake", default=".cache/promoting/lake", help="folder of the lake (.cache/promoting/lake)")
    lake = parser.parse_args().lake
    write_coder(ROOT / ".cache" / "promoting" / "coder")
    study = {"LATENTLAKE_STUDY": str(STUDY), "LATENTLAKE_LAKE": lake}
    done = subprocess.run([sys.executable, "-m", "jobs.run"], env={**os.environ, **study}, check=False)
    if not done.returncode:
        view = open_lake(lake, "promoting")
        print(as_text(reached(view)), as_text(above(view)), as_text(texts(view)), sep="\n\n")
    return done.returncode


def write_coder(folder: Path) -> None:
    """A coder that reads the rows it writes, each latent firing where the model is most inclined to say its word."""
    if (folder / "params.safetensors").is_file():
        return
    words = json.loads((ROOT / "data" / "promoting" / "words.json").read_text())
    quickstart = open_quickstart(30_000)
    rows = _unembedding(quickstart.model)[[token for word in words for token in _token(quickstart.subject, word)]]
    directions = torch.nn.functional.normalize(rows, dim=1)
    contexts = [context.tokens for context in quickstart.contexts]
    length = len(contexts[0])
    states = torch.cat([each["layers.29"] for _, each in quickstart.subject.activations(contexts, ["layers.29"])])
    spoken = states.float().reshape(-1, length, states.shape[1])[:, 1:].flatten(0, 1)  # of BOS it is of another size
    thresholds = np.quantile((spoken @ directions.T).numpy(), 1 - _FIRING, axis=0)
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {
        "w_enc": directions.T.contiguous(),
        "w_dec": directions.contiguous(),
        "b_enc": torch.zeros(len(words)),
        "b_dec": torch.zeros(directions.shape[1]),
        "threshold": torch.from_numpy(thresholds).float(),
    }
    save_file(tensors, folder / "params.safetensors")


def _unembedding(model: Path) -> torch.Tensor:
    from transformers import AutoModelForCausalLM

    weight: torch.Tensor = AutoModelForCausalLM.from_pretrained(model).lm_head.weight.detach().float()
    return weight


def _token(subject: object, word: str) -> list[int]:
    [tokenized] = subject.tokenize([f" {word}"])  # type: ignore[attr-defined]
    assert len(tokenized.tokens) == 1, word
    return list(tokenized.tokens)


def reached(view: View) -> pl.DataFrame:
    """Mean scores with the divergence that was reached, by target, explainer and control."""
    rows = view.slices.filter(pl.col("target").is_not_null())
    means = rows.group_by("target", "explainer", "control", "metric").agg(
        pl.col("value").mean().round(3), latents=pl.len()
    )
    wide = means.collect().pivot("metric", index=["target", "explainer", "control", "latents"], values="value")
    return wide.sort("target", "explainer", "control", nulls_last=False)


def above(view: View) -> pl.DataFrame:
    """By target, the share of latents whose true explanation scores above what it is held against, with its 95 % interval."""
    rows = view.slices.filter(metric="nats").select("target", "latent", "explainer", "control", "value").collect()
    own = rows.filter(pl.col("explainer") == "true", pl.col("control").is_null()).drop("explainer", "control")
    others = {
        "false explanation": rows.filter(pl.col("explainer") == "false", pl.col("control").is_null()),
        "another latent's": rows.filter(explainer="true", control="shuffled"),
        "random direction": rows.filter(explainer="true", control="random_direction"),
    }
    found = []
    for name, other in others.items():
        pairs = own.join(other.select("target", "latent", other="value"), on=["target", "latent"]).drop_nulls()
        for (target,), group in pairs.partition_by("target", as_dict=True).items():
            ranks = np.sign((group["value"] - group["other"]).to_numpy())
            won = float((ranks > 0).sum() + (ranks == 0).sum() / 2)
            interval = binomtest(floor(won), len(group)).proportion_ci(0.95, method="wilson")
            found.append((target, name, len(group), won / len(group), float(interval.low), float(interval.high)))
    names = ["target", "true above", "latents", "share", "low", "high"]
    return (
        pl.DataFrame(found, schema=names, orient="row")
        .sort("target")
        .with_columns(pl.col("share", "low", "high").round(3))
    )


def texts(view: View) -> pl.DataFrame:
    """The first prompt of three latents: what follows, clean and pushed."""
    rows = view.continuations.filter(
        pl.col("latent") < 3, pl.col("rank") == pl.col("rank").min().over("latent")
    ).collect()
    rows = rows.filter(pl.col("target").is_null() | (pl.col("target") == pl.col("target").max()))
    side = pl.when(pl.col("target").is_null()).then(pl.lit("clean")).otherwise(pl.coalesce("control", pl.lit("pushed")))
    wide = rows.select("latent", pl.col("prompt").str.tail(40), "text", side=side)
    return wide.pivot("side", index=["latent", "prompt"], values="text").sort("latent")


if __name__ == "__main__":
    sys.exit(main())
