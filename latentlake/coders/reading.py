"""Reading checkpoints that are not trusted: tensors and configurations out of files, with one clear error for each fault.

Nothing is ever unpickled but tensors and plain values.
"""

from __future__ import annotations

import json
import struct
import warnings
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from latentlake.errors import InputError, nearest

if TYPE_CHECKING:
    from torch import Tensor


# what reading raises where bytes are missing or others than they were
_DAMAGED = (ValueError, TypeError, LookupError, RuntimeError, AssertionError, EOFError, OSError, zipfile.BadZipFile)


_HUGE = 1e38  # beyond it a float32 is infinite


class Tensors:
    """The tensors of one file, by name. ``names``: all of them."""

    def __init__(self, file: Path, tensors: Mapping[str, Tensor]) -> None:
        self.file = file
        self._tensors = tensors

    @property
    def names(self) -> set[str]:
        """Names of all tensors."""
        return set(self._tensors)

    def shape(self, name: str) -> tuple[int, ...]:
        """Shape of a tensor.

        Raises:
            InputError: there is no such tensor.
        """
        return tuple(self._named(name).shape)

    def length(self, name: str) -> int:
        """Length of a vector.

        Raises:
            InputError: there is no such tensor, or it is no vector.
        """
        shape = self.shape(name)
        if len(shape) != 1:
            raise InputError(f"{self.file}: tensor {name} is {list(shape)}; it must be a vector. Is it of this format?")
        return shape[0]

    def take(self, name: str, *shape: int) -> Tensor:
        """A tensor of floating-point numbers of a shape.

        Raises:
            InputError: it is missing, of another shape or type, or holds NaN or infinity.
        """
        import torch

        tensor = self._named(name)
        if not tensor.is_floating_point() or tensor.element_size() < 2:
            raise InputError(f"{self.file}: tensor {name} is {tensor.dtype}; it must be float16, bfloat16, 32 or 64.")
        if tuple(tensor.shape) != shape:
            turned = " It is transposed." if tuple(tensor.shape) == shape[::-1] else ""
            raise InputError(
                f"{self.file}: tensor {name} is {list(tensor.shape)} where the configuration and the other tensors ask for "
                f"{list(shape)}.{turned} Fetch the checkpoint again, or name its format in the study."
            )
        # of which one is not finite, if any is, and which need no tensor of their own
        if tensor.numel() and not bool(torch.stack(tensor.aminmax()).isfinite().all()):
            raise InputError(f"{self.file}: tensor {name} holds NaN or infinity. Fetch the checkpoint again.")
        return tensor

    def maybe(self, name: str, *shape: int) -> Tensor | None:
        """The same for a tensor that may be missing."""
        return self.take(name, *shape) if name in self._tensors else None

    def number(self, name: str) -> float:
        """A tensor of one number.

        Raises:
            InputError: it is missing, or of several.
        """
        tensor = self._named(name)
        if tensor.numel() != 1:
            raise InputError(f"{self.file}: tensor {name} is {list(tensor.shape)}; it must be one number.")
        return float(tensor.float())

    def _named(self, name: str) -> Tensor:
        if name not in self._tensors:
            raise InputError(f"{self.file} has no tensor {name}{nearest(name, self._tensors)}. Is it of this format?")
        return self._tensors[name]


