"""Small stand-ins for the three doors (subject, language model, embedder), for tests of anything built on latentlake.

They are fast, need no files, and depend on nothing but what they are given. They know no language: what comes out of
them is never a result. Sparse coders are no door: tests use real ones with random weights.
"""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from latentlake.digest import mix, seed_of
from latentlake.engines.places import places_of
from latentlake.protocols import (
    LLM,
    Call,
    Choose,
    Coder,
    Continuation,
    Embedder,
    Generate,
    Reply,
    Splice,
    Subject,
    Tokenized,
)

if TYPE_CHECKING:
    import torch

_FIRST_BYTE = 3  # tokens 0 to 2 are unused, BOS and separator; a byte of text is the byte plus this


class FakeSubject:
    """A subject whose tokens are bytes and whose activations are fixed random vectors of a token and the one before.

    ``draw``: another one draws other vectors, as other weights would.
    """

    bos = 1
    separator = 2
    vocabulary = 256 + _FIRST_BYTE

    def __init__(self, width: int = 16, draw: int = 0) -> None:
        self.width = width
        self._draw = draw
        self.contexts_read = 0

    def tokenize(self, texts: Sequence[str]) -> list[Tokenized]:
        """Bytes of each text; a character of several bytes belongs to the first of them."""
        return [
            Tokenized(
                [byte + _FIRST_BYTE for byte in text.encode()],
                [end for end, character in enumerate(text, start=1) for _ in character.encode()],
            )
            for text in texts
        ]

    def detokenize(self, tokens: Sequence[Sequence[int]]) -> list[str]:
        """Text of each list of bytes."""
        return [
            bytes(token - _FIRST_BYTE for token in each if token >= _FIRST_BYTE).decode(errors="replace")
            for each in tokens
        ]

    def module_of(self, hookpoint: str) -> str:
        """The name itself: there are no modules."""
        return hookpoint

    def activations(
        self, contexts: Sequence[Sequence[int]], hookpoints: Sequence[str]
    ) -> Iterator[tuple[list[int], "dict[str, torch.Tensor]"]]:
        """Batches of four contexts."""
        import torch

        for start in range(0, len(contexts), 4):
            batch = list(range(start, min(start + 4, len(contexts))))
            self.contexts_read += len(batch)
            states = {
                point: torch.from_numpy(np.concatenate([self._states(contexts[index], point) for index in batch]))
                for point in hookpoints
            }
            yield batch, states

    def losses(
        self, contexts: Sequence[Sequence[int]], splice: Splice | None = None
    ) -> "Iterator[tuple[list[int], torch.Tensor]]":
        """A hash of each token; with a splice, plus the mean square of what it changed."""
        import torch

        hookpoints = [splice.reads, splice.writes] if splice else ["layers.0"]
        for batch, states in self.activations(contexts, hookpoints):
            tokens = np.concatenate([np.asarray(contexts[index], dtype=np.uint64) for index in batch])
            losses = torch.from_numpy((mix(tokens, seed_of("loss")) / np.float64(2**64)).astype(np.float32))
            if splice:
                written = states[splice.writes]
                losses += (splice.change(batch, states[splice.reads], written) - written).square().mean(1)
            losses[np.cumsum([0, *(len(contexts[index]) for index in batch[:-1])])] = np.nan
            yield batch, losses

    def unembed(self, directions: "torch.Tensor") -> "torch.Tensor":
        """Products with a fixed random vector for each token."""
        import torch

        logits: torch.Tensor = torch.nn.functional.normalize(directions.double(), dim=1) * self.width**0.5 @ self.head
        return logits

    @property
    def head(self) -> "torch.Tensor":
        """A fixed random vector for each token, float64 [width, vocabulary]."""
        import torch

        grid = np.arange(self.width * self.vocabulary, dtype=np.uint64).reshape(self.width, -1)
        return torch.from_numpy(mix(grid, seed_of("head", self._draw)) / np.float64(2**63) - 1)

    def logits(self, tokens: Sequence[int]) -> np.ndarray:
        """Of the next token: hashes of it and of the last two, float64 [vocabulary]."""
        grid = np.arange(self.vocabulary, dtype=np.uint64)
        logits: np.ndarray = mix(grid, seed_of("next", self._draw, *tokens[-2:])) / np.float64(2**62) - 2
        return logits

    def prompted(
        self, prompts: Sequence[Sequence[int]], groups: Sequence[int]
    ) -> "Iterator[tuple[list[int], FakePrompts]]":
        """Batches of one group."""
        for _, members in groupby(range(len(prompts)), key=groups.__getitem__):
            batch = list(members)
            yield batch, FakePrompts(self, [prompts[index] for index in batch])

    def _states(self, context: Sequence[int], hookpoint: str) -> np.ndarray:
        tokens = np.asarray(context, dtype=np.uint64)
        pairs = tokens * np.uint64(1000) + np.concatenate([[np.uint64(0)], tokens[:-1]]) // np.uint64(8)
        grid = pairs[:, None] * np.uint64(self.width) + np.arange(self.width, dtype=np.uint64)
        return (
            mix(grid, seed_of(hookpoint, self._draw) if self._draw else seed_of(hookpoint)) / np.float64(2**63) - 1
        ).astype(np.float32)


