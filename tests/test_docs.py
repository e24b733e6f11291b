"""Links in README.md and docs/ lead somewhere, and the study reference says what the classes do."""

import re
from pathlib import Path

import pytest
from pydantic import BaseModel

from latentlake.registry import EXPLAINERS, SCORERS
from latentlake.sections.reference import markdown

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("**/*.md"))]
METHODS = [(kind, name) for kind in (EXPLAINERS, SCORERS) for name in kind.classes()]


def anchors(page: Path) -> set[str]:
    """What GitHub calls the headings of a page."""
    outside = re.sub(r"^```.*?^```", "", page.read_text(), flags=re.DOTALL | re.MULTILINE)
    headings = re.findall(r"^#+ (.*)$", outside, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_within_the_repository_lead_somewhere(page: Path) -> None:
    outside = re.sub(r"^```.*?^```", "", page.read_text(), flags=re.DOTALL | re.MULTILINE)
    for link in re.findall(r"\]\(([^)\s]+)\)", outside):
        if "://" not in link:
            path, _, anchor = link.partition("#")
            target = page.parent / path if path else page
            assert target.exists(), link
            assert not anchor or anchor in anchors(target), link


@pytest.mark.parametrize(("kind", "name"), METHODS, ids=lambda each: getattr(each, "kind", each))
def test_the_reference_has_each_method_with_its_keys(kind: object, name: str) -> None:
    model: type[BaseModel] = kind[name]  # type: ignore[index]
    section = markdown().split(f"### {kind.kind}s: {name}\n")[1].split("\n### ")[0]  # type: ignore[attr-defined]
    table = section.split("|---|---|---|\n")[1].split("\n\n")[0]
    assert re.findall(r"^\| `(\w+)`", table, re.MULTILINE) == list(model.model_fields)


def test_required_is_what_no_section_goes_without() -> None:
    page = markdown()
    assert '| `dtype` | `float32` or `bfloat16` or `float16` | `"float32"` |' in page
    assert "| `documents` | whole number (at least 1) or null | `null` |" in page
    assert "| `sample` | one of `samples` of the split score | *required* |" in page


def test_messages_that_are_explained_are_those_of_the_code() -> None:
    def plain(text: str) -> str:
        return re.sub(r"[\W_]+", " ", re.sub(r"\{[^{}]*\}", " ", text))

    table = (ROOT / "docs" / "troubleshooting.md").read_text().split("|---|---|---|\n")[1].split("\n\n")[0]
    said = [
        part
        for row in table.splitlines()
        for each in re.findall(r"`([^`]+)`", row.split("|")[1])
        for part in each.split("…")
    ]
    # strings that Python joins stand on several lines
    code = [path.read_text() for path in sorted((ROOT / "latentlake").glob("**/*.py"))]
    whole = " ".join(plain(re.sub(r'"\s*\n\s*f?"', "", text)) for text in code)
    assert len(said) > 15
    assert [part for part in said if plain(part).strip() not in whole] == []
