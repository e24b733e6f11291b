"""Sparse coders at work, whatever their format: blocks and chunks, neurons, controls, and where a coder lies."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor

from latentlake.coders import coder as coders
from latentlake.coders.coder import SparseCoder
from latentlake.coders.controls import KINDS, controlled
from latentlake.coders.neurons import neurons
from latentlake.coders.opening import Control, Source, facts, format_of, locate, open_coder
from latentlake.coders.parameters import Parameters
from latentlake.coders.rules import GroupMax, Rule, Threshold, TopK
from latentlake.errors import InputError
from latentlake.protocols import Firings
from tests.coder_fixtures import D_IN, VARIANTS, WIDTH, K, inputs

RULES: dict[str, Rule] = {
    "topk": TopK(K),
    "groupmax": GroupMax(K, WIDTH // K),
    "one threshold": Threshold(torch.tensor([0.8]), "batchtopk"),
    "thresholds": Threshold(torch.linspace(-1, 2, WIDTH), "jumprelu"),
}
EACH_RULE = pytest.mark.parametrize("rule", [pytest.param(rule, id=name) for name, rule in RULES.items()])


def parameters(rule: Rule = RULES["topk"], d_out: int = D_IN) -> Parameters:
    """Random parameters, none square and none of length 1."""
    random = torch.Generator().manual_seed(5)
    drawn = {"encoder": (WIDTH, D_IN), "bias": (WIDTH,), "decoder": (WIDTH, d_out), "decoder_bias": (d_out,)}
    tensors = {name: torch.randn(shape, generator=random) for name, shape in (drawn | {"centre": (D_IN,)}).items()}
    return Parameters(rule, **tensors)


def dense(firings: Firings, n: int, width: int = WIDTH) -> Tensor:
    """Activations [n, width] of what fires."""
    assert firings.rows.dtype == firings.latents.dtype == torch.int64
    assert firings.values.dtype == torch.float32
    assert len(firings.rows) == len(firings.latents) == len(firings.values)
    places = torch.stack([firings.rows, firings.latents])
    assert places.unique(dim=1).shape == places.shape
    active = torch.zeros(n, width)
    active[firings.rows, firings.latents] = firings.values
    return active


# Encoding and decoding


@EACH_RULE
@pytest.mark.parametrize("block", [1, 4 * WIDTH, 7 * WIDTH + 3])
@pytest.mark.parametrize("chunk", [1, 7, 16, WIDTH - 1, 10 * WIDTH])
def test_neither_blocks_nor_chunks_show(rule: Rule, block: int, chunk: int, monkeypatch: pytest.MonkeyPatch) -> None:
    x = inputs(n=23)
    whole = dense(SparseCoder(parameters(rule), "it").encode(x), len(x))
    monkeypatch.setattr(coders, "_BLOCK", block)
    monkeypatch.setattr(coders, "_CHUNK", chunk)
    coder = SparseCoder(parameters(rule), "it")
    firings = coder.encode(x)
    assert (whole > 0).any(0).sum() > WIDTH // 2
    torch.testing.assert_close(dense(firings, len(x)), whole)
    torch.testing.assert_close(coder.decode(firings, x), whole @ coder.directions + parameters().decoder_bias)


@EACH_RULE
def test_pre_activations_are_never_held_for_all_rows_and_latents(rule: Rule, monkeypatch: pytest.MonkeyPatch) -> None:
    held: list[int] = []
    multiplied = torch.addmm

    def noted(bias: Tensor, rows: Tensor, weight: Tensor, out: Tensor) -> Tensor:
        held.append(out.numel())
        return multiplied(bias, rows, weight, out=out)

    monkeypatch.setattr(coders, "_BLOCK", 64)
    monkeypatch.setattr(coders, "_CHUNK", 16)
    monkeypatch.setattr(torch, "addmm", noted)
    SparseCoder(parameters(rule), "it").encode(inputs(n=23))
    assert max(held) <= 64
    assert sum(held) == 23 * WIDTH


@EACH_RULE
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_encoded_in_float32(rule: Rule, dtype: torch.dtype) -> None:
    x, coder = inputs().to(dtype), SparseCoder(parameters(rule), "it")
    firings, wanted = coder.encode(x), coder.encode(x.float())
    torch.testing.assert_close(dense(firings, len(x)), dense(wanted, len(x)), rtol=0, atol=0)
    outputs = coder.decode(firings, x)
    assert outputs.dtype == torch.float32
    torch.testing.assert_close(outputs, coder.decode(wanted, x.float()), rtol=0, atol=0)


@EACH_RULE
def test_no_inputs_give_no_rows(rule: Rule) -> None:
    coder = SparseCoder(parameters(rule, d_out=9), "it")
    firings = coder.encode(torch.zeros(0, D_IN))
    assert dense(firings, 0).shape == (0, WIDTH)
    assert coder.decode(firings, torch.zeros(0, D_IN)).shape == (0, 9)


@EACH_RULE
@pytest.mark.parametrize("chunk", [16, 4 * WIDTH])
def test_inputs_that_are_no_numbers_are_not_lost(rule: Rule, chunk: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(coders, "_CHUNK", chunk)
    x, coder = inputs(n=5), SparseCoder(parameters(rule), "it")
    x[3, 2] = float("nan")
    firings = coder.encode(x)
    assert firings.values[firings.rows == 3].isnan().any()
    assert not firings.values[firings.rows != 3].isnan().any()
    assert coder.decode(firings, x).isnan().any(1).tolist() == [False, False, False, True, False]


@pytest.mark.parametrize("width", [D_IN - 1, D_IN + 1])
def test_inputs_of_another_width_are_refused(width: int) -> None:
    with pytest.raises(InputError, match=f"Coder it takes inputs of width 12, and these have {width}"):
        SparseCoder(parameters(), "it").encode(torch.zeros(2, width))


def test_directions_are_rows_of_the_decoder() -> None:
    own = parameters(d_out=9)
    coder = SparseCoder(own, "it")
    assert (coder.width, coder.d_in, coder.d_out, coder.k) == (WIDTH, D_IN, 9, K)
    assert torch.equal(coder.directions, own.decoder)
    one = Firings(torch.tensor([0]), torch.tensor([4]), torch.tensor([2.0]))
    torch.testing.assert_close(coder.decode(one, torch.zeros(1, D_IN))[0], 2 * own.decoder[4] + own.decoder_bias)


def test_encoding_changes_neither_inputs_nor_parameters() -> None:
    own, x = parameters(), inputs()
    coder = SparseCoder(own, "it")
    coder.decode(coder.encode(x), x)
    assert torch.equal(x, inputs())
    assert torch.equal(own.encoder, parameters().encoder)
    assert torch.equal(own.bias, parameters().bias)


# Neurons


def test_neurons_are_the_identity_and_their_largest_fire() -> None:
    x = inputs(20)
    own, stated = neurons(20, 3)
    coder = SparseCoder(own, "neurons")
    firings = coder.encode(x)
    active = dense(firings, len(x), 20)
    assert (coder.width, coder.d_in, coder.d_out, coder.k, stated.kind) == (20, 20, 20, 3, "neurons")
    kept = x >= x.topk(3).values[:, -1:]
    torch.testing.assert_close(active, torch.where(kept, x, 0).relu(), rtol=0, atol=0)
    torch.testing.assert_close(coder.decode(firings, x), active, rtol=0, atol=0)
    assert torch.equal(coder.directions, torch.eye(20))


def test_neurons_are_encoded_in_blocks_too(monkeypatch: pytest.MonkeyPatch) -> None:
    x = inputs(20)
    whole = dense(SparseCoder(neurons(20, 3)[0], "neurons").encode(x), len(x), 20)
    monkeypatch.setattr(coders, "_BLOCK", 60)
    torch.testing.assert_close(dense(SparseCoder(neurons(20, 3)[0], "neurons").encode(x), len(x), 20), whole)


@pytest.mark.parametrize("k", [0, -1, 21])
def test_so_many_neurons_cannot_fire(k: int) -> None:
    with pytest.raises(InputError, match=rf"neurons: k = {k} is not between 1 and the 20 latents"):
        neurons(20, k)


# Controls


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("d_out", [D_IN, 9])
def test_a_control_is_drawn_from_its_seed(kind: str, d_out: int) -> None:
    own = parameters(d_out=d_out)
    one, again, other = (controlled(own, kind, seed, None) for seed in (1, 1, 2))
    assert torch.equal(one.encoder, again.encoder)
    assert torch.equal(one.decoder, again.decoder)
    for drawn in (one, other):
        assert drawn.encoder.shape == own.encoder.shape
        assert drawn.decoder.shape == own.decoder.shape
    cosines = torch.nn.functional.cosine_similarity(one.encoder, other.encoder)
    assert cosines.abs().max() < 0.99
    assert torch.nn.functional.cosine_similarity(one.decoder, own.decoder).abs().max() < 0.99


def test_directions_keep_all_but_where_latents_point() -> None:
    own = parameters()
    drawn = controlled(own, "directions", 1, None)
    torch.testing.assert_close(drawn.encoder.norm(dim=1), own.encoder.norm(dim=1))
    torch.testing.assert_close(drawn.decoder.norm(dim=1), own.decoder.norm(dim=1))
    for name in ("bias", "decoder_bias", "centre"):
        assert torch.equal(getattr(drawn, name), getattr(own, name))
    assert drawn.rule == own.rule
    same = torch.nn.functional.cosine_similarity(drawn.encoder, drawn.decoder)
    torch.testing.assert_close(same, torch.ones(WIDTH))


def test_directions_are_drawn_uniformly() -> None:
    many = Parameters(TopK(1), torch.ones(20_000, 4), None, torch.ones(20_000, 4), None)
    drawn = controlled(many, "directions", 1, None)
    units = torch.nn.functional.normalize(drawn.encoder)
    torch.testing.assert_close(units.mean(0), torch.zeros(4), rtol=0, atol=0.02)
    torch.testing.assert_close(units.T @ units / len(units), torch.eye(4) / 4, rtol=0, atol=0.02)


def test_initialised_is_what_training_begins_with() -> None:
    own = parameters()
    drawn = controlled(own, "initialised", 1, None)
    bound = D_IN**-0.5
    torch.testing.assert_close(drawn.decoder.norm(dim=1), torch.ones(WIDTH))
    torch.testing.assert_close(drawn.decoder, torch.nn.functional.normalize(drawn.encoder))
    assert bound * 0.9 < drawn.encoder.abs().max() <= bound
    assert (drawn.bias, drawn.gain, drawn.offset, drawn.skip) == (None, None, None, None)
    assert torch.equal(drawn.centre, own.centre)
    assert torch.equal(drawn.decoder_bias, own.decoder_bias)


def test_initialised_transcoders_have_unit_directions_of_their_own() -> None:
    drawn = controlled(parameters(d_out=9), "initialised", 1, None)
    torch.testing.assert_close(drawn.decoder.norm(dim=1), torch.ones(WIDTH))


@pytest.mark.parametrize("kind", KINDS)
def test_the_control_of_a_coder_of_thresholds_needs_a_k(kind: str) -> None:
    own = parameters(RULES["thresholds"])
    with pytest.raises(InputError, match=rf"control '{kind}' of a jumprelu coder needs a `k`"):
        controlled(own, kind, 1, None)
    assert controlled(own, kind, 1, 7).rule == TopK(7)
    assert controlled(parameters(RULES["groupmax"]), kind, 1, None).rule == RULES["groupmax"]


@pytest.mark.parametrize("kind", KINDS)
def test_neurons_have_no_control(kind: str) -> None:
    with pytest.raises(InputError, match=rf"neurons have no control '{kind}'.*'model'"):
        controlled(neurons(20, 3)[0], kind, 1, 3)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", list(VARIANTS))
def test_a_control_of_any_checkpoint_can_be_opened(name: str, kind: str, tmp_path: Path) -> None:
    variant, x = VARIANTS[name], inputs(n=4)
    path = variant.write(tmp_path)
    coder = open_coder(variant.format, Source(path, str(path)), "cpu", Control(kind, 1, K))
    firings = coder.encode(x)
    assert (coder.width, coder.k) == (variant.shape[1], K)
    assert 0 < (firings.values > 0).sum() <= K * len(x)
    assert coder.decode(firings, x).isfinite().all()


# Where a coder lies


def test_a_path_is_taken_from_the_study(tmp_path: Path) -> None:
    path = VARIANTS["sparsify"].write(tmp_path / "coders" / "one")
    assert locate("coders/one", tmp_path) == path
    assert locate(str(path), tmp_path / "elsewhere") == path


@pytest.mark.parametrize("reference", ["one", "./coders/one", "../one", "a b/c"])
def test_a_path_where_nothing_is_is_refused(reference: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=rf"Coder '{reference}': there is nothing at .*Correct the path"):
        locate(reference, tmp_path)


def test_a_path_has_no_revision(tmp_path: Path) -> None:
    VARIANTS["sparsify"].write(tmp_path / "one")
    with pytest.raises(InputError, match="Coder 'one' lies on the disk and has no revisions"):
        locate("one", tmp_path, "main")


COMMITS = {"main": "0123456789abcdef0123456789abcdef01234567", "v1": "89abcdef0123456789abcdef0123456789abcdef"}


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A repository of coders, two commits of it, as the hub's client leaves it in its cache."""
    root = tmp_path / "hub" / "models--lab--coders-1b.v2"
    (root / "refs").mkdir(parents=True)
    for name, commit in COMMITS.items():
        (root / "refs" / name).write_text(commit)
        VARIANTS["sparsify" if name == "main" else "saelens_standard"].write(root / "snapshots" / commit / "layers.1")
        VARIANTS["openai_topk"].write(root / "snapshots" / commit)
        VARIANTS["gemma_scope_2"].write(root / "snapshots" / commit)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    return root


