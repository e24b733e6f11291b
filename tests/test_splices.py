"""Losses of whole models, with something spliced into their passes, and models of random weights; on small real models."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from latentlake.engines.subject import HookedSubject
from latentlake.hookpoints import SITES, Site
from latentlake.protocols import Splice
from tests.models import BOS, FAMILIES, SIZE, write_model

NAMES = [Site(1, site).name for site in SITES]
CONTEXTS = [[BOS, *range(20, 20 + n)] for n in (12, 3, 30, 12)]


@pytest.fixture(scope="module", params=FAMILIES)
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of each family."""
    return write_model(tmp_path_factory.mktemp("model") / "it", request.param)


def losses_of(subject: HookedSubject, splice: Splice | None = None) -> list[torch.Tensor]:
    """Losses of each context, out of whatever batches they came in."""
    found: list[Any] = [None] * len(CONTEXTS)
    for batch, losses in subject.losses(CONTEXTS, splice):
        for index, own in zip(batch, torch.split(losses, [len(CONTEXTS[index]) for index in batch]), strict=True):
            found[index] = own
    return found


def plain(model: Any, context: Sequence[int]) -> torch.Tensor:
    """Losses of one context in a pass of the whole model."""
    tokens = torch.tensor([context])
    with torch.inference_mode():
        log = model(input_ids=tokens).logits[0, :-1].log_softmax(-1)
    return -log.gather(1, tokens[0, 1:, None])[:, 0]


@pytest.mark.parametrize("batch_tokens", [1, 40, 4096])
def test_losses_are_those_of_the_whole_model(folder: Path, batch_tokens: int) -> None:
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    for context, found in zip(CONTEXTS, losses_of(HookedSubject(folder, batch_tokens=batch_tokens)), strict=True):
        assert found.shape == (len(context),)
        assert found[0].isnan()
        torch.testing.assert_close(found[1:], plain(model, context), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("name", NAMES)
def test_what_is_put_back_as_it_was_changes_nothing(folder: Path, name: str) -> None:
    subject = HookedSubject(folder)
    seen: list[int] = []

    def keep(batch: list[int], read: torch.Tensor, written: torch.Tensor) -> torch.Tensor:
        assert torch.equal(read, written)
        seen.append(len(read))
        return written

    with_splice = losses_of(subject, Splice(name, name, keep))
    assert sum(seen) == sum(map(len, CONTEXTS))
    for one, other in zip(losses_of(subject), with_splice, strict=True):
        torch.testing.assert_close(one, other, equal_nan=True)


@pytest.mark.parametrize("name", NAMES)
def test_what_is_changed_at_a_token_changes_it_and_what_follows(folder: Path, name: str) -> None:
    subject, at = HookedSubject(folder), 5

    def change(batch: list[int], read: torch.Tensor, written: torch.Tensor) -> torch.Tensor:
        changed, starts = written.clone(), torch.tensor([0, *(len(CONTEXTS[index]) for index in batch)]).cumsum(0)
        for place, index in enumerate(batch):
            if index == 2:
                changed[int(starts[place]) + at] *= -3
        return changed

    before, after = losses_of(subject), losses_of(subject, Splice(name, name, change))
    torch.testing.assert_close(after[2][: at + 1], before[2][: at + 1], equal_nan=True)
    assert not torch.allclose(after[2][at + 1], before[2][at + 1], rtol=1e-3)
    for index in (0, 1, 3):
        torch.testing.assert_close(after[index], before[index], equal_nan=True)


def test_a_block_without_its_mlp_is_what_a_splice_of_nothing_makes(folder: Path) -> None:
    subject = HookedSubject(folder)
    read: list[torch.Tensor] = []

    def nothing(batch: list[int], given: torch.Tensor, written: torch.Tensor) -> torch.Tensor:
        read.append(given)
        return torch.zeros_like(written)

    found = losses_of(subject, Splice("layers.1.mlp.input", "layers.1.mlp", nothing))
    inputs = [states["layers.1.mlp.input"] for _, states in subject.activations(CONTEXTS, ["layers.1.mlp.input"])]
    torch.testing.assert_close(torch.cat(read).sort(0).values, torch.cat(inputs).sort(0).values, rtol=1e-3, atol=1e-3)
    for one, other in zip(found, losses_of(subject), strict=True):
        assert not torch.allclose(one[1:], other[1:], rtol=1e-3)


def test_random_weights_are_drawn_by_the_seed_and_predict_nothing(folder: Path) -> None:
    state = torch.random.get_rng_state()
    drawn = [torch.cat(losses_of(HookedSubject(folder, seed=seed))) for seed in (0, 0, 1)]
    assert torch.equal(state, torch.random.get_rng_state())
    torch.testing.assert_close(drawn[0], drawn[1], equal_nan=True)
    assert not torch.allclose(drawn[0], drawn[2], equal_nan=True)
    assert float(drawn[0].nanmean()) == pytest.approx(float(torch.tensor(SIZE).log()), rel=0.05)
    states = [dict(next(HookedSubject(folder, seed=0).activations(CONTEXTS[:1], ["layers.1"]))[1]) for _ in range(2)]
    assert torch.equal(states[0]["layers.1"], states[1]["layers.1"])
