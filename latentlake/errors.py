"""The exceptions of latentlake.

    LatentlakeError
    ├── StudyError        the study file says something that cannot be
    ├── InputError        a corpus file, a checkpoint or a model is not what it should be
    ├── LakeError         the lake cannot be read or written
    │   └── SupersededError    another run began the same partition later
    ├── EngineError       a model server cannot be used as it is
    ├── BudgetError       the study's budget does not allow the next model calls
    └── StudyChangedError      the study was edited after this process had read it

Each message says what is wrong, where, and what to do. The command line prints it as one line.
"""

from collections.abc import Iterable
from difflib import get_close_matches


class LatentlakeError(Exception):
    """Anything that latentlake refuses to do, with the reason and the remedy."""


class StudyError(LatentlakeError):
    """The study file is not valid."""


class InputError(LatentlakeError):
    """A corpus file, a checkpoint or a model cannot be used."""


class LakeError(LatentlakeError):
    """The lake cannot be read or written."""


class SupersededError(LakeError):
    """Another run began the same partition later."""


class EngineError(LatentlakeError):
    """A model server cannot be used as it is: not there, not ours, or not what it is taken for."""


class BudgetError(LatentlakeError):
    """The study's budget does not allow the next model calls."""


class StudyChangedError(LatentlakeError):
    """The study was edited after this process had read it."""


def nearest(name: str, names: Iterable[str], n: int = 3) -> str:
    """The names most like ``name``, as the end of a message; all of them where few, none where none is like it."""
    known = sorted(set(names))
    close = get_close_matches(name, known, n=n, cutoff=0.5) or (known if len(known) <= 8 else [])
    return f" (did you mean {', '.join(repr(each) for each in close)}?)" if close else ""
