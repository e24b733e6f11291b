"""From a score back: every step that a trace shows is the one that was taken."""

import gzip
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import polars as pl
import pytest

import latentlake
from latentlake.catalog import Catalog
from latentlake.cli import main
from latentlake.commands import trace as trace_command
from latentlake.errors import LakeError
from latentlake.fakes import FakeLLM
from latentlake.protocols import Call, Choose, Reply
from latentlake.reading.trace import Trace, ranked, trace, traces
from latentlake.reading.view import open_lake
from latentlake.sampling.texts import SEPARATOR
from tests.workbench import LATENTS, Workbench

WINDOW = ["shard", "context", "start"]


def chosen(bench: Workbench) -> list[int]:
    return bench.view().latents.filter("is_chosen").collect()["latent"].sort().to_list()


def traced(bench: Workbench, explainer: str | None = None, scorer: str | None = None) -> Trace:
    return trace(bench.view(), "one", chosen(bench)[0], explainer, scorer)


def run(bench: Workbench, *arguments: str) -> int:
    return main(["--lake", bench.lake.uri, "--study-file", "none.yaml", "trace", *arguments])


def one_line(text: str) -> str:
    return " ".join(text.split())


def documents(bench: Workbench) -> dict[str, str]:
    """Texts of all documents by name, from the files of the corpus."""
    files = [gzip.decompress(path.read_bytes()).decode() for path in bench.folder.glob("docs/*.gz")]
    lines = [line for file in files for line in file.splitlines()]
    return {record["title"]: record["text"] for record in map(json.loads, lines)}


def test_a_judgement_leads_to_the_call_that_asked_about_its_window(materialized: Workbench) -> None:
    judgements = traced(materialized).judgements
    asked = judgements.filter(pl.col("scorer") != "embedding")
    assert set(asked["scorer"]) == {"surprisal", "detection"}
    assert judgements.filter(scorer="embedding")["prompt_text"].null_count() == judgements.height - asked.height > 0
    for row in asked.iter_rows(named=True):
        assert (row["explanation"] is None) == (row["control"] == "empty")
        assert (row["explanation"] or "") in row["prompt_text"]
        assert one_line(row["text"]) in row["prompt_text"]
        assert (row["model"], row["asset"]) == ("judge", f"scores/default/{row['scorer']}")


@pytest.mark.parametrize("frame", ["judgements", "hypotheses"])
def test_replies_are_those_of_the_ledger(materialized: Workbench, frame: str) -> None:
    rows = getattr(traced(materialized), frame).filter(pl.col("call").is_not_null())
    columns = ["reply", "logprobs", "tokens_in", "tokens_out", "seconds", "revision", "launch", "created_at"]
    ledger = {row["key"]: row for row in materialized.view().calls.collect().iter_rows(named=True)}
    assert rows.height
    for row in rows.iter_rows(named=True):
        assert {name: row[name] for name in columns} == {name: ledger[row["call"]][name] for name in columns}


def test_latents_read_together_are_as_read_one_by_one(materialized: Workbench) -> None:
    view, latents = materialized.view(), [*reversed(chosen(materialized)), skipped(materialized)]
    together = traces(view, "one", latents)
    assert [each.latent for each in together] == latents
    for each in together:
        (alone,) = traces(view, "one", [each.latent])
        for name, rows in vars(each).items():
            if isinstance(rows, pl.DataFrame) and name != "versions":
                assert rows.equals(getattr(alone, name)), name


def skipped(bench: Workbench) -> int:
    return int(bench.view().latents.filter(~pl.col("is_chosen")).select("latent").collect()["latent"][0])


def test_of_a_latent_that_was_not_chosen_there_are_statistics_alone(materialized: Workbench) -> None:
    (found,) = traces(materialized.view(), "one", [skipped(materialized)])
    assert found.latents["reason"].item()
    assert all(
        getattr(found, name).is_empty() for name in ("scores", "judgements", "explanations", "examples", "costs")
    )


