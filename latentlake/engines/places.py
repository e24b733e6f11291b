"""Where in the suffix of a call something is read: the places that its sampling names by what stands before them."""

from __future__ import annotations

import re

from latentlake.errors import InputError
from latentlake.protocols import Call, Choose, Generate, Sampling, Score


def reads_prompt(sampling: Sampling) -> bool:
    """Whether log-probabilities of a prompt's own tokens, or of others in their place, are wanted."""
    return isinstance(sampling, Score) or (isinstance(sampling, Choose) and bool(sampling.after))


def places_of(call: Call) -> list[int]:
    """Characters of the suffix before the places where something is read: all places of a choice, where a score begins.

    Raises:
        InputError: the suffix has no such place.
    """
    sampling = call.sampling
    if isinstance(sampling, Generate) or not sampling.after:
        return [0 if isinstance(sampling, Score) else len(call.suffix)]
    if isinstance(sampling, Score):
        ends = [found + len(sampling.after)] if (found := call.suffix.rfind(sampling.after)) >= 0 else []
    else:
        ends = [each.end() for each in re.finditer(re.escape(sampling.after), call.suffix)]
    if not ends:
        raise InputError(
            f"A prompt ends in {call.suffix[-60:]!r}, which has no {sampling.after!r}, after which something is to be read. "
            "Correct the prompt."
        )
    return ends
