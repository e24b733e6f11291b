"""Windows in the text of their documents, as it stood in the corpus."""

from collections.abc import Iterator
from typing import Any

import polars as pl

from latentlake.errors import LakeError
from latentlake.reading.view import View

_PLACE = ("shard", "context", "start")
_SCHEMA = {
    "shard": pl.String, "context": pl.Int32, "start": pl.Int32, "length": pl.Int64, "document": pl.String, "number": pl.Int32,
    "before": pl.String, "text": pl.String, "after": pl.String,
}  # fmt: skip


def passages(view: View, windows: pl.DataFrame, around: int = 200) -> pl.DataFrame:
    """What the documents say in some windows, and up to ``around`` characters before and after.

    ``windows``: the columns ``shard``, ``context``, ``start`` and ``tokens``, as in ``examples``. A window gives a row for each
    document that it holds text of, in order: ``shard``, ``context``, ``start``, ``length`` (in tokens), ``document`` (name),
    ``number`` (in the shard), ``before``, ``text``, ``after``. The texts are the documents' own, characters that a tokenizer
    leaves out or changes included.

    Raises:
        LakeError: the windows are not in the lake, or the corpus gave tokens and no text.
    """
    places = windows.select(*_PLACE, length=pl.col("tokens").list.len().cast(pl.Int64)).unique(maintain_order=True)
    is_near = [pl.col(name).is_in(places[name].unique().to_list()) for name in ("shard", "context")]
    contexts = {
        (row["shard"], row["context"]): row
        for row in view.contexts.filter(is_near)
        .select("shard", "context", "tokens", "offsets", "documents")
        .collect()
        .iter_rows(named=True)
    }
    parts = [part for place in places.iter_rows(named=True) for part in _parts(view, place, contexts)]
    numbers = pl.LazyFrame(
        [(part["shard"], part["number"]) for part in parts],
        schema={"shard": pl.String, "number": pl.Int32},
        orient="row",
    )
    rows = (
        view.documents.join(numbers.unique(), on=["shard", "number"], how="semi")
        .select("shard", "number", "text")
        .collect()
    )
    texts = {(shard, number): text for shard, number, text in rows.iter_rows()}
    return pl.DataFrame([_cut(part, texts, around) for part in parts], schema=_SCHEMA)


def _parts(
    view: View, place: dict[str, Any], contexts: dict[tuple[str, int], dict[str, Any]]
) -> Iterator[dict[str, Any]]:
    """The documents of a window, with the characters at which its part of each begins and ends."""
    context = contexts.get((place["shard"], place["context"]))
    if context is None:
        raise LakeError(
            f"context {place['context']} of shard {place['shard']} is not in {view.lake.uri}; materialize contexts"
        )
    if context["offsets"] is None:
        raise LakeError(f"the corpus gave tokens and no text for shard {place['shard']}: there are no passages to show")
    first, last = place["start"], place["start"] + place["length"]
    offsets, held = context["offsets"], context["documents"]
    for own, after in zip(held, [*held[1:], None], strict=True):
        end = after["start"] if after else len(context["tokens"])
        inside = [at for at in range(max(first, own["start"]), min(last, end)) if offsets[at] >= 0]
        if inside:
            beyond = inside[-1] + 1
            is_last = beyond >= end or offsets[beyond] < 0
            yield {
                **{name: place[name] for name in (*_PLACE, "length")},
                "document": own["document"],
                "number": own["number"],
                "from": offsets[inside[0]],
                "to": own["end_offset"] if is_last else offsets[beyond],
            }


def _cut(part: dict[str, Any], texts: dict[tuple[str, int], str], around: int) -> dict[str, Any]:
    text, begin, end = texts[part["shard"], part["number"]], part.pop("from"), part.pop("to")
    return {
        **part,
        "before": text[max(0, begin - around) : begin],
        "text": text[begin:end],
        "after": text[end : end + around],
    }
