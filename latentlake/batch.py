"""Pending calls as a batch of the OpenAI API, a line of JSON each, and its results as replies in the ledger.

A batch is a way to have calls answered later and at half the price; it is no way to run. What is answered is in the ledger, and
the next run asks for the rest: of explanations first, of scores once there are explanations.
"""

import json
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

from latentlake.engines.wire import MalformedError, UnableError, reply_of, request_of
from latentlake.errors import InputError
from latentlake.execute import revision_of
from latentlake.ledger import Asker, Ledger, call_key
from latentlake.origins import Origins
from latentlake.pending import Pending
from latentlake.protocols import REQUEST, SERVER, Asked, Call, Reply
from latentlake.study import Study

_LAUNCH = "batch"


class Line(NamedTuple):
    """A pending call: its key, who asks, and what."""

    key: str
    asker: Asker
    asked: Asked


class Taken(NamedTuple):
    """What became of the results of a batch: calls answered, calls that failed, lines that no pending call waits for."""

    answered: int
    failed: int
    unknown: int


class Batch:
    """The pending calls of the models of a study that servers run."""

    def __init__(self, study: Study, origins: Origins, pending: Pending, ledger: Ledger) -> None:
        self._study, self._origins, self._pending, self._ledger = study, origins, pending, ledger

    def lines(self) -> Iterator[Line]:
        """Each call once."""
        seen: set[str] = set()
        for stage, partition, llm, asked in self._pending.all():
            choice = self._study.llms[llm]
            if not choice.is_served:
                continue
            revision = revision_of(self._study, self._origins, llm)
            dictionary = stage.values(partition).get("dictionary", "")
            asker = Asker(llm, revision, choice.engine, stage.name, dictionary, _LAUNCH)
            for each in asked:
                key = call_key(revision, each.call)
                if key not in seen:
                    seen.add(key)
                    yield Line(key, asker, each)

    def requests(self) -> Iterator[str]:
        """Lines of the batch, as the API takes them.

        Raises:
            InputError: a call is of a kind that the API does not answer.
        """
        for line in self.lines():
            try:
                request = request_of(self._study.llms[line.asker.model].model, line.asked.call)
            except UnableError as error:
                raise InputError(f"{line.asker.asset}: {error}") from error
            said = {"custom_id": line.key, "method": "POST", "url": f"/v1{request.path}", "body": request.body}
            yield json.dumps(said, ensure_ascii=False)

    def take(self, results: Iterable[str]) -> Taken:
        """Write the results of a batch down, those whose calls are pending.

        Raises:
            InputError: a line is no result.
        """
        pending = {line.key: line for line in self.lines()}
        replies: dict[Asker, dict[str, Reply]] = {}
        unknown = 0
        for number, text in enumerate(results, start=1):
            key, result = _parsed(number, text)
            line = pending.get(key)
            if line is None:
                unknown += 1
            else:
                replies.setdefault(line.asker, {})[key] = _reply(line.asked.call, result)
        for asker, own in replies.items():
            self._ledger.take(asker, {key: pending[key].asked for key in own}, own, self._study.llms[asker.model].price)
        found = [reply for own in replies.values() for reply in own.values()]
        failed = sum(reply.error is not None for reply in found)
        return Taken(len(found) - failed, failed, unknown)


def _parsed(number: int, text: str) -> tuple[str, dict[str, Any]]:
    try:
        result = json.loads(text)
        return str(result["custom_id"]), result
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"line {number} is no result of a batch, which is JSON with a custom_id and a response: {text[:100]!r}"
        ) from error


def _reply(call: Call, result: dict[str, Any]) -> Reply:
    """The reply that a result holds; what failed may succeed when it is asked again."""
    response = result.get("response") or {}
    if result.get("error") or response.get("status_code") != 200:
        kind = SERVER if int(response.get("status_code") or 500) >= 500 else REQUEST
        return Reply(None, None, 0, 0, 0, None, 0.0, error=kind, is_retryable=True)
    try:
        return reply_of(call, response.get("body"), 0.0)
    except (MalformedError, UnableError):
        return Reply(None, None, 0, 0, 0, None, 0.0, error=SERVER, is_retryable=True)
