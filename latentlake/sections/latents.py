"""The study's sections on latents: what is kept of them, and which are explained."""

from typing import Annotated, Literal

from pydantic import Field

from latentlake.choices import Choices, Positive


class Storage(Choices):
    """How exactly activations are kept. ``precision``: rounded to 11 significant bits, as float16 has them but of any size
    (``half``), or to 8 (``bfloat16``), which takes a sixth less room.
    """

    precision: Literal["half", "bfloat16"] = "half"


SplitName = Literal["explain", "select", "score"]


class Selection(Choices):
    """What a latent must have to be explained: in each split, ``min_windows`` windows where it fires.

    ``window``: tokens of a window, for samples that name no other length; none may be shorter. So many tokens in a row have
    one place in the corpus, and what one split holds of them no other does.
    """

    window: Positive = 32
    min_windows: dict[SplitName, Annotated[int, Field(ge=0)]] = {"explain": 20, "select": 10, "score": 10}


class Neighbours(Choices):
    """Which latents of a dictionary are near to one another. ``k``: how many of each kind are kept: nearest by decoder
    direction, by encoder direction, and those that fire on the same tokens most.
    """

    k: Annotated[int, Field(ge=1, le=1000)] = 10


class Logits(Choices):
    """What latents promote. ``k``: of how many tokens the logits are kept, of those that a latent's decoder direction promotes
    most, and of those that it suppresses most.
    """

    k: Annotated[int, Field(ge=1, le=1000)] = 20
