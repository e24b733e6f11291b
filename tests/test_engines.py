"""Every engine does for every call what the contract says: with a real model, in this process and behind a real server."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from latentlake.engines.openai import OpenAILLM, Traffic
from latentlake.engines.transformers import TransformersLLM
from latentlake.origins import Origins
from latentlake.study import load_study
from tests.contract import CHECKS, Engine
from tests.test_engines_real import ROOT, smollm2  # noqa: F401 - a fixture


@pytest.fixture(scope="module")
def transformers(smollm2: Path) -> Engine:  # noqa: F811
    return Engine(TransformersLLM(smollm2), reads=8192, holds_schemas=False)


@pytest.fixture(scope="module")
def openai(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    """llama.cpp's server with SmolLM2, on loopback."""
    xllamacpp = pytest.importorskip("xllamacpp")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    params: Any = xllamacpp.CommonParams()
    params.model.path = str(Origins(load_study(ROOT / "study.yaml"), tmp_path_factory.mktemp("cache")).subject.path)
    params.model_alias = {"smollm2"}
    params.port, params.n_ctx, params.n_parallel = port, 2048, 2
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = 1
    server = xllamacpp.Server(params)
    traffic = Traffic(concurrency=2, timeout=120)
    # its sums depend on what else is computed at the time
    yield Engine(
        OpenAILLM("smollm2", [f"{server.listening_address}/v1"], None, traffic), 1024, scores=False, is_exact=False
    )
    del server


@pytest.mark.parametrize("check", CHECKS)
@pytest.mark.parametrize("name", ["transformers", "openai"])
def test_the_contract_holds(name: str, check: str, request: pytest.FixtureRequest) -> None:
    CHECKS[check](request.getfixturevalue(name))
