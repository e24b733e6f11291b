"""The ledger of model calls: a call that was answered is never made again.

Below partitions lies this memory: when a block is stale, only calls whose prompts changed are made, and a killed run
goes on where it was. Replies are written in batches as they arrive.
"""

import json
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any

import polars as pl
import pyarrow as pa

from latentlake.calls.budget import Meter, Spent, price_of, spent_on
from latentlake.digest import digest
from latentlake.lake import Lake
from latentlake.protocols import LLM, Answer, Asked, Call, Likely, Reply, Sampling, settings_of
from latentlake.sections.models import Budget, Price
from latentlake.tables import TABLES

_REPLY = [
    "key", "reply", "logprobs", "likeliest", "tokens_in", "tokens_cached", "tokens_out", "finish_reason", "seconds", "error",
    "is_retryable", "attempts", "kl", "created_at",
]  # fmt: skip

# A flush costs two commits, some 50 ms; what a kill can lose is what arrived since the last one.
_FLUSH_CALLS, _FLUSH_SECONDS = 64, 5.0


@dataclass(frozen=True)
class Asker:
    """Who asks, kept beside each call. ``model``, ``revision``: the model's name in the study and its revision. ``launch``:
    what a budget counts.
    """

    model: str
    revision: str
    engine: str
    asset: str
    dictionary: str
    launch: str | None = None


def call_key(revision: str, call: Call) -> str:
    """Key of a call: digest of the model's revision, the sampling, the prompt (of a chat all of it) and the draw.

    The revision is a digest of the weights, so that a model renamed in the study keeps its answers.
    """
    chat = [] if call.chat is None else [call.chat]
    return digest([revision, _sampling(call.sampling), call.prefix, call.suffix, call.draw, *chat])


class Ledger:
    """The tables ``calls`` and ``prompts`` of a lake. ``budget``, ``price``: what may be spent, and what a model charges.
    ``is_replay``: failures that may pass are answers too, of calls that were answered nowhere else.
    """

    def __init__(
        self, lake: Lake, budget: Budget | None = None, price: Price | None = None, is_replay: bool = False
    ) -> None:
        self._lake = lake
        self._is_replay = is_replay
        self._budget = budget or Budget()
        self._price = price
        self.spent = Spent()  # on the calls that it made

    def ask(
        self,
        load: Callable[[], LLM],
        asker: Asker,
        asked: Sequence[Asked],
        report: Callable[[int, int, float], None],
    ) -> list[Answer]:
        """Answers in the order of the calls; only what the ledger does not hold is asked of the model.

        ``load`` gives the model, and is called only if it is needed. ``report`` hears, as they come, of calls made,
        calls remembered, and the share of all that is done.

        Raises:
            BudgetError: the budget does not allow the next call.
        """
        keys = [call_key(asker.revision, each.call) for each in asked]
        first = {key: place for place, key in reversed(list(enumerate(keys)))}
        replies = self.replies(list(first))
        missing = [key for key in sorted(first, key=first.__getitem__) if key not in replies]
        report(0, len(first) - len(missing), 1 - len(missing) / max(1, len(first)))
        if missing:
            calls, left = {key: asked[first[key]] for key in missing}, len(missing)
            for batch in self._within_budget(load, asker, calls):
                replies.update(batch)
                self.spent = self.spent.plus(spent_on(batch.values(), self._price))
                left -= len(batch)
                report(len(batch), 0, 1 - left / len(first))
        return [Answer(key, replies[key]) for key in keys]

    def missing(self, revision: str, asked: Sequence[Asked]) -> list[Asked]:
        """The calls, each once, that the ledger does not hold and `ask` would make."""
        calls = {call_key(revision, each.call): each for each in asked}
        held = self.held(list(calls))
        return [each for key, each in calls.items() if key not in held]

    def _within_budget(
        self, load: Callable[[], LLM], asker: Asker, calls: dict[str, Asked]
    ) -> Iterator[dict[str, Reply]]:
        keys, done = list(calls), 0
        for portion in Meter(self._lake, self._budget, asker.launch).portions(list(calls.values()), self._price):
            yield from self._make(load(), asker, {key: calls[key] for key in keys[done : done + len(portion)]})
            done += len(portion)

    def _make(self, llm: LLM, asker: Asker, calls: dict[str, Asked]) -> Iterator[dict[str, Reply]]:
        """Make calls, writing replies down before they are given on."""
        keys, waiting, since = list(calls), dict[str, Reply](), time.monotonic()
        known = self._known_prompts(calls.values())
        try:
            for batch in llm.run([each.call for each in calls.values()]):
                waiting.update({keys[place]: reply for place, reply in batch})
                if len(waiting) >= _FLUSH_CALLS or time.monotonic() - since > _FLUSH_SECONDS:
                    self._write(asker, calls, waiting, known, self._price)
                    yield waiting
                    waiting, since = {}, time.monotonic()
        finally:  # whatever stops the model, the answers that came are kept
            if waiting:
                self._write(asker, calls, waiting, known, self._price)
        if waiting:
            yield waiting

    def take(self, asker: Asker, calls: Mapping[str, Asked], replies: Mapping[str, Reply], price: Price | None) -> None:
        """Write down replies that came by another way. ``calls``, ``replies``: by key."""
        self._write(asker, calls, replies, self._known_prompts(calls.values()), price)

    def held(self, keys: Sequence[str]) -> set[str]:
        """Keys of calls that the ledger can answer; no reply is read."""
        wanted = pl.LazyFrame({"key": keys}, schema={"key": pl.String})
        answered = self._lake.scan("calls").filter(~pl.col("is_retryable")).select("key")
        return set(answered.join(wanted, on="key", how="semi").collect(engine="streaming")["key"])

    def replies(self, keys: Sequence[str]) -> dict[str, Reply]:
        """Replies that the ledger holds, by the keys of their calls; failures that may succeed later do not count."""
        rows = self._lake.find("calls", "key", keys).filter(~pl.col("is_retryable") | self._is_replay).select(_REPLY)
        found = rows.collect(engine="streaming").sort("is_retryable", "created_at").unique("key", keep="first")
        return {row["key"]: _reply(row) for row in found.iter_rows(named=True)}

    def _write(
        self,
        asker: Asker,
        calls: Mapping[str, Asked],
        replies: Mapping[str, Reply],
        known: set[str],
        price: Price | None,
    ) -> None:
        """Prompts first: a call in the ledger always has its prompt. ``known``: prompts that are written already."""
        prompts: dict[str, dict[str, Any]] = {}
        rows = []
        for key, reply in replies.items():
            asked = calls[key]
            own = _prompt_rows(asked.call)
            prompts.update((row["prompt"], row) for row in own)
            rows.append({**_row(key, own[-1]["prompt"], asked, reply, asker), "price": price_of(reply, price)})
        new = [row for key, row in prompts.items() if key not in known]
        self._lake.append("prompts", pa.Table.from_pylist(new, schema=TABLES["prompts"].schema))
        known.update(prompts)
        self._lake.append("calls", pa.Table.from_pylist(rows, schema=TABLES["calls"].schema))

    def _known_prompts(self, calls: Iterable[Asked]) -> set[str]:
        """Of the prompts of some calls, the ones that the table holds."""
        wanted = {row["prompt"] for asked in calls for row in _prompt_rows(asked.call)}
        return set(self._lake.find("prompts", "prompt", sorted(wanted)).select("prompt").collect()["prompt"])


