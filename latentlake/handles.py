"""The doors to real models: loaded when first asked for, and let go of together. Where and how they run changes no result.

Engines are imported when first needed, so that an up-to-date run never imports torch.
"""

import os
from functools import cached_property
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from latentlake.dictionaries import coder_of
from latentlake.endpoints import endpoints_of, key_of
from latentlake.lake import Lake
from latentlake.origins import ModelFacts, Origins
from latentlake.protocols import LLM, Coder, Embedder, Subject
from latentlake.study import Study


class Settings(BaseModel):
    """``device``: where models run, as torch names it; ``auto`` spreads the subject over all GPUs, and puts other models on the
    first. ``batch_tokens``: tokens of a batch. ``cache``: a folder for converted models and remembered digests, which can be
    deleted.

    ``concurrency``: requests under way to one endpoint of a server, at most. ``timeout``: seconds that an answer may take.
    ``tensor_parallel``: GPUs over which vLLM spreads a layer. ``gpu_memory``: share of a GPU's memory that it takes.
    ``longest_context``: tokens of the longest context that it makes room for, 0 for the model's own. ``is_eager``: it compiles
    nothing. ``is_replay``: no language model is run or asked; what the ledger does not hold is refused.
    """

    device: str = "cpu"
    batch_tokens: int = 4096
    cache: str = ".cache"
    concurrency: int = 128
    timeout: float = 600.0
    tensor_parallel: int = 1
    gpu_memory: float = 0.9
    longest_context: int = 0
    is_eager: bool = False
    is_replay: bool = False


def settings_from_environment() -> Settings:
    """Models on the device that ``LATENTLAKE_DEVICE`` names (the CPU where it is not set), in batches of
    ``LATENTLAKE_BATCH_TOKENS`` tokens (4,096, which suits a CPU; a large GPU is kept busy by 65,536). Servers are asked as
    ``LATENTLAKE_CONCURRENCY`` and ``LATENTLAKE_TIMEOUT`` say. vLLM runs as ``LATENTLAKE_TENSOR_PARALLEL``,
    ``LATENTLAKE_GPU_MEMORY``, ``LATENTLAKE_LONGEST_CONTEXT`` and ``LATENTLAKE_EAGER`` say. With ``LATENTLAKE_REPLAY=1`` no
    language model is asked.
    """
    return Settings(
        device=os.environ.get("LATENTLAKE_DEVICE", "cpu"),
        batch_tokens=int(os.environ.get("LATENTLAKE_BATCH_TOKENS", "4096")),
        cache=os.environ.get("LATENTLAKE_CACHE", ".cache"),
        concurrency=int(os.environ.get("LATENTLAKE_CONCURRENCY", "128")),
        timeout=float(os.environ.get("LATENTLAKE_TIMEOUT", "600")),
        tensor_parallel=int(os.environ.get("LATENTLAKE_TENSOR_PARALLEL", "1")),
        gpu_memory=float(os.environ.get("LATENTLAKE_GPU_MEMORY", "0.9")),
        longest_context=int(os.environ.get("LATENTLAKE_LONGEST_CONTEXT", "0")),
        is_eager=_is_set("LATENTLAKE_EAGER"),
        is_replay=_is_set("LATENTLAKE_REPLAY"),
    )


def _is_set(variable: str) -> bool:
    return os.environ.get(variable, "0") not in ("", "0")


class LazyHandles:
    """Real models of a study; the lake holds the coders that were trained."""

    def __init__(self, study: Study, origins: Origins, lake: Lake, settings: Settings) -> None:
        self._study = study
        self._lake = lake
        self._origins = origins
        self._settings = settings
        self._device, self._batch_tokens = settings.device, settings.batch_tokens
        self._open: dict[str, Any] = {}

    @property
    def is_replay(self) -> bool:
        """Whether the ledger alone answers."""
        return self._settings.is_replay

    def subject(self, is_random: bool = False) -> Subject:
        """The study's subject, or one of its kind with random weights; tokenizer and weights load apart, each when needed."""
        from latentlake.engines.subject import HookedSubject

        def load() -> Subject:
            path, seed = self._converted(self._origins.subject), self._study.seed if is_random else None
            return HookedSubject(path, self._study.subject.dtype, self._device, self._batch_tokens, seed)

        subject: Subject = self._keep("random subject" if is_random else "subject", load)
        return subject

    def coder(self, dictionary: str) -> Coder:
        """The sparse coder of a dictionary."""
        coder: Coder = self._keep(
            f"coder {dictionary}", lambda: coder_of(dictionary, self._origins, self._lake, self._one_device)
        )
        return coder

    def llm(self, name: str) -> LLM:
        """A language model of the study."""
        llm: LLM = self._keep(f"llm {name}", lambda: self._opened(name))
        return llm

    def _opened(self, name: str) -> LLM:
        if self._settings.is_replay:
            from latentlake.engines.replay import Replay

            return Replay(name)
        engines = {"openai": self._served, "transformers": self._by_transformers, "vllm": self._by_vllm}
        return engines[self._study.llms[name].engine](name)

    def _served(self, name: str) -> LLM:
        from latentlake.engines.openai import OpenAILLM, Traffic

        traffic = Traffic(concurrency=self._settings.concurrency, timeout=self._settings.timeout)
        endpoints = endpoints_of(self._study)[name]
        return OpenAILLM(self._study.llms[name].model, endpoints, key_of(name, endpoints), traffic)

    def _by_vllm(self, name: str) -> LLM:
        from latentlake.engines.vllm import VLLM, Settings

        own = self._settings
        settings = Settings(
            tensor_parallel=own.tensor_parallel,
            memory=own.gpu_memory,
            longest=own.longest_context or None,
            is_eager=own.is_eager,
        )
        return VLLM(self._converted(self._origins.llm(name)), self._study.llms[name].dtype, settings)

    def _by_transformers(self, name: str) -> LLM:
        from latentlake.engines.transformers import TransformersLLM

        path = self._converted(self._origins.llm(name))
        return TransformersLLM(path, self._study.llms[name].dtype, self._one_device, self._batch_tokens)

    def embedder(self, name: str) -> Embedder:
        """An embedder of the study."""
        from latentlake.engines.sentence_transformers import SentenceTransformersEmbedder

        path = self._origins.llm(name).path
        embedder: Embedder = self._keep(
            f"embedder {name}", lambda: SentenceTransformersEmbedder(path, self._one_device)
        )
        return embedder

    def free(self) -> None:
        """Let go of every model, and of the memory of the device."""
        for model in self._open.values():
            if hasattr(model, "close"):  # of what runs in processes of its own
                model.close()
        if self._open and self._device != "cpu":
            import torch

            self._open.clear()
            torch.cuda.empty_cache()
        self._open.clear()

    @cached_property
    def _one_device(self) -> str:
        """Where what is not spread over devices runs."""
        if self._device != "auto":
            return self._device
        import torch

        return "cuda:0" if torch.cuda.is_available() else "cpu"

    def _converted(self, facts: ModelFacts) -> Path:
        from latentlake.engines.checkpoint import converted

        return converted(facts.path, facts.digest, self._origins.cache)

    def _keep(self, name: str, load: Any) -> Any:
        if name not in self._open:
            self._open[name] = load()
        return self._open[name]
