"""Windows as text in which the tokens that matter are marked."""

from collections.abc import Iterator, Sequence
from itertools import groupby, pairwise


def pieces_of(text: str, offsets: Sequence[int]) -> list[str]:
    """The text of each token of a window. ``offsets``: where they begin in its text."""
    return [text[begin:end] for begin, end in pairwise([*offsets, len(text)])]


def in_a_line(text: str) -> str:
    """A text in one line, so that nothing in it looks like a part of the prompt around it."""
    return " ".join(text.split())


def mark(pieces: Sequence[str], activations: Sequence[float], threshold: float, left: str, right: str) -> str:
    """A window's text with delimiters around each run of tokens whose activation is at least ``threshold``.

    Delimiters that are in the text itself are broken by a space, so that what looks like a mark is one.
    """
    atoms = []
    for is_active, run in _runs(pieces, activations, threshold):
        lead = run[: len(run) - len(run.lstrip())]
        lead, rest = (_broken(_broken(each, left), right) for each in (lead, run[len(lead) :]))
        atoms += [lead, left, rest, right] if is_active and run.strip() else [lead, rest]
    text = ""
    for atom in atoms:  # of the same characters in a row, some being text, it could not be told which are a delimiter
        meets = text[-1:] == atom[:1] and atom[:1] in (left[:1], right[:1])
        text += f" {atom}" if meets else atom
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


def _broken(text: str, delimiter: str) -> str:
    """A text without the delimiter: a space in the midst of each."""
    while delimiter in text:
        text = text.replace(delimiter, f"{delimiter[:1]} {delimiter[1:]}")
    return text
