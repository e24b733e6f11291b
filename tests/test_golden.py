"""What must not change unnoticed: prompts as a model sees them, the asset graph, and pages made from code.

``python -m tests.test_golden`` writes the files anew; the difference is then read in review.
"""

import json
from pathlib import Path

import dagster as dg

from definitions import build_definitions
from latentlake import tables
from latentlake.prompts import read_prompt
from latentlake.protocols import Score
from latentlake.sections import reference as study_reference
from latentlake.study import load_study

ROOT = Path(__file__).parents[1]
GOLDEN = ROOT / "tests" / "golden"
FILLED = {"explanation": "<explanation>", "window": "<window>", "windows": "1. <one>\n2. <two>", "words": "<words>"}
FILLED |= {"texts": "- <one>\n- <two>", "others": "1. <another>", "tokens": "<tokens>", "following": "<following>"}
FILLED |= {"text": "<text>", "promoted": "<promoted>", "suppressed": "<suppressed>"}
PROMPTS = sorted(path.stem for path in (ROOT / "latentlake" / "prompts").glob("*.txt"))


def prompt_text(name: str, is_chat: bool) -> str:
    """A packaged prompt with its places filled, as the messages of a chat or as one text."""
    call = read_prompt(name, ROOT).call(Score(), is_chat, FILLED)
    said = "".join(f"[{each.role}]\n{each.text}\n" for each in call.chat or ())
    return said + ("[user]\n" if said else "") + call.prefix + call.suffix


def asset_graph() -> str:
    """Assets of the quickstart: dependencies with their mappings, partitions, group, checks."""
    definitions = build_definitions(load_study(ROOT / "study.yaml"))
    graph = {}
    for asset in definitions.assets or []:
        assert isinstance(asset, dg.AssetsDefinition)
        spec = next(iter(asset.specs))
        partitions = spec.partitions_def
        graph[spec.key.to_user_string()] = {
            "group": spec.group_name,
            "partitions": partitions and sorted(partitions.partition_dimension_names)
            if isinstance(partitions, dg.MultiPartitionsDefinition)
            else type(partitions).__name__,
            "deps": {
                dep.asset_key.to_user_string(): type(dep.partition_mapping).__name__
                for dep in sorted(spec.deps, key=str)
            },
            "checks": [check.name for check in asset.check_specs],
        }
    return json.dumps(graph, indent=1)


def expected() -> dict[Path, str]:
    """Each golden file and what it must hold."""
    texts = {GOLDEN / f"prompt_{name}.txt": prompt_text(name, is_chat=False) for name in PROMPTS}
    chats = {GOLDEN / f"chat_{name}.txt": prompt_text(name, is_chat=True) for name in PROMPTS}
    pages = {ROOT / "docs" / "tables.md": tables.markdown(), ROOT / "docs" / "study.md": study_reference.markdown()}
    return {**texts, **chats, GOLDEN / "asset_graph.json": asset_graph(), **pages}


def test_golden_files_hold_what_the_code_makes() -> None:
    assert {path.name: path.read_text() for path in expected()} == {
        path.name: text for path, text in expected().items()
    }


def test_no_golden_file_is_of_a_prompt_that_is_no_more() -> None:
    assert {path.name for path in GOLDEN.iterdir()} == {path.name for path in expected() if path.parent == GOLDEN}


if __name__ == "__main__":
    for path, text in expected().items():
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
