"""The pictures of README.md: ``make pictures``, after ``make run``.

The asset graph in the Dagster UI, the explorer, a latent's page and the report, all of the quickstart, as Debian's chromium shows
them. They are written to docs/pictures/.
"""

import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from playwright.sync_api import Page

from latentlake.reading.view import open_lake
from tests.prove.chromium import browser

ROOT = Path(__file__).parents[2]
PICTURES = ROOT / "docs" / "pictures"
LAKE = os.environ.get("LATENTLAKE_LAKE", "lake")
_WIDE, _NARROW, _LARGE = (
    {"width": width, "height": height} for width, height in ((1280, 860), (390, 860), (1600, 1000))
)


@contextmanager
def served(*command: str) -> Iterator[str]:
    """The address of a server, started by a command whose last word is the port, once it answers."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    process = subprocess.Popen([sys.executable, "-m", *command, str(port)], cwd=ROOT, stdout=subprocess.DEVNULL)
    address = f"http://127.0.0.1:{port}"
    try:
        _wait(address, process)
        yield address
    finally:
        process.terminate()
        process.wait(timeout=60)


def _wait(address: str, process: "subprocess.Popen[bytes]") -> None:
    while process.poll() is None:
        try:
            with urllib.request.urlopen(address, timeout=60):
                return
        except OSError:
            time.sleep(0.5)
    raise SystemExit(f"the server of {address} ended with status {process.returncode}; see above")


def take(page: Page, name: str, size: dict[str, int] = _WIDE) -> None:
    """A picture of what a page shows at some size, once it has come to rest."""
    page.set_viewport_size(size)  # type: ignore[arg-type]
    page.wait_for_timeout(3000)
    page.screenshot(path=PICTURES / f"{name}.png")
    print(PICTURES / f"{name}.png")


def graph(page: Page) -> None:
    """The asset graph, by groups: with all assets it is larger than a screen."""
    with served("dagster_webserver", "-m", "definitions", "-p") as address:
        page.goto(f"{address}/asset-groups", wait_until="domcontentloaded")
        page.get_by_text("scores").last.wait_for()
        take(page, "graph", _LARGE)  # the size at which it was laid out


def explorer(page: Page) -> None:
    """The overview and a latent's page."""
    latent = (
        open_lake(LAKE).latents.filter("is_chosen").select("dictionary", "latent").first().collect().row(0, named=True)
    )
    with served("latentlake.cli", "explore", "--no-browser", "--port") as address:
        page.goto(address)
        page.get_by_text("Costs").first.wait_for()
        take(page, "explorer")
        page.goto(f"{address}?page=latent&dictionary={latent['dictionary']}&latent={latent['latent']}")
        page.locator("mark").first.wait_for()
        take(page, "latent")
        take(page, "latent_narrow", _NARROW)


def report(page: Page) -> None:
    """The beginning of the report."""
    (file,) = Path(LAKE).resolve().glob("*/report.html")
    page.goto(file.as_uri())
    take(page, "report")


def main() -> None:
    """All of them."""
    PICTURES.mkdir(parents=True, exist_ok=True)
    os.environ.setdefault("DAGSTER_HOME", str(ROOT / ".dagster"))
    with browser() as page:
        for each in (graph, explorer, report):
            page.set_viewport_size(_LARGE)  # type: ignore[arg-type]
            each(page)


if __name__ == "__main__":
    main()