class FakePrompts:
    """Prompts of a `FakeSubject`; a push adds its products with the vectors of the tokens to their logits."""

    def __init__(self, subject: FakeSubject, prompts: Sequence[Sequence[int]]) -> None:
        self._subject = subject
        self._prompts = prompts

    def next_tokens(
        self, of: Sequence[int], hookpoint: str, pushes: "torch.Tensor"
    ) -> "Iterator[tuple[slice, torch.Tensor, torch.Tensor]]":
        """Batches of four rows."""
        for start in range(0, len(of), 4):
            rows = slice(start, min(start + 4, len(of)))
            clean = self._logits([self._prompts[number] for number in of[rows]])
            pushed = clean + pushes[rows].cpu().double() @ self._subject.head
            yield rows, clean.log_softmax(-1), pushed.log_softmax(-1)

    def continuations(
        self,
        of: Sequence[int],
        hookpoint: str,
        pushes: "torch.Tensor",
        max_tokens: int,
        temperature: float,
        seeds: Sequence[int],
    ) -> Iterator[list[tuple[int, Continuation]]]:
        """Batches of four rows."""
        sampling = Generate(max_tokens, temperature)
        for rows, clean, pushed in self.next_tokens(of, hookpoint, pushes):
            kls = (clean.exp() * (clean - pushed)).sum(-1).clamp(min=0).tolist()
            yield [
                (row, Continuation(self._text(of[row], pushes[row], sampling, seeds[row]), float(f"{kl:.6g}")))
                for row, kl in zip(range(rows.start, rows.stop), kls, strict=True)
            ]

    def _text(self, number: int, push: "torch.Tensor", sampling: Generate, seed: int) -> list[int]:
        import torch

        from latentlake.engines.drafts import draw

        prompt, text = list(self._prompts[number]), list[int]()
        added, generator = push.cpu().double() @ self._subject.head, torch.Generator().manual_seed(seed)
        while len(text) < sampling.max_tokens:
            token = int(draw(self._logits([prompt + text]) + added, sampling, [generator]))
            if token == self._subject.separator:
                break
            text.append(token)
        return text

    def _logits(self, texts: Sequence[Sequence[int]]) -> "torch.Tensor":
        import torch

        return torch.from_numpy(np.stack([self._subject.logits(text) for text in texts]))


