"""The subject: a decoder whose blocks are hooked, cut off after the deepest hookpoint."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoModel

from latentlake.engines import checkpoint
from latentlake.engines.batches import cut
from latentlake.engines.loading import load_model, load_tokenizer
from latentlake.errors import InputError, nearest

logger = logging.getLogger("latentlake.engines")


class HookedSubject:
    """A causal language model from a Hugging Face directory; implements `latentlake.protocols.Subject`.

    The tokenizer loads when first needed, the weights at the first `activations`, and of the blocks only those up to
    the deepest hookpoint stay in memory: their work bounds the speed, so that none is done below.

    Args:
        path: directory with config, tokenizer and weights.
        dtype: float32, bfloat16 or float16; computation and results.
        device: where the model runs.
        batch_tokens: tokens in a batch, padding included.
        bos: token that opens contexts, where it is not the tokenizer's.
        separator: token between documents, where it is not the tokenizer's end of sequence.
    """

    def __init__(
        self,
        path: Path,
        dtype: str = "float32",
        device: str = "cpu",
        batch_tokens: int = 4096,
        bos: int | None = None,
        separator: int | None = None,
    ) -> None:
        self._path = path
        self._dtype = dtype
        self._device = torch.device(device)
        self._batch_tokens = batch_tokens
        self._bos = bos
        self._separator = separator
        self._decoder: nn.Module | None = None
        self._depth = 0

    @cached_property
    def _tokenizer(self) -> Any:
        return load_tokenizer(self._path)

    @property
    def bos(self) -> int:
        """Token that opens every context."""
        return self._special("bos", self._bos)

    @property
    def separator(self) -> int:
        """Token between documents: the tokenizer's end of sequence where the study names none."""
        return self._special("eos", self._separator)

    def _special(self, kind: str, chosen: int | None) -> int:
        token = getattr(self._tokenizer, f"{kind}_token_id") if chosen is None else chosen
        if token is None:
            raise InputError(f"The tokenizer of {self._path} has no {kind} token. Give its number in the study.")
        return int(token)

    def tokenize(self, texts: Sequence[str]) -> list[list[int]]:
        """Token ids of each text with nothing added; the name of a special token in a text is text like any other."""
        if not texts:
            return []
        encoded = self._tokenizer(
            list(texts), add_special_tokens=False, split_special_tokens=True, return_attention_mask=False, verbose=False
        )
        tokens: list[list[int]] = encoded["input_ids"]
        return tokens

    def detokenize(self, tokens: Sequence[Sequence[int]]) -> list[str]:
        """Text of each list of token ids, special tokens left out."""
        if not tokens:  # the tokenizer would make one text of none
            return []
        texts: list[str] = self._tokenizer.batch_decode(
            [list(each) for each in tokens], skip_special_tokens=True, clean_up_tokenization_spaces=False
        )
        return texts

    def activations(
        self, contexts: Sequence[Sequence[int]], hookpoints: Sequence[str]
    ) -> Iterator[tuple[list[int], dict[str, Tensor]]]:
        """What the blocks ``layers.N`` put out, in batches of contexts of similar length.

        Yields the indices of a batch's contexts, and for each hookpoint a tensor [tokens of these contexts end to end,
        width] of the model's dtype, on its device.

        Raises:
            InputError: a hookpoint that the model does not have, or a context longer than it can read.
        """
        depth = 1 + max(self._block(name) for name in hookpoints)
        lengths = [len(context) for context in contexts]
        batches = cut(lengths, lambda rows, longest: rows * longest <= self._batch_tokens)
        return ((batch, self._run([contexts[index] for index in batch], hookpoints, depth)) for batch in batches)

    def _block(self, hookpoint: str) -> int:
        known = checkpoint.hookpoints(self._path)
        if hookpoint not in known:
            raise InputError(f"Model {self._path.name} has no hookpoint {hookpoint!r}{nearest(hookpoint, known)}.")
        return int(hookpoint.rpartition(".")[2])

    def _loaded(self, depth: int) -> Any:
        """The decoder with ``depth`` blocks or more; loads again where it had been cut shorter."""
        if self._decoder is None or self._depth < depth:
            logger.info("loading %s up to block %d", self._path.name, depth - 1)
            model = load_model(AutoModel, self._path, self._dtype)
            decoder = getattr(model, "language_model", model)
            if not hasattr(decoder, "layers"):
                raise InputError(f"Model {self._path}: a {type(decoder).__name__} has no decoder blocks in `layers`.")
            decoder.layers = decoder.layers[:depth]
            self._decoder, self._depth = decoder.to(self._device), depth
        return self._decoder

    @torch.inference_mode()
    def _run(self, contexts: Sequence[Sequence[int]], hookpoints: Sequence[str], depth: int) -> dict[str, Tensor]:
        decoder = self._loaded(depth)
        most = decoder.config.max_position_embeddings
        lengths = torch.tensor([len(context) for context in contexts])
        if lengths.max() > most:
            raise InputError(f"A context of {lengths.max()} tokens, but {self._path.name} reads {most} at most.")
        is_token = torch.arange(int(lengths.max())) < lengths[:, None]
        tokens = torch.zeros(is_token.shape, dtype=torch.long)
        tokens[is_token] = torch.tensor([token for context in contexts for token in context])
        seen: dict[str, Tensor] = {}
        handles = [decoder.get_submodule(name).register_forward_hook(_keep(seen, name)) for name in hookpoints]
        try:
            # Padding on the right is never attended to by what precedes it, and without a mask attention is faster.
            decoder(input_ids=tokens.to(self._device), use_cache=False)
        finally:
            for handle in handles:
                handle.remove()
        return {name: _end_to_end(seen[name], is_token) for name in hookpoints}


def _keep(seen: dict[str, Tensor], name: str) -> Any:
    """A forward hook that puts a block's output, alone or first of a tuple, into ``seen``."""

    def hook(_module: nn.Module, _inputs: Any, output: Any) -> None:
        seen[name] = output[0] if isinstance(output, tuple) else output

    return hook


def _end_to_end(padded: Tensor, is_token: Tensor) -> Tensor:
    """[contexts, longest, width] → [tokens, width]; a view where nothing is padded."""
    if bool(is_token.all()):
        return padded.flatten(0, 1)
    return padded[is_token.to(padded.device)]