def test_costs_are_those_of_the_calls_made_for_the_latent(materialized: Workbench) -> None:
    found = traced(materialized)
    keys = {*found.judgements["call"].drop_nulls(), *found.hypotheses["call"].drop_nulls()}
    calls = materialized.view().calls.filter(pl.col("key").is_in(keys), latent=found.latent).collect()
    assert dict(found.costs.select("asset", "calls").iter_rows()) == dict(calls.group_by("asset").len().iter_rows())
    assert found.costs["tokens_in"].sum() == calls["tokens_in"].sum() > 0


def test_neighbours_come_nearest_first_with_what_is_said_of_them(materialized: Workbench) -> None:
    materialized.study["neighbours"] = {"k": 30}
    materialized.run()
    view = materialized.view()
    said = view.explanations.filter(explainer=next(iter(json.loads((view.study or {})["choices"])["explainers"])))
    texts = dict(said.select("latent", "explanation").collect().iter_rows())
    found = [each.neighbours for each in traces(view, "one", chosen(materialized))]
    assert any(rows["explanation"].count() for rows in found)
    for rows in found:
        nearness = rows["decoder_cosine"].fill_null(-2).to_list()
        assert nearness == sorted(nearness, reverse=True)
        assert rows["explanation"].to_list() == [texts.get(each) for each in rows["neighbour"]]


@pytest.mark.parametrize(("dictionary", "others"), [("one", ["copy", "half"]), ("half", ["copy", "one"])])
def test_partners_in_other_dictionaries_are_those_of_the_alignments(
    compared: Path, dictionary: str, others: list[str]
) -> None:
    view = open_lake(f"{compared}/study/lake")
    latents = list(range(0, LATENTS, 7))
    found = traces(view, dictionary, latents)
    said = {
        (row[0], row[1]): row[2]
        for row in view.explanations.select("dictionary", "latent", "explanation").collect().rows()
    }
    aligned: dict[tuple[int, str, int], dict[str, float]] = {}
    ways = {"decoder_partner": "decoder_cosine", "encoder_partner": "encoder_cosine", "activation_partner": "jaccard"}
    for row in view.alignments.collect().iter_rows(named=True):
        for partner, nearness in ways.items():
            one, other = (row["dictionary"], row["latent"]), (row["other"], row[partner])
            own, theirs = (one, other) if one[0] == dictionary else (other, one)
            if own[0] == dictionary and None not in (own[1], theirs[1]):
                near = aligned.setdefault((own[1], *theirs), {})
                near[nearness] = max(row[nearness], near.get(nearness, -1))
    for each in found:
        rows = each.partners.to_dicts()
        assert {(each.latent, row["other"], row["partner"]) for row in rows} == {
            key for key in aligned if key[0] == each.latent
        }
        for row in rows:
            expected = aligned[each.latent, row["other"], row["partner"]]
            assert {name: row[name] for name in ways.values()} == {name: expected.get(name) for name in ways.values()}
            assert row["explanation"] == said.get((row["other"], row["partner"]))
        nearest = each.partners.select(pl.coalesce("decoder_cosine", "encoder_cosine", "jaccard")).to_series().to_list()
        assert nearest == sorted(nearest, reverse=True)
    assert {row for each in found for row in each.partners["other"]} == set(others)
    assert any(each.partners["is_shared"].any() for each in found)
    assert any(each.partners["explanation"].count() for each in found)
    read = {row for row in found[0].versions.select("asset", "partition").rows() if row[0].startswith("alignments/")}
    latest = view.latest().filter(pl.col("asset").str.starts_with("alignments/")).select("asset", "partition").rows()
    assert read == {(asset, pair) for asset, pair in latest if dictionary in pair.split("-")}
    (alone,) = traces(view, dictionary, latents[1:2])
    assert alone.partners.equals(found[1].partners)


def test_where_nothing_is_compared_there_are_no_partners(materialized: Workbench) -> None:
    found = traced(materialized).partners
    assert found.is_empty()
    assert "explanation" in found.columns


def test_a_control_shows_the_explanation_of_the_other_latent(materialized: Workbench) -> None:
    controls = traced(materialized).judgements.filter(control="shuffled")
    said = materialized.view().explanations.collect()
    texts = {(row["explainer"], row["latent"]): row["explanation"] for row in said.iter_rows(named=True)}
    assert (controls["explanation_latent"] != controls["latent"]).all()
    for row in controls.iter_rows(named=True):
        assert row["explanation"] == texts[row["explainer"], row["explanation_latent"]]


