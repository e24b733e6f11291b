"""How near the activation stage comes to the bare work on a GPU: ``python -m benchmarks.gpu [--device cuda] [--latents N]``.

Side by side in one run, in turns, on random tokens: a model of the shape of Llama 3.1 8B in bfloat16 with random weights, stopped
at block 16; the same with top-k encodes written out plainly, in float32 and with TF32; and the stage, to the table of its rows.
Tokens a second by the clock: a GPU has no CPU time.
"""

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import AutoModelForCausalLM, LlamaConfig

from latentlake.coders.coder import SparseCoder
from latentlake.coders.parameters import Parameters
from latentlake.coders.rules import TopK
from latentlake.engines.subject import HookedSubject
from latentlake.stages.activations import DROPPED_BITS, encode, rows_of

LAYER, K, LENGTH = 16, 32, 256
ROWS = 8192  # tokens that are encoded at once where it is written out plainly
ROUNDS = 3


class Drawn(HookedSubject):
    """A subject of random weights, drawn where it runs."""

    def _model(self) -> Any:
        with torch.device(self._device):
            return AutoModelForCausalLM.from_config(self._config, dtype=torch.bfloat16).eval()  # type: ignore[no-untyped-call]


class Bare:
    """Forward passes, and encodes after them if there is a precision of float32 products, with nothing around them."""

    def __init__(self, model: Any, encoder: Tensor, bias: Tensor, batch: int, precision: str | None = None) -> None:
        self._model, self._encoder, self._bias = model, encoder, bias
        self._batch, self._precision = batch, precision

    @torch.inference_mode()
    def run(self, contexts: list[list[int]]) -> None:
        """Activations, thrown away."""
        torch.set_float32_matmul_precision(self._precision or "highest")
        for start in range(0, len(contexts), self._batch // LENGTH):
            tokens = torch.tensor(contexts[start : start + self._batch // LENGTH], device=self._encoder.device)
            states = self._model(input_ids=tokens, use_cache=False).last_hidden_state.flatten(0, 1)
            for rows in states.split(ROWS) if self._precision else ():
                torch.addmm(self._bias, rows.float(), self._encoder.T).topk(K, sorted=False)[0].relu_()
        torch.set_float32_matmul_precision("highest")


def measured(ways: dict[str, Callable[[list[list[int]]], None]], contexts: list[list[int]]) -> dict[str, float]:
    """Seconds of each way, in rounds whose order alternates; the first is to warm up."""
    seconds = dict.fromkeys(ways, 0.0)
    for number in range(ROUNDS + 1):
        for name in list(ways)[:: 1 if number % 2 else -1]:
            torch.cuda.synchronize()
            began = time.perf_counter()
            ways[name](contexts)
            torch.cuda.synchronize()
            seconds[name] += (time.perf_counter() - began) if number else 0.0
    return seconds


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--tokens", type=int, default=262_144)
    parser.add_argument("--latents", type=int, nargs="+", default=[32_768, 131_072])
    parser.add_argument("--batch-tokens", type=int, default=65_536)
    given = parser.parse_args()
    config = LlamaConfig(
        hidden_size=4096, intermediate_size=14336, num_hidden_layers=LAYER + 1, num_attention_heads=32, num_key_value_heads=8,
        vocab_size=128_256, max_position_embeddings=8192,
    )  # fmt: skip
    draws = torch.Generator().manual_seed(0)
    tokens = torch.randint(config.vocab_size, (given.tokens // LENGTH, LENGTH), generator=draws)
    contexts: list[list[int]] = tokens.tolist()
    with tempfile.TemporaryDirectory() as folder:
        config.save_pretrained(folder)
        subject = Drawn(Path(folder), "bfloat16", given.device, given.batch_tokens)
        print(f"{torch.cuda.get_device_name()}, {given.tokens:,} tokens, batches of {given.batch_tokens:,}")
        for width in given.latents:
            compare(subject, contexts, width, given.device, given.batch_tokens)


def compare(subject: Drawn, contexts: list[list[int]], width: int, device: str, batch: int) -> None:
    """One width."""
    with torch.device(device):
        encoder, bias = torch.randn(width, 4096) / 64, torch.zeros(width)
    coder = SparseCoder(Parameters(TopK(K), encoder, bias, encoder, None), "random", device)

    def stage(some: list[list[int]]) -> None:
        keys = encode(subject, some, [[]] * len(some), {"one": coder}, {"one": f"layers.{LAYER}"}, DROPPED_BITS["half"])
        rows_of(keys["one"], {"dictionary": "one", "shard": "round"})

    stage(contexts[:4])
    model = subject._decoder
    ways: dict[str, Callable[[list[list[int]]], None]] = {
        "forward": Bare(model, encoder, bias, batch).run,
        "and encode, float32": Bare(model, encoder, bias, batch, "highest").run,
        "and encode, TF32": Bare(model, encoder, bias, batch, "high").run,
        "stage": stage,
    }
    seconds = measured(ways, contexts)
    print(f"{width:,} latents")
    for name, spent in seconds.items():
        tokens = ROUNDS * len(contexts) * LENGTH
        print(f"  {name:20} {tokens / spent:9,.0f} tokens/s; speed of the stage / it {spent / seconds['stage']:.3f}")
    print(f"  peak {torch.cuda.max_memory_allocated() / 1e9:.0f} GB", flush=True)


if __name__ == "__main__":
    main()
