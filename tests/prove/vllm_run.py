"""What vLLM answers, as JSON on the disk: ``python -m tests.prove.vllm_run MODEL OUT``, run where vLLM is installed.

The calls are here too, so that another engine can be asked the same; nothing but `main` needs vLLM.
"""

import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from latentlake.engines.vllm import VLLM, Settings
from latentlake.protocols import Call, Choose, Generate, Message, Reply, Score
from tests.contract import CHECKS, Engine

SHOTS = (
    ("cinnamon, clove, nutmeg", "spices"),
    ("oak, elm, birch", "trees"),
    ("Rome, Paris, Cairo", "capitals"),
    ("violin, flute, harp", "instruments"),
    ("iron, copper, zinc", "metals"),
)
PREFIX = "".join(f"Words: {words}\nIn common: {common}\n" for words, common in SHOTS) * 3
WORDS = [
    "red, green, blue", "Monday, Friday, Sunday", "dog, cat, horse", "shirt, trousers, hat", "rain, snow, hail", "one, two, nine",
    "Mars, Venus, Saturn", "bread, cheese, ham", "rose, tulip, daisy", "car, bus, train", "nurse, judge, maid", "tea, milk, wine",
]  # fmt: skip
SUFFIXES = [f"Words: {words}\nIn common:" for words in WORDS]
CHOICES = (" colours", " days", " animals", " nothing whatever", " zq")
FORM = '{"type": "object", "properties": {"fits": {"type": "boolean"}}, "required": ["fits"], "additionalProperties": false}'
DRAWS = Generate(max_tokens=12, temperature=0.9, top_p=0.95)
BRIEF = (Message("system", "Answer in a word."), Message("user", "Hello"), Message("assistant", "Yes?"))

# Asked of other engines as well.
SHARED: dict[str, list[Call]] = {
    "scored": [Call(PREFIX, suffix, Score()) for suffix in [*SUFFIXES, ""]] + [Call("", "Rome is a city", Score())],
    "chosen": [Call(PREFIX, suffix, Choose(CHOICES)) for suffix in SUFFIXES],
    "greedy": [Call(PREFIX, suffix, Generate(max_tokens=8, stop=("\n",))) for suffix in SUFFIXES],
}
# A chat, and what it is when it is written out.
CHAT = [Call("What are ", "oak and elm?", how, chat=BRIEF) for how in (Choose((" Trees", "Cities")), Generate(6))]
_BEGUN = (
    "<|im_start|>system\nAnswer in a word.<|im_end|>\n<|im_start|>user\nHello<|im_end|>\n<|im_start|>assistant\nYes?<|im_end|>\n"
    "<|im_start|>user\nWhat are "
)
WRITTEN = [
    Call(_BEGUN, "oak and elm?<|im_end|>\n<|im_start|>assistant\n", how)
    for how in (Choose(("Trees", "Cities")), Generate(6))
]
CHAT.append(Call("What are ", "oak and elm?", Score(), chat=BRIEF))
WRITTEN.append(Call(_BEGUN, "oak and elm?", Score()))
OWN: dict[str, list[Call]] = {
    "choice": [Call(PREFIX, suffix, Generate(max_tokens=8, choice=("1", "five", " trees"))) for suffix in SUFFIXES],
    "schema": [Call(PREFIX, suffix, Generate(max_tokens=60, schema=FORM)) for suffix in SUFFIXES[:6]],
    "likeliest": [Call(PREFIX, suffix, Generate(max_tokens=4, likeliest=25)) for suffix in SUFFIXES[:3]],
    "too long": [Call(PREFIX, "many words " * 8192, how) for how in (Score(), Choose(CHOICES), Generate(8))],
    "almost": [Call(PREFIX, SUFFIXES[0], Generate(max_tokens=8192))],
    "many choices": [Call(PREFIX, SUFFIXES[0], Choose(CHOICES + tuple(f" {n}" for n in "abcdefghij") * 13))],
}
DRAWN = [Call(PREFIX, suffix, DRAWS, draw) for suffix in SUFFIXES[:4] for draw in range(3)]
INSTRUCTIONS = (
    "Does the text fit the description? Answer yes or no.\n" + 2 * PREFIX
)  # three blocks of the cache, and some
DETECTION = [
    Call(f"{INSTRUCTIONS}\nDescription: words like {words}\n", f"Text: {other}.\nAnswer:", Choose((" yes", " no")))
    for words in WORDS[:3]
    for other in WORDS
]


def answers(llm: Any, calls: Sequence[Call]) -> list[Reply]:
    """Replies in the order of the calls, each of which is answered once."""
    replies = [pair for batch in llm.run(calls) for pair in batch]
    assert sorted(index for index, _ in replies) == list(range(len(calls)))
    return [reply for _, reply in sorted(replies, key=lambda pair: pair[0])]


def interrupted(llm: Any, calls: Sequence[Call]) -> dict[str, int]:
    """How many calls were answered when nobody listened any more, and how many requests are under way after that."""
    running = llm.run(calls)
    answered = len(next(running))
    running.close()
    return {"answered": answered, "under way": llm._llm.llm_engine.get_num_unfinished_requests()}


def held_to(engine: Engine) -> dict[str, str]:
    """Of each point of the contract what is wrong, or nothing."""
    found = {}
    for name, check in CHECKS.items():
        try:
            check(engine)
            found[name] = ""
        except Exception as error:  # told where the proof is
            found[name] = f"{type(error).__name__}: {error} at line {error.__traceback__.tb_next.tb_lineno}"  # type: ignore[union-attr]
    return found


def main() -> None:
    """Ask everything, and write the replies down."""
    model, out = map(Path, sys.argv[1:])
    llm = VLLM(model, settings=Settings(waiting=8, is_eager=True))
    asked = {**SHARED, "chat": CHAT, **OWN, "drawn": DRAWN, "detection": DETECTION}
    mixed = [call for calls in asked.values() for call in calls]
    found: dict[str, Any] = {name: answers(llm, calls) for name, calls in asked.items()}
    found["scored again"] = answers(llm, SHARED["scored"])
    found["interrupted"] = interrupted(llm, SHARED["greedy"] + DRAWN)
    found["drawn in other company"] = answers(llm, [*SHARED["greedy"], *reversed(DRAWN)])[len(SHARED["greedy"]) :][::-1]
    found["mixed"] = answers(llm, mixed)
    found["contract"] = held_to(Engine(llm, reads=8192, is_exact=False))
    out.write_text(json.dumps(found, default=asdict))


if __name__ == "__main__":
    main()
