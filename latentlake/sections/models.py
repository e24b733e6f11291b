"""The study's sections on models: the subject, those that explain, judge and embed, and what may be spent on them."""

from typing import Annotated, Literal

from pydantic import Field

from latentlake.choices import Choices


class SubjectChoice(Choices):
    """The language model that is interpreted: a directory, a GGUF file, ``package://name/file``, or a repository id on the
    Hugging Face hub with its ``revision`` (a branch, a tag or a commit).
    """

    model: str
    revision: str | None = None
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"


# Raised by hand whenever an engine would answer otherwise than before: it is part of the key of every call.
ENGINE_VERSIONS = {"transformers": "1", "sentence_transformers": "1", "openai": "1", "vllm": "1"}


COMPLETING = tuple(name for name in ENGINE_VERSIONS if name != "sentence_transformers")


class Price(Choices):
    """What a model charges for a million tokens, in any one currency: read anew, read from its cache (None: the same), and
    written.
    """

    input: Annotated[float, Field(ge=0)]
    output: Annotated[float, Field(ge=0)]
    cached: Annotated[float, Field(ge=0)] | None = None


class Budget(Choices):
    """What one launch may spend on model calls, None being any number: calls, tokens read and written, money."""

    calls: Annotated[int, Field(ge=0)] | None = None
    tokens: Annotated[int, Field(ge=0)] | None = None
    money: Annotated[float, Field(ge=0)] | None = None


class LLMChoice(Choices):
    """A model that explains, judges or embeds, and its engine: a directory, a GGUF file, ``package://name/file``, or a
    repository id on the Hugging Face hub with its ``revision``.

    Engines run it here (``transformers``, ``vllm``; ``sentence_transformers`` embeds), or ask a server for it (``openai``:
    any that speaks the OpenAI API). Then ``model`` is its name there, and since nobody can look at its weights, ``revision``
    says when they became others. ``chat``: prompts are not texts to go on with, but what a user says. ``price``: what its
    calls cost; changes no result.
    """

    model: str
    revision: str | None = None
    engine: Literal["transformers", "vllm", "openai", "sentence_transformers"]
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    chat: bool = False
    price: Price | None = None

    @property
    def is_served(self) -> bool:
        """Whether it runs elsewhere, and its weights are not to be seen."""
        return self.engine == "openai"

    @property
    def engine_version(self) -> str:
        """Version of the engine's code."""
        return ENGINE_VERSIONS[self.engine]
