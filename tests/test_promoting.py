"""Explainers that speak of what a latent promotes: what they show, and what is said where there is nothing to show."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import accumulate
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import yaml

from latentlake.errors import StudyError
from latentlake.flow import Flow, Input
from latentlake.protocols import Answer, Asked, Reply
from latentlake.stages import explanations
from latentlake.study import Study, load_study
from latentlake.tables import TABLES
from tests.scene import STUDY, Scene, rows_of, work_of
from tests.workbench import Workbench

LLMS = {
    "judge": {"model": "m", "engine": "transformers"},
    "talker": {"model": "m", "engine": "transformers", "chat": True},
}
VOCABULARY = {"method": "vocabulary", "llm": "judge"}
LABELS = {"method": "max_act_logits", "llm": "judge", "sample": "strong"}
TIMEOUT = Reply(None, None, 1, 0, 0, None, 0.0, error="transport", is_retryable=True)

Window = tuple[Sequence[str], Sequence[float]]


def study_with(folder: Path, explainer: Mapping[str, Any], **more: Any) -> Study:
    path = folder / "study.yaml"
    path.write_text(
        yaml.safe_dump({**STUDY, "llms": STUDY["llms"] | LLMS, "explainers": {"own": dict(explainer)}, **more})
    )
    return load_study(path)


def logits_frame(**lists: tuple[Sequence[str], Sequence[str]] | str) -> pl.DataFrame:
    """What latents (``l3``) promote and suppress, or why that is not known."""

    def tokens(texts: Sequence[str]) -> list[dict[str, Any]]:
        return [{"token": n, "text": text, "logit": 9.0 - n} for n, text in enumerate(texts)]

    rows = [
        {
            "dictionary": "one", "block": 0, "latent": int(name[1:]), "error": own if isinstance(own, str) else None,
            "promoted": None if isinstance(own, str) else tokens(own[0]),
            "suppressed": None if isinstance(own, str) else tokens(own[1]),
        }
        for name, own in lists.items()
    ]  # fmt: skip
    return pl.DataFrame(rows, schema=TABLES["logits"].empty().schema)


def examples_frame(windows: Mapping[int, Sequence[Window]]) -> pl.DataFrame:
    """Windows of latents, ranked in order."""
    rows = [
        {
            "latent": latent, "rank": rank, "is_activating": True, "activations": list(activations), "text": "".join(pieces),
            "offsets": list(accumulate(map(len, pieces[:-1]), initial=0)),
        }
        for latent, own in windows.items()
        for rank, (pieces, activations) in enumerate(own)
    ]  # fmt: skip
    schema = TABLES["examples"].empty().schema
    return pl.DataFrame(rows, schema={name: schema[name] for name in rows[0]} if rows else schema)


def explained(
    study: Study,
    logits: pl.DataFrame,
    windows: Mapping[int, Sequence[Window]] | None = None,
    reply: Reply | None = None,
) -> tuple[dict[int, tuple[str | None, str | None]], list[Asked]]:
    """By latent the explanation and the error, and what was asked."""
    asked: list[Asked] = []

    def ask(llm: str, calls: Sequence[Asked]) -> list[Answer]:
        asked.extend(calls)
        said = reply or Reply(" Explanation: names of spices.", None, 1, 0, 1, "stop", 0.0)
        return [Answer(str(n), said) for n, _ in enumerate(calls)]

    frames = {
        "latents": logits.select("latent", is_chosen=pl.lit(True)),
        "logits": logits,
        "examples/strong": examples_frame(windows or {}),
    }
    work = replace(work_of(study, "explanations/own", Scene(), frames=frames), ask=ask)
    rows = rows_of("explanations", explanations.compute(work))
    return {row["latent"]: (row["explanation"], row["error"]) for row in rows.iter_rows(named=True)}, asked


def shown(call: Asked, name: str) -> list[str]:
    """What stands after a heading of the prompt."""
    found = re.search(rf"^{name}: (.*)$", call.call.suffix, re.MULTILINE)
    assert found
    return found[1].split(", ")


SPICES = ([" spice", "spice", " pepper", "\ufffd", " ", " cu\nmin", "saff"], [" engine", "vote"])


def test_the_vocabulary_is_shown_as_different_words_strongest_first(tmp_path: Path) -> None:
    study = study_with(tmp_path, {**VOCABULARY, "promoted": 3, "suppressed": 1})
    found, [call] = explained(study, logits_frame(l4=SPICES))
    assert found == {4: ("names of spices", None)}
    assert call.latent == 4
    assert shown(call, "Promoted") == ["spice", "pepper", "cu min"]
    assert shown(call, "Suppressed") == ["engine"]


@pytest.mark.parametrize("suppressed", [[], ["\ufffd"], ["vote"]])
def test_where_no_suppressed_tokens_are_shown_a_dash_stands(tmp_path: Path, suppressed: list[str]) -> None:
    study = study_with(tmp_path, {**VOCABULARY, "suppressed": 0 if suppressed == ["vote"] else 5})
    _, [call] = explained(study, logits_frame(l4=(["spice"], suppressed)))
    assert shown(call, "Suppressed") == ["-"]


@pytest.mark.parametrize("explainer", [VOCABULARY, LABELS], ids=["vocabulary", "max_act_logits"])
def test_what_promotes_nothing_that_can_be_shown_is_not_asked_about(
    tmp_path: Path, explainer: Mapping[str, Any]
) -> None:
    logits = logits_frame(l1="not_residual", l2=(["\ufffd", " "], ["vote"]), l3=SPICES, l4="no_direction")
    found, asked = explained(study_with(tmp_path, explainer), logits, {n: [(["a", " b"], [1, 0])] for n in range(1, 5)})
    assert found == {
        1: (None, "not_residual"), 2: (None, "no_tokens"), 3: ("names of spices", None), 4: (None, "no_direction"),
    }  # fmt: skip
    assert [call.latent for call in asked] == [3]


@pytest.mark.parametrize("explainer", [VOCABULARY, LABELS], ids=["vocabulary", "max_act_logits"])
def test_a_call_that_fails_is_an_error(tmp_path: Path, explainer: Mapping[str, Any]) -> None:
    study, windows = study_with(tmp_path, explainer), {1: [(["a"], [1.0])]}
    assert explained(study, logits_frame(l1=SPICES), windows, TIMEOUT)[0] == {1: (None, "transport")}
    longer = Reply("names of", None, 1, 0, 2, "length", 0.0)
    assert explained(study, logits_frame(l1=SPICES), windows, longer)[0] == {1: (None, "truncated")}


def test_a_latent_without_windows_has_no_label(tmp_path: Path) -> None:
    found, asked = explained(study_with(tmp_path, LABELS), logits_frame(l1=SPICES), {})
    assert (found, asked) == ({1: (None, "no_windows")}, [])


def test_a_label_is_asked_for_with_the_strongest_tokens_and_what_follows_them(tmp_path: Path) -> None:
    study = study_with(tmp_path, {**LABELS, "windows": 4, "texts": 2, "around": 1, "promoted": 2})
    windows: list[Window] = [
        (["the", " old", " pepper", " was", "\u2029", "x"], [0, 1, 2, 0, 0, 0]),
        (["some", " cumin", "\n", "and"], [0, 5, 0, 0]),
        (["more", " of", " pepper"], [0, 0, 3]),
        (["a", " pepper", " pot"], [0, 1, 0]),
        (["never", " shown", " at"], [0, 99, 0]),
    ]
    _, [call] = explained(study, logits_frame(l1=SPICES), {1: windows})
    assert shown(call, "Large on") == ["cumin", "pepper"]
    assert shown(call, "Followed by") == ["was", "pot"]
    assert shown(call, "Promotes") == ["spice", "pepper"]
    assert call.call.suffix.split("Texts:\n")[1].split("\nExplanation:")[0] == "- some cumin\n- of pepper"


def test_a_model_that_chats_is_given_messages(tmp_path: Path) -> None:
    _, [call] = explained(study_with(tmp_path, {**VOCABULARY, "llm": "talker"}), logits_frame(l4=SPICES))
    assert call.call.chat is not None
    assert [each.role for each in call.call.chat][:3] == ["system", "user", "assistant"]
    assert "Explanation:" not in call.call.suffix


@pytest.mark.parametrize("explainer", [VOCABULARY, LABELS], ids=["vocabulary", "max_act_logits"])
def test_a_study_that_does_not_ask_for_logits_cannot_explain_by_them(
    tmp_path: Path, explainer: Mapping[str, Any]
) -> None:
    study = study_with(tmp_path, explainer)
    assert Input("logits") in Flow(study)["explanations/own"].inputs
    with pytest.raises(StudyError, match=r"explainers\.own reads logits, but `logits` is null"):
        study_with(tmp_path, explainer, logits=None)


def test_others_do_not_read_them(tmp_path: Path) -> None:
    study = study_with(tmp_path, {"method": "tokens"})
    assert "logits" in Flow(study).stages
    assert Input("logits") not in Flow(study)["explanations/own"].inputs


# In a run


def test_logits_are_computed_once_and_explained(materialized: Workbench, capsys: pytest.CaptureFixture[str]) -> None:
    materialized.study["logits"] = {"k": 20}
    materialized.study["explainers"]["vocabulary"] = {"method": "vocabulary", "llm": "judge"}
    assert materialized.run() == {"logits": 2, "explanations/vocabulary": 2}
    view = materialized.view()
    chosen = view.latents.filter("is_chosen").collect()["latent"].sort()
    logits = view.logits.sort("latent").collect()
    assert logits["latent"].equals(chosen)
    assert logits["promoted"].list.len().to_list() == [20] * len(chosen)
    assert view.explanations.filter(explainer="vocabulary").collect()["explanation"].null_count() == 0
    assert materialized.run() == {}
    materialized.study["logits"] = {"k": 21}
    assert materialized.run() == {"logits": 2, "explanations/vocabulary": 2}
    from latentlake.cli import main

    main(["--lake", materialized.lake.uri, "--study-file", "none.yaml", "trace", "one", str(chosen[0])])
    said = capsys.readouterr().out
    first = logits.row(0, named=True)
    for name, word in (("promoted", "promotes"), ("suppressed", "suppresses")):
        assert re.search(rf"^{word} +{re.escape(repr(first[name][0]['text']))} ", said, re.MULTILINE)
