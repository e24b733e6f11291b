"""The Hugging Face hub: which commit a name means, and a repository's files. Imports its client when it is first needed."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from latentlake.errors import InputError


def snapshot(repository: str, revision: str | None, patterns: Sequence[str], what: str = "Model") -> Path:
    """The folder of a model repository's files that match, fetched once; it is named by the commit and does not change.

    Raises:
        InputError: the hub does not give it.
    """
    from huggingface_hub import snapshot_download

    with _answered(f"{what} {repository!r}", revision):
        return Path(snapshot_download(repository, revision=revision, allow_patterns=list(patterns)))


def dataset_commit(repository: str, revision: str | None) -> str:
    """The commit that a revision of a data set means now.

    Raises:
        InputError: the hub does not say.
    """
    from huggingface_hub import HfApi

    with _answered(f"The data set {repository!r}", revision):
        return str(HfApi().dataset_info(repository, revision=revision).sha)


@contextmanager
def _answered(what: str, revision: str | None) -> Iterator[None]:
    from huggingface_hub import errors

    # of the HTTP library: which one it is has changed with the client's version
    unreachable: type[Exception] = errors.HTTPError  # type: ignore[attr-defined]
    try:
        yield
    except (OSError, ValueError, unreachable) as error:
        raise InputError(
            f"{what} is no path here, and the hub does not give it at revision {revision or 'main'!r}: {error}. Correct the "
            "name, log in with `hf auth login` where it is gated, and set HF_HUB_OFFLINE=0 to ask the hub."
        ) from error
