"""What encoding in chunks of latents costs and saves: ``python -m benchmarks.encode [--tokens N]``.

Side by side in one run, in turns, for coders of several widths on inputs of SmolLM2's width: the encoder's matrix product alone;
product, ReLU and top-k over all latents at once, written out plainly; and `SparseCoder.encode` with chunks of several sizes, of
which the one that it uses is marked. The same for thresholds, whose plain way makes all activations and then looks for those
above 0. CPU time over that of the product alone.
"""

import argparse
import time
from collections.abc import Callable

import torch
from torch import Tensor

from latentlake.coders import coder as coders
from latentlake.coders.coder import SparseCoder
from latentlake.coders.parameters import Parameters
from latentlake.coders.rules import Rule, Threshold, TopK

D_MODEL, K = 576, 32
WIDTHS = (4_096, 16_384, 131_072)
CHUNKS = (2**12, 2**13, 2**14, 2**15, 2**16, 2**17)
ROUNDS = 3


def plain_topk(inputs: Tensor, weight: Tensor, bias: Tensor) -> None:
    """All pre-activations, ReLU over them, and the k largest."""
    torch.addmm(bias, inputs, weight.T).relu().topk(K, sorted=False)


def plain_threshold(inputs: Tensor, weight: Tensor, bias: Tensor, threshold: float) -> None:
    """All pre-activations, all activations, and where they are above 0."""
    before = torch.addmm(bias, inputs, weight.T)
    activations = before.relu() * (before > threshold)
    activations[activations.nonzero(as_tuple=True)]


def ways(width: int, inputs: Tensor, is_topk: bool) -> dict[str, Callable[[], object]]:
    """What is compared, by name."""
    drawn = torch.Generator().manual_seed(0)
    weight, bias = torch.randn(width, D_MODEL, generator=drawn) / D_MODEL**0.5, torch.zeros(width)
    threshold = float((inputs[:64] @ weight.T).flatten().topk(64 * K).values[-1])  # about as many fire as of top-k
    rule: Rule = TopK(K) if is_topk else Threshold(torch.tensor([threshold]), "jumprelu")
    found: dict[str, Callable[[], object]] = {"product": lambda: torch.addmm(bias, inputs, weight.T)}
    if is_topk:
        found["plain"] = lambda: plain_topk(inputs, weight, bias)
    else:
        found["plain"] = lambda: plain_threshold(inputs, weight, bias, threshold)
    for chunk in CHUNKS:
        if chunk <= width:
            coder = SparseCoder(Parameters(rule, weight, bias, weight, None), "bench")
            coder.__dict__["_chunk"] = rule.chunk(width, chunk)  # in the place of the size that is used
            mark = " (used)" if rule.chunk(width, chunk) == rule.chunk(width, coders._CHUNK) else ""
            found[f"chunks of {chunk:,}{mark}"] = lambda coder=coder: coder.encode(inputs)  # type: ignore[misc]
    return found


def measured(compared: dict[str, Callable[[], object]]) -> dict[str, float]:
    """CPU-seconds of each way, in rounds whose order alternates."""
    seconds = dict.fromkeys(compared, 0.0)
    with torch.inference_mode():
        for number in range(ROUNDS + 1):
            for name in list(compared)[:: 1 if number % 2 else -1]:
                began = time.process_time()
                compared[name]()
                if number:  # the first is to warm up
                    seconds[name] += time.process_time() - began
    return seconds


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokens", type=int, default=2048)
    tokens = parser.parse_args().tokens
    inputs = torch.randn(tokens, D_MODEL, generator=torch.Generator().manual_seed(1))
    for width in WIDTHS:
        for is_topk in (True, False):
            seconds = measured(ways(width, inputs, is_topk))
            print(f"{width:,} latents, {'top-k' if is_topk else 'thresholds'}, {tokens:,} tokens at once")
            for name, spent in seconds.items():
                print(f"  {name:24} {spent / seconds['product']:6.3f} of the product's CPU time", flush=True)


if __name__ == "__main__":
    main()
