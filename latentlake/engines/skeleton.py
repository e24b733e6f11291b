"""A model without weights: its modules and their shapes, out of the configuration alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from huggingface_hub.errors import StrictDataclassError
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM

from latentlake.engines.modules import Place, hook
from latentlake.errors import InputError


def config_of(path: Path) -> Any:
    """The configuration of a directory or a GGUF file.

    Raises:
        InputError: it is of no architecture that transformers knows.
    """
    try:
        if path.is_file():
            return AutoConfig.from_pretrained(path.parent, gguf_file=path.name, local_files_only=True)
        return AutoConfig.from_pretrained(path, local_files_only=True)
    except (OSError, ValueError, KeyError, StrictDataclassError) as error:
        raise InputError(
            f"Model {path}: unknown architecture: {error}. Name a model that this version of transformers can load."
        ) from error


def skeleton(config: Any) -> nn.Module:
    """The decoder that a configuration describes, on torch's device ``meta``: modules and shapes, and no numbers.

    Raises:
        InputError: it is no language model.
    """
    try:
        with torch.device("meta"):
            return decoder_of(AutoModelForCausalLM.from_config(config))  # type: ignore[no-untyped-call]
    except ValueError as error:
        raise InputError(f"unknown architecture: {config.model_type!r} is no causal language model: {error}") from error


def decoder_of(model: Any) -> nn.Module:
    """The part of a causal language model below its head.

    Raises:
        InputError: there is none.
    """
    decoder: nn.Module | None = model.get_decoder()
    if decoder is None or decoder is model:
        raise InputError(f"unknown architecture: a {type(model).__name__} has no decoder below its head")
    return decoder


def width_of(decoder: nn.Module, place: Place) -> int | None:
    """Width of what a place gives, seen in a pass without numbers; None where the model needs numbers to go that far."""
    seen: list[int] = []
    handle = hook(decoder, place, lambda state: seen.append(state.shape[-1]))
    try:
        tokens = torch.zeros((1, 2), dtype=torch.long, device="meta")
        mask = torch.ones((1, 1, 2, 2), dtype=torch.bool, device="meta")  # another one would be looked into
        decoder(input_ids=tokens, attention_mask=mask, use_cache=False)
    except (RuntimeError, ValueError):  # a branch that looks at values, or another kind of mask
        pass
    finally:
        handle.remove()
    return seen[0] if seen else None
