"""The small study with a language model on a server: run, replayed, billed, and answered by a batch."""

import json
import shutil
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from latentlake.calls.batch import Batch
from latentlake.calls.costs import costs
from latentlake.calls.ledger import Ledger
from latentlake.calls.pending import Pending
from latentlake.cli import main
from latentlake.errors import EngineError, InputError
from tests.served import JUDGE, ServedBench
from tests.servers import Canned, answer, said, serving, status
from tests.workbench import EVERYTHING, open_instance


@dataclass(frozen=True)
class Answered:
    """The small study, run with a server; to be copied, not changed. ``versions``: data versions of what is published."""

    folder: Path
    server: Canned
    versions: dict[tuple[str, str], str | None]


@pytest.fixture(scope="module")
def answered(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Answered]:
    folder = tmp_path_factory.mktemp("answered")
    with serving() as server:
        for bench in opened(folder, server.url):
            assert bench.run() == EVERYTHING
            versions = bench.data_versions()
        yield Answered(folder, server, versions)


@pytest.fixture(scope="module")
def unasked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which all of the small study was computed that asks no language model; to be copied, not changed."""
    folder = tmp_path_factory.mktemp("unasked")
    with serving() as server:
        for bench in opened(folder, server.url):
            bench.prepare().execute("data")
        assert server.asked == []
    return folder


@pytest.fixture
def server() -> Iterator[Canned]:
    with serving() as found:
        yield found


@pytest.fixture
def bench(unasked: Path, tmp_path: Path, server: Canned) -> Iterator[ServedBench]:
    shutil.copytree(unasked, tmp_path, dirs_exist_ok=True)
    yield from opened(tmp_path, server.url)


@pytest.fixture
def done(answered: Answered, tmp_path: Path) -> Iterator[ServedBench]:
    shutil.copytree(answered.folder, tmp_path, dirs_exist_ok=True)
    yield from opened(tmp_path, answered.server.url)


def opened(folder: Path, url: str | None) -> Iterator[ServedBench]:
    with open_instance(folder / "instance") as instance:
        bench = ServedBench(folder / "study", instance)
        bench.study["llms"]["judge"] = JUDGE
        bench.url = url
        yield bench


def result_of(request: dict[str, Any]) -> dict[str, Any]:
    """What a batch API gives for a line."""
    body = answer(request["url"], request["body"])
    return {"custom_id": request["custom_id"], "response": {"status_code": 200, "body": body}, "error": None}


def batch_of(bench: ServedBench) -> Batch:
    run = bench.prepare()
    return Batch(run.study, run.origins, Pending(run.plan(), run.flow, run.lake, run.origins), Ledger(run.lake))


def test_a_study_is_run_with_a_server_and_rebuilt_from_its_ledger_alone(
    done: ServedBench, answered: Answered, tmp_path: Path
) -> None:
    bench, asked = done, len(answered.server.asked)
    assert bench.view().scores.filter(pl.col("value").is_null()).collect().is_empty()
    assert asked == bench.view().calls.collect().height

    # nothing but the ledger goes along
    other = tmp_path / "other"
    for table in ("calls", "prompts"):
        shutil.copytree(Path(bench.lake.uri) / table, other / "study" / "lake" / table)
    for replayed in opened(other, None):
        assert replayed.run() == EVERYTHING
        assert replayed.data_versions() == answered.versions
        replayed.study["explainers"]["default"]["draws"] = 4
        with pytest.raises(EngineError, match=r"calls of the model judge are not in the ledger.*LATENTLAKE_REPLAY"):
            replayed.run()
    assert len(answered.server.asked) == asked


def test_a_study_without_an_address_is_refused_before_any_work(tmp_path: Path) -> None:
    for bench in opened(tmp_path, "localhost:8000"):
        with pytest.raises(InputError, match=r"llms.judge: LATENTLAKE_ENDPOINTS .* must be addresses"):
            bench.run()
        assert bench.data_versions() == {}


def test_a_server_named_later_without_an_address_is_refused_before_any_work(done: ServedBench) -> None:
    before, done.url = done.data_versions(), "no address"
    done.study["explainers"]["default"]["draws"] = 4
    with pytest.raises(InputError, match="LATENTLAKE_ENDPOINTS"):
        done.run()
    assert done.data_versions() == before


def test_failures_are_rows_that_scores_count_and_the_next_run_asks_again(bench: ServedBench, server: Canned) -> None:
    def faults(number: int, body: dict[str, object]) -> object:
        is_judged = "Does the text" in str(body["prompt"])
        return status(500) if is_judged and hash(str(body["prompt"])) % 5 == 0 else None

    server.faults = faults  # type: ignore[assignment]
    bench.run()
    judged = bench.view().judgements.filter(scorer="detection").collect()
    failed = judged["error"].count()
    assert 0 < failed < len(judged)
    assert set(judged["error"].drop_nulls()) == {"server"}
    scores = bench.view().scores.filter(scorer="detection", metric="auroc").collect()
    assert scores["n_failed"].sum() == failed
    bounded = scores.filter(pl.col("n_failed") > 0, pl.col("value").is_not_null())
    assert (bounded["worst"] < bounded["best"]).all()
    partitions = bench.view().partitions.filter(pl.col("state") == "published").collect()
    assert partitions.filter(asset="scores/default/detection")["retryable_failures"].sum() > 0

    asked, server.faults = len(server.asked), lambda number, body: None
    assert bench.run().keys() == {"scores/default/detection", "agreements"}
    assert bench.view().judgements.filter(scorer="detection").collect()["error"].count() == 0
    assert len(server.asked) - asked <= failed
    assert bench.run() == {}


def test_a_judge_that_says_neither_yes_nor_no_is_a_failure_and_is_not_asked_again(
    bench: ServedBench, server: Canned
) -> None:
    perhaps = {
        "tokens": [" perhaps"],
        "text_offset": [0],
        "token_logprobs": [-0.1],
        "top_logprobs": [{" perhaps": -0.1}],
    }
    fault = said(logprobs=perhaps)
    server.faults = lambda number, body: fault if "Does the text" in body["prompt"] else None
    bench.run()
    judged = bench.view().judgements.filter(scorer="detection").collect()
    assert set(judged["error"]) == {"no_logprobs"}
    assert judged["probability"].count() == 0
    scores = bench.view().scores.filter(scorer="detection").collect()
    assert scores["value"].count() == 0
    assert (scores["n_failed"] == scores["n"]).all()
    asked = len(server.asked)
    assert bench.run() == {}
    assert len(server.asked) == asked


def test_a_study_with_failures_is_rebuilt_with_them(bench: ServedBench, server: Canned, tmp_path: Path) -> None:
    server.faults = lambda number, body: status(400) if number % 9 == 8 else None
    bench.run()
    assert bench.view().calls.collect()["is_retryable"].sum() > 5
    # A call may fail in one block and be answered in another that is judged in the same words: what the ledger knows by now is
    # taken up without asking.
    asked, bench.url = len(server.asked), None
    bench.run()
    assert len(server.asked) == asked
    assert bench.view().scores.collect()["n_failed"].sum() > 0
    for table in ("calls", "prompts"):
        shutil.copytree(Path(bench.lake.uri) / table, tmp_path / "other" / "study" / "lake" / table)
    for replayed in opened(tmp_path / "other", None):
        replayed.run()
        assert replayed.data_versions() == bench.data_versions()


def test_what_it_cost_is_told_by_asset_latent_launch_and_model(
    done: ServedBench, answered: Answered, capsys: pytest.CaptureFixture[str]
) -> None:
    bench, server = done, answered.server
    usage = [answer("/v1/completions", body)["usage"] for body in server.asked]
    tokens = sum(each["prompt_tokens"] for each in usage), sum(each["completion_tokens"] for each in usage)
    for by in ("asset", "latent", "launch", "model", "day"):
        found = costs(bench.view(), by)  # type: ignore[arg-type]
        assert found["calls"].sum() == len(server.asked)
        assert (found["tokens_in"].sum(), found["tokens_out"].sum()) == tokens
        assert found["price"].sum() == pytest.approx((tokens[0] + 2 * tokens[1]) / 1e6)
        assert found["price"].to_list() == sorted(found["price"], reverse=True)
    by_asset = costs(bench.view())
    assert set(by_asset["asset"]) == {"explanations/default", "scores/default/surprisal", "scores/default/detection"}
    calls = bench.view().calls.collect()
    assert dict(costs(bench.view(), "latent").select("latent", "calls").iter_rows()) == dict(
        calls.group_by("latent").len().iter_rows()
    )
    assert main(["--lake", bench.lake.uri, "costs"]) == 0
    out = capsys.readouterr().out
    assert "scores/default/detection" in out
    assert f"{len(server.asked):,} calls, 0 without an answer; {tokens[0]:,} tokens in" in out


def test_pending_calls_are_answered_by_batches(bench: ServedBench, server: Canned, answered: Answered) -> None:
    server.faults = lambda number, body: status(404)  # nobody is to ask it
    rounds: list[int] = []
    while True:
        with suppress(EngineError):
            bench.run()
        lines = [json.loads(line) for line in batch_of(bench).requests()]
        if not lines:
            break
        rounds.append(len(lines))
        results = [json.dumps(result_of(each)) for each in reversed(lines)]
        assert batch_of(bench).take(results) == (len(lines), 0, 0)
        assert batch_of(bench).take(results) == (0, 0, len(lines))
    assert 2 <= len(rounds) <= 4  # explanations, then what judges them
    assert bench.stale() == {}
    assert sum(rounds) == bench.view().calls.collect().height

    assert bench.data_versions() == answered.versions  # the same as asked one by one


def test_failed_results_are_asked_again_and_what_is_none_is_refused(bench: ServedBench, server: Canned) -> None:
    server.faults = lambda number, body: status(404)
    with pytest.raises(EngineError):
        bench.run()
    keys = [json.loads(line)["custom_id"] for line in batch_of(bench).requests()]
    results = [
        {"custom_id": keys[0], "response": {"status_code": 500, "body": {}}},
        {"custom_id": keys[1], "response": None, "error": {"code": "batch_expired"}},
        {"custom_id": keys[2], "response": {"status_code": 200, "body": {"choices": []}}},
        {"custom_id": "nobody's", "response": {"status_code": 200, "body": {}}},
    ]
    assert batch_of(bench).take(map(json.dumps, results)) == (0, 3, 1)
    assert [json.loads(line)["custom_id"] for line in batch_of(bench).requests()] == keys
    for none in ("{}", '{"custom_id": "x", "response": "oops"}', "[1]", "no JSON"):
        with pytest.raises(InputError, match="line 2 is no result of a batch"):
            batch_of(bench).take([json.dumps(results[0]), none])
    other = {"custom_id": keys[0], "response": {"status_code": 200, "body": {"model": "another"}}}
    with pytest.raises(InputError, match="line 1 is what the model 'another' said"):
        batch_of(bench).take([json.dumps(other)])
    long = {
        "custom_id": keys[0],
        "response": {"status_code": 400, "body": {"error": {"message": "maximum context length"}}},
    }
    good = json.loads(next(iter(batch_of(bench).requests())))
    # of one call a failure and an answer, in any order: the answer counts
    assert batch_of(bench).take(map(json.dumps, (result_of(good), results[0]))) == (1, 0, 0)
    assert batch_of(bench).take([json.dumps({**long, "custom_id": keys[1]})]) == (0, 1, 0)
    assert [json.loads(line)["custom_id"] for line in batch_of(bench).requests()] == keys[2:]
