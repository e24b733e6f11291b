"""What some coders do to inputs before they encode them, and undo to what they decode."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from torch import Tensor


class Scaling(Protocol):
    """A map of inputs [n, d_in] to the space in which a coder was trained, and back for outputs [n, d_out]."""

    def __call__(self, inputs: Tensor) -> Tensor:
        """Inputs as the encoder takes them."""
        ...

    def undo(self, outputs: Tensor, inputs: Tensor) -> Tensor:
        """What the decoder gave, as the model has it. ``inputs``: the ones that were encoded, as they came."""
        ...


@dataclass(frozen=True)
class Constant:
    """One factor for all inputs, and one by which outputs are divided (1, 1: nothing is done)."""

    inputs: float = 1.0
    outputs: float = 1.0

    def __call__(self, inputs: Tensor) -> Tensor:
        """Times the factor."""
        return inputs if self.inputs == 1 else inputs * self.inputs

    def undo(self, outputs: Tensor, inputs: Tensor) -> Tensor:
        """Divided by the factor of outputs."""
        return outputs if self.outputs == 1 else outputs / self.outputs


@dataclass(frozen=True)
class LayerNorm:
    """Each input less its mean, divided by its standard deviation (of n - 1) plus ``eps``, as OpenAI's coders have it."""

    eps: float = 1e-5

    def __call__(self, inputs: Tensor) -> Tensor:
        """Of mean 0 and standard deviation 1."""
        return (inputs - inputs.mean(-1, keepdim=True)) / (inputs.std(-1, keepdim=True) + self.eps)

    def undo(self, outputs: Tensor, inputs: Tensor) -> Tensor:
        """Times the standard deviation of the input, plus its mean; ``eps`` is not undone."""
        return outputs * inputs.std(-1, keepdim=True) + inputs.mean(-1, keepdim=True)


@dataclass(frozen=True)
class OneWay:
    """Another scaling of inputs, with outputs left as they are: SAELens' transcoders, whose outputs are of another place."""

    scaling: Scaling

    def __call__(self, inputs: Tensor) -> Tensor:
        """As the other does."""
        return self.scaling(inputs)

    def undo(self, outputs: Tensor, inputs: Tensor) -> Tensor:
        """Nothing."""
        return outputs


@dataclass(frozen=True)
class UnitNorm:
    """Each input scaled to the norm √d_in; outputs are scaled back by the same factor."""

    def __call__(self, inputs: Tensor) -> Tensor:
        """Of norm √d_in."""
        return inputs * self._factor(inputs)

    def undo(self, outputs: Tensor, inputs: Tensor) -> Tensor:
        """Scaled back."""
        return outputs / self._factor(inputs)

    def _factor(self, inputs: Tensor) -> Tensor:
        factor: Tensor = inputs.shape[-1] ** 0.5 / inputs.norm(dim=-1, keepdim=True)
        return factor
