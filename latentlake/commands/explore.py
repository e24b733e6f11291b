"""Look at a study in a browser: overview, search, and a page for each latent, with links that can be sent.

Reads what is published; new results appear when a page is loaded again. Needs the extra `explore`.
"""

import argparse
import webbrowser
from importlib import import_module
from importlib.util import find_spec

from latentlake.errors import LatentlakeError
from latentlake.opened import Opened
from latentlake.reading.results import choices_of


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's own arguments."""
    parser.add_argument("--host", default="127.0.0.1", help="address to serve at (127.0.0.1: this machine alone)")
    parser.add_argument("--port", type=int, default=2718, help="port to serve at, 0 for one that is free (2718)")
    parser.add_argument("--no-browser", action="store_true", help="open no browser")


def run(options: argparse.Namespace, opened: Opened) -> None:
    """Serve until interrupted.

    Raises:
        LatentlakeError: what the explorer needs is not installed, or the address cannot be had.
        LakeError: the lake holds no study, or nothing of it is published.
    """
    if find_spec("marimo") is None:
        raise LatentlakeError("the explorer needs marimo; pip install 'latentlake[explore]'")
    view = opened.view
    if choices_of(view).get("search"):
        # before marimo: where that is there, transformers takes itself to be in a notebook, and wants what belongs to one
        import_module("sentence_transformers")
    from latentlake.explorer.serving import serve

    def announce(address: str) -> None:
        print(f"{view.lake.study} of {view.uri} is at {address} (Ctrl+C ends it)", flush=True)
        if not options.no_browser:
            webbrowser.open(address)

    try:
        serve(view, lambda: opened.embedder, options.host, options.port, announce)
    except OSError as error:
        raise LatentlakeError(
            f"cannot serve at {options.host} port {options.port}: {error}; name another with --host and --port"
        ) from error
