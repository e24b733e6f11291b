"""The section `corpus` of the study: what the subject reads."""

from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from latentlake.choices import Choices, Name, Positive
from latentlake.errors import nearest
from latentlake.registry import FORMATS

SPLITS = ("explain", "select", "score")


class Source(Choices):
    """Where documents come from: the files of ``path``, or the Hugging Face data set ``dataset``.

    ``path``: a glob, relative to the study file. ``format``: `lines` (JSON, one object a line), `parquet` or `text`; None: by
    the file's suffix, also before ``.gz`` or ``.zst``. ``delimiter``: what stands between the documents of a file of text
    (None: a file is one document).

    ``dataset``: a repository id on the hub, or a folder relative to the study file. ``subset``, ``split``, ``revision``: as its
    library takes them; ``documents``: how many records are read, from the first.

    ``text``: the field that holds the text. ``tokens``: the field that holds token ids of the subject, in place of a text.
    ``id``: the field that names the document (None: its place in the file). ``empty``: whether documents without text are
    refused, or passed over.
    """

    path: str | None = None
    format: str | None = None
    delimiter: Annotated[str, Field(min_length=1)] | None = None
    dataset: str | None = None
    subset: str | None = None
    split: str = "train"
    revision: str | None = None
    documents: Positive | None = None
    text: str = "text"
    tokens: str | None = None
    id: str | None = None
    empty: Literal["refuse", "skip"] = "refuse"

    @field_validator("format")
    @classmethod
    def _is_known(cls, name: str | None) -> str | None:
        known = FORMATS.classes()
        if name is not None and name not in known:
            raise ValueError(f"there is no file format {name!r}{nearest(name, known)}")
        return name

    @model_validator(mode="after")
    def _is_one_kind(self) -> "Source":
        if (self.path is None) == (self.dataset is None):
            raise ValueError("a source has either a `path` or a `dataset`")
        foreign = {"subset", "split", "revision", "documents"} if self.dataset is None else {"format", "delimiter"}
        given = sorted(name for name in foreign if getattr(self, name) != type(self).model_fields[name].default)
        if given:
            raise ValueError(f"{given[0]!r} is for sources with a {'`dataset`' if self.dataset is None else '`path`'}")
        if self.dataset is not None and self.documents is None:
            raise ValueError("say how many `documents` of the data set are to be read")
        return self

    @property
    def reading(self) -> dict[str, Any]:
        """The choices that decide which documents the same bytes hold."""
        return self.model_dump(exclude={"path", "dataset", "revision", "documents"})


class Split(Choices):
    """Shares of the contexts that explainers see, that choose between hypotheses, and that score."""

    explain: Positive = 4
    select: Positive = 1
    score: Positive = 5


class Corpus(Choices):
    """What the subject reads.

    ``context_length``: tokens of a context, BOS included. ``contexts``: documents end to end with a separator after each
    (``packed``), or no two in one context (``documents``). ``long_documents``: with one document a context, whether the rest of
    a longer one makes further contexts (``continue``), is left out (``truncate``), or the document is refused. ``bos``: the
    token that opens every context: the tokenizer's (``model``), a number, or ``none``. ``separator``: the same of the token
    after each packed document; the tokenizer's is its end of sequence. ``deduplicate``: whether documents with the text of an
    earlier one of their shard are left out.

    ``documents_per_shard``: a shard is that many documents of one file; the memory that a run takes grows with it.
    ``refresh``: the shards that `latents` and everything after it reads as the corpus grows: the first 2^j in order of
    registration (``doubling``), ``all``, or the ones listed.
    """

    sources: dict[Name, Source] = Field(min_length=1)
    context_length: Annotated[int, Field(ge=8)] = 128
    contexts: Literal["packed", "documents"] = "packed"
    long_documents: Literal["continue", "truncate", "refuse"] = "continue"
    bos: Literal["model", "none"] | Annotated[int, Field(ge=0)] = "model"
    separator: Literal["model", "none"] | Annotated[int, Field(ge=0)] = "model"
    deduplicate: bool = False
    documents_per_shard: Positive = 1000
    split: Split = Split()
    refresh: Literal["doubling", "all"] | Annotated[tuple[str, ...], Field(min_length=1)] = "doubling"

    @field_validator("refresh")
    @classmethod
    def _is_once(cls, shards: str | tuple[str, ...]) -> str | tuple[str, ...]:
        if isinstance(shards, tuple) and len(set(shards)) < len(shards):
            raise ValueError("a shard is listed twice")
        return shards