def test_a_hypothesis_leads_to_the_prompt_that_showed_the_examples(materialized: Workbench) -> None:
    found = traced(materialized, explainer="default")
    draws = found.hypotheses.filter(source="draw")
    shown = found.examples.filter("is_activating", sample="strong")["text"]
    assert (draws.height, shown.len()) == (3, 3)
    for row in draws.iter_rows(named=True):
        prompt = one_line(row["prompt_text"].replace("<<", "").replace(">>", ""))
        assert all(one_line(text) in prompt for text in shown)
        assert row["explanation"] in row["reply"].replace("<<", "").replace(">>", "")
    assert found.explanations["explanation"].item() == found.hypotheses.filter("is_chosen")["explanation"].item()


def test_examples_name_the_documents_that_they_are_text_of(materialized: Workbench) -> None:
    texts, seen = documents(materialized), set()
    for latent in chosen(materialized):
        for row in trace(materialized.view(), "one", latent).examples.iter_rows(named=True):
            parts = [part for part in row["text"].split(SEPARATOR) if part]
            assert len(parts) == len(row["documents"])
            names = row["documents"]
            assert row["file"] == f"{names[0].split()[0]}.jsonl.gz"
            for place, (name, part) in enumerate(zip(names, parts, strict=True)):
                assert part in texts[name]
                assert place == len(parts) - 1 or texts[name].endswith(part)
                assert place == 0 or texts[name].startswith(part)
            seen.add((len(parts), row["text"].startswith(SEPARATOR), row["start"] == 0))
    assert {(1, False, False), (1, True, False), (2, False, False), (1, False, True)} <= seen


def test_the_most_misranked_come_first_and_their_mean_is_what_the_score_lacks(materialized: Workbench) -> None:
    found = traced(materialized)
    scores = found.scores.filter(metric="auroc")
    assert scores.height == 12
    for row in scores.iter_rows(named=True):
        same = [pl.col(name).eq_missing(pl.lit(row[name])) for name in ("explainer", "scorer", "control")]
        judged = found.judgements.filter(same)
        for is_activating in (True, False):
            mean = judged.filter(pl.col("is_activating") == is_activating)["misranked"].mean()
            assert mean == pytest.approx(1 - row["value"])
        assert judged["misranked"].is_sorted(descending=True)


def test_versions_are_those_of_the_partitions(materialized: Workbench) -> None:
    found = traced(materialized)
    own = f"{found.latents['block'].item()}|one"
    shards = found.examples["shard"].unique()
    partitions = {
        "subject": [""], "llms": ["judge", "embedder"], "dictionaries": ["one"], "selections": ["one"],
        "contexts": shards, "activations": [f"one|{shard}" for shard in shards],
    }  # fmt: skip
    assets = set(materialized.view().catalog.present_study()["assets"]) - {"agreements"}  # they are made of the scores
    expected = {(asset, key) for asset in assets for key in partitions.get(asset, [own])}
    published = Catalog(materialized.lake.open("tiny")).publications()
    names = ["recipe", "code_version", "data_version", "study", "run", "at", "attempt"]
    rows = {(row["asset"], row["partition"]): row for row in found.versions.iter_rows(named=True)}
    assert rows.keys() == expected
    for key, row in rows.items():
        assert {name: row[name] for name in names} == {name: getattr(published[key], name) for name in names}
        assert row["table_versions"]


def test_weights_are_those_of_the_tables(materialized: Workbench) -> None:
    found, view = traced(materialized), materialized.view()
    assert found.dictionaries.equals(view.dictionaries.collect())
    assert found.subject.equals(view.subject.collect())
    assert found.llms.equals(view.llms.sort("llm").collect())


def test_what_is_computed_again_is_traced_to_its_new_attempt(materialized: Workbench) -> None:
    path = materialized.folder / "detection.txt"
    path.write_text(path.read_text().replace("Answer yes or no.", "Say yes or no."))
    materialized.run()
    found = traced(materialized, scorer="detection")
    assert found.judgements["prompt_text"].str.contains("Say yes or no.", literal=True).all()
    assert found.versions.filter(asset="scores/default/detection")["attempt"].item() == 2


