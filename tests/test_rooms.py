"""The rooms of the house stay apart: what each may import."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
OURS = {"assets", "definitions", "jobs", "latentlake", "resources"}


def core(names: str) -> list[str]:
    """Modules and rooms of the core."""
    return [f"latentlake.{name}" for name in names.split()]


# room (longest prefix of a module's path wins) → what it may import of ours, by prefix
MAY_IMPORT = {
    "latentlake/calls": core(
        "calls digest engines.wire errors execute flow lake origins plan protocols reading.view scorers "
        "sections stages study tables work"
    ),
    "latentlake/charts": core("charts console measures scorers"),
    "latentlake/choices": [],
    "latentlake/coders": core("coders digest errors hub protocols registry sections.dictionaries"),
    "latentlake/coders/formats": core("coders errors registry"),
    "latentlake/corpora": core("corpora digest errors files hub registry sections.corpus"),
    "latentlake/digest": [],
    "latentlake/engines": core("engines errors files hookpoints hub protocols registry"),
    "latentlake/errors": [],
    "latentlake/explainers": core(
        "choices explainers marking measures.metrics protocols registry sections.comparisons sources work"
    ),
    "latentlake/explorer": core(
        "calls.costs catalog charts console errors explorer measures.aggregates measures.agreement "
        "measures.leaderboard pages protocols reading.results reading.search reading.trace reading.view registry scorers"
    ),
    "latentlake/exports": core(
        "corpora.opening digest errors exports hookpoints marking measures.metrics reading.results registry "
        "scorers tables work"
    ),
    "latentlake/fetching": core("protocols"),
    "latentlake/files": core("errors"),
    "latentlake/flow": core("choices digest errors explainers scorers sections study tables"),
    "latentlake/hookpoints": [],
    "latentlake/hub": core("errors"),
    "latentlake/keeping": core("calls.ledger catalog digest errors files flow keeping lake reading.view tables"),
    "latentlake/lake": core("digest errors tables"),
    "latentlake/measures": core(
        "digest errors measures reading.results reading.view registry scorers sections.comparisons tables"
    ),
    "latentlake/measures/correlation": core("measures.metrics measures.scoring"),
    "latentlake/measures/scoring": core("measures.metrics tables"),
    "latentlake/measures/stopping": core("measures.metrics"),
    "latentlake/pages": core(
        "charts marking measures.aggregates measures.comparing measures.metrics pages reading.picks reading.results "
        "reading.trace registry sampling.texts scorers sections sources study"
    ),
    "latentlake/plan": core("catalog digest errors flow origins"),
    "latentlake/prompts": core("digest protocols"),
    "latentlake/protocols": [],
    "latentlake/reading": core(
        "calls.ledger catalog console digest engines.sentence_transformers errors files flow lake measures "
        "origins plan protocols reading scorers sections study tables work"
    ),
    "latentlake/registry": core("errors"),
    "latentlake/sampling": core("digest errors protocols sampling sections study"),
    "latentlake/scorers": core(
        "choices digest marking measures.correlation measures.scoring measures.stopping protocols registry "
        "scorers sources work"
    ),
    "latentlake/sections": core("choices errors registry sections"),
    "latentlake/sections/interventions": core("choices"),
    "latentlake/sections/mistakes": core("errors"),
    "latentlake/sections/reference": core("choices registry sections study"),
    "latentlake/stages": core(
        "coders corpus dictionaries digest errors explainers fetching hookpoints keeping.reported "
        "keeping.weights measures.agreement measures.alignment measures.cooccurrence measures.likeness "
        "measures.metrics measures.scoring origins pages protocols reading.given sampling scorers sections "
        "steering study tables work"
    ),
    "latentlake/study": core("choices digest errors explainers prompts registry scorers sections"),
    "latentlake/tables": core("errors tables"),
    "latentlake": ["latentlake"],
    "assets": ["assets", "latentlake", "resources"],
    "resources": ["latentlake", "resources"],
    "jobs": ["assets", "definitions", "jobs", "latentlake", "resources"],
    "definitions": ["assets", "jobs", "latentlake", "resources"],
}
MODULES = [
    path.relative_to(ROOT)
    for room in sorted(OURS)
    for path in sorted([*ROOT.glob(f"{room}/**/*.py"), *ROOT.glob(f"{room}.py")])
]


def imports(path: Path) -> set[str]:
    """Every module that a file imports, wherever in it."""
    found = set()
    for node in ast.walk(ast.parse((ROOT / path).read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def room_of(path: Path) -> str:
    name = path.with_suffix("").as_posix().removesuffix("/__init__")
    return max((room for room in MAY_IMPORT if name == room or name.startswith(room + "/")), key=len)


@pytest.mark.parametrize("path", MODULES, ids=str)
def test_a_module_imports_only_what_its_room_may(path: Path) -> None:
    allowed = MAY_IMPORT[room_of(path)]
    ours = {name for name in imports(path) if name.split(".")[0] in OURS}
    assert {name for name in ours if not any(name == each or name.startswith(each + ".") for each in allowed)} == set()


@pytest.mark.parametrize("path", [path for path in MODULES if path.parts[0] == "latentlake"], ids=str)
def test_the_core_does_not_know_dagster(path: Path) -> None:
    assert not {name for name in imports(path) if name.split(".")[0] == "dagster"}


def test_a_stage_does_not_import_another() -> None:
    stages = [path for path in MODULES if path.parts[:2] == ("latentlake", "stages")]
    assert len(stages) > 5
    assert not {name for path in stages for name in imports(path) if name.startswith("latentlake.stages")}


_ROOMS = sorted(
    {"assets", "resources", "jobs"} | {path.parent.as_posix() for path in MODULES if path.name == "__init__.py"}
)


@pytest.mark.parametrize("room", _ROOMS)
def test_a_room_says_what_belongs_in_it(room: str) -> None:
    said = ast.get_docstring(ast.parse((ROOT / room / "__init__.py").read_text()))
    assert said is not None
    assert re.search(r"[Bb]elongs?|what does not", said)


def test_every_module_says_what_it_is_for() -> None:
    silent = [str(path) for path in MODULES if not ast.get_docstring(ast.parse((ROOT / path).read_text()))]
    assert silent == []