@pytest.mark.parametrize(
    ("inside", "kind"),
    [
        ("", "gemma_scope_2"),
        ("/layers.1", "sparsify"),
        ("/resid_post_mlp/autoencoders/1.pt", "openai"),
    ],
)
def test_a_coder_of_the_hub_is_a_snapshot_or_a_part_of_it(
    inside: str, kind: str, repository: Path, tmp_path: Path
) -> None:
    reference = f"lab/coders-1b.v2{inside}"
    found = locate(reference, tmp_path)
    assert found == repository / "snapshots" / COMMITS["main"] / inside[1:]
    assert format_of(found, reference) == kind
    assert facts(kind, Source(found, reference)).width == WIDTH


@pytest.mark.parametrize("revision", ["v1", COMMITS["v1"]])
def test_a_revision_is_a_name_or_a_commit(revision: str, repository: Path, tmp_path: Path) -> None:
    found = locate("lab/coders-1b.v2/layers.1", tmp_path, revision)
    assert found == repository / "snapshots" / COMMITS["v1"] / "layers.1"
    assert format_of(found, "it") == "saelens"


@pytest.mark.usefixtures("repository")
def test_what_the_hub_does_not_have_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"'lab/coders-1b.v2/layers.2': the repository has no 'layers.2'"):
        locate("lab/coders-1b.v2/layers.2", tmp_path)
    with pytest.raises(InputError, match=r"'lab/coders-1b.v2' is no path here.* at revision 'v3'"):
        locate("lab/coders-1b.v2/layers.1", tmp_path, "v3")
    with pytest.raises(InputError, match=r"'lab/other' is no path here.* at revision 'main'"):
        locate("lab/other", tmp_path)


