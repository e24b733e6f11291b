"""Documents into contexts: tokenized, packed or one a context, given to splits by a hash of their tokens."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pyarrow as pa

from latentlake.corpus import Document, read_documents
from latentlake.digest import mix, seed_of, token_hash
from latentlake.errors import InputError
from latentlake.protocols import Subject, Tokenized
from latentlake.sections.corpus import SPLITS, Corpus, Split
from latentlake.tables import TABLES
from latentlake.work import Tables, Work

logger = logging.getLogger("latentlake.contexts")

_BATCH = 1000  # documents tokenized at once


def compute(work: Work) -> Tables:
    """The contexts of one shard, and its documents."""
    corpus, shard = work.study.corpus, work.values["shard"]
    subject = work.handles.subject()
    documents = read_documents(work.origins.shards[shard])
    if corpus.deduplicate:
        documents = without_repeats(documents, shard)
    tokenized: list[Tokenized] = []
    for start in range(0, len(documents), _BATCH):
        tokenized += _tokenize(documents[start : start + _BATCH], subject, shard)
        work.progress.share(len(tokenized) / len(documents))
    contexts = pack(documents, tokenized, packing_of(corpus, subject))
    splits = assign_splits([context.tokens for context in contexts], corpus.split)
    rows: list[dict[str, Any]] = [
        {"shard": shard, "context": index, "split": split, **vars(context)}
        for index, (context, split) in enumerate(zip(contexts, splits, strict=True))
    ]
    texts = [
        {
            "shard": shard,
            "number": number,
            "document": document.name,
            "text": document.text,
            "n_tokens": len(each.tokens),
        }
        for number, (document, each) in enumerate(zip(documents, tokenized, strict=True))
    ]
    return {
        "contexts": pa.Table.from_pylist(rows, schema=TABLES["contexts"].schema),
        "documents": pa.Table.from_pylist(texts, schema=TABLES["documents"].schema),
    }


@dataclass(frozen=True)
class Packing:
    """How documents become contexts of at most ``length`` tokens. ``bos``, ``separator``: None for none."""

    length: int
    bos: int | None
    separator: int | None
    contexts: Literal["packed", "documents"] = "packed"
    long_documents: Literal["continue", "truncate", "refuse"] = "continue"

    @property
    def room(self) -> int:
        """Tokens of documents that a context holds."""
        return self.length - (self.bos is not None)


@dataclass(frozen=True)
class Context:
    """A context: token ids, positions without activation, where in its document each token begins, and the documents in it."""

    tokens: list[int]
    excluded: list[int]
    offsets: list[int] | None
    documents: list[dict[str, Any]]


def packing_of(corpus: Corpus, subject: Subject) -> Packing:
    """The study's packing, with the subject's own tokens where it names them."""
    wanted = {"bos": corpus.bos, "separator": "none" if corpus.contexts == "documents" else corpus.separator}
    tokens = {
        kind: None if chosen == "none" else getattr(subject, kind) if chosen == "model" else chosen
        for kind, chosen in wanted.items()
    }
    return Packing(corpus.context_length, **tokens, contexts=corpus.contexts, long_documents=corpus.long_documents)


def without_repeats(documents: Sequence[Document], shard: str) -> list[Document]:
    """The documents without those whose text, or whose tokens, an earlier one has."""
    first = {(document.text, document.tokens): document for document in reversed(documents)}
    kept = [document for document in documents if first[document.text, document.tokens] is document]
    if len(kept) < len(documents):
        logger.info("%s: %d documents repeat earlier ones and are left out", shard, len(documents) - len(kept))
    return kept


def pack(documents: Sequence[Document], tokenized: Sequence[Tokenized], packing: Packing) -> list[Context]:
    """Documents cut into contexts of BOS and ``packing.room`` tokens: end to end with a separator after each, or one by one.

    Packed, nothing is dropped, and the last context may be shorter. Separators and BOS are excluded by position, since a
    tokenizer may use their ids for other things.

    Raises:
        InputError: a document is longer than a context, where such are refused.
    """
    if packing.contexts == "packed":
        return _cut(documents, tokenized, range(len(documents)), packing)
    contexts = []
    for number, each in enumerate(tokenized):
        own = _cut(documents, tokenized, [number], packing)
        if len(own) > 1 and packing.long_documents == "refuse":
            raise InputError(
                f"document {documents[number].name!r} has {len(each.tokens):,} tokens, and a context holds {packing.room:,}; "
                "raise corpus.context_length, or choose `continue` or `truncate` in corpus.long_documents"
            )
        contexts += own[:1] if packing.long_documents == "truncate" else own
    return contexts


def _cut(
    documents: Sequence[Document], tokenized: Sequence[Tokenized], numbers: Sequence[int], packing: Packing
) -> list[Context]:
    """Some documents end to end, cut into contexts."""
    after = [] if packing.separator is None else [packing.separator]
    stream = [token for number in numbers for token in (*tokenized[number].tokens, *after)]
    owner = np.repeat(np.asarray(numbers), [len(tokenized[number].tokens) + len(after) for number in numbers])
    is_separator = (np.append(owner[1:] != owner[:-1], True) if len(owner) else np.zeros(0, bool)) & bool(after)
    begins, ends = _places(tokenized, numbers, len(after))
    opening = [] if packing.bos is None else [packing.bos]
    contexts = []
    for first in range(0, len(stream), packing.room):
        here = slice(first, first + packing.room)
        starts = np.flatnonzero(np.append(True, owner[here][1:] != owner[here][:-1]))
        lasts = np.append(starts[1:], len(owner[here])) - 1
        contexts.append(
            Context(
                tokens=[*opening, *stream[here]],
                excluded=[*range(len(opening)), *(np.flatnonzero(is_separator[here]) + len(opening)).tolist()],
                offsets=None if begins is None else [*[-1] * len(opening), *begins[here].tolist()],
                documents=[
                    {
                        "document": documents[owner[first + at]].name,
                        "number": int(owner[first + at]),
                        "start": int(at) + len(opening),
                        "end_offset": None if ends is None else int(ends[first + last]),
                    }
                    for at, last in zip(starts, lasts, strict=True)
                ],
            )
        )
    return contexts


def _places(
    tokenized: Sequence[Tokenized], numbers: Sequence[int], after: int
) -> tuple[np.ndarray, np.ndarray] | tuple[None, None]:
    """Characters at which the text of each token of a stream begins and ends; None where there are no texts.

    A token's text begins where that of the one before it ends, so that together they are the whole document, spaces that a
    tokenizer counts to none included. A separator begins at -1, and ends where its document does.
    """
    if any(tokenized[number].ends is None for number in numbers):
        return None, None
    begins, ends = [], []
    for number in numbers:
        own = list(tokenized[number].ends or ())
        begins += [0, *own][: len(own)] + [-1] * after
        ends += own + ([own[-1] if own else 0] * after)
    return np.array(begins, dtype=np.int64), np.array(ends, dtype=np.int64)


def _tokenize(documents: Sequence[Document], subject: Subject, shard: str) -> list[Tokenized]:
    """Token ids of some documents: given with them, or made of their texts."""
    texts = [document.text for document in documents if document.text is not None]
    made = iter(subject.tokenize(texts))
    found = [
        next(made) if document.tokens is None else Tokenized(list(document.tokens), None) for document in documents
    ]
    for document, each in zip(documents, found, strict=True):
        largest = max(each.tokens, default=0)
        if subject.vocabulary is not None and largest >= subject.vocabulary:
            raise InputError(
                f"shard {shard}, document {document.name!r}: token {largest:,}, but the model knows {subject.vocabulary:,}; the "
                "tokens are not of this model's tokenizer"
            )
    return found


def assign_splits(contexts: Sequence[Sequence[int]], shares: Split) -> list[str]:
    """The split of each context, by a hash of its tokens: equal contexts share a split wherever they stand."""
    width = max(map(len, contexts), default=0)
    padded = np.full((len(contexts), width), -1, dtype=np.int64)
    for row, context in zip(padded, contexts, strict=True):
        row[: len(context)] = context
    bounds = np.cumsum([getattr(shares, split) for split in SPLITS])
    places = mix(token_hash(padded), seed_of("split")) % np.uint64(bounds[-1])
    return [SPLITS[index] for index in np.searchsorted(bounds, places.astype(np.int64), side="right")]
