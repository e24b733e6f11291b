"""Windows as text in which the tokens that matter are marked."""

from collections.abc import Iterator, Sequence
from itertools import groupby, pairwise


def pieces_of(text: str, offsets: Sequence[int]) -> list[str]:
    """The text of each token of a window. ``offsets``: where they begin in its text."""
    return [text[begin:end] for begin, end in pairwise([*offsets, len(text)])]


def mark(pieces: Sequence[str], activations: Sequence[float], threshold: float, left: str, right: str) -> str:
    """A window's text with delimiters around each run of tokens whose activation is at least ``threshold``."""
    text = ""
    for is_active, run in _runs(pieces, activations, threshold):
        lead = run[: len(run) - len(run.lstrip())]
        text += f"{lead}{left}{run[len(lead) :]}{right}" if is_active and run.strip() else run
    return text


def marked_words(pieces: Sequence[str], activations: Sequence[float], threshold: float) -> list[str]:
    """The texts of the runs of tokens that `mark` would mark, each once, in order."""
    runs = (run.strip() for is_active, run in _runs(pieces, activations, threshold) if is_active)
    return list(dict.fromkeys(run for run in runs if run))


def _runs(pieces: Sequence[str], activations: Sequence[float], threshold: float) -> Iterator[tuple[bool, str]]:
    """Texts of the longest runs of tokens that are all active, or all not."""
    tokens = zip(pieces, activations, strict=True)
    for is_active, run in groupby(tokens, key=lambda token: token[1] >= threshold and token[1] > 0):
        yield is_active, "".join(piece for piece, _ in run)
