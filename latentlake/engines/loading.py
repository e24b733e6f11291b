"""Loading a Hugging Face directory: from the disk only, in the asked dtype, with one message where it fails."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer
from transformers.utils.logging import disable_progress_bar

from latentlake.errors import InputError

_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
_hide_progress: Callable[[], None] = disable_progress_bar


def load_model(auto_class: Any, path: Path, dtype: str, device_map: str | None = None) -> Any:
    """The model of a directory, in evaluation mode: on the CPU, or spread as ``device_map`` says.

    Raises:
        InputError: an unknown dtype, or files that are not such a model.
    """
    if dtype not in _DTYPES:
        raise InputError(f"Model {path}: unknown dtype {dtype!r}. Use one of {', '.join(_DTYPES)}.")
    _hide_progress()
    try:
        model = auto_class.from_pretrained(path, dtype=_DTYPES[dtype], device_map=device_map, local_files_only=True)
    except (OSError, ValueError) as error:
        raise InputError(f"Model {path} cannot be loaded: {error}. Check that its files are complete.") from error
    return model.eval()


def random_model(config: Any, dtype: str, seed: int) -> Any:
    """A causal language model of a configuration with weights as before training, drawn anew by the seed, in evaluation mode."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model: Any = AutoModelForCausalLM.from_config(config)  # type: ignore[no-untyped-call]
    return model.to(_DTYPES[dtype]).eval()


def load_tokenizer(path: Path) -> Any:
    """The tokenizer of a directory.

    Raises:
        InputError: there is none.
    """
    try:
        return AutoTokenizer.from_pretrained(path, local_files_only=True)
    except (OSError, ValueError) as error:
        raise InputError(f"Model {path} has no tokenizer that loads: {error}.") from error
