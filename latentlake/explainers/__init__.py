"""Explainers: one file each, with one registered class that holds its settings and writes hypotheses.

What belongs here: how windows and statistics of a latent become explanations. What does not: choosing windows
(``stages/examples.py``), the texts shown to a model (``prompts/``), running it (``engines/``), writing tables.

To add one: a file with a subclass of `Explainer`, registered in `latentlake.registry.EXPLAINERS`.
"""

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, NamedTuple

from latentlake.choices import Choices
from latentlake.sources import Source

if TYPE_CHECKING:
    from latentlake.work import Work


@dataclass(frozen=True)
class Hypothesis:
    """A possible explanation of a latent. ``selection``: what it was chosen by, None where there was no choice.

    ``from_dictionary``, ``from_latent``: whose it is, where it is another latent's. ``provenance``: who said it, where people
    did.
    """

    source: str
    explanation: str | None
    error: str | None = None
    call: str | None = None
    selection: float | None = None
    from_dictionary: str | None = None
    from_latent: int | None = None
    provenance: str | None = None


class Lender(NamedTuple):
    """Whose explanations an explainer borrows: those that another gives of a dictionary, along the alignments of a comparison.
    None for these two: those that it gives of the same dictionary, along ``neighbours``."""

    comparison: str | None
    dictionary: str | None
    explainer: str


class Explainer(Choices):
    """The settings of an explainer, and what it does.

    ``version``: raised by hand whenever the same settings would give other hypotheses. ``source``: what it is taken from.
    ``reads``: stages that it reads beside `latents` and its samples, named like the sections of the study that ask for them.
    """

    version: ClassVar[str]
    source: ClassVar[Source | None] = None
    reads: ClassVar[tuple[str, ...]] = ()
    method: str

    @property
    def most_calls(self) -> int:
        """Model calls for one latent, at most."""
        return 0

    @property
    def lender(self) -> Lender | None:
        """Whose explanations it borrows, where it does."""
        return None

    @abstractmethod
    def explain(self, work: "Work", latents: Sequence[int]) -> Mapping[int, Sequence[Hypothesis]]:
        """Hypotheses for each latent.

        The one that becomes the explanation is the one with the highest ``selection``, of equals the first; a latent
        all of whose hypotheses failed has no explanation.
        """