def test_one_explainer_and_scorer_leave_out_the_others(materialized: Workbench) -> None:
    found = traced(materialized, "tokens", "embedding")
    for frame in (found.scores, found.judgements):
        assert set(frame.select("explainer", "scorer").unique().rows()) == {("tokens", "embedding")}
    assert set(found.explanations["explainer"]) == set(found.hypotheses["explainer"]) == {"tokens"}
    assert found.llms["llm"].to_list() == ["embedder"]
    assert not found.versions.filter(pl.col("asset").str.contains("default|detection|surprisal")).height
    assert set(traced(materialized, scorer="detection").explanations["explainer"]) == {"default"}


def test_it_is_exported_beside_open(materialized: Workbench) -> None:
    view = latentlake.open(materialized.lake.uri)
    assert latentlake.trace(view, "one", chosen(materialized)[0]).scores.height


BAD: Sequence[tuple[Mapping[str, object], str]] = [
    ({"dictionary": "on"}, "the study 'tiny' has no dictionary 'on' (did you mean 'one'?)"),
    ({"latent": LATENTS}, "the dictionary 'one' has no latent 64; its latents are 0 to 63"),
    ({"latent": -1}, "the dictionary 'one' has no latent -1; its latents are 0 to 63"),
    ({"explainer": "token"}, "the study 'tiny' has no explainer 'token' (did you mean 'tokens'?)"),
    ({"scorer": "detect"}, "the study 'tiny' has no scorer 'detect' (did you mean 'detection'?)"),
    (
        {"explainer": "tokens", "scorer": "detection"},
        "the scorer 'detection' does not judge the explainer 'tokens', but default; name one of these, or add it to "
        "scorers.detection.explainers in the study and run it",
    ),
]


@pytest.mark.parametrize(("given", "message"), BAD, ids=[" ".join(given) for given, _ in BAD])
def test_what_is_not_there_is_refused(materialized: Workbench, given: Mapping[str, object], message: str) -> None:
    with pytest.raises(LakeError) as caught:
        trace(materialized.view(), **{"dictionary": "one", "latent": 0, **given})  # type: ignore[arg-type]
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("is_poor", "remedy"),
    [(False, "list it in dictionaries.one.latents in the study"), (True, "lower selection.min_windows in the study")],
    ids=["not drawn", "rare"],
)
def test_a_latent_that_was_not_chosen_says_why(materialized: Workbench, is_poor: bool, remedy: str) -> None:
    others = materialized.view().latents.filter(~pl.col("is_chosen"))
    row = others.filter(pl.col("triage").is_in(["dead", "rare"]) == is_poor).first().collect().row(0, named=True)
    with pytest.raises(LakeError) as caught:
        trace(materialized.view(), "one", row["latent"])
    assert f"latent {row['latent']} of 'one' was not chosen" in str(caught.value)
    assert f"(triage {row['triage']}: {row['reason']})" in str(caught.value)
    assert remedy in str(caught.value)


def test_the_command_tells_the_whole_story(materialized: Workbench, capsys: pytest.CaptureFixture[str]) -> None:
    found = traced(materialized)
    assert run(materialized, "one", str(found.latent)) == 0
    out = capsys.readouterr().out
    worst = found.judgements.filter(pl.col("control").is_null(), pl.col("prompt_text").is_not_null())
    prompt = worst.sort("misranked", descending=True, maintain_order=True)["prompt_text"][0]
    assert all(f"│ {line}" in out for line in prompt.splitlines())
    for text in (*found.explanations["explanation"], *found.hypotheses["explanation"], *found.versions["asset"]):
        assert text in out
    assert found.subject["digest"].item() in out
    assert found.examples.filter("is_activating", sample="strong")["documents"][0][0] in out
    assert "3 of 8 by rank" in out
    assert "none yet" not in out


def test_with_all_every_judgement_is_shown(materialized: Workbench, capsys: pytest.CaptureFixture[str]) -> None:
    found = traced(materialized, scorer="detection")
    assert run(materialized, "one", str(found.latent), "--scorer", "detection", "--all") == 0
    assert capsys.readouterr().out.count(", misranked ") == found.judgements.height > 0


