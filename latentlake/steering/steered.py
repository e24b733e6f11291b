"""The subject as what answers calls, so that what it says under a push is in the ledger."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from latentlake.digest import seed_of
from latentlake.protocols import Call, Prompted, Reply, Steer, Subject
from latentlake.steering.pushes import Push

if TYPE_CHECKING:
    import torch

VERSION = "1"  # raised by hand whenever the same calls would be answered otherwise: part of their keys


class Steered:
    """A subject that goes on with prompts as `Steer` says; implements `latentlake.protocols.LLM`.

    Clean and pushed continuations of a prompt are drawn with the same random numbers: what is different in them is the push's
    doing. ``pushes``: by their names.
    """

    def __init__(self, subject: Subject, pushes: Mapping[str, Push]) -> None:
        self._subject = subject
        self._pushes = pushes

    def run(self, calls: Sequence[Call]) -> Iterator[list[tuple[int, Reply]]]:
        """Answer every call once; see `latentlake.protocols.LLM.run`."""
        of_prompt: dict[tuple[int, ...], list[int]] = {}
        for index, call in enumerate(calls):
            of_prompt.setdefault(_steer(call).tokens, []).append(index)
        prompts = list(of_prompt)
        for batch, prompted in self._subject.prompted(prompts, range(len(prompts))):
            places = [(place, index) for place, number in enumerate(batch) for index in of_prompt[prompts[number]]]
            alike: dict[tuple[str, int, float], list[tuple[int, int]]] = {}
            for place, index in places:
                steer = _steer(calls[index])
                alike.setdefault((steer.hookpoint, steer.max_tokens, steer.temperature), []).append((place, index))
            for how, own in alike.items():
                yield from self._go_on(prompted, calls, how, own)

    def _go_on(
        self, prompted: Prompted, calls: Sequence[Call], how: tuple[str, int, float], own: Sequence[tuple[int, int]]
    ) -> Iterator[list[tuple[int, Reply]]]:
        import torch

        hookpoint, max_tokens, temperature = how
        vectors = torch.stack([self._vector(_steer(calls[index])) for _, index in own])
        seeds = [_seed(calls[index]) for _, index in own]
        since = time.perf_counter()
        for found in prompted.continuations(
            [place for place, _ in own], hookpoint, vectors, max_tokens, temperature, seeds
        ):
            texts = self._subject.detokenize([each.tokens for _, each in found])
            seconds, replies = (time.perf_counter() - since) / max(1, len(found)), []
            for (row, each), text in zip(found, texts, strict=True):
                index, n = own[row][1], len(each.tokens)
                read, finish = len(_steer(calls[index]).tokens), "length" if n == max_tokens else "stop"
                replies.append((index, Reply(text, None, read, 0, n, finish, seconds, kl=each.kl)))
            yield replies
            since = time.perf_counter()

    def _vector(self, steer: Steer) -> torch.Tensor:
        if steer.direction is None:
            return next(iter(self._pushes.values())).direction * 0.0
        return self._pushes[steer.direction].direction * steer.strength


def _steer(call: Call) -> Steer:
    assert isinstance(call.sampling, Steer)
    return call.sampling


def _seed(call: Call) -> int:
    """A seed that follows from the prompt and the draw, and not from what it is pushed by."""
    return int(seed_of("steered", json.dumps(_steer(call).tokens), call.draw)) >> 1
