"""One Parquet file of a study, a row a latent and explanation, with scores and statistics: ``STUDY.parquet``.

The columns say in their metadata what they hold, and the file's metadata (key ``latentlake``) what it was made from.
"""

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

from latentlake.errors import InputError
from latentlake.exports import Entry, Form
from latentlake.exports.given import Given
from latentlake.exports.rows import EXPLANATIONS, Files, explanations, read
from latentlake.registry import EXPORTS


@EXPORTS.register("parquet")
class Parquet(Form):
    """A latent that nothing explained has one row, without an explainer."""

    title = "Parquet"

    def write(self, given: Given, folder: Path) -> None:
        """The file."""
        with ExitStack() as stack:
            files = Files(given, EXPLANATIONS, stack)
            for part in given.parts():
                files.add(folder / f"{given.choices['name']}.parquet", explanations(part))

    def read(self, path: Path) -> Iterator[Entry]:
        """A file, or those of a folder."""
        files = [path] if path.is_file() else sorted(path.glob("*.parquet"))
        if not files:
            raise InputError(f"{path} holds no Parquet file; name the file or its folder")
        for file in files:
            yield from read(file)
