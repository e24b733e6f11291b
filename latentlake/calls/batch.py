"""Pending calls as a batch of the OpenAI API, a line of JSON each, and its results as replies in the ledger.

A batch is a way to have calls answered later; it is no way to run. What is answered is in the ledger, and the next run asks for
the rest: of explanations first, of scores once there are explanations. Prices are those of the study, whatever batches cost.
"""

import json
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

from latentlake.calls.ledger import Asker, Ledger, call_key
from latentlake.calls.pending import Pending
from latentlake.engines.wire import MalformedError, UnableError, failure_of, is_model, reply_of, request_of
from latentlake.errors import InputError, nearest
from latentlake.execute import revision_of
from latentlake.origins import Origins
from latentlake.protocols import CONTEXT_LENGTH, REFUSAL, SERVER, Asked, Call, Reply
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
    """The pending calls of the models of a study that servers run. ``llm``: of one of them alone."""

    def __init__(
        self, study: Study, origins: Origins, pending: Pending, ledger: Ledger, llm: str | None = None
    ) -> None:
        self._study, self._origins, self._pending, self._ledger, self._llm = study, origins, pending, ledger, llm
        served = [name for name, choice in study.llms.items() if choice.is_served]
        if llm is not None and llm not in served:
            raise InputError(f"the study has no model {llm!r} that a server runs{nearest(llm, served)}")

    def lines(self) -> Iterator[Line]:
        """Each call once."""
        seen: set[str] = set()
        for stage, partition, llm, asked in self._pending.all():
            choice = self._study.llms[llm]
            if not choice.is_served or self._llm not in (None, llm):
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
                reply = _reply(self._study.llms[line.asker.model].model, line.asked.call, result, number)
                own = replies.setdefault(line.asker, {})
                if key not in own or own[key].error:  # a file of errors beside one of results says nothing new
                    own[key] = reply
        for asker, own in replies.items():
            self._ledger.take(asker, {key: pending[key].asked for key in own}, own, self._study.llms[asker.model].price)
        found = [reply for own in replies.values() for reply in own.values()]
        failed = sum(reply.error is not None for reply in found)
        return Taken(len(found) - failed, failed, unknown)


def _parsed(number: int, text: str) -> tuple[str, dict[str, Any]]:
    try:
        result = json.loads(text)
        assert isinstance(result.get("response") or {}, dict)
        return str(result["custom_id"]), result
    except (AssertionError, AttributeError, ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"line {number} is no result of a batch, which is JSON with a custom_id and a response: {text[:100]!r}"
        ) from error


def _reply(model: str, call: Call, result: dict[str, Any], number: int) -> Reply:
    """The reply that a result holds; what failed may succeed when it is asked again, as when it is asked one by one.

    Raises:
        InputError: another model answered.
    """
    response = result.get("response") or {}
    status, body = int(response.get("status_code") or 500), response.get("body")
    if result.get("error") or status != 200:
        kind = failure_of(status, json.dumps([body, result.get("error")]))
        return _failed(kind, is_retryable=kind not in (CONTEXT_LENGTH, REFUSAL))
    said = body.get("model") if isinstance(body, dict) else None
    if isinstance(said, str) and not is_model(model, said):
        raise InputError(f"line {number} is what the model {said!r} said, and {model!r} was asked")
    try:
        return reply_of(call, body, 0.0)
    except (MalformedError, UnableError):
        return _failed(SERVER, is_retryable=True)


def _failed(kind: str, is_retryable: bool) -> Reply:
    return Reply(None, None, 0, 0, 0, None, 0.0, error=kind, is_retryable=is_retryable)
