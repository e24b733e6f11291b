"""A study file is refused with file, line and the nearest valid key, and its digest is of its choices alone."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from latentlake.errors import StudyChangedError, StudyError
from latentlake.flow import Flow
from latentlake.protocols import Score
from latentlake.study import Study, load_study, require_unchanged

ROOT = Path(__file__).parents[1]
TEXT = """\
name: tiny
blocks: 2
seed: 7
corpus:
  sources:
    docs:
      path: docs/*.jsonl
      id: title
  context_length: 64
  documents_per_shard: 10
  split:
    explain: 4
  refresh: all
subject:
  model: model
dictionaries:
  one:
    hookpoint: layers.1
    coder: coders/one
    latents: [3, 5]
selection:
  window: 8
  min_windows:
    explain: 4
samples:
  strong:
    split: explain
    sampler: top
    windows: 3
  select:
    split: select
    windows: 4
    negatives: 4
  test:
    split: score
    windows: 8
    negatives: 8
llms:
  judge:
    model: model
    engine: transformers
  embedder:
    model: embedder
    engine: sentence_transformers
  reader: {model: model, engine: transformers}
  vectors: {model: embedder, engine: sentence_transformers}
explainers:
  words:
    method: tokens
    n: 4
  default:
    method: pattern
    llm: judge
    sample: strong
    select_sample: select
    embedder: embedder
    draws: 2
scorers:
  cosine:
    method: embedding
    explainers: [words, default]
    sample: test
    windows: 8
    embedder: embedder
  bits:
    method: surprisal
    explainers: [default]
    sample: test
    windows: 4
    llm: judge
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """The valid study, on disk."""
    path = tmp_path / "study.yaml"
    path.write_text(TEXT)
    return path


def edit(file: Path, old: str, new: str) -> int:
    """Replace a text that occurs once; returns the number of the line on which the new one begins."""
    assert TEXT.count(old) == 1, old
    text = TEXT.replace(old, new)
    file.write_text(text)
    return text[: text.index(new)].count("\n") + 1


def refusal(file: Path) -> str:
    with pytest.raises(StudyError) as caught:
        load_study(file)
    return str(caught.value)


@pytest.mark.parametrize("text", ["name: [one", "name: \x07one"])
def test_what_is_no_yaml_is_refused_with_its_line(tmp_path: Path, text: str) -> None:
    path = tmp_path / "study.yaml"
    path.write_text(text)
    with pytest.raises(StudyError, match=r"study.yaml is not YAML: .*(\n.*)*(line 1|position 6)"):
        load_study(path)


def test_the_study_of_these_tests_is_valid(file: Path) -> None:
    study = load_study(file)
    assert (study.name, study.home, study.seed) == ("tiny", file.parent, 7)
    assert study.samples["strong"].windows == 3


@pytest.mark.parametrize(
    ("old", "new", "nearest"),
    [
        ("seed: 7", "sead: 7", "seed"),
        ("  context_length: 64", "  contextlength: 64", "context_length"),
        ("      id: title", "      idd: title", "id"),
        ("    explain: 4\n  refresh", "    explian: 4\n  refresh", "explain"),
        ("    latents: [3, 5]", "    latent: [3, 5]", "latents"),
        ("  window: 8\n  min", "  windows: 8\n  min", "window"),
        ("    explain: 4\nsamples", "    expl: 4\nsamples", "explain"),
        ("    sampler: top", "    samplr: top", "sampler"),
        ("    n: 4", "    m: 4", "n"),
        ("    draws: 2", "    drows: 2", "draws"),
        ("    windows: 8\n    embedder: embedder", "    windows: 8\n    quary: x\n    embedder: embedder", "query"),
        ("    windows: 4\n    llm: judge", "    windows: 4\n    nuetral: x\n    llm: judge", "neutral"),
        ("    engine: transformers", "    engine: transformers\n    dtpye: float32", "dtype"),
    ],
)
def test_a_misspelt_key_is_named_with_file_line_and_nearest_key(file: Path, old: str, new: str, nearest: str) -> None:
    edit(file, old, new)
    lines = file.read_text().splitlines()
    line = next(number for number, text in enumerate(lines, start=1) if text not in TEXT.splitlines())
    message = refusal(file)
    assert message.startswith(f"{file}, line {line}: ")
    assert "\n" not in message
    assert repr(nearest) in message


@pytest.mark.parametrize(("name", "method"), [("tokens", "pattern"), ("pattern", "tokens")])
def test_an_entry_named_like_another_method_is_told_its_own_keys(file: Path, name: str, method: str) -> None:
    values = yaml.safe_load(TEXT)
    own = {"tokens": {"n": 4}, "pattern": values["explainers"]["default"]}
    misspelt, nearest = {"tokens": ("m", "n"), "pattern": ("drows", "draws")}[method]
    values["explainers"][name] = {**own[method], "method": method, misspelt: 2}
    file.write_text(yaml.safe_dump(values))
    assert f"unknown key {misspelt!r}" in refusal(file)
    assert repr(nearest) in refusal(file)


def test_a_key_given_twice_is_refused(file: Path) -> None:
    edit(file, "  cosine:", "  bits:")
    assert "bits" in refusal(file)


@pytest.mark.parametrize(
    ("old", "new", "nearest"),
    [
        ("    method: tokens", "    method: tokns", "tokens"),
        ("    method: surprisal", "    method: surprise", "surprisal"),
        ("    sampler: top", "    sampler: topp", "top"),
        ("    engine: transformers", "    engine: transformer", "transformers"),
        ("    coder: coders/one", "    coder: coders/one\n    format: sparsfy", "sparsify"),
    ],
)
def test_a_misspelt_method_is_named_with_the_nearest(file: Path, old: str, new: str, nearest: str) -> None:
    edit(file, old, new)
    assert f"did you mean {nearest!r}" in refusal(file)


@pytest.mark.parametrize(
    ("old", "place"),
    [
        ("name: tiny\n", "name"),
        ("blocks: 2\n", "blocks"),
        ("    hookpoint: layers.1\n", "hookpoint"),
        ("    sampler: top\n    windows: 3\n", "windows"),
        ("    method: tokens\n", "method"),
        ("    select_sample: select\n", "select_sample"),
        ("    explainers: [default]\n", "explainers"),
    ],
)
def test_a_missing_key_is_named(file: Path, old: str, place: str) -> None:
    edit(file, old, "")
    message = refusal(file)
    assert f"{file}, line " in message
    assert f"'{place}'" in message


@pytest.mark.parametrize(
    ("new", "said"),
    [
        ("id: text", "a source has either a `path` or a `dataset`"),
        ("path: a\n      dataset: b", "a source has either a `path` or a `dataset`"),
        ("dataset: b", "say how many `documents`"),
        ("path: a\n      revision: main", "'revision' is for sources with a `dataset`"),
        ("dataset: b\n      documents: 5\n      format: text", "'format' is for sources with a `path`"),
        ("path: a\n      format: parket", "there is no file format 'parket' (did you mean 'parquet'?)"),
    ],
)
def test_a_source_that_is_two_things_or_none_is_refused(file: Path, new: str, said: str) -> None:
    edit(file, "path: docs/*.jsonl\n      id: title", new)
    assert said in refusal(file)


def test_a_missing_key_is_named_at_the_line_of_its_section(file: Path) -> None:
    edit(file, "    hookpoint: layers.1\n", "")
    line = TEXT.splitlines().index("  one:") + 1
    assert refusal(file) == f"{file}, line {line}: dictionaries.one: the key 'hookpoint' is missing"


def test_all_errors_are_told_at_once(file: Path) -> None:
    edit(file, "seed: 7", "sead: 7\nsubjct: x")
    assert len(refusal(file).splitlines()) == 2


@pytest.mark.parametrize(
    ("old", "new", "place", "nearest"),
    [
        ("    sample: strong", "    sample: stronk", "explainers.default", "strong"),
        ("    embedder: embedder\n    draws", "    embedder: embeder\n    draws", "explainers.default", "embedder"),
        ("    windows: 4\n    llm: judge", "    windows: 4\n    llm: jugde", "scorers.bits", "judge"),
        ("    explainers: [default]", "    explainers: [defualt]", "scorers.bits", "default"),
        ("    sample: test\n    windows: 4", "    sample: tset\n    windows: 4", "scorers.bits", "test"),
    ],
)
def test_an_unknown_reference_is_named_with_the_nearest(
    file: Path, old: str, new: str, place: str, nearest: str
) -> None:
    edit(file, old, new)
    message = refusal(file)
    assert message.startswith(f"{file}, line ")
    assert place in message
    assert f"did you mean {nearest!r}" in message


@pytest.mark.parametrize("key", ["sample", "select_sample"])
def test_an_explainer_never_sees_what_scores(file: Path, key: str) -> None:
    old = {"sample": "    sample: strong", "select_sample": "    select_sample: select"}[key]
    edit(file, old, f"    {key}: test")
    assert "explainers.default uses samples.test of the split score" in refusal(file)


@pytest.mark.parametrize("sample", ["strong", "select"])
def test_a_scorer_never_judges_what_explains_or_selects(file: Path, sample: str) -> None:
    edit(file, "    sample: test\n    windows: 4", f"    sample: {sample}\n    windows: 3")
    assert f"scorers.bits uses samples.{sample}" in refusal(file)


def test_what_is_shown_does_not_select(file: Path) -> None:
    edit(file, "    select_sample: select", "    select_sample: strong")
    assert "samples.strong" in refusal(file)


@pytest.mark.parametrize(
    ("old", "new", "place"),
    [
        ("    llm: judge\n    sample", "    llm: embedder\n    sample", "explainers.default"),
        ("    embedder: embedder\n    draws", "    embedder: judge\n    draws", "explainers.default"),
        ("    windows: 4\n    llm: judge", "    windows: 4\n    llm: embedder", "scorers.bits"),
        ("    windows: 8\n    embedder: embedder", "    windows: 8\n    embedder: judge", "scorers.cosine"),
    ],
)
def test_a_model_is_asked_only_for_what_its_engine_does(file: Path, old: str, new: str, place: str) -> None:
    edit(file, old, new)
    assert f"{place} needs a model with the engine" in refusal(file)


def test_a_scorer_cannot_judge_more_windows_than_are_drawn(file: Path) -> None:
    edit(file, "    sample: test\n    windows: 8", "    sample: test\n    windows: 9")
    assert "scorers.cosine judges 9 windows, but samples.test draws only 8" in refusal(file)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("name: tiny", "name: Tiny"),
        ("name: tiny", "name: ti-ny"),
        ("name: tiny", "name: ''"),
        ("name: tiny", 'name: "tiny\\n"'),
        ("    docs:", "    my docs:"),
        ("  one:", "  One:"),
        ("  words:", "  wörds:"),
        ("  cosine:", "  a/b:"),
        ("  judge:", "  judge|1:"),
    ],
)
def test_invalid_names_are_refused(file: Path, old: str, new: str) -> None:
    line = edit(file, f"{old}\n" if old.startswith("name") else old, f"{new}\n" if old.startswith("name") else new)
    assert f"{file}, line {line}: " in refusal(file)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("blocks: 2", "blocks: 0"),
        ("  context_length: 64", "  context_length: 7"),
        ("    windows: 3", "    windows: -1"),
        ("    latents: [3, 5]", "    latents: [-3]"),
        ("  refresh: all", "  refresh: sometimes"),
        ("    n: 4", "    n: many"),
        ("subject:\n  model: model", "subject: model"),
    ],
)
def test_invalid_values_are_refused_at_their_line(file: Path, old: str, new: str) -> None:
    line = edit(file, old, new)
    assert all(each.startswith(f"{file}, line {line}: ") for each in refusal(file).splitlines())


@pytest.mark.parametrize("text", ["", "just words", "- a\n- b\n", "a: [1\n", "a: b: c\n"])
def test_what_is_no_study_is_refused(file: Path, text: str) -> None:
    file.write_text(text)
    assert str(file) in refusal(file)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    assert "none.yaml" in refusal(tmp_path / "none.yaml")


def test_a_prompt_that_is_missing_or_undivided_is_refused(file: Path) -> None:
    edit(file, "    draws: 2", "    draws: 2\n    prompt: mine.txt")
    assert "explainers.default" in refusal(file)
    assert "mine.txt" in refusal(file)
    (file.parent / "mine.txt").write_text("no divider: $words $texts")
    assert "mine.txt" in refusal(file)
    (file.parent / "mine.txt").write_text("before\n%%\n$words $texts\n")
    filled = load_study(file).prompt("mine.txt").call(Score(), False, {"words": "a", "texts": "b"})
    assert (filled.prefix, filled.suffix) == ("before", "a b")


def test_a_chat_at_a_server_cannot_read_prompts(file: Path) -> None:
    """Of a server that completes texts nobody knows whether it does, until it is asked."""
    served = "  judge:\n    model: model\n    engine: openai"
    edit(file, "  judge:\n    model: model\n    engine: transformers", served)
    load_study(file)
    edit(file, "  judge:\n    model: model\n    engine: transformers", f"{served}\n    chat: true")
    assert "scorers.bits needs the log-probabilities of a prompt's tokens, which a chat over" in refusal(file)


def test_comments_layout_and_key_order_do_not_change_the_digest(file: Path) -> None:
    before = load_study(file).digest
    values = yaml.safe_load(TEXT)
    for text in (
        f"# a comment\n\n{TEXT}",
        yaml.safe_dump(values, sort_keys=True),
        yaml.safe_dump(values, default_flow_style=True),
    ):
        assert text != TEXT
        file.write_text(text)
        assert load_study(file).digest == before


def leaves(value: Any, place: str = "") -> dict[str, Any]:
    """Dotted place → value of everything in a study that is no section."""
    if not isinstance(value, dict):
        return {place: value}
    return {at: leaf for key, each in value.items() for at, leaf in leaves(each, f"{place}.{key}".lstrip(".")).items()}


# Another valid value, where that is not the number plus one or the text plus a letter.
OTHERWISE = {
    "corpus.refresh": "doubling", "dictionaries.one.latents": [3], "samples.strong.sampler": "random",
    "llms.reader.engine": "sentence_transformers", "llms.vectors.engine": "transformers",
    "explainers.default.llm": "reader", "explainers.default.embedder": "vectors",
    "scorers.cosine.explainers": ["words"], "scorers.cosine.windows": 7,
    "scorers.cosine.embedder": "vectors", "scorers.bits.explainers": ["words"], "scorers.bits.llm": "reader",
}  # fmt: skip
# Places where this study allows no other value.
FIXED = {
    "samples.strong.split", "samples.select.split", "samples.test.split",
    "explainers.words.method", "explainers.default.method", "explainers.default.sample",
    "explainers.default.select_sample", "scorers.cosine.method", "scorers.cosine.sample",
    "scorers.bits.method", "scorers.bits.sample", "llms.judge.engine", "llms.embedder.engine",
}  # fmt: skip


@pytest.mark.parametrize("place", sorted(leaves(yaml.safe_load(TEXT)).keys() - FIXED))
def test_every_choice_changes_the_digest(place: str) -> None:
    values = yaml.safe_load(TEXT)
    before = Study.model_validate(values).digest
    *above, last = place.split(".")
    section = values
    for key in above:
        section = section[key]
    value = section[last]
    section[last] = OTHERWISE.get(place, value + 1 if isinstance(value, int) else f"{value}x")
    assert Study.model_validate(values).digest != before


@pytest.mark.parametrize(
    ("section", "new"),
    [
        ("dictionaries", {"hookpoint": "layers.1", "coder": "coders/one"}),
        ("samples", {"split": "score", "windows": 1}),
        (
            "scorers",
            {"method": "embedding", "explainers": ["words"], "sample": "test", "windows": 1, "embedder": "vectors"},
        ),
        ("explainers", {"method": "tokens"}),
    ],
)
def test_another_entry_changes_the_digest(section: str, new: dict[str, Any]) -> None:
    values = yaml.safe_load(TEXT)
    before = Study.model_validate(values).digest
    values[section]["another"] = new
    assert Study.model_validate(values).digest != before


def test_a_study_cannot_be_changed_after_it_was_read(file: Path) -> None:
    with pytest.raises(ValueError, match="frozen"):
        load_study(file).samples["test"].windows = 9


def test_an_edited_study_is_refused(file: Path) -> None:
    study = load_study(file)
    require_unchanged(study)
    edit(file, "seed: 7", "seed: 8")
    with pytest.raises(StudyChangedError, match="was edited"):
        require_unchanged(study)


def test_a_prompt_stays_what_it_was_when_the_study_was_read(file: Path) -> None:
    # Its digest is in the code versions: a text read later would be recorded under another's digest.
    prompt = file.parent / "mine.txt"
    prompt.write_text("before\n%%\n$words $texts\n")
    edit(file, "    draws: 2", "    draws: 2\n    prompt: mine.txt")
    study = load_study(file)
    digest = study.prompt("mine.txt").digest
    prompt.write_text("after\n%%\n$words $texts\n")
    assert study.prompt("mine.txt").digest == digest
    with pytest.raises(StudyChangedError):
        require_unchanged(study)
    assert load_study(file).prompt("mine.txt").digest != digest


@pytest.mark.parametrize("path", sorted(ROOT.glob("studies/*.yaml")), ids=lambda path: path.stem)
def test_the_studies_that_are_shipped_are_valid_and_named_like_their_files(path: Path) -> None:
    study = load_study(path)
    assert study.name == path.stem
    assert Flow(study).stages
    methods = [*study.explainers.values(), *study.scorers.values()]
    files = [file for each in methods for file in getattr(each, "files", {}).values()]
    assert all((study.home / file).is_file() for file in files)
