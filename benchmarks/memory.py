"""Memory of the activation stage as the corpus grows: ``python -m benchmarks.memory [--tokens N]``.

The quickstart's study with shards of 30 documents, of about N tokens and of four times as many, each in a process of its own that
computes nothing but activations, through the executor and down to published partitions. Prints what the process holds after each
shard, and the ratio of the peaks.
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import yaml

from benchmarks.quickstart import ROOT
from latentlake.catalog import Catalog
from latentlake.execute import Executor
from latentlake.flow import Flow
from latentlake.handles import LazyHandles
from latentlake.lake import Lake
from latentlake.origins import Origins
from latentlake.stages import activations, contexts, roots
from latentlake.study import load_study
from latentlake.work import each
from resources.models import ModelsResource

DOCUMENTS, TOKENS_A_DOCUMENT = 30, 105


class Silent:
    """Progress that nobody hears of."""

    def __getattr__(self, name: str) -> Any:
        return lambda *given, **named: None


def prepare(folder: Path) -> Path:
    """The quickstart's study on all files of its texts, in small shards."""
    study = yaml.safe_load((ROOT / "study.yaml").read_text())
    study = {name: study[name] for name in ("name", "blocks", "corpus", "subject", "dictionaries")}
    study["corpus"]["documents_per_shard"] = DOCUMENTS
    study["corpus"]["sources"]["leads"]["path"] = str(ROOT / "data/*/leads_*.jsonl.gz")
    study["dictionaries"]["layer9"]["coder"] = str(ROOT / "data/coder/layers.9")
    path = folder / "study.yaml"
    path.write_text(yaml.safe_dump(study))
    return path


def resident() -> int:
    """Memory that the process holds now, in MB."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize() // 10**6


def compute(folder: Path, shards: int) -> dict[str, Any]:
    """Compute activations of so many shards; returns what the process held after each, and at most, in MB."""
    study = load_study(prepare(folder))
    origins, flow, lake = Origins(study, ROOT / ".cache"), Flow(study), Lake(str(folder / "lake"), study.name)
    handles = LazyHandles(study, origins, lake, ModelsResource())
    executor = Executor(flow, lake, origins, handles, Silent(), "run", "launch")
    keys = list(origins.shards)[:shards]
    assert len(keys) == shards, f"the texts make {len(keys)} shards only; lower --tokens"
    for name, compute_stage in (("subject", roots.subject), ("dictionaries", roots.dictionaries)):
        list(executor.execute(name, flow.partitions(flow[name], []), each(compute_stage)))
    list(executor.execute("contexts", keys, each(contexts.compute)))
    held = []
    for _ in executor.execute("activations", [f"layer9|{key}" for key in keys], activations.compute):
        held.append(resident())
    assert len(Catalog(lake).publications("activations")) == shards
    return {"held": held, "peak": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3)}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokens", type=int, default=25_000)
    parser.add_argument("--shards", type=int, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.shards:
        with tempfile.TemporaryDirectory() as folder:
            print(json.dumps(compute(Path(folder), given.shards)))
        return
    shards = max(1, given.tokens // (DOCUMENTS * TOKENS_A_DOCUMENT))
    peaks = []
    for number in (shards, 4 * shards):
        command = [sys.executable, "-m", "benchmarks.memory", "--shards", str(number)]
        found = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()[-1])
        peaks.append(found["peak"])
        print(
            f"{number:3} shards of {DOCUMENTS} documents: peak {found['peak']:,} MB; after each shard {found['held']}",
            flush=True,
        )
    print(f"ratio of the peaks {peaks[1] / peaks[0]:.3f}")


if __name__ == "__main__":
    main()
