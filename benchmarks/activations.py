"""How near the activation stage comes to the bare work: ``python -m benchmarks.activations [--tokens N]``.

Side by side in one run, on the same contexts of the quickstart, in turns: the subject stopped at a quarter of its depth and
top-k encodes of 16,384 latents, written out plainly; and the stage, with its hooks, blocks, sort, and the commit of its rows to
Delta tables. Once for one dictionary, once for three on three layers, which share the forward pass. Tokens per CPU-second of
the process (all threads), since a shared machine makes the clock meaningless.
"""

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor
from transformers import AutoModel

from benchmarks.quickstart import BATCH_TOKENS, K, Quickstart, open_quickstart, random_coder
from latentlake.lake import Lake
from latentlake.protocols import Coder
from latentlake.stages.activations import rows_of
from latentlake.stages.contexts import Context
from latentlake.tables import TABLES

LAYERS = (7, 6, 5)  # 8 of 30 blocks are run
TOKENS_A_ROUND = 16_384


class Bare:
    """The reference: a truncated model and the coders' formula, with nothing around them."""

    def __init__(self, model: Path, coders: list[Path]) -> None:
        self._model: Any = AutoModel.from_pretrained(model, dtype=torch.float32, local_files_only=True).eval()
        self._model.layers = self._model.layers[: LAYERS[0] + 1]
        self._model.norm = torch.nn.Identity()
        self._coders = [_weights(each) for each in coders]

    @torch.inference_mode()
    def run(self, contexts: list[Context]) -> None:
        """Activations of contexts of equal length, thrown away."""
        size = BATCH_TOKENS // len(contexts[0].tokens)
        for start in range(0, len(contexts), size):
            tokens = torch.tensor([context.tokens for context in contexts[start : start + size]])
            states = self._model(input_ids=tokens, use_cache=False, output_hidden_states=len(self._coders) > 1)
            for layer, (weight, bias) in zip(LAYERS, self._coders, strict=False):
                hidden = states.last_hidden_state if layer == LAYERS[0] else states.hidden_states[layer + 1]
                torch.addmm(bias, hidden.flatten(0, 1), weight.T).topk(K, sorted=False)[0].relu_()


def _weights(coder: Path) -> tuple[Tensor, Tensor]:
    """Weight and bias of a coder's encoder, its centre folded into the bias: the least work that gives its activations."""
    tensors = {name: tensor.float() for name, tensor in load_file(coder / "sae.safetensors").items()}
    weight: Tensor = tensors["encoder.weight"]
    return weight, tensors["encoder.bias"] - weight @ tensors["b_dec"]


class Stage:
    """The project's way, to the committed rows."""

    def __init__(self, quickstart: Quickstart, coders: dict[str, Coder], lake: Lake) -> None:
        self._quickstart, self._coders, self._lake = quickstart, coders, lake

    def run(self, contexts: list[Context]) -> None:
        """Activations of contexts, committed as one shard of each dictionary."""
        hookpoints = {name: f"layers.{layer}" for name, layer in zip(self._coders, LAYERS, strict=False)}
        for name, keys in self._quickstart.encode(contexts, self._coders, hookpoints).items():
            where: dict[str, str | int] = {"dictionary": name, "shard": "round"}
            self._lake.replace("activations", TABLES["activations"].conform(rows_of(keys, where)), where, {})


def compare(paths: dict[str, Callable[[list[Context]], None]], contexts: list[Context]) -> dict[str, float]:
    """CPU-seconds of each path over the contexts, in rounds whose order alternates."""
    seconds = dict.fromkeys(paths, 0.0)
    size = TOKENS_A_ROUND // len(contexts[0].tokens)
    for run in paths.values():
        run(contexts[:4])
    for number, start in enumerate(range(0, len(contexts), size)):
        for name in list(paths)[:: 1 if number % 2 else -1]:
            began = time.process_time()
            paths[name](contexts[start : start + size])
            seconds[name] += time.process_time() - began
    return seconds


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokens", type=int, default=65_536)
    quickstart = open_quickstart(parser.parse_args().tokens)
    tokens = sum(len(context.tokens) for context in quickstart.contexts)
    with tempfile.TemporaryDirectory() as folder:
        paths = [Path(folder) / f"coder{number}" for number in range(len(LAYERS))]
        coders = {path.name: random_coder(path, seed) for seed, path in enumerate(paths)}
        for n in (1, len(LAYERS)):
            bare = Bare(quickstart.model, paths[:n])
            stage = Stage(quickstart, dict(list(coders.items())[:n]), Lake(f"{folder}/lake", "bench"))
            seconds = compare({"bare": bare.run, "stage": stage.run}, quickstart.contexts)
            print(f"{n} dictionaries, {tokens:,} tokens, {torch.get_num_threads()} threads")
            for name, spent in seconds.items():
                print(f"  {name:6} {tokens / spent:8,.0f} tokens/cpu-s")
            print(f"  speed of the stage / bare {seconds['bare'] / seconds['stage']:.3f}")
            print(f"  cost of the stage / bare  {seconds['stage'] / seconds['bare']:.3f}", flush=True)


if __name__ == "__main__":
    main()
