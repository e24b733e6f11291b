"""What benchmarks of activations have in common: the quickstart's model and texts, and coders with random weights."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from latentlake.coders.opening import Source, open_coder
from latentlake.corpus import read_documents
from latentlake.engines.checkpoint import converted
from latentlake.fakes import write_coder
from latentlake.handles import LazyHandles
from latentlake.lake import Lake
from latentlake.origins import Origins
from latentlake.protocols import Coder, Subject
from latentlake.stages.activations import DROPPED_BITS, encode
from latentlake.stages.contexts import Context, pack, packing_of
from latentlake.study import Study, load_study
from resources.models import ModelsResource

ROOT = Path(__file__).resolve().parents[1]
BATCH_TOKENS = 4096
WIDTH, K = 16_384, 32  # of a coder with random weights
D_MODEL = 576


@dataclass(frozen=True)
class Quickstart:
    """The study with its model, and whole contexts of its texts."""

    study: Study
    origins: Origins
    model: Path
    subject: Subject
    coder: Coder
    contexts: list[Context]

    def encode(
        self, contexts: list[Context], coders: dict[str, Coder], hookpoints: dict[str, str], precision: str = "half"
    ) -> dict[str, np.ndarray]:
        """The stage's way to sorted firings."""
        tokens, excluded = [each.tokens for each in contexts], [each.excluded for each in contexts]
        return encode(self.subject, tokens, excluded, coders, hookpoints, DROPPED_BITS[precision])


def open_quickstart(tokens: int, cache: Path = ROOT / ".cache") -> Quickstart:
    """The quickstart with contexts of so many tokens in all, from all of its files."""
    study = load_study(ROOT / "study.yaml")
    origins = Origins(study, cache)
    handles = LazyHandles(study, origins, Lake("unused", study.name), ModelsResource(batch_tokens=BATCH_TOKENS))
    subject = handles.subject()
    found: list[Context] = []
    for shard in origins.shards.values():
        documents = read_documents(shard)
        tokenized = subject.tokenize([str(document.text) for document in documents])
        found += pack(documents, tokenized, packing_of(study.corpus, subject))
    length = study.corpus.context_length
    whole = [context for context in found if len(context.tokens) == length][: tokens // length]
    model = converted(origins.subject.path, origins.subject.digest, cache)
    return Quickstart(study, origins, model, subject, handles.coder("layer9"), whole)


def random_coder(folder: Path, seed: int) -> Coder:
    """A TopK coder of `WIDTH` latents with random weights."""
    write_coder(folder, D_MODEL, WIDTH, k=K, seed=seed)
    return open_coder("sparsify", Source(folder, "random"), "cpu")
