"""What steering costs: ``python -m benchmarks.steering [--latents N]``.

Side by side in one run, in turns, on prompts of 64 tokens out of the quickstart's texts: 8 tokens drawn after each, once clean
and once under a push in the direction of a latent, by `continuations`; and as many rows of the same prompts by transformers' own
`generate`, with nothing hooked and no token that ends a text, in the same batches. Once more with a push for every row and no
clean ones, so that no two rows have a prompt in common. At last, a step of a search over strengths (`next_tokens`), over reading
the prompts anew. CPU time of the process (all threads), since a shared machine makes the clock meaningless.
"""

import argparse
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from transformers import AutoModelForCausalLM

from benchmarks.quickstart import D_MODEL, open_quickstart
from latentlake.protocols import Prompted, Subject

PROMPTS, LENGTH, TOKENS = 7, 64, 8  # prompts a latent; tokens of each, and after each
LATENTS = 4
HOOKPOINT, STRENGTH = "layers.9", 20.0
ROUNDS = 3


class Plain:
    """The reference: `generate`."""

    def __init__(self, model: Any) -> None:
        self._model: Any = model
        self._model.generation_config.eos_token_id = None

    def run(self, prompts: list[list[int]], rows: int) -> int:
        """So many texts a prompt; the tokens that were drawn."""
        tokens = torch.tensor([prompt for prompt in prompts for _ in range(rows)])
        drawn = self._model.generate(
            tokens, attention_mask=torch.ones_like(tokens), max_new_tokens=TOKENS, do_sample=True, temperature=1.0, top_k=0,
            top_p=1.0, pad_token_id=0,
        )  # fmt: skip
        return int(drawn[:, LENGTH:].numel())

    @torch.inference_mode()
    def next_tokens(self, prompts: list[list[int]]) -> int:
        """What follows each prompt, none of which is known."""
        return int(self._model(input_ids=torch.tensor(prompts), use_cache=False, logits_to_keep=1).logits.shape[0])


def steered(subject: Subject, prompts: list[list[int]], pushes: Tensor, has_clean: bool) -> int:
    """A text a prompt under a push, and a clean one beside it; the tokens that were drawn."""
    given, drawn = torch.stack([pushes * 0, pushes], 1) if has_clean else pushes[:, None], 0
    for batch, prompted in subject.prompted(prompts, [number // PROMPTS for number in range(len(prompts))]):
        of = [place for place in range(len(batch)) for _ in range(given.shape[1])]
        rows = given[batch].flatten(0, 1)
        for found in prompted.continuations(of, HOOKPOINT, rows, TOKENS, 1.0, range(len(of))):
            drawn += sum(len(continuation.tokens) for _, continuation in found)
    return drawn


def searched(prompted: Prompted, pushes: Tensor) -> int:
    """What follows each prompt with its push and without."""
    return sum(len(clean) for _, clean, _ in prompted.next_tokens(range(len(pushes)), HOOKPOINT, pushes))


def measured(ways: dict[str, Callable[[], int]]) -> dict[str, tuple[float, int]]:
    """CPU-seconds of each way and what it made, in rounds whose order alternates; the first is to warm up."""
    seconds, made = dict.fromkeys(ways, 0.0), dict.fromkeys(ways, 0)
    for number in range(ROUNDS + 1):
        for name in list(ways)[:: 1 if number % 2 else -1]:
            began = time.process_time()
            found = ways[name]()
            if number:
                seconds[name] += time.process_time() - began
                made[name] += found
    return {name: (seconds[name], made[name]) for name in ways}


def told(title: str, found: dict[str, tuple[float, int]]) -> None:
    """Print one comparison: the last over each that comes before it."""
    (*_, (mine, _)) = found.values()
    print(title)
    for name, (seconds, made) in found.items():
        print(f"  {name:12} {seconds:7.2f} cpu-s, {made:,} made; cost of ours / it {mine / seconds:.3f}", flush=True)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--latents", type=int, default=LATENTS)
    latents = parser.parse_args().latents
    quickstart = open_quickstart(4 * PROMPTS * latents * LENGTH)
    subject = quickstart.subject
    prompts = [context.tokens[:LENGTH] for context in quickstart.contexts]
    prompts += [context.tokens[LENGTH : 2 * LENGTH] for context in quickstart.contexts]
    prompts = prompts[: PROMPTS * latents]
    draws = torch.Generator().manual_seed(0)
    directions = torch.nn.functional.normalize(torch.randn(latents, D_MODEL, generator=draws), dim=1)
    pushes = STRENGTH * directions.repeat_interleave(PROMPTS, 0)[: len(prompts)]
    model: Any = AutoModelForCausalLM.from_pretrained(quickstart.model, dtype=torch.float32)
    plain = Plain(model.eval())
    size = PROMPTS * LATENTS
    parts = [prompts[start : start + size] for start in range(0, len(prompts), size)]
    print(f"{latents} latents, {len(prompts)} prompts of {LENGTH} tokens, {torch.get_num_threads()} threads")
    for has_clean in (True, False):
        ways: dict[str, Callable[[], int]] = {
            "generate": lambda rows=1 + has_clean: sum(plain.run(part, rows) for part in parts),  # type: ignore[misc]
            "steered": lambda has_clean=has_clean: steered(subject, prompts, pushes, has_clean),  # type: ignore[misc]
        }
        told("a clean and a steered text a prompt" if has_clean else "a steered text a prompt", measured(ways))
    for _, prompted in subject.prompted(prompts, [0] * len(prompts)):
        ways = {
            "read anew": lambda: sum(plain.next_tokens(part) for part in parts),
            "next_tokens": lambda read=prompted: searched(read, pushes),  # type: ignore[misc]
        }
        told("a step of a search over strengths", measured(ways))


if __name__ == "__main__":
    main()