class FakeLLM:
    """A language model whose replies are made of digests of the prompts.

    ``made``: keys of the calls it answered, in order. ``before``: called with the number of calls answered so far,
    before each batch; tests fail or die in it. ``fails``: whether every call fails, and may succeed later.
    """

    def __init__(self, batch: int = 8, before: Callable[[int], None] = lambda answered: None) -> None:
        self.made: list[Call] = []
        self._batch = batch
        self._before = before
        self.fails = False

    def run(self, calls: Sequence[Call]) -> Iterator[list[tuple[int, Reply]]]:
        """Batches in the order of the calls."""
        for start in range(0, len(calls), self._batch):
            self._before(len(self.made))
            batch = list(enumerate(calls))[start : start + self._batch]
            self.made += [call for _, call in batch]
            yield [(place, self._reply(call)) for place, call in batch]

    def _reply(self, call: Call) -> Reply:
        if self.fails:
            return Reply(None, None, 0, 0, 0, None, 0.0, error="unreachable", is_retryable=True)
        numbers = hashlib.sha256(f"{call.prefix}\x1f{call.suffix}\x1f{call.draw}".encode()).digest()
        text, logprobs, places = None, None, places_of(call)
        if isinstance(call.sampling, Generate):
            words = (call.prefix + call.suffix).split()
            text = " ".join(words[number % len(words)] for number in numbers[:3])
        elif isinstance(call.sampling, Choose):
            wanted = len(call.sampling.choices) * len(places)
            logprobs = tuple(-numbers[place % len(numbers)] / 64 for place in range(wanted))
        else:
            logprobs = tuple(-number / 32 for number in numbers[:8])
        words_in = len((call.prefix + call.suffix).split())
        return Reply(text, logprobs, words_in, 0, 3 if text else 0, "stop" if text else None, 0.0)


class FakeEmbedder:
    """An embedder that counts pairs of letters."""

    def embed(self, texts: Sequence[str]) -> np.ndarray:
        """Unit-length counts of hashed pairs of letters, float32 [texts, 64]."""
        vectors = np.zeros((len(texts), 64), dtype=np.float32)
        for vector, text in zip(vectors, texts, strict=True):
            for one, other in zip(text, text[1:] + " ", strict=False):
                vector[(ord(one) * 31 + ord(other)) % 64] += 1
        vectors /= np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-6)
        return vectors


class FakeHandles:
    """The doors to fakes, one of each. ``coder`` gives the coder of a dictionary; ``loaded`` counts what was asked for."""

    is_replay = False

    def __init__(self, coder: Callable[[str], Coder], subject: FakeSubject, llm: FakeLLM) -> None:
        self._coder = coder
        self._subject = subject
        self._llm = llm
        self.loaded: list[str] = []

    def subject(self, is_random: bool = False) -> Subject:
        """The fake subject, or another."""
        self.loaded.append("subject")
        return FakeSubject(self._subject.width, draw=1) if is_random else self._subject

    def coder(self, dictionary: str) -> Coder:
        """What the test gives."""
        return self._coder(dictionary)

    def llm(self, name: str) -> LLM:
        """The fake language model."""
        self.loaded.append(name)
        return self._llm

    def embedder(self, name: str) -> Embedder:
        """The fake embedder."""
        self.loaded.append(name)
        return FakeEmbedder()

    def free(self) -> None:
        """Nothing to let go of."""


def write_coder(
    directory: Path, width: int, latents: int, k: int, seed: int, bias: float = 0.0, is_transcoder: bool = False
) -> None:
    """Write a sparse coder with random weights and one bias for all latents, in sparsify format."""
    import json

    from safetensors.numpy import save_file

    weights = mix(np.arange(width * latents, dtype=np.uint64), seed_of("coder", seed)).reshape(latents, width)
    encoder = (weights / np.float64(2**63) - 1).astype(np.float32)
    directory.mkdir(parents=True, exist_ok=True)
    tensors = {
        "encoder.weight": encoder,
        "encoder.bias": np.full(latents, bias, dtype=np.float32),
        "W_dec": encoder / np.linalg.norm(encoder, axis=1, keepdims=True),
        "b_dec": np.zeros(width, dtype=np.float32),
    }
    save_file(tensors, directory / "sae.safetensors")
    config = {"activation": "topk", "k": k, "num_latents": latents, "d_in": width, "expansion_factor": 0}
    config["transcode"] = is_transcoder
    (directory / "cfg.json").write_text(json.dumps(config))
