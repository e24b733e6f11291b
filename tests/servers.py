"""Servers on loopback that speak the OpenAI API: one whose answers are digests of what it is asked, and its faults."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Lock, Thread
from typing import Any

MODEL = "tests/canned"


def answer(path: str, body: dict[str, Any], model: str = MODEL) -> dict[str, Any]:
    """A whole response to a request, of which the text is a digest of the prompt."""
    asked = body.get("prompt") or json.dumps(body["messages"])
    digest = hashlib.sha256(f"{asked}{body.get('seed')}".encode()).hexdigest()
    text, number = f" {digest[:6]}", -int(digest[:2], 16) / 64
    usage = {"prompt_tokens": len(asked.split()), "completion_tokens": 1, "prompt_tokens_details": {"cached_tokens": 2}}
    choice: dict[str, Any] = {"index": 0, "finish_reason": "stop", "logprobs": None}
    if path.endswith("/chat/completions"):
        choice["message"] = {"role": "assistant", "content": text}
        if body.get("logprobs"):
            tops = [{"token": "yes", "logprob": number}, {"token": "no", "logprob": -0.5}]
            choice["logprobs"] = {"content": [{"token": "yes", "logprob": number, "top_logprobs": tops}]}
    else:
        choice["text"] = asked + text if body.get("echo") else text
        if body.get("logprobs"):
            choice["logprobs"] = _logprobs(asked if body.get("echo") else " yes", number)
    return {"id": "x", "object": "completion", "model": model, "choices": [choice], "usage": usage}


def _logprobs(text: str, number: float) -> dict[str, Any]:
    tokens = [text[start : start + 4] for start in range(0, len(text), 4)]
    return {
        "tokens": tokens,
        "text_offset": list(range(0, len(text), 4)),
        "token_logprobs": [None, *[number] * (len(tokens) - 1)] if len(tokens) > 1 else [number],
        "top_logprobs": [{token: number, " no": -0.5} for token in tokens],
    }


class Sent(Exception):  # noqa: N818
    """A fault has dealt with the connection by itself."""


Fault = Callable[["Handler", dict[str, Any]], tuple[int, bytes, dict[str, str]]]


def status(code: int, message: str = "no", **headers: str) -> Fault:
    """A status that is not 200, in the API's own form."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return lambda handler, body: (code, json.dumps({"error": {"message": message}}).encode(), named)


def page(handler: Handler, body: dict[str, Any]) -> tuple[int, bytes, dict[str, str]]:
    """A page of HTML, as gateways give."""
    return 200, b"<html><body>Bad gateway</body></html>", {"Content-Type": "text/html"}


def truncated(handler: Handler, body: dict[str, Any]) -> tuple[int, bytes, dict[str, str]]:
    """The first half of the JSON."""
    whole = json.dumps(answer(handler.path, body)).encode()
    return 200, whole[: len(whole) // 2], {}


def half(handler: Handler, body: dict[str, Any]) -> tuple[int, bytes, dict[str, str]]:
    """Half of what was announced, and then the connection is gone."""
    whole = json.dumps(answer(handler.path, body)).encode()
    handler.send_response(200)
    handler.send_header("Content-Type", "application/json")
    handler.send_header("Content-Length", str(len(whole)))
    handler.end_headers()
    handler.wfile.write(whole[: len(whole) // 2])
    raise Sent


def closed(handler: Handler, body: dict[str, Any]) -> tuple[int, bytes, dict[str, str]]:
    """The connection is gone."""
    raise Sent


def slow(seconds: float) -> Fault:
    """An answer, late."""

    def wait(handler: Handler, body: dict[str, Any]) -> tuple[int, bytes, dict[str, str]]:
        time.sleep(seconds)
        return 200, json.dumps(answer(handler.path, body)).encode(), {}

    return wait


def changed(**fields: Any) -> Fault:
    """An answer in which something is other than it should be."""
    return lambda handler, body: (200, json.dumps(answer(handler.path, body) | fields).encode(), {})


def said(**fields: Any) -> Fault:
    """An answer whose choice is other than it should be."""

    def change(handler: Handler, body: dict[str, Any]) -> tuple[int, bytes, dict[str, str]]:
        response = answer(handler.path, body)
        response["choices"][0] |= fields
        return 200, json.dumps(response).encode(), {}

    return change


class Canned(ThreadingHTTPServer):
    """A server that counts what it is asked.

    ``faults``: called with the number of a request, from 0, and its body, gives the fault that meets it, or None. ``key``: what
    it wants to be told. ``models``: what it says it has.
    """

    daemon_threads = True
    request_queue_size = 256

    def __init__(self, key: str | None = None) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.key = key
        self.models = [MODEL]
        self.faults: Callable[[int, dict[str, Any]], Fault | None] = lambda number, body: None
        self.asked: list[dict[str, Any]] = []
        self.pause = 0.0
        self.active, self.most = 0, 0
        self.lock = Lock()

    @property
    def url(self) -> str:
        """Address of the API."""
        return f"http://127.0.0.1:{self.server_address[1]}/v1"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Clients that are killed are no matter."""


class Handler(BaseHTTPRequestHandler):
    """One connection."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # kept for a request, small packets wait for 40 ms
    server: Canned

    def do_GET(self) -> None:
        """The models there are."""
        self._send(200, json.dumps({"data": [{"id": each} for each in self.server.models]}).encode(), {})

    def do_POST(self) -> None:
        """One request."""
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        server = self.server
        with server.lock:
            number = len(server.asked)
            server.asked.append(body)
            server.active += 1
            server.most = max(server.most, server.active)
        try:
            self._answer(number, body)
        finally:
            with server.lock:
                server.active -= 1

    def _answer(self, number: int, body: dict[str, Any]) -> None:
        time.sleep(self.server.pause)
        if self.server.key and self.headers.get("Authorization") != f"Bearer {self.server.key}":
            self._send(401, json.dumps({"error": {"message": f"wrong: {self.headers['Authorization']}"}}).encode(), {})
            return
        fault = self.server.faults(number, body)
        try:
            found = fault(self, body) if fault else (200, json.dumps(answer(self.path, body)).encode(), {})
            self._send(*found)
        except Sent:
            self.close_connection = True

    def _send(self, code: int, content: bytes, headers: dict[str, str]) -> None:
        self.send_response(code)
        for name, value in ({"Content-Type": "application/json"} | headers).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
        """Says nothing."""


@contextmanager
def serving(key: str | None = None) -> Iterator[Canned]:
    """A canned server, for as long as it is needed."""
    with Canned(key) as server:
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        thread.start()
        yield server
        server.shutdown()
        thread.join()
