"""Activations of the real subject and coder, against a plain reference: the whole model, one context at a time, all latents."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from latentlake.coders.opening import Source, open_coder
from latentlake.corpus import read_documents
from latentlake.engines import checkpoint
from latentlake.engines.subject import HookedSubject
from latentlake.origins import Origins
from latentlake.stages.activations import DROPPED_BITS, encode, rows_of
from latentlake.stages.contexts import Context, pack, packing_of
from latentlake.study import load_study

ROOT = Path(__file__).resolve().parents[1]
STUDY = load_study(ROOT / "study.yaml")
K = 32
# A latent fires if it is among the k largest of a token. Within this share of the k-th largest, which of two is larger is a
# matter of how sums are rounded, and that differs with the sizes of batches.
TIE = 1e-3

Firings = dict[tuple[int, int], float]


@pytest.fixture(scope="module")
def origins() -> Origins:
    return Origins(STUDY, Path(os.environ.get("LATENTLAKE_CACHE", ROOT / ".cache")))


def source_of(origins: Origins) -> Source:
    """The quickstart's coder."""
    source = origins.dictionary("layer9").source
    assert source is not None
    return source


@pytest.fixture(scope="module")
def smollm2(origins: Origins) -> Path:
    return checkpoint.converted(origins.subject.path, origins.subject.digest, origins.cache)


@pytest.fixture(scope="module")
def contexts(origins: Origins, smollm2: Path) -> list[Context]:
    """Contexts of the quickstart, two of them cut short."""
    documents = read_documents(next(iter(origins.shards.values())))[:12]
    subject = HookedSubject(smollm2)
    tokenized = subject.tokenize([str(document.text) for document in documents])
    found = pack(documents, tokenized, packing_of(STUDY.corpus, subject))[:10]
    for place, length in ((2, 50), (7, 9)):
        tokens, excluded = found[place].tokens[:length], [at for at in found[place].excluded if at < length]
        found[place] = Context(tokens, excluded, None, [])
    return found


@pytest.fixture(scope="module")
@torch.inference_mode()
def reference(origins: Origins, smollm2: Path, contexts: list[Context]) -> np.ndarray:
    """Activations before the choice of the k largest, [positions, latents]; nothing of ours but the packing."""
    model: Any = AutoModelForCausalLM.from_pretrained(smollm2, dtype=torch.float32, local_files_only=True).eval()
    tensors = load_file(source_of(origins).path / "sae.safetensors")
    weights = {name: tensor.double() for name, tensor in tensors.items()}
    parts = []
    for context in contexts:
        state = model(torch.tensor([context.tokens]), output_hidden_states=True).hidden_states[10][0].double()
        before = (state - weights["b_dec"]) @ weights["encoder.weight"].T + weights["encoder.bias"]
        before[context.excluded] = 0
        parts.append(before.clamp(min=0).numpy())
    return np.concatenate(parts)


def found_by(origins: Origins, subject: HookedSubject, contexts: Sequence[Context]) -> Firings:
    tokens, excluded = [each.tokens for each in contexts], [each.excluded for each in contexts]
    coders = {"it": open_coder("sparsify", source_of(origins), "cpu")}
    keys = encode(subject, tokens, excluded, coders, {"it": "layers.9"}, DROPPED_BITS["half"])["it"]
    rows = rows_of(keys, {"dictionary": "it", "shard": "s"})
    places = zip(rows["position"].to_pylist(), rows["latent"].to_pylist(), strict=True)
    return dict(zip(places, rows["activation"].to_pylist(), strict=True))


@pytest.mark.parametrize("batch_tokens", [1, 300, 4096])
def test_what_fires_is_what_fires_in_the_reference_but_for_ties(
    origins: Origins, smollm2: Path, contexts: list[Context], reference: np.ndarray, batch_tokens: int
) -> None:
    found = found_by(origins, HookedSubject(smollm2, batch_tokens=batch_tokens), contexts)
    least = np.sort(reference, axis=1)[:, -K][:, None]
    is_certain = (reference > least * (1 + TIE)) & (reference > 0)
    is_possible = (reference >= least * (1 - TIE)) & (reference > 0)
    certain = set(zip(*(axis.tolist() for axis in np.nonzero(is_certain)), strict=True))
    possible = set(zip(*(axis.tolist() for axis in np.nonzero(is_possible)), strict=True))
    assert len(certain) > 20_000
    assert len(possible - certain) < 0.05 * len(certain)
    assert certain <= found.keys() <= possible
    for place, activation in found.items():
        assert activation == pytest.approx(reference[place], rel=2**-11 + 1e-3, abs=1e-3)


def test_the_order_of_contexts_changes_no_more_than_the_size_of_batches(
    origins: Origins, smollm2: Path, contexts: list[Context], reference: np.ndarray
) -> None:
    subject = HookedSubject(smollm2, batch_tokens=512)
    forward, backward = found_by(origins, subject, contexts), found_by(origins, subject, contexts[::-1])
    ends = np.cumsum([len(context.tokens) for context in contexts])
    total = int(ends[-1])
    starts = ends - [len(context.tokens) for context in contexts]

    def turned(position: int) -> int:
        """Where a position of the reversed contexts lies in the others."""
        context = int(np.searchsorted(total - starts[::-1], position, side="right"))
        own = len(contexts) - 1 - context
        return int(position - (total - ends[own]) + starts[own])

    turned_back = {(turned(position), latent): activation for (position, latent), activation in backward.items()}
    least = np.sort(reference, axis=1)[:, -K]
    for position, latent in forward.keys() ^ turned_back.keys():
        assert reference[position, latent] == pytest.approx(least[position], rel=TIE)
    for place in forward.keys() & turned_back.keys():
        assert forward[place] == pytest.approx(turned_back[place], rel=2**-10, abs=1e-3)
