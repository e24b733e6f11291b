"""Python that stands in pages, run as a reader would paste it."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
_PYTHON = re.compile(r"^```python\n(.*?)^```", re.DOTALL | re.MULTILINE)
_ROWS = re.compile(r"shape: \((\d+),|RangeIndex: (\d+) entries")  # of Polars, and of pandas


def fences(page: str) -> list[str]:
    """The snippets of a page, in order."""
    return _PYTHON.findall((ROOT / page).read_text())


def by_heading(page: str) -> dict[str, str]:
    """The snippets of a page in which each has a heading of its own."""
    sections = re.split(r"^#+ (.*)\n", (ROOT / page).read_text(), flags=re.MULTILINE)
    found = {heading: _PYTHON.findall(text) for heading, text in zip(sections[1::2], sections[2::2], strict=True)}
    assert all(len(snippets) <= 1 for snippets in found.values())
    return {heading: snippets[0] for heading, snippets in found.items() if snippets}


def run(snippet: str, capsys: pytest.CaptureFixture[str]) -> dict[str, object]:
    """Run a snippet, which is to print frames, none of them empty; returns its variables."""
    names: dict[str, object] = {}
    exec(snippet, names)
    rows = [int(one or other) for one, other in _ROWS.findall(capsys.readouterr().out)]
    assert rows
    assert all(rows)
    return names
