"""The subject: a decoder with hooks, cut off below the deepest hookpoint."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from copy import deepcopy
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoModelForCausalLM

from latentlake.engines.batches import cut, padded
from latentlake.engines.drafts import ends_of
from latentlake.engines.loading import load_model, load_tokenizer, random_model
from latentlake.engines.modules import Place, blocks_of, final_norm_of, hook, place_of, replace
from latentlake.engines.prompted import HookedPrompts, Steered, require_able, together
from latentlake.engines.skeleton import config_of, decoder_of, skeleton
from latentlake.errors import InputError
from latentlake.protocols import Prompted, Splice, Tokenized

logger = logging.getLogger("latentlake.engines")

States = dict[str, Tensor]
_LOGITS = 2**27  # numbers that the head gives at once: 512 MiB in float32
_WEIGHTS = 2**24  # numbers of the unembedding that are made double at once: 128 MiB


class HookedSubject:
    """Any `AutoModelForCausalLM` from a directory; implements `latentlake.protocols.Subject`.

    The tokenizer loads when first needed, the weights at the first `activations`, and of the blocks only those up to
    the deepest hookpoint stay in memory: their work bounds the speed, so that none is done below.

    Args:
        path: directory with config, tokenizer and weights.
        dtype: float32, bfloat16 or float16; computation and results.
        device: where the model runs, as torch names it; ``auto`` spreads it over all devices that there are.
        batch_tokens: tokens in a batch, padding included. Of a batch that does not fit into memory the halves are tried, and
            later ones are cut that small at once.
        seed: not the model's weights but random ones, as before training; None: the model's.
    """

    def __init__(
        self,
        path: Path,
        dtype: str = "float32",
        device: str = "cpu",
        batch_tokens: int = 4096,
        seed: int | None = None,
    ) -> None:
        self._path = path
        self._seed = seed
        self._dtype = dtype
        self._device = device
        self._batch_tokens = batch_tokens
        self._decoder: Any = None
        self._depth = 0

    @cached_property
    def _tokenizer(self) -> Any:
        return load_tokenizer(self._path)

    @property
    def bos(self) -> int:
        """The tokenizer's token that opens a text."""
        return self._special("bos", "bos")

    @property
    def separator(self) -> int:
        """The tokenizer's token that ends a text."""
        return self._special("eos", "separator")

    def _special(self, kind: str, choice: str) -> int:
        token = getattr(self._tokenizer, f"{kind}_token_id")
        if token is None:
            raise InputError(
                f"The tokenizer of {self._path} has no {kind} token. Give a number, or `none`, in corpus.{choice} of the study."
            )
        return int(token)

    @property
    def vocabulary(self) -> int | None:
        """Rows of the model's embedding."""
        size = self._config.get_text_config().vocab_size
        return None if size is None else int(size)

    @property
    def longest(self) -> int | None:
        """Positions that the model has."""
        positions = getattr(self._config.get_text_config(), "max_position_embeddings", None)
        return None if positions is None else int(positions)

    @cached_property
    def _config(self) -> Any:
        return config_of(self._path)

    def tokenize(self, texts: Sequence[str]) -> list[Tokenized]:
        """Token ids of each text with nothing added; the name of a special token in a text is text like any other."""
        if not texts:
            return []
        is_fast = bool(self._tokenizer.is_fast)  # others do not say where tokens end
        encoded = self._tokenizer(
            list(texts), add_special_tokens=False, split_special_tokens=True, return_attention_mask=False, verbose=False,
            return_offsets_mapping=is_fast,
        )  # fmt: skip
        spans = encoded["offset_mapping"] if is_fast else [None] * len(texts)
        return [
            Tokenized(tokens, None if own is None else [end for _, end in own])
            for tokens, own in zip(encoded["input_ids"], spans, strict=True)
        ]

    def detokenize(self, tokens: Sequence[Sequence[int]]) -> list[str]:
        """Text of each list of token ids, special tokens left out."""
        if not tokens:  # the tokenizer would make one text of none
            return []
        texts: list[str] = self._tokenizer.batch_decode(
            [list(each) for each in tokens], skip_special_tokens=True, clean_up_tokenization_spaces=False
        )
        return texts

    def module_of(self, hookpoint: str) -> str:
        """The model's own name of a hookpoint: module and side. Loads no weights.

        Raises:
            InputError: the model has no such hookpoint.
        """
        place = self._place(hookpoint)
        return f"{place.module}.{place.side}"

    def activations(
        self, contexts: Sequence[Sequence[int]], hookpoints: Sequence[str]
    ) -> Iterator[tuple[list[int], States]]:
        """What hookpoints give, in batches of contexts of similar length.

        Yields the indices of a batch's contexts, and for each hookpoint a tensor [tokens of these contexts end to end,
        width] of the model's dtype, on its device.

        Raises:
            InputError: a hookpoint that the model does not have, or a context longer than it can read.
        """
        places = {name: self._place(name) for name in hookpoints}
        self._require_readable(max(map(len, contexts), default=0))
        return self._batches(contexts, places)

    def _require_readable(self, tokens: int) -> None:
        if self.longest is not None and tokens > self.longest:
            raise InputError(f"A context of {tokens} tokens, but {self._path.name} reads {self.longest} at most.")

    def _batches(
        self, contexts: Sequence[Sequence[int]], places: dict[str, Place]
    ) -> Iterator[tuple[list[int], States]]:
        self._load(places)  # what does not fit by itself is no matter of batches
        waiting = cut([len(context) for context in contexts], self._fits)[::-1]
        while waiting:
            batch = waiting.pop()
            if len(batch) > 1 and not self._fits(len(batch), max(len(contexts[index]) for index in batch)):
                waiting += _halves(batch)
                continue
            try:
                states = self._run([contexts[index] for index in batch], places)
            except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
                self._require_divisible(batch, error)
                self._batch_tokens = len(batch) // 2 * len(contexts[batch[0]])
                waiting += _halves(batch)
                continue
            yield batch, states

    def _fits(self, rows: int, longest: int) -> bool:
        return rows * longest <= self._batch_tokens

    def _require_divisible(self, batch: list[int], error: Exception) -> None:
        """Go on with halves where memory was short, and say so; else raise what was raised."""
        is_short = isinstance(error, torch.OutOfMemoryError | MemoryError) or "can't allocate memory" in str(error)
        if not is_short or len(batch) == 1:
            raise error
        logger.warning("out of memory with a batch of %d contexts; going on with halves of it", len(batch))
        if torch.cuda.is_available():
            torch.cuda.empty_cache()

    @cached_property
    def _skeleton(self) -> nn.Module:
        """The decoder without weights, for the names of its modules."""
        return skeleton(self._config)

    def _place(self, hookpoint: str) -> Place:
        return place_of(self._skeleton, hookpoint)

    def _load(self, places: dict[str, Place]) -> None:
        """Have the decoder with all blocks that some places need; loads again where it had been cut shorter."""
        layers = [place.layer for place in places.values()]
        whole = self._config.get_text_config().num_hidden_layers
        depth = whole if None in layers else 1 + max(layer for layer in layers if layer is not None)
        if self._decoder is None or self._depth < depth:
            logger.info("loading %s up to block %d", self._path.name, depth - 1)
            decoder = decoder_of(self._model())
            where, _, last = blocks_of(decoder).rpartition(".")
            setattr(decoder.get_submodule(where), last, getattr(decoder.get_submodule(where), last)[:depth])
            self._decoder, self._depth = self._placed(decoder), depth

    def _model(self) -> Any:
        """The model with its head, on the CPU, or spread where it is to be."""
        if self._seed is not None:
            return random_model(self._config, self._dtype, self._seed)
        return load_model(AutoModelForCausalLM, self._path, self._dtype, "auto" if self._is_spread else None)

    @property
    def _is_spread(self) -> bool:
        return self._device == "auto" and self._seed is None

    def _placed(self, model: Any) -> Any:
        if self._device != "auto":
            return model.to(self._device)
        return model if self._is_spread else model.to("cuda:0" if torch.cuda.is_available() else "cpu")

    @cached_property
    def _whole(self) -> Any:
        """The model with its head and all of its blocks."""
        logger.info("loading %s with its head", self._path.name)
        return self._placed(self._model())

    def losses(
        self, contexts: Sequence[Sequence[int]], splice: Splice | None = None
    ) -> Iterator[tuple[list[int], Tensor]]:
        """Cross-entropy of each token given those before it, in nats; as `latentlake.protocols.Subject`.

        Batches are small: what the head gives has a number for each token of the vocabulary.

        Raises:
            InputError: a hookpoint that the model does not have.
        """
        places = {name: self._place(name) for name in (splice.reads, splice.writes)} if splice else {}
        most = max(1, min(self._batch_tokens, _LOGITS // (self.vocabulary or 1)))
        for batch in cut([len(context) for context in contexts], lambda rows, longest: rows * longest <= most):
            yield batch, self._losses([contexts[index] for index in batch], batch, splice, places)

    @torch.inference_mode()
    def _losses(
        self, contexts: Sequence[Sequence[int]], batch: list[int], splice: Splice | None, places: dict[str, Place]
    ) -> Tensor:
        model = self._whole
        tokens, is_token = padded(contexts)
        handles = self._splice(decoder_of(model), batch, splice, places, is_token) if splice else []
        try:
            tokens = tokens.to(model.get_input_embeddings().weight.device)
            logits = model(input_ids=tokens, use_cache=False).logits[:, :-1].float()
        finally:
            for handle in handles:
                handle.remove()
        losses = torch.nn.functional.cross_entropy(logits.mT, tokens[:, 1:].to(logits.device), reduction="none")
        return _end_to_end(torch.nn.functional.pad(losses, (1, 0), value=torch.nan)[..., None], is_token)[:, 0]

    @torch.inference_mode()
    def unembed(self, directions: Tensor) -> Tensor:
        """What directions [n, width] add to the logits: float64 [n, vocabulary], on the head's device; as
        `latentlake.protocols.Subject`. No block of the model runs.

        The norm takes each direction by itself and in single precision, as it is written for.
        """
        norm, weight = self._head
        lengths = directions.double().square().mean(1, keepdim=True).sqrt()
        scaled = (directions / lengths.clamp(min=torch.finfo(torch.float64).tiny)).to(weight.device, torch.float32)
        nothing = norm(torch.zeros_like(weight[:1], dtype=torch.float32))
        states = [norm(each) - nothing for each in torch.split(scaled, 1)]
        normed = torch.cat([nothing[:0], *states]).to(weight.device, torch.float64)
        rows = torch.split(weight, max(1, _WEIGHTS // weight.shape[1]))
        return torch.cat([normed @ some.double().T for some in rows], dim=1)

    @cached_property
    def _head(self) -> tuple[nn.Module, Tensor]:
        """The final norm, in single precision, and the unembedding [vocabulary, width]. Of a model that nothing else has loaded
        whole, the rest is let go of."""
        model = self.__dict__.get("_whole")
        if model is None:
            logger.info("loading the head of %s", self._path.name)
            model = self._model()
        decoder, head = decoder_of(model), model.get_output_embeddings()
        norm = deepcopy(decoder.get_submodule(final_norm_of(decoder)))
        return self._placed(norm.float()), self._placed(head).weight

    def prompted(self, prompts: Sequence[Sequence[int]], groups: Sequence[int]) -> Iterator[tuple[list[int], Prompted]]:
        """Prompts read up to their last tokens; as `latentlake.protocols.Subject`. Equal ones of a batch are read once.

        Raises:
            InputError: a prompt of no token, or one longer than the model reads; a model that keeps no keys and values.
        """
        require_able(self._skeleton, prompts)
        self._require_readable(max(map(len, prompts), default=0))
        return self._prompted(prompts, groups)

    def _prompted(
        self, prompts: Sequence[Sequence[int]], groups: Sequence[int]
    ) -> Iterator[tuple[list[int], Prompted]]:
        ends = ends_of(self._whole, self._tokenizer)
        steered = Steered(self._whole, self._place, ends, self._batch_tokens, self.longest)
        for batch in together(prompts, groups, steered.keeps):
            held = HookedPrompts(steered, [prompts[index] for index in batch])
            yield batch, held
            held.let_go()

    def _splice(
        self, decoder: nn.Module, batch: list[int], splice: Splice, places: dict[str, Place], is_token: Tensor
    ) -> list[Any]:
        """Hooks that put a splice into a pass; the caller removes them."""
        read: list[Tensor] = []
        is_one = splice.reads == splice.writes

        def change(padded: Tensor) -> Tensor:
            states = _end_to_end(padded, is_token)
            changed = splice.change(batch, states if is_one else read.pop(), states)
            rows = is_token.flatten().nonzero()[:, 0].to(padded.device)
            return padded.reshape(-1, padded.shape[-1]).index_copy(0, rows, changed.to(padded)).reshape(padded.shape)

        if is_one:
            return [replace(decoder, places[splice.writes], change)]
        keep = hook(decoder, places[splice.reads], lambda state: read.append(_end_to_end(state.clone(), is_token)))
        return [keep, replace(decoder, places[splice.writes], change)]

    @torch.inference_mode()
    def _run(self, contexts: Sequence[Sequence[int]], places: dict[str, Place]) -> States:
        decoder = self._decoder
        tokens, is_token = padded(contexts)
        seen: States = {}
        handles = [hook(decoder, place, _keeper(seen, name, len(places))) for name, place in places.items()]
        try:
            # Padding on the right is never attended to by what precedes it, and without a mask attention is faster.
            decoder(input_ids=tokens.to(decoder.get_input_embeddings().weight.device), use_cache=False)
        except _AllSeen:
            pass
        finally:
            for handle in handles:
                handle.remove()
        return {name: _end_to_end(state, is_token) for name, state in seen.items()}


class _AllSeen(Exception):  # noqa: N818 - no error: it ends a forward pass
    """Every hookpoint has given its state, and the rest of the pass is of no use."""


def _halves(batch: list[int]) -> list[list[int]]:
    """The second half, then the first: what is waiting is taken from the end."""
    middle = (len(batch) + 1) // 2
    return [batch[middle:], batch[:middle]]


def _keeper(seen: States, name: str, wanted: int) -> Callable[[Tensor], None]:
    def keep(state: Tensor) -> None:
        if len(seen) + 1 == wanted:
            seen[name] = state
            raise _AllSeen
        seen[name] = state.clone()  # some decoders go on in the same memory

    return keep


def _end_to_end(padded: Tensor, is_token: Tensor) -> Tensor:
    """[contexts, longest, width] → [tokens, width]; a view where nothing is padded."""
    padded = padded.reshape(*is_token.shape, -1)  # some families put contexts end to end within a block
    if bool(is_token.all()):
        return padded.flatten(0, 1)
    rows = is_token.flatten().nonzero()[:, 0]  # found on the host: a mask would make the device wait
    return padded.flatten(0, 1).index_select(0, rows.to(padded.device, non_blocking=True))
