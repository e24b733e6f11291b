"""The section of a study on comparisons: which dictionaries are held against one another, and how."""

from collections.abc import Mapping
from itertools import combinations
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from latentlake.choices import Choices, Name, Refers
from latentlake.sections.dictionaries import NEURONS

BETWEEN = "-"  # of a pair's two names, in which it does not occur


class Comparison(Choices):
    """Which latents of one dictionary are which of another, one to one, for each two ``dictionaries`` (None: of all that can be
    compared so), and for the ``pairs`` that are named beside them or alone.

    ``by``: the cosines of decoder directions, and apart from these of encoder directions (``directions``), which must be of one
    space; or the tokens on which both fire, as a share of those on which either does (``activations``), which any two have.
    A pair of latents is shared where decoder and encoder give the same partner, at a cosine of ``shared`` or more each.

    Up to ``exact`` latents of either side the sum of cosines is made largest over all pairs. Beyond, and of activations, only
    the ``candidates`` nearest of each latent are considered, and of these what lies above ``least`` (None: a cosine of .5, a
    share of .1).

    ``explainers``: whose explanations of aligned latents are compared, by the vectors that ``search`` makes of them; None: all
    of them where the study has `search`, or else none.
    """

    dictionaries: Annotated[tuple[Name, ...] | None, Refers("dictionaries")] = None
    pairs: tuple[tuple[Name, Name], ...] = ()
    by: Literal["directions", "activations"] = "directions"
    exact: Annotated[int, Field(ge=0)] = 16_384
    candidates: Annotated[int, Field(ge=1, le=1000)] = 10
    least: Annotated[float, Field(ge=0, lt=1)] | None = None
    shared: Annotated[float, Field(gt=0, le=1)] = 0.7
    explainers: Annotated[tuple[Name, ...] | None, Refers("explainers")] = None

    @field_validator("pairs")
    @classmethod
    def _are_two(cls, pairs: tuple[tuple[str, str], ...]) -> tuple[tuple[str, str], ...]:
        same = [one for one, other in pairs if one == other]
        if same:
            raise ValueError(f"{same[0]!r} is compared with itself; name another dictionary beside it")
        return pairs

    @model_validator(mode="after")
    def _compares(self) -> "Comparison":
        if self.dictionaries is not None and len(set(self.dictionaries)) < 2 and not self.pairs:
            raise ValueError(f"{list(self.dictionaries)} are not two dictionaries, which a comparison needs")
        return self


def pairs_of(comparison: Mapping[str, Any], dictionaries: Mapping[str, Mapping[str, Any]]) -> tuple[str, ...]:
    """The pairs of a comparison, ``a-b`` with the names in the order of the alphabet: each once, in whatever order the study has
    them. Both sections as the study's JSON has them."""
    named, chosen = comparison["dictionaries"], comparison["pairs"]
    if named is None:
        named = [] if chosen else [name for name, each in dictionaries.items() if is_comparable(comparison["by"], each)]
    both = {*combinations(sorted(set(named)), 2), *(tuple(sorted(pair)) for pair in chosen)}
    return tuple(BETWEEN.join(pair) for pair in sorted(both))


def is_comparable(by: str, dictionary: Mapping[str, Any]) -> bool:
    """Whether a dictionary has what is compared: rules have no directions, and those of neurons are none."""
    return by == "activations" or (dictionary["planted"] is None and dictionary["coder"] != NEURONS)
