"""The rooms of the house stay apart: what each may import."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
OURS = {"assets", "definitions", "jobs", "latentlake", "resources"}

# room (longest prefix of a module's path wins) → what it may import of ours, by prefix
MAY_IMPORT = {
    "latentlake/errors": [],
    "latentlake/digest": [],
    "latentlake/protocols": [],
    "latentlake/registry": ["latentlake.errors"],
    "latentlake/choices": [],
    "latentlake/hookpoints": [],
    "latentlake/fetching": ["latentlake.protocols"],
    "latentlake/hub": ["latentlake.errors"],
    "latentlake/files": ["latentlake.errors"],
    "latentlake/exports": [
        f"latentlake.{name}"
        for name in (
            "corpora.opening", "digest", "errors", "exports", "hookpoints", "marking", "metrics", "registry", "results",
            "scorers", "tables", "work",
        )
    ],
    "latentlake/corpora": [
        f"latentlake.{name}" for name in ("corpora", "digest", "errors", "files", "hub", "registry", "study_corpus")
    ],
    "latentlake/prompts": ["latentlake.digest", "latentlake.protocols"],
    "latentlake/study_corpus": [f"latentlake.{name}" for name in ("choices", "errors", "registry")],
    "latentlake/study_interventions": ["latentlake.choices"],
    "latentlake/study_comparisons": ["latentlake.choices", "latentlake.study_dictionaries"],
    "latentlake/study_errors": ["latentlake.errors"],
    "latentlake/tables": ["latentlake.errors"],
    "latentlake/study": [
        f"latentlake.{name}"
        for name in (
            "choices", "digest", "errors", "explainers", "prompts", "registry", "scorers", "study_comparisons", "study_corpus",
            "study_dictionaries", "study_errors", "study_interventions",
        )
    ],
    "latentlake/flow": [
        f"latentlake.{name}"
        for name in ("choices", "digest", "errors", "explainers", "scorers", "study", "study_comparisons", "tables")
    ],
    "latentlake/lake": [f"latentlake.{name}" for name in ("digest", "errors", "tables")],
    "latentlake/correlation": ["latentlake.metrics", "latentlake.scoring"],
    "latentlake/scoring": [f"latentlake.{name}" for name in ("metrics", "tables")],
    "latentlake/stopping": ["latentlake.metrics"],
    "latentlake/plan": [f"latentlake.{name}" for name in ("catalog", "digest", "errors", "flow", "origins")],
    "latentlake/stages": [
        f"latentlake.{name}"
        for name in (
            "agreement", "alignment", "coders", "cooccurrence", "corpus", "dictionaries", "digest", "errors", "explainers",
            "fetching", "given", "hookpoints", "likeness", "metrics", "origins", "pages", "protocols", "reported", "sampling",
            "scorers", "scoring", "steering", "study", "study_comparisons",
            "study_corpus", "study_interventions", "tables", "weights", "work",
        )
    ],
    "latentlake/sampling": [
        f"latentlake.{name}" for name in ("digest", "errors", "protocols", "sampling", "study", "study_corpus")
    ],
    "latentlake/explainers": [
        f"latentlake.{name}"
        for name in (
            "choices", "explainers", "marking", "metrics", "protocols", "registry", "sources", "study_comparisons", "work",
        )
    ],
    "latentlake/scorers": [
        f"latentlake.{name}"
        for name in (
            "choices", "correlation", "digest", "marking", "protocols", "registry", "scorers", "scoring", "sources", "stopping",
            "work",
        )
    ],
    "latentlake/engines": [
        f"latentlake.{name}" for name in ("engines", "errors", "files", "hookpoints", "hub", "protocols", "registry")
    ],
    "latentlake/coders": [
        f"latentlake.{name}" for name in ("coders", "digest", "errors", "hub", "protocols", "registry", "study_dictionaries")
    ],
    "latentlake/coders/formats": [f"latentlake.{name}" for name in ("coders", "errors", "registry")],
    "latentlake/pages": [
        f"latentlake.{name}"
        for name in (
            "aggregates", "charts", "comparing", "marking", "metrics", "pages", "picks", "registry", "results", "sampling.texts",
            "scorers", "sources", "study", "trace",
        )
    ],
    "latentlake/explorer": [
        f"latentlake.{name}"
        for name in (
            "aggregates", "agreement", "catalog", "charts", "console", "costs", "errors", "explorer", "leaderboard", "pages",
            "protocols", "registry", "results", "scorers", "search", "trace", "view",
        )
    ],
    "latentlake/charts": [
        f"latentlake.{name}"
        for name in ("aggregates", "agreement", "charts", "comparing", "console", "metrics", "scorers")
    ],
    "latentlake/study_dictionaries": [f"latentlake.{name}" for name in ("choices", "errors", "registry")],
    "latentlake": ["latentlake"],
    "assets": ["assets", "latentlake", "resources"],
    "resources": ["latentlake", "resources"],
    "jobs": ["assets", "definitions", "jobs", "latentlake", "resources"],
    "definitions": ["assets", "jobs", "latentlake", "resources"],
}  # fmt: skip
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


_PACKAGES = (
    "charts", "coders", "coders/formats", "corpora", "engines", "explainers", "exports", "pages", "prompts", "sampling",
    "scorers", "stages",
)  # fmt: skip


@pytest.mark.parametrize(
    "room", ["latentlake", "assets", "resources", "jobs", *(f"latentlake/{name}" for name in _PACKAGES)]
)
def test_a_room_says_what_belongs_in_it(room: str) -> None:
    said = ast.get_docstring(ast.parse((ROOT / room / "__init__.py").read_text()))
    assert said is not None
    assert re.search(r"[Bb]elongs?|what does not", said)


def test_every_module_says_what_it_is_for() -> None:
    silent = [str(path) for path in MODULES if not ast.get_docstring(ast.parse((ROOT / path).read_text()))]
    assert silent == []