def one_a_key(calls: pl.LazyFrame) -> pl.LazyFrame:
    """Of the rows of each call the one that counts, an answer before a failure that may pass, the first of several; with the
    attempts of all.
    """
    attempts = pl.col("attempts").sum().over("key").cast(pl.Int32)
    return calls.with_columns(attempts).sort("is_retryable", "created_at").unique("key", keep="first")


def _prompt_rows(call: Call) -> list[dict[str, Any]]:
    """Rows of ``prompts``, each following the one before: what was said in a chat, the prefix, the suffix."""
    chat, rows = list(call.chat or ()), list[dict[str, Any]]()
    for place, message in enumerate(chat, start=1):
        before = rows[-1]["prompt"] if rows else None
        rows.append(_text(digest(["chat", chat[:place]]), before, message.role, message.text))
    is_chat = call.chat is not None
    before = rows[-1]["prompt"] if rows else None
    prefix = digest(["chat", chat, call.prefix] if is_chat else [None, call.prefix])
    prompt = digest(["chat", chat, call.prefix, call.suffix] if is_chat else [call.prefix, call.suffix])
    rows.append(_text(prefix, before, "user" if is_chat else None, call.prefix))
    rows.append(_text(prompt, prefix, None, call.suffix))
    return rows


def _text(prompt: str, prefix: str | None, role: str | None, text: str) -> dict[str, Any]:
    return {"prompt": prompt, "prefix": prefix, "role": role, "text": text}


def _sampling(sampling: Sampling) -> str:
    return json.dumps({"kind": type(sampling).__name__.lower(), **settings_of(sampling)}, sort_keys=True)


def _row(key: str, prompt: str, asked: Asked, reply: Reply, asker: Asker) -> dict[str, Any]:
    return {
        **asdict(asker),
        **{name: value for name, value in vars(reply).items() if name not in ("text", "logprobs", "likeliest")},
        "key": key,
        "prompt": prompt,
        "draw": asked.call.draw,
        "latent": asked.latent,
        "sampling": _sampling(asked.call.sampling),
        "reply": reply.text,
        "logprobs": None if reply.logprobs is None else list(reply.logprobs),
        "likeliest": reply.likeliest and [[each._asdict() for each in place] for place in reply.likeliest],
        "created_at": datetime.now(UTC),
    }


def _reply(row: dict[str, Any]) -> Reply:
    logprobs, likeliest = row["logprobs"], row["likeliest"]
    return Reply(
        text=row["reply"],
        logprobs=None if logprobs is None else tuple(logprobs),
        likeliest=None if likeliest is None else tuple(tuple(Likely(**each) for each in place) for place in likeliest),
        **{name: row[name] for name in ("tokens_in", "tokens_cached", "tokens_out", "finish_reason")},
        **{name: row[name] for name in ("seconds", "error", "is_retryable", "attempts", "kl")},
    )
