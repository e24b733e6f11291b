"""In which order calls are asked."""

from collections.abc import Sequence

from latentlake.protocols import Call


def together(calls: Sequence[Call]) -> list[int]:
    """Indices of calls such that those that share what comes before their suffix follow one another, in order of first
    appearance: engines keep what they read last."""
    first: dict[tuple[object, str], int] = {}
    for index, call in enumerate(calls):
        first.setdefault((call.chat, call.prefix), index)
    return sorted(range(len(calls)), key=lambda index: first[calls[index].chat, calls[index].prefix])
