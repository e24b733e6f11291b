"""Windows as text in which the tokens that matter are marked."""

from collections.abc import Sequence


def mark(pieces: Sequence[str], activations: Sequence[float], threshold: float, left: str, right: str) -> str:
    """A window's text with delimiters around each run of tokens whose activation is at least ``threshold``."""
    text, is_open = "", False
    for piece, activation in zip(pieces, activations, strict=True):
        is_active = activation >= threshold and activation > 0
        if is_active != is_open:
            lead = piece[: len(piece) - len(piece.lstrip())] if is_active else ""
            text += lead + left if is_active else right
            piece = piece[len(lead) :]
        text, is_open = text + piece, is_active
    return text + (right if is_open else "")


def marked_words(pieces: Sequence[str], activations: Sequence[float], threshold: float) -> list[str]:
    """The texts of the runs of tokens that `mark` would mark, each once, in order."""
    text = mark(pieces, activations, threshold, "\x02", "\x03")
    runs = [part.split("\x03")[0].strip() for part in text.split("\x02")[1:]]
    return list(dict.fromkeys(run for run in runs if run))