def test_a_folder_of_the_study_goes_before_a_repository(repository: Path, tmp_path: Path) -> None:
    path = VARIANTS["sparsify"].write(tmp_path / "lab" / "coders-1b.v2")
    assert locate("lab/coders-1b.v2", tmp_path) == path


def test_a_folder_of_no_known_format_is_refused_with_those_that_are_known(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(InputError, match=r"Coder 'coders/one': the format of .* is not known") as refused:
        format_of(tmp_path, "coders/one")
    for listed in (
        "dictionary_learning: ae.pt and config.json",
        "gemma_scope: params.npz",
        "llama_scope: checkpoints/final.safetensors and hyperparams.json",
        "saelens: sae_weights.safetensors and cfg.json",
        "sparsify: sae.safetensors and cfg.json",
    ):
        assert listed in str(refused.value)


@pytest.mark.parametrize("name", ["layer3.sae.pt", "3.pt"])
def test_a_file_is_told_by_its_name(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(b"")
    assert format_of(tmp_path / name, "it") == ("qwen_scope" if "sae" in name else "openai")


@pytest.mark.parametrize("kind", ["sparsify", "gemma_scope", "openai"])
def test_a_checkpoint_that_is_not_there_is_refused(kind: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="No sparse coder at"):
        facts(kind, Source(tmp_path / "none.pt", "none"))


def test_an_unknown_format_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"there is no coder format 'sparsfy' \(did you mean 'sparsify'"):
        facts("sparsfy", Source(tmp_path, "it"))


def test_importing_the_formats_loads_no_torch() -> None:
    code = "import sys; from latentlake.registry import CODERS; import latentlake.coders.opening, latentlake.coders.neurons;"
    code += "print(len(CODERS.classes()), 'torch' in sys.modules)"
    root = Path(__file__).resolve().parents[1]
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=root)
    assert done.stdout.split() == ["8", "False"]