def test_as_json_it_is_the_whole_trace(materialized: Workbench, capsys: pytest.CaptureFixture[str]) -> None:
    found = traced(materialized)
    assert run(materialized, "one", str(found.latent), "--json") == 0
    told = json.loads(capsys.readouterr().out)
    assert told.keys() == vars(found).keys()
    assert [row["prompt_text"] for row in told["judgements"]] == found.judgements["prompt_text"].to_list()
    assert told["latents"][0]["n_tokens"] == found.latents["n_tokens"].item()


def test_an_error_is_one_line(materialized: Workbench, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(materialized, "two", "0") == 1
    assert capsys.readouterr().err == "error: the study 'tiny' has no dictionary 'two' (did you mean 'one'?)\n"


class Refusing(FakeLLM):
    """A language model that refuses to choose."""

    def _reply(self, call: Call) -> Reply:
        failed = Reply(None, None, 1, 0, 0, None, 0.0, "refused")
        return failed if isinstance(call.sampling, Choose) else super()._reply(call)


def test_failed_calls_are_shown_as_such(materialized: Workbench, capsys: pytest.CaptureFixture[str]) -> None:
    materialized.llm = Refusing()
    path = materialized.folder / "detection.txt"
    path.write_text(path.read_text().replace("Answer yes or no.", "Say yes or no."))
    materialized.run()
    assert run(materialized, "one", str(chosen(materialized)[0]), "--scorer", "detection") == 0
    out = capsys.readouterr().out
    assert out.count("failed: refused") == 3
    assert "all_failed" in out


def test_scores_stand_beside_those_of_each_control() -> None:
    given = {None: 0.9, "shuffled": 0.5, "empty": None}
    row = {
        "explainer": "default",
        "scorer": "detection",
        "metric": "auroc",
        "n": 8,
        "n_failed": 1,
        "low": 0.8,
        "high": 1.0,
    }
    rows = [{**row, "control": control, "value": value, "error": None} for control, value in given.items()]
    head, shown = trace_command._scores(pl.DataFrame(rows))
    assert head.split() == [
        *("explainer", "scorer", "metric", "score", "95", "%"),
        "empty",
        "shuffled",
        "windows",
        "failed",
    ]
    assert shown.split() == ["default", "detection", "auroc", "0.90", "0.80–1.00", "–", "0.50", "8", "1"]


def test_simulated_windows_are_told_by_their_most_active_tokens() -> None:
    row = {
        "is_activating": True, "decile": 4, "source": "quantiles", "error": None, "text": "a big river", "offsets": [0, 1, 5, 5],
        "explainer": "default", "simulated": [0.5, 2.0, None, 7.25],
    }  # fmt: skip
    assert trace_command._judged(row) == "fires (decile 4), simulated ' river' 7.2, ' big' 2.0, 'a' 0.5"
    sampling = '{"after": "\\t", "choices": ["0", "1"]}'
    assert trace_command._reply({"sampling": sampling, "logprobs": [-0.1, -3.0, -2.0, -0.2]}).endswith(
        "behind each '\\t': 0 1"
    )


def test_labels_without_probabilities_areranked_and_told() -> None:
    labels = pl.DataFrame(
        {
            **dict.fromkeys(("explainer", "scorer", "control", "probability", "measure"), [None] * 4),
            "latent": [7] * 4,
            "is_activating": [True, True, False, False],
            "prediction": [True, False, False, True],
            **{name: [0, 1, 2, 3] for name in WINDOW},
        },
        schema_overrides={"probability": pl.Float64, "measure": pl.Float64},
    )
    found = ranked(labels)
    assert dict(found.select("context", "misranked").iter_rows()) == {0: 0.25, 1: 0.75, 2: 0.25, 3: 0.75}
    row = {
        "source": "quantiles",
        "decile": 1,
        "simulated": None,
        "target": None,
        "error": None,
        **found.row(0, named=True),
    }
    assert trace_command._judged(row) == "fires (decile 1), judged no, misranked 0.75"
