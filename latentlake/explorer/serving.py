"""The explorer behind an address: one process, in which everything heavy is imported before it says that it is up."""

from __future__ import annotations

import socket
from collections.abc import Callable
from pathlib import Path
from threading import Thread
from typing import TYPE_CHECKING, Any

import uvicorn
from marimo import create_asgi_app

from latentlake.charts.latents import histogram
from latentlake.charts.svg import inline
from latentlake.explorer import opened, overview, pages  # noqa: F401  pages: so that no session waits for what they import

if TYPE_CHECKING:
    from latentlake.protocols import Embedder
    from latentlake.reading.view import View

_APP = Path(__file__).with_name("app.py")


def served(view: View, embedder: Callable[[], Embedder]) -> Any:
    """The explorer of a view as an ASGI app. ``embedder``: as `opened.show` takes it."""
    opened.show(view, embedder)
    inline(histogram([1]))  # the first picture takes half a second longer than others
    return create_asgi_app(quiet=True, include_code=False).with_app(path="", root=str(_APP)).build()


def serve(view: View, embedder: Callable[[], Embedder], host: str, port: int, announce: Callable[[str], None]) -> None:
    """Serve the explorer of a view until it is interrupted. ``port``: 0 takes one that is free. ``announce``: is told the
    address, once it answers.

    Raises:
        OSError: the address is taken, or is none of this machine's.
    """
    app = served(view, embedder)
    with socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET) as listening:
        name = f"[{host}]" if ":" in host else host
        address = f"http://{name}:{listening.getsockname()[1]}"
        server = uvicorn.Server(uvicorn.Config(app, log_level="warning"))
        Thread(target=overview.read_ahead, args=(view,), daemon=True).start()  # meanwhile the browser loads marimo
        announce(address)  # connections wait from now on
        server.run([listening])