def read_safetensors(file: Path) -> Tensors:
    """The tensors of a safetensors file whose size agrees with its header.

    Raises:
        InputError: there is no such file, or it is cut short or damaged.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    _require(file)
    size, whole = file.stat().st_size, _stated_size(file)
    if size != whole:
        raise InputError(f"{file} has {size:,} bytes where its header says {whole:,}. Fetch it again.")
    try:
        return Tensors(file, load_file(file))
    except SafetensorError as error:
        raise InputError(f"{file} is damaged ({error}). Fetch it again.") from error


def _stated_size(file: Path) -> int:
    """Bytes of a safetensors file, as its header has them."""
    try:
        with file.open("rb") as opened:
            (length,) = struct.unpack("<Q", opened.read(8))
            header = json.loads(opened.read(min(length, file.stat().st_size)))
        header.pop("__metadata__", None)
        return int(8 + length + max((tensor["data_offsets"][1] for tensor in header.values()), default=0))
    except (struct.error, ValueError, LookupError, AttributeError, TypeError) as error:
        raise InputError(f"{file} is cut short or damaged: its header cannot be read. Fetch it again.") from error


def read_npz(file: Path) -> Tensors:
    """The arrays of an ``.npz`` file.

    Raises:
        InputError: there is no such file, it is cut short or damaged, or holds Python objects.
    """
    import numpy as np
    import torch

    _require(file)
    try:
        with file.open("rb") as opened, np.load(opened, allow_pickle=False) as arrays:
            return Tensors(file, {name: torch.from_numpy(np.asarray(arrays[name])) for name in arrays.files})
    except (*_DAMAGED, zlib.error) as error:
        raise InputError(f"{file} is no file of arrays alone, or cut short ({error}). Fetch it again.") from error


def read_pt(file: Path) -> tuple[Tensors, dict[str, Any]]:
    """The tensors of a file that ``torch.save`` wrote, and what else stands beside them.

    Raises:
        InputError: there is no such file, it is cut short, or unpickling it would run code.
    """
    import pickle

    import torch

    _require(file)
    with file.open("rb") as opened:
        if opened.read(2) not in (b"PK", b"\x80\x02"):
            raise InputError(f"{file} is cut short, or no file that torch.save wrote. Fetch it again.")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of damaged files, about what they seem to be
            found = torch.load(file, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise InputError(
            f"{file} holds more than tensors and plain values, and is not loaded, since that could run any code. Ask for the "
            "weights as safetensors."
        ) from error
    except (*_DAMAGED, AttributeError, struct.error) as error:
        raise InputError(f"{file} is cut short or damaged ({error}). Fetch it again.") from error
    if not isinstance(found, dict):
        raise InputError(f"{file} holds a {type(found).__name__}, not tensors by name. Is it a sparse coder?")
    tensors = {str(name): each.detach() for name, each in found.items() if isinstance(each, torch.Tensor)}
    return Tensors(file, tensors), {str(name): each for name, each in found.items() if str(name) not in tensors}


class Config:
    """A configuration in JSON, or a section of one, which messages call ``within``."""

    def __init__(self, file: Path, values: Mapping[str, Any], within: str = "") -> None:
        self.file, self._values, self._within = file, values, within

    def get(self, name: str, default: Any = None) -> Any:
        """A value that may be missing; null counts as missing."""
        value = self._values.get(name)
        return default if value is None else value

    def __getitem__(self, name: str) -> Any:
        value = self._values.get(name)
        if value is None:
            raise InputError(
                f"{self.file} does not state {self._within + name!r}{nearest(name, self._values)}. Is it of this format?"
            )
        return value

    def whole(self, name: str, least: int = 1) -> int:
        """A whole number.

        Raises:
            InputError: it is missing, no whole number, or below ``least``.
        """
        value = self[name]
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            raise InputError(
                f"{self.file}: {self._within}{name} = {value!r}; it must be a whole number, {least} or more."
            )
        return value

    def number(self, name: str) -> float:
        """A finite number.

        Raises:
            InputError: it is missing, or none.
        """
        value = self[name]
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        if not is_number or not -_HUGE < value < _HUGE:
            raise InputError(f"{self.file}: {self._within}{name} = {value!r}; it must be a finite number.")
        return float(value)

    def text(self, name: str) -> str | None:
        """Some words, or nothing.

        Raises:
            InputError: it is something else.
        """
        value = self.get(name)
        if value is not None and not isinstance(value, str):
            raise InputError(f"{self.file}: {self._within}{name} = {value!r}; it must be text.")
        return value

    def flag(self, name: str, default: bool = False) -> bool:
        """True or false.

        Raises:
            InputError: it is neither.
        """
        value = self.get(name, default)
        if not isinstance(value, bool):
            raise InputError(f"{self.file}: {self._within}{name} = {value!r}; it must be true or false.")
        return value

    def section(self, name: str) -> Config:
        """A mapping within, empty where it is missing."""
        value = self.get(name, {})
        if not isinstance(value, dict):
            raise InputError(f"{self.file}: {self._within}{name} = {value!r}; it must be a mapping.")
        return Config(self.file, value, f"{self._within}{name}.")

    def choice(self, name: str, supported: Mapping[str, Any] | tuple[str, ...], default: str | None = None) -> str:
        """One of some words, whatever their case.

        Raises:
            InputError: another one; the message lists those that are supported.
        """
        value = str(self[name] if default is None else self.get(name, default)).lower()
        if value not in supported:
            raise InputError(
                f"{self.file}: {self._within}{name} {value!r} is not supported; supported are {', '.join(supported)}."
            )
        return value

    def refuse(self, name: str, why: str) -> None:
        """Refuse a configuration in which something is given that is not false."""
        if self.get(name, False) is not False:
            raise InputError(f"{self.file}: {self._within}{name} = {self.get(name)!r} is not supported: {why}")


def read_json(file: Path) -> Config:
    """A configuration.

    Raises:
        InputError: there is no such file, or it holds no JSON mapping.
    """
    _require(file)
    try:
        values = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise InputError(f"{file} is not JSON ({error}). Fetch the checkpoint again.") from error
    if not isinstance(values, dict):
        raise InputError(f"{file} holds no mapping. Is it a checkpoint's configuration?")
    return Config(file, values)


def require_k(k: int, width: int, where: Path | str) -> int:
    """Refuse to choose no latents, or more than there are."""
    if not 0 < k <= width:
        raise InputError(f"{where}: k = {k} is not between 1 and the {width:,} latents.")
    return k


def _require(file: Path) -> None:
    if not file.is_file():
        raise InputError(f"No sparse coder at {file.parent}: it has no {file.name}. Correct the path.")
