"""What runs on a GPU gives what the CPU gives. Skipped where there is none."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from latentlake.coders.coder import SparseCoder
from latentlake.coders.nearest import Directions
from latentlake.coders.parameters import Parameters
from latentlake.coders.rules import GroupMax, Rule, Threshold, TopK
from latentlake.engines.subject import HookedSubject
from latentlake.engines.transformers import TransformersLLM
from latentlake.protocols import Call, Choose, Continuation, Generate, Reply, Score, Splice
from latentlake.stages.activations import encode
from tests.models import write_model

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")

WIDTH, LATENTS = 32, 512
CONTEXTS = [[(7 * row + 3 * place) % 290 + 2 for place in range(3 + 11 * row)] for row in range(9)]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("models") / "llama")


def directions(n: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(n, WIDTH, generator=torch.Generator().manual_seed(seed))


RULES: dict[str, Callable[[], Rule]] = {
    "topk": lambda: TopK(16),
    "groupmax": lambda: GroupMax(16, LATENTS // 16),
    "jumprelu": lambda: Threshold(torch.linspace(3, 30, LATENTS), "jumprelu"),
    "relu": lambda: Threshold(torch.zeros(1), "relu"),
}


@pytest.mark.parametrize("device", ["cuda", "auto"])
@pytest.mark.parametrize("rule", RULES)
def test_activations_are_the_same(model: Path, rule: str, device: str) -> None:
    found = []
    for where in ("cpu", device):
        weights = directions(LATENTS)
        parameters = Parameters(RULES[rule](), weights, torch.zeros(LATENTS), weights, torch.zeros(WIDTH))
        coder = SparseCoder(parameters, "one", "cuda" if where == "auto" else where)
        subject = HookedSubject(model, device=where, batch_tokens=128)
        found.append(encode(subject, CONTEXTS, [[]] * 9, {"one": coder}, {"one": "layers.2"}, 13)["one"])
    cpu, gpu = (dict(zip((keys >> np.uint64(19)).tolist(), keys & np.uint64(2**19 - 1), strict=True)) for keys in found)
    assert len(cpu) > 1000
    assert len(cpu.keys() & gpu.keys()) >= 0.995 * len(cpu.keys() | gpu.keys())
    steps = np.array([abs(int(cpu[key]) - int(gpu[key])) for key in cpu.keys() & gpu.keys()])
    assert np.mean(steps > 1) < 0.01  # of the last bit that is kept


def test_losses_are_the_same_and_so_are_those_of_a_reconstruction(model: Path) -> None:
    def losses(device: str, is_spliced: bool) -> list[float]:
        weights = directions(LATENTS)
        coder = SparseCoder(Parameters(TopK(16), weights, None, weights, None), "one", device)
        splice = Splice(
            "layers.1", "layers.1", lambda batch, read, written: coder.decode(coder.encode(read), read).to(written)
        )
        batches = HookedSubject(model, device=device).losses(CONTEXTS, splice if is_spliced else None)
        return [loss for _, some in batches for loss in some.cpu().nan_to_num(0).tolist()]

    for is_spliced in (False, True):
        assert losses("cuda", is_spliced) == pytest.approx(losses("cpu", is_spliced), abs=2e-3)


def test_the_nearest_are_the_same() -> None:
    rows = directions(2000)
    cpu, gpu = Directions(rows, "cpu"), Directions(rows, "cuda")
    own = range(500, 900)
    same = cpu.nearest(own, 10) == gpu.nearest(own, 10)
    assert same.mean() > 0.995
    pairs = np.arange(0, 1000), np.arange(1000, 2000)
    assert gpu.cosines(*pairs) == pytest.approx(cpu.cosines(*pairs), abs=2e-5)


def test_answers_are_the_same(model: Path) -> None:
    calls = [
        Call("The river ", suffix, sampling)
        for sampling in (Score(), Choose((" sea", " city")), Generate(6), Generate(6, temperature=0.7))
        for suffix in ("runs down to the sea.", "and the city", "", "runs down to the mountain, and to the sea.")
    ]

    def answers(device: str) -> list[Reply]:
        found = dict(pair for batch in TransformersLLM(model, device=device).run(calls) for pair in batch)
        return [found[place] for place in range(len(calls))]

    for cpu, gpu in zip(answers("cpu"), answers("cuda"), strict=True):
        assert (gpu.text, gpu.tokens_in, gpu.tokens_out) == (cpu.text, cpu.tokens_in, cpu.tokens_out)
        assert gpu.logprobs == (None if cpu.logprobs is None else pytest.approx(cpu.logprobs, abs=2e-3))


def test_directions_promote_the_same_tokens(model: Path) -> None:
    cpu, gpu = (HookedSubject(model, device=device).unembed(directions(50)) for device in ("cpu", "cuda"))
    spread = HookedSubject(model, device="auto").unembed(directions(50).cuda())
    torch.testing.assert_close(gpu.cpu(), cpu, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(spread.cpu(), cpu, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("device", ["cuda", "auto"])
def test_prompts_go_on_the_same_under_a_push(model: Path, device: str) -> None:
    prompts, pushes = [context[:60] for context in CONTEXTS], 3 * directions(len(CONTEXTS))
    pushes[4] = 0

    def continuations(where: str) -> list[Continuation]:
        subject = HookedSubject(model, device=where, batch_tokens=128)
        given = pushes if where == "cpu" else pushes.cuda()
        found: list[Continuation] = []
        for batch, prompted in subject.prompted(prompts, [number // 3 for number in range(len(prompts))]):
            for own in prompted.continuations(range(len(batch)), "layers.1", given[batch], 6, 1.0, batch):
                found += [continuation for _, continuation in own]
        return found

    cpu, gpu = continuations("cpu"), continuations(device)
    assert [each.tokens for each in gpu] == [each.tokens for each in cpu]
    assert [each.kl for each in gpu] == pytest.approx([each.kl for each in cpu], rel=2e-3, abs=1e-5)
    assert gpu[4].kl == 0
