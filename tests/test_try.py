"""One latent tried alone is what the study makes of it; nothing is left behind."""

from pathlib import Path
from typing import Any

import pytest

from latentlake.cli import main
from latentlake.dictionaries import coder_of
from latentlake.errors import InputError
from latentlake.fakes import FakeHandles
from latentlake.lake import Lake
from latentlake.origins import Origins
from latentlake.protocols import Handles
from latentlake.reading.trace import trace
from latentlake.study import Study, load_study
from latentlake.trying import Trial, try_latent
from tests.workbench import Workbench

DOCUMENTS = 60  # of both shards


def opening(bench: Workbench) -> Any:
    def opened(study: Study, origins: Origins, lake: Lake) -> Handles:
        return FakeHandles(lambda name: coder_of(name, origins, lake), bench.subject, bench.llm)

    return opened


def tried(bench: Workbench, latent: int, **more: Any) -> Trial:
    study = load_study(bench.prepare().study.path)
    options = {"documents": DOCUMENTS, "opening": opening(bench), "cache": bench.folder / "cache", **more}
    return try_latent(study, "one", latent, **options)


def a_chosen_latent(bench: Workbench) -> int:
    """One whose control has a partner."""
    rows = bench.view().latents.filter("is_chosen").sort("latent").collect()
    return int(rows.filter(block=rows["block"][0])["latent"][1])


def test_it_is_what_the_study_makes_of_the_latent(materialized: Workbench) -> None:
    latent = a_chosen_latent(materialized)
    own, alone = trace(materialized.view(), "one", latent), tried(materialized, latent)
    assert alone.latents.drop("reason").equals(own.latents.drop("reason"))
    assert len(own.explanations) == 2
    assert own.scores.filter(control="shuffled")["value"].count() > 0
    for name in ("explanations", "hypotheses", "examples", "judgements", "scores"):
        one, other = getattr(own, name), getattr(alone, name)
        columns = [each for each in one.columns if each not in ("seconds", "created_at", "launch", "attempts", "price")]
        assert len(one) > 0
        assert one.select(columns).equals(other.select(columns)), name


def test_the_lake_is_left_alone(materialized: Workbench) -> None:
    before = {path: path.stat().st_mtime_ns for path in (materialized.folder / "lake").rglob("*")}
    tried(materialized, a_chosen_latent(materialized), explainer="tokens", scorer="embedding")
    assert {path: path.stat().st_mtime_ns for path in (materialized.folder / "lake").rglob("*")} == before


def test_of_one_explainer_and_scorer_only_these_are_asked(materialized: Workbench) -> None:
    found = tried(materialized, a_chosen_latent(materialized), explainer="tokens", scorer="embedding")
    assert found.explanations["explainer"].to_list() == ["tokens"]
    assert found.scores.select("explainer", "scorer").unique().rows() == [("tokens", "embedding")]
    assert found.hypotheses["call"].null_count() == len(found.hypotheses)


def test_fewer_documents_are_read_from_the_first(materialized: Workbench) -> None:
    materialized.study["selection"]["min_windows"] = {"explain": 1, "select": 0, "score": 1}
    dense = materialized.view().latents.sort("n_tokens", descending=True).collect()["latent"][0]
    all_of_them, some = tried(materialized, dense), tried(materialized, dense, documents=40)
    assert (some.documents, all_of_them.documents) == (40, 60)
    assert 0 < some.tokens < all_of_them.tokens
    assert some.latents["n_tokens"][0] < all_of_them.latents["n_tokens"][0]


def test_other_texts_are_read_in_their_place(materialized: Workbench) -> None:
    materialized.write_shard("../other", 9, documents=50)
    found = tried(materialized, a_chosen_latent(materialized), text=materialized.folder / "other.jsonl.gz")
    assert found.documents == 50
    assert set(found.examples["file"]) == {"other.jsonl.gz"}


def test_what_is_of_other_latents_is_left_out(materialized: Workbench) -> None:
    latent = a_chosen_latent(materialized)
    study = materialized.study
    study["dictionaries"]["two"] = study["dictionaries"]["one"]
    study["comparisons"] = {"pair": {}}
    study["explainers"]["lent"] = {"method": "borrowed", "comparison": "pair", "of": "two", "explainer": "tokens"}
    study["scorers"]["embedding"]["explainers"].append("lent")
    found = tried(materialized, latent, scorer="embedding")
    assert found.explanations["explainer"].to_list() == ["default", "tokens"]
    assert found.scores["explainer"].unique().sort().to_list() == ["default", "tokens"]
    with pytest.raises(InputError, match=r"explainers\.lent borrows what is said of other latents"):
        tried(materialized, latent, explainer="lent")


REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"dictionary": "on"}, r"the study has no dictionaries\.on.*one"),
    ({"latent": 64}, r"has no latent 64; its latents are 0 to 63"),
    ({"explainer": "token"}, r"no explainers\.token.*tokens"),
    ({"scorer": "detect"}, r"no scorers\.detect.*detection"),
    ({"explainer": "tokens", "scorer": "detection"}, r"scorers\.detection does not judge explainers\.tokens"),
    ({"documents": 0}, r"0 documents were to be read; --documents takes 1 or more"),
]


@pytest.mark.parametrize(("changes", "said"), REFUSED)
def test_what_is_not_there_is_refused_before_any_work(workbench: Workbench, changes: dict[str, Any], said: str) -> None:
    study = load_study(workbench.prepare().study.path)
    wanted = {"dictionary": "one", "latent": 3, "cache": workbench.folder / "cache", **changes}

    def shut(*_: object) -> Handles:
        raise AssertionError("a model was wanted")

    with pytest.raises(InputError, match=said):
        try_latent(study, opening=shut, **wanted)


def test_a_latent_that_fires_too_rarely_is_told_from_one_that_never_does(materialized: Workbench) -> None:
    rows = materialized.view().latents.select("latent", "n_tokens", "triage").collect()
    rare = rows.filter(triage="rare")["latent"].to_list()
    (latent, *_) = rare or [int(rows.sort("n_tokens")["latent"][0])]
    with pytest.raises(InputError, match=rf"latent {latent} .*documents that were read \([\d,]+ tokens\).*--documents"):
        tried(materialized, latent, documents=2)


def test_the_command_says_how_much_was_read(
    materialized: Workbench, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    latent, opened = a_chosen_latent(materialized), opening(materialized)
    monkeypatch.setattr("latentlake.trying._real", lambda settings, *of: opened(*of))
    monkeypatch.setenv("LATENTLAKE_CACHE", str(materialized.folder / "cache"))
    path = materialized.prepare().study.path
    assert main(["--study-file", str(path), "try", "one", str(latent), "--documents", "60"]) == 0
    told = capsys.readouterr()
    assert told.out.startswith("read 60 documents, ")
    assert "shuffled" in told.out
    assert "<<" in told.out
    assert "activations …" in told.err
    assert not Path("lake").exists() or not list(Path("lake").glob("tiny"))


def test_from_python_a_page_can_be_made_of_it(materialized: Workbench) -> None:
    from latentlake.pages.latent import latent_html

    found = tried(materialized, a_chosen_latent(materialized), explainer="tokens")
    assert found.explanations["explanation"][0] in latent_html(found)
