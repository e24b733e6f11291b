"""How near the activation stage comes to the bare work: ``python -m benchmarks.activations [--tokens N]``.

Side by side in one run, on the same contexts of the quickstart, in turns: (a) the subject stopped at the hook and one
top-k encode, written out plainly; (b) the stage, with its hooks, blocks, sort, and the commit of its rows to a Delta table.
Tokens per CPU-second of the process (all threads), since a shared machine makes the clock meaningless.
"""

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import cast

import torch
from safetensors.torch import load_file
from transformers import AutoModel

from latentlake.corpus import read_documents
from latentlake.engines.checkpoint import converted
from latentlake.lake import Lake
from latentlake.origins import Origins
from latentlake.protocols import Coder, Subject
from latentlake.stages.activations import encode, rows_of
from latentlake.stages.contexts import Context, pack
from latentlake.study import Study, load_study
from latentlake.tables import TABLES
from resources.models import LazyHandles

ROOT = Path(__file__).resolve().parents[1]
BATCH_TOKENS = 4096
TOKENS_A_ROUND = 16_384


class Bare:
    """The reference: a truncated model and the coder's formula, with nothing around them."""

    def __init__(self, model: Path, coder: Path, depth: int, k: int) -> None:
        self._model = AutoModel.from_pretrained(model, dtype=torch.float32, local_files_only=True).eval()
        self._model.layers = self._model.layers[:depth]
        self._model.norm = torch.nn.Identity()
        self._tensors = {name: tensor.float() for name, tensor in load_file(coder / "sae.safetensors").items()}
        self._k = k

    @torch.inference_mode()
    def run(self, contexts: list[Context]) -> None:
        """Activations of contexts of equal length, thrown away."""
        size = BATCH_TOKENS // len(contexts[0].tokens)
        for start in range(0, len(contexts), size):
            tokens = torch.tensor([context.tokens for context in contexts[start : start + size]])
            hidden = self._model(input_ids=tokens, use_cache=False).last_hidden_state.flatten(0, 1)
            centred = hidden - self._tensors["b_dec"]
            before = torch.addmm(self._tensors["encoder.bias"], centred, self._tensors["encoder.weight"].T)
            before.relu_().topk(self._k, sorted=False)


class Stage:
    """The project's way, to the committed rows."""

    def __init__(self, subject: Subject, coder: Coder, hookpoint: str, lake: Lake) -> None:
        self._subject, self._coder, self._hookpoint, self._lake = subject, coder, hookpoint, lake

    def run(self, contexts: list[Context]) -> None:
        """Activations of contexts, committed as one shard."""
        tokens, excluded = [each.tokens for each in contexts], [each.excluded for each in contexts]
        keys = encode(self._subject, tokens, excluded, {"it": self._coder}, {"it": self._hookpoint})["it"]
        where: dict[str, str | int] = {"dictionary": "it", "shard": "round"}
        self._lake.replace("activations", TABLES["activations"].conform(rows_of(keys, where)), where, {})


def read_contexts(study: Study, origins: Origins, subject: Subject, tokens: int) -> list[Context]:
    """Whole contexts of the quickstart's corpus, up to a number of tokens."""
    length = study.corpus.context_length
    found: list[Context] = []
    for shard in origins.shards.values():
        documents = read_documents(shard)
        texts = subject.tokenize([document.text for document in documents])
        found += pack(documents, texts, length, subject.bos, subject.separator)
    return [context for context in found if len(context.tokens) == length][: tokens // length]


def compare(paths: dict[str, Callable[[list[Context]], None]], contexts: list[Context]) -> dict[str, float]:
    """CPU-seconds of each path over the contexts, in rounds whose order alternates."""
    seconds = dict.fromkeys(paths, 0.0)
    size = TOKENS_A_ROUND // len(contexts[0].tokens)
    for run in paths.values():
        run(contexts[:4])
    for number, start in enumerate(range(0, len(contexts), size)):
        for name in list(paths)[:: 1 if number % 2 else -1]:
            began = time.process_time()
            paths[name](contexts[start : start + size])
            seconds[name] += time.process_time() - began
    return seconds


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokens", type=int, default=65_536)
    parser.add_argument("--cache", type=Path, default=ROOT / ".cache")
    given = parser.parse_args()
    study = load_study(ROOT / "study.yaml")
    origins = Origins(study, given.cache)
    handles = LazyHandles(study, origins, "cpu", BATCH_TOKENS)
    name, choice = next(iter(study.dictionaries.items()))
    facts = origins.dictionary(name)
    model = converted(origins.subject.path, origins.subject.digest, given.cache)
    bare = Bare(model, facts.path, int(choice.hookpoint.rpartition(".")[2]) + 1, cast(int, facts.k))
    contexts = read_contexts(study, origins, handles.subject(), given.tokens)
    with tempfile.TemporaryDirectory() as folder:
        stage = Stage(handles.subject(), handles.coder(name), choice.hookpoint, Lake(folder, "bench"))
        seconds = compare({"bare": bare.run, "stage": stage.run}, contexts)
    tokens = sum(len(context.tokens) for context in contexts)
    for path, spent in seconds.items():
        print(f"{path:6} {tokens / spent:8,.0f} tokens/cpu-s")
    threads = torch.get_num_threads()
    print(f"ratio  {seconds['bare'] / seconds['stage']:8.3f}   ({tokens:,} tokens, {threads} threads)")


if __name__ == "__main__":
    main()
