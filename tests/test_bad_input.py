"""Bad input is one clear error, before anything is written."""

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from jobs.run import main
from latentlake.errors import InputError, LatentlakeError
from latentlake.fakes import write_coder
from tests.workbench import LATENTS, WIDTH, Workbench


def misspelt_key(bench: Workbench) -> None:
    bench.study["scorers"]["surprisal"]["windws"] = 4


def no_corpus_file(bench: Workbench) -> None:
    for path in (bench.folder / "docs").iterdir():
        path.unlink()


def empty_corpus_file(bench: Workbench) -> None:
    (bench.folder / "docs" / "c.jsonl").write_text("")


def corpus_is_not_json(bench: Workbench) -> None:
    (bench.folder / "docs" / "c.jsonl").write_text('{"text": "one"}\nnot json\n')


def document_without_text(bench: Workbench) -> None:
    (bench.folder / "docs" / "c.jsonl").write_text('{"text": "one"}\n{"title": "two"}\n')


def coder_of_another_width(bench: Workbench) -> None:
    write_coder(bench.folder / "coders" / "one", WIDTH * 2, LATENTS, k=8, seed=1)


def truncated_coder(bench: Workbench) -> None:
    path = bench.folder / "coders" / "one" / "sae.safetensors"
    path.write_bytes(path.read_bytes()[:-100])


def unknown_hookpoint(bench: Workbench) -> None:
    bench.study["dictionaries"]["one"]["hookpoint"] = "layer.1"


def no_model(bench: Workbench) -> None:
    bench.study["subject"]["model"] = "package://no_such_package/model.gguf"


def subject_of_another_width(bench: Workbench) -> None:
    (bench.folder / "model" / "config.json").write_text(json.dumps({"num_hidden_layers": 4, "hidden_size": 99}))


def latent_beyond_the_coder(bench: Workbench) -> None:
    bench.study["dictionaries"]["one"]["latents"] = [3, LATENTS]


def prompt_without_a_place(bench: Workbench) -> None:
    path = bench.folder / "detection.txt"
    path.write_text(path.read_text().replace("$explanation", "$explantion"))


def more_blocks_than_latents(bench: Workbench) -> None:
    bench.study["blocks"] = LATENTS + 1


BAD: list[tuple[Callable[[Workbench], None], str]] = [
    (misspelt_key, r"study.yaml, line \d+: scorers.surprisal.windws: unknown key 'windws' \(did you mean 'windows'"),
    (no_corpus_file, r"no file matches .*docs"),
    (empty_corpus_file, r"c.jsonl holds no documents"),
    (corpus_is_not_json, r"c.jsonl, line 2: not JSON"),
    (document_without_text, r"c.jsonl, line 2: no text in the field 'text'"),
    (coder_of_another_width, r"reads 32 numbers a token, but layers.1 of model gives 16"),
    (truncated_coder, r"sae.safetensors"),
    (unknown_hookpoint, r"no hookpoint 'layer.1' \(did you mean 'layers.1'"),
    (subject_of_another_width, r"gives 99"),
    (latent_beyond_the_coder, r"there is no latent 64; the coder has 64"),
    (prompt_without_a_place, r"its prefix must have \$explanation and has explantion"),
    (more_blocks_than_latents, r"65 is more than the 64 latents"),
    (no_model, r"'no_such_package' is not installed"),
]


@pytest.mark.parametrize(("spoil", "message"), BAD, ids=[spoil.__name__ for spoil, _ in BAD])
def test_bad_input_is_refused_with_nothing_written(
    workbench: Workbench, spoil: Callable[[Workbench], None], message: str
) -> None:
    spoil(workbench)
    with pytest.raises(LatentlakeError, match=message):
        workbench.run()
    assert not Path(workbench.lake.uri).exists()


def test_a_dictionary_of_which_no_latent_fires_is_refused(workbench: Workbench) -> None:
    write_coder(workbench.folder / "coders" / "one", WIDTH, LATENTS, k=8, seed=1, bias=-1000.0)
    with pytest.raises(InputError, match="no latent of dictionary one fires on any token of shard docs-a-0000"):
        workbench.run()
    assert workbench.view().activations.collect().is_empty()


def test_the_command_prints_one_line_and_fails(
    workbench: Workbench, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    workbench.study["corpuss"] = {}
    with pytest.raises(LatentlakeError):
        workbench.prepare()
    monkeypatch.setenv("LATENTLAKE_STUDY", str(workbench.path))
    monkeypatch.setenv("LATENTLAKE_LAKE", workbench.lake.uri)
    monkeypatch.setenv("DAGSTER_HOME", str(workbench.folder))
    (workbench.folder / "dagster.yaml").write_text(json.dumps({"telemetry": {"enabled": False}}))
    assert main([]) == 1
    said = capsys.readouterr().err
    assert re.fullmatch(
        rf"error: {workbench.path}, line \d+: corpuss: unknown key 'corpuss' \(did you mean 'corpus'.*\)\n", said
    )


def test_an_edit_during_a_run_stops_it(workbench: Workbench) -> None:
    run = workbench.prepare()
    workbench.path.write_text(workbench.path.read_text().replace("blocks: 2", "blocks: 3"))
    with pytest.raises(LatentlakeError, match="was edited after it was read"):
        run.execute()


def test_a_subject_that_no_longer_fits_is_refused(materialized: Workbench) -> None:
    before = materialized.data_versions()
    subject_of_another_width(materialized)
    with pytest.raises(InputError, match="gives 99"):
        materialized.run()
    assert materialized.data_versions() == before
