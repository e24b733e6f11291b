"""What asking a server costs beside the answer: ``python -m benchmarks.client [--calls N]``.

Side by side in one run, in turns, against a server in a process of its own that gives every request the same reply at once: a
bare loop over the client of the package openai, so many requests under way; the engine; and the engine with the ledger, which
writes all of it down. CPU time of this process a call, over the bare loop's.
"""

import argparse
import asyncio
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import openai

from latentlake.calls.ledger import Asker, Ledger
from latentlake.engines.openai import OpenAILLM, Traffic
from latentlake.lake import Lake
from latentlake.protocols import Asked, Call, Generate

MODEL, ROUNDS, CONCURRENCY = "canned", 5, 32
_REPLY = {
    "id": "x", "object": "chat.completion", "created": 0, "model": MODEL,
    "choices": [{"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": "oak, elm and birch"}}],
    "usage": {"prompt_tokens": 300, "completion_tokens": 8, "total_tokens": 308},
}  # fmt: skip


async def _answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Requests of one connection."""
    content = json.dumps(_REPLY).encode()
    models = json.dumps({"data": [{"id": MODEL}]}).encode()
    try:
        while True:
            head = (await reader.readuntil(b"\r\n\r\n")).lower()
            _, found, length = head.partition(b"content-length:")
            if found:
                await reader.readexactly(int(length.split()[0]))
            body = content if head.startswith(b"post") else models
            said = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n" % len(body)
            writer.write(said + body)
    except (asyncio.IncompleteReadError, ConnectionError):
        writer.close()


async def _serve() -> None:
    server = await asyncio.start_server(_answer, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


def bare(url: str, calls: list[Call]) -> int:
    """The client's own loop."""

    async def ask() -> int:
        places = asyncio.Semaphore(CONCURRENCY)
        async with openai.AsyncOpenAI(base_url=url, api_key="none", max_retries=0) as client:

            async def one(call: Call) -> str | None:
                async with places:
                    said = await client.chat.completions.create(
                        model=MODEL,
                        messages=[{"role": "user", "content": call.prefix + call.suffix}],
                        max_tokens=16,
                        temperature=0,
                    )
                    return said.choices[0].message.content

            return len(await asyncio.gather(*map(one, calls)))

    return asyncio.run(ask())


def engine(url: str, calls: list[Call]) -> int:
    """The engine."""
    llm = OpenAILLM(MODEL, [url], None, Traffic(concurrency=CONCURRENCY))
    return sum(len(batch) for batch in llm.run(calls))


def ledger(url: str, calls: list[Call]) -> int:
    """The engine, and every reply in a table."""
    with tempfile.TemporaryDirectory() as folder:
        llm = OpenAILLM(MODEL, [url], None, Traffic(concurrency=CONCURRENCY))
        asked = [Asked(number, call) for number, call in enumerate(calls)]
        asker = Asker("judge", "r", "openai", "scores/x", "one")
        return len(Ledger(Lake(folder, "bench")).ask(lambda: llm, asker, asked, lambda *_: None))


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--calls", type=int, default=2000)
    parser.add_argument("--serve", action="store_true", help="be the server")
    given = parser.parse_args()
    if given.serve:
        asyncio.run(_serve())
        return
    calls = [Call("Marked words. " * 60, f"Words: {n}", Generate(16), chat=()) for n in range(given.calls)]
    ways: dict[str, Callable[[str, list[Call]], int]] = {"bare loop": bare, "engine": engine, "with ledger": ledger}
    command = [sys.executable, "-m", "benchmarks.client", "--serve"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[1]) as server:
        try:
            assert server.stdout is not None
            url = f"http://127.0.0.1:{server.stdout.readline().strip()}/v1"
            report(ways, url, calls)
        finally:
            server.kill()


def report(ways: dict[str, Callable[[str, list[Call]], int]], url: str, calls: list[Call]) -> None:
    """CPU-seconds of each way, in rounds whose order alternates; the first is to warm up."""
    seconds = dict.fromkeys(ways, 0.0)
    for number in range(ROUNDS + 1):
        for name in list(ways)[:: 1 if number % 2 else -1]:
            began = time.process_time()
            assert ways[name](url, calls) == len(calls)
            seconds[name] += (time.process_time() - began) if number else 0.0
    for name, spent in seconds.items():
        each = spent / ROUNDS / len(calls) * 1000
        print(f"{name:12} {each:6.3f} cpu-ms a call; / bare loop {spent / seconds['bare loop']:.2f}")


if __name__ == "__main__":
    main()
