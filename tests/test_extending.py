"""The examples of docs/extending.md work as they stand: put where they say, in a copy of the code, and run.

The copy is a folder of its own, and what runs in it a process of its own, so that nothing is registered here.
"""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "extending.md").read_text()
FILES = dict(re.findall(r"^`([\w/]+\.py)`:\n\n```python\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE))
DIFFS = dict(re.findall(r"^`([\w/]+\.py)`:\n\n```diff\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE))
COPIED = ("latentlake", "assets", "resources", "jobs", "definitions.py", "tests")

DRIVER = '''
"""Runs the small study with what the page adds to it, and prints what came out."""
import json, re, sys
from pathlib import Path

import numpy as np
import polars as pl
import yaml

import latentlake.engines.echo as echo
from latentlake.digest import mix, seed_of
from latentlake.fakes import FakeHandles
from latentlake.handles import LazyHandles, Settings
from tests.workbench import open_instance
from tests.workbench import LATENTS, WIDTH, FakeModels, Workbench

folder, page = Path(sys.argv[1]), Path(sys.argv[2]).read_text()
assert Path(echo.__file__).is_relative_to(Path.cwd())


class WithEngines(FakeModels):
    """Fakes, but for the models that the page's engine runs: these are opened as in any run."""

    def handles(self, study, origins, lake):
        fakes, real = super().handles(study, origins, lake), LazyHandles(study, origins, lake, Settings())
        own = fakes.llm
        fakes.llm = lambda name: real.llm(name) if study.llms[name].engine == "echo" else own(name)
        return fakes


with open_instance(folder / "instance") as instance:
    bench = Workbench(folder / "study", instance)
    bench.models = lambda: WithEngines(bench.folder / "cache", bench.subject, bench.llm)
    for text in re.findall(r"^```yaml\\n(.*?)^```", page, re.DOTALL | re.MULTILINE):
        for section, entries in yaml.safe_load(text).items():
            bench.study[section] = bench.study[section] | entries
    del bench.study["explainers"]["default"], bench.study["dictionaries"]["one"]
    bench.study["scorers"] = {"overlap": bench.study["scorers"]["overlap"]}
    random = mix(np.arange(WIDTH * LATENTS, dtype=np.uint64), seed_of("plain")) / np.float64(2**63) - 1
    weights = random.reshape(LATENTS, WIDTH).astype(np.float32)
    (bench.folder / "coders" / "plain").mkdir(parents=True)
    np.savez(bench.folder / "coders" / "plain" / "coder.npz", encoder=weights, decoder=weights, bias=weights[:, 0] * 0)
    bench.run()
    lake = bench.view()
    frames = {
        "explanations": lake.explanations.select("explainer", "dictionary", "latent", "explanation"),
        "strong": lake.examples.filter(pl.col("sample") == "strong", rank=0, is_activating=True).select(
            "dictionary", "latent", "text"
        ),
        "judgements": lake.judgements.select("explainer", "control", "measure"),
        "scores": lake.scores.select("explainer", "scorer", "dictionary", "control", "metric", "value"),
        "calls": lake.calls.select("engine", "reply", "error"),
    }
    print(json.dumps({name: frame.collect().to_dicts() for name, frame in frames.items()}))
'''


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[dict[str, object]]]:
    """What a study made with all of the page's examples."""
    code, folder = tmp_path_factory.mktemp("code"), tmp_path_factory.mktemp("run")
    for name in COPIED:
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        copy(ROOT / name, code / name)
    for path, text in FILES.items():
        assert not (code / path).exists()
        (code / path).write_text(text)
    for path, diff in DIFFS.items():
        _edit(code / path, diff)
    (code / "driver.py").write_text(DRIVER)
    done = subprocess.run(
        [sys.executable, "driver.py", str(folder), str(ROOT / "docs" / "extending.md")],
        cwd=code,
        env={**os.environ, "PYTHONPATH": str(code), "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    made: dict[str, list[dict[str, object]]] = json.loads(done.stdout.splitlines()[-1])
    return made


def _edit(file: Path, diff: str) -> None:
    """Put lines that begin with + in the place of those before them that begin with -."""
    for old, new in re.findall(r"((?:^-.*\n)+)((?:^\+.*\n)+)", diff, re.MULTILINE):
        before, after = (re.sub(r"^[-+]", "", text, flags=re.MULTILINE) for text in (old, new))
        text = file.read_text()
        assert text.count(before) == 1, before
        file.write_text(text.replace(before, after))


def test_the_page_has_one_example_of_each() -> None:
    folders = {str(Path(path).parent) for path in FILES}
    assert folders == {"latentlake/explainers", "latentlake/scorers", "latentlake/coders/formats", "latentlake/engines"}


def test_the_explainer_quotes(rows: dict[str, list[dict[str, object]]]) -> None:
    said = {
        (row["dictionary"], row["latent"]): row["explanation"]
        for row in rows["explanations"]
        if row["explainer"] == "quote" and row["explanation"]
    }
    strongest = {(row["dictionary"], row["latent"]): row["text"] for row in rows["strong"]}
    assert said
    assert said == {key: strongest[key] for key in said}


def test_the_scorer_measures_shares(rows: dict[str, list[dict[str, object]]]) -> None:
    measures = [row["measure"] for row in rows["judgements"]]
    assert len(set(measures)) > 2
    assert all(isinstance(each, float) and 0 <= each <= 1 for each in measures)
    assert {row["measure"] for row in rows["judgements"] if row["control"] == "empty"} == {0.0}
    assert {row["explainer"] for row in rows["scores"] if row["scorer"] == "overlap"} == {"quote", "tokens"}


def test_latents_of_the_format_are_explained_and_scored(rows: dict[str, list[dict[str, object]]]) -> None:
    scores = [row for row in rows["scores"] if row["dictionary"] == "plain" and row["control"] is None]
    assert any(row["value"] is not None for row in scores)


def test_the_engine_answers(rows: dict[str, list[dict[str, object]]]) -> None:
    replies = [row for row in rows["calls"] if row["engine"] == "echo"]
    assert replies
    assert all(row["error"] is None and row["reply"] for row in replies)
    assert any(row["explainer"] == "echo" and row["explanation"] for row in rows["explanations"])
