"""How near the engine ``vllm`` comes to vLLM itself: ``python -m benchmarks.vllm MODEL``, run where vLLM is installed.

Calls such as detection makes, in three kinds, through the engine and by turns through a bare ``LLM.generate`` that is given the
same tokens in the same order, all at once; one model serves both, and its cache is emptied before each. CPU-seconds, all threads,
by the sum of the rounds, of which a first is not counted. The model runs in this process, or else its time would be missing.
"""

import argparse
import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from latentlake.engines.prompts import Prompt, Prompts
from latentlake.engines.vllm import VLLM, Settings
from latentlake.protocols import Call, Choose, Generate, Reply, Sampling, Score

ROUNDS = 4
LATENTS, TEXTS = 4, 16
SHOTS = "".join(
    f"Description: {description}\nText: {text}\nAnswer: {answer}\n\n"
    for description, text, answer in (
        ("names of spices", "The soup wants cinnamon, a clove and some nutmeg before it is served.", "yes"),
        ("names of spices", "The train to Vienna leaves at nine from the third platform.", "no"),
        ("numbers of years", "The bridge was finished in 1887, and again in 1921 after the flood.", "yes"),
        ("numbers of years", "She would rather walk than wait for the bus in the rain.", "no"),
        ("words for buildings", "Behind the chapel stood a barn and, further on, a tower without a roof.", "yes"),
        ("words for buildings", "Oak, elm and birch shed their leaves within a week of each other.", "no"),
    )
)
SUBJECTS = ("rivers", "metals", "birds", "verbs of motion")
KINDS: dict[str, tuple[Sampling, dict[str, Any]]] = {
    "choose": (Choose((" yes", " no")), {"max_tokens": 1}),
    "generate 8 tokens": (Generate(max_tokens=8), {"max_tokens": 8}),
    "score": (Score(), {"max_tokens": 1, "prompt_logprobs": 0, "detokenize": False}),
}


def calls_of(sampling: Sampling) -> list[Call]:
    """Calls with the latents in turn, as they may come: the engine puts them in order."""
    return [
        Call(
            f"Does the text fit the description? Answer yes or no.\n\n{3 * SHOTS}Description: words for {SUBJECTS[latent]}\n",
            f"Text: On day {text} they wrote of {SUBJECTS[(latent + text) % LATENTS]} and of little else.\nAnswer:",
            sampling,
        )
        for text in range(TEXTS)
        for latent in range(LATENTS)
    ]


def answered(llm: VLLM, calls: Sequence[Call]) -> list[Reply]:
    """All replies of the engine."""
    return [reply for batch in llm.run(calls) for _, reply in batch]


def bare(model: Any, prompts: Sequence[Prompt], settings: dict[str, Any]) -> list[Any]:
    """What vLLM itself gives."""
    from vllm import SamplingParams

    tokens = [{"prompt_token_ids": prompt.prefix + prompt.suffix} for prompt in prompts]
    found: list[Any] = model.generate(tokens, SamplingParams(temperature=0.0, **settings), use_tqdm=False)
    return found


def seconds(work: Callable[[], Any]) -> float:
    """CPU-seconds of one call."""
    begun = time.process_time()
    work()
    return time.process_time() - begun


def measure(llm: VLLM, prompts: Prompts, kind: str) -> str:
    """A line of the report."""
    sampling, settings = KINDS[kind]
    settings = dict(settings)
    if isinstance(sampling, Choose):
        settings |= {"logprob_token_ids": prompts.firsts(sampling, is_chat=False), "detokenize": False}
    calls, model = calls_of(sampling), llm._llm
    fed = prompts.of(sorted(calls, key=lambda call: SUBJECTS.index(call.prefix.rpartition("words for ")[2].strip())))
    replies: list[Reply] = []
    ours = theirs = 0.0
    for number in range(ROUNDS + 1):
        works = [lambda: replies.extend(answered(llm, calls)), lambda: bare(model, fed, settings)]
        taken = [0.0, 0.0]
        for which in (0, 1) if number % 2 else (1, 0):
            model.reset_prefix_cache()
            taken[which] = seconds(works[which])
        if number:
            ours, theirs = ours + taken[0], theirs + taken[1]
    share = sum(reply.tokens_cached for reply in replies) / sum(reply.tokens_in for reply in replies)
    return (
        f"{kind}: {len(calls)} prompts of {replies[0].tokens_in} tokens, engine {ours / ROUNDS:.2f} cpu-s, bare "
        f"{theirs / ROUNDS:.2f} cpu-s, ratio {ours / theirs:.3f}; {share:.1%} of the engine's prompt tokens from the cache"
    )


def main() -> None:
    """Print the report."""
    parser = argparse.ArgumentParser(description="How near the engine vllm comes to vLLM itself.")
    parser.add_argument("model", type=Path, help="directory of a model")
    parser.add_argument("kinds", nargs="*", default=list(KINDS), help=f"some of: {', '.join(KINDS)}")
    given = parser.parse_args()
    os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"
    llm, prompts = VLLM(given.model, settings=Settings(is_eager=True)), Prompts(given.model)
    for kind in given.kinds:
        print(measure(llm, prompts, kind), flush=True)


if __name__ == "__main__":
    main()
