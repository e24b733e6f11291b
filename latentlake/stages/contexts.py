"""Documents into contexts: tokenized, joined by separators, cut to length, given to splits by a hash of their tokens."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from latentlake.corpus import Document, read_documents
from latentlake.digest import mix, seed_of, token_hash
from latentlake.study import SPLITS, Split
from latentlake.tables import TABLES
from latentlake.work import Tables, Work

_BATCH = 1000  # documents tokenized at once


def compute(work: Work) -> Tables:
    """The contexts of one shard."""
    corpus, shard = work.study.corpus, work.values["shard"]
    subject = work.handles.subject()
    documents = read_documents(work.origins.shards[shard])
    tokens: list[list[int]] = []
    for start in range(0, len(documents), _BATCH):
        tokens += subject.tokenize([document.text for document in documents[start : start + _BATCH]])
        work.progress.share(len(tokens) / len(documents))
    contexts = pack(documents, tokens, corpus.context_length, subject.bos, subject.separator)
    splits = assign_splits([context.tokens for context in contexts], corpus.split)
    rows: list[dict[str, Any]] = [
        {"shard": shard, "context": index, "split": split, **vars(context)}
        for index, (context, split) in enumerate(zip(contexts, splits, strict=True))
    ]
    return {"contexts": pa.Table.from_pylist(rows, schema=TABLES["contexts"].schema)}


@dataclass(frozen=True)
class Context:
    """A context: token ids, positions without activation, and the documents in it with their first positions."""

    tokens: list[int]
    excluded: list[int]
    documents: list[dict[str, Any]]


def pack(
    documents: Sequence[Document], tokens: Sequence[Sequence[int]], length: int, bos: int, separator: int
) -> list[Context]:
    """Documents end to end, a separator after each, cut into contexts of BOS and ``length - 1`` tokens.

    Nothing is dropped: the last context may be shorter. Separators and BOS are excluded by position, since a tokenizer
    may use their ids for other things.
    """
    stream = [token for each in tokens for token in (*each, separator)]
    owner = np.repeat(np.arange(len(tokens)), [len(each) + 1 for each in tokens])
    is_separator = np.append(owner[1:] != owner[:-1], True)
    contexts = []
    for first in range(0, len(stream), length - 1):
        here = slice(first, first + length - 1)
        starts = np.flatnonzero(np.append(True, owner[here][1:] != owner[here][:-1]))
        contexts.append(
            Context(
                tokens=[bos, *stream[here]],
                excluded=[0, *(np.flatnonzero(is_separator[here]) + 1).tolist()],
                documents=[{"document": documents[owner[first + at]].name, "start": int(at) + 1} for at in starts],
            )
        )
    return contexts


def assign_splits(contexts: Sequence[Sequence[int]], shares: Split) -> list[str]:
    """The split of each context, by a hash of its tokens: equal contexts share a split wherever they stand."""
    width = max(map(len, contexts), default=0)
    padded = np.full((len(contexts), width), -1, dtype=np.int64)
    for row, context in zip(padded, contexts, strict=True):
        row[: len(context)] = context
    bounds = np.cumsum([getattr(shares, split) for split in SPLITS])
    places = mix(token_hash(padded), seed_of("split")) % np.uint64(bounds[-1])
    return [SPLITS[index] for index in np.searchsorted(bounds, places.astype(np.int64), side="right")]
