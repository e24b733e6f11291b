"""The explorer in a real browser: search, a latent's page, links that are sent, keys, a narrow screen; no other machine is asked.

Screenshots are written to the folder that SCREENSHOTS names; CHROMIUM names the browser where it is not Debian's.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import polars as pl
import pytest
from playwright.sync_api import Browser, Page, expect, sync_playwright

from latentlake.tables import TABLES
from tests.workbench import Workbench

SCRIPT = "<script>document.title = 'run'</script><img src=x onerror=\"document.title='run'\">"
SECONDS = 60  # for a page, on a busy machine
ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    path = os.environ.get("CHROMIUM", "/usr/bin/chromium")
    if not Path(path).exists():
        pytest.fail(f"there is no browser at {path}: apt-get install chromium, or name another one in CHROMIUM")
    with sync_playwright() as playwright:
        expect.set_options(timeout=SECONDS * 1000)
        yield playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])


@contextmanager
def explorer(lake: str) -> Iterator[str]:
    """The address of an explorer of a lake, in a process of its own."""
    command = [sys.executable, "-m", "latentlake.cli", "--lake", lake, "explore", "--port", "0", "--no-browser"]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        assert process.stdout is not None
        try:
            line = process.stdout.readline()
            found = re.search(r"http://127\.0\.0\.1:\d+", line)
            assert found, line + process.stdout.read()
            yield found[0]
        finally:
            process.terminate()


@contextmanager
def opened(chromium: Browser, width: int = 1400, scheme: str = "light") -> Iterator[tuple[Page, list[str]]]:
    """A page of the browser, and the hosts that it asks."""
    page = chromium.new_page(viewport={"width": width, "height": 1000}, color_scheme=scheme)  # type: ignore[arg-type]
    page.set_default_timeout(SECONDS * 1000)
    hosts: list[str] = []
    page.on("request", lambda request: hosts.append(urlsplit(request.url).hostname or request.url[:5]))
    yield page, hosts
    page.close()


def heading(page: Page) -> str:
    return " ".join(page.locator(".ll-title").inner_text().split())


def test_the_explorer_is_a_place_to_look_around(chromium: Browser, materialized: Workbench) -> None:
    explained = materialized.view().explanations.filter(pl.col("explanation").is_not_null()).collect()
    row = explained.sort("dictionary", "latent").row(0, named=True)
    with explorer(materialized.lake.uri) as address, opened(chromium) as (page, hosts):
        page.goto(address)
        expect(page.get_by_text("last published")).to_be_visible()
        expect(page.locator("figure").first).to_be_visible()

        page.get_by_role("link", name="Latents", exact=True).press("Enter")
        page.locator(".llx-by-words input").fill(row["explanation"])
        expect(page).to_have_url(re.compile("words="))
        name = f"{row['dictionary']} {row['latent']}"
        hit = page.locator(f'.llx-hit[href*="dictionary={row["dictionary"]}&latent={row["latent"]}&"]')
        expect(hit).to_be_visible()
        first = page.locator(".llx-hit").first
        first.focus()
        if page.locator(".llx-hit").count() > 1:
            page.keyboard.press("ArrowDown")
            expect(page.locator(".llx-hit").nth(1)).to_be_focused()
        hit.focus()
        page.keyboard.press("Enter")
        expect(page.locator(".ll-latent mark").first).to_be_visible()
        assert heading(page) == name

        sent = page.url
        page.keyboard.press("Shift+ArrowRight")
        expect(page.locator(".ll-title")).not_to_have_text(re.compile(rf"\b{row['latent']}\s*$"))
        page.go_back()
        expect(page.locator(".ll-title")).to_have_text(re.compile(rf"\b{row['latent']}\s*$"))
        page.go_back()
        expect(page.locator(".llx-by-words input")).to_have_value(row["explanation"])
        with opened(chromium) as (other, _):
            other.goto(sent)
            expect(other.locator(".ll-latent mark").first).to_be_visible()
            assert heading(other) == name
        assert set(hosts) <= {"127.0.0.1", "data:", "blob:"}


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1400])
def test_pages_fit_the_screen(chromium: Browser, materialized: Workbench, width: int, scheme: str) -> None:
    pictures = Path(os.environ.get("SCREENSHOTS", materialized.folder / "screenshots"))
    pictures.mkdir(parents=True, exist_ok=True)
    seen = {"overview": "figure", "latents": ".llx-hit", "latent": ".ll-latent mark"}
    with explorer(materialized.lake.uri) as address, opened(chromium, width, scheme) as (page, _):
        for name, there in seen.items():
            page.goto(f"{address}/?page={name}")
            expect(page.locator(there).first).to_be_visible()
            page.wait_for_timeout(1500)
            wide = page.evaluate(
                "Math.max(document.documentElement.scrollWidth, document.getElementById('App').scrollWidth)"
            )
            assert wide <= width
            page.screenshot(path=pictures / f"explorer_{name}_{width}_{scheme}.png")


def test_texts_of_models_stay_text(chromium: Browser, materialized: Workbench) -> None:
    lake = materialized.lake.open("tiny")
    rows = lake.scan("explanations").collect()
    where = rows.select("explainer", "dictionary", "block").row(0, named=True)
    own = rows.filter(**where).with_columns(explanation=pl.lit(SCRIPT), error=pl.lit(None, pl.String))
    lake.replace("explanations", TABLES["explanations"].conform(own), where, {})
    with explorer(materialized.lake.uri) as address, opened(chromium) as (page, _):
        shown = f"?page=latent&dictionary={where['dictionary']}&latent={own['latent'][0]}"
        for query in ("?page=latents&which=all&order=latent", shown):
            page.goto(f"{address}/{query}")
            expect(page.get_by_text("document.title = 'run'").first).to_be_visible()
            assert page.title() == "latentlake"


def test_new_results_are_there_after_a_reload(chromium: Browser, materialized: Workbench) -> None:
    lake = materialized.lake.open("tiny")
    with explorer(materialized.lake.uri) as address, opened(chromium) as (page, _):
        page.goto(address)
        expect(page.get_by_text("last published")).to_be_visible()
        assert page.get_by_text("This study is not finished").count() == 0
        last = lake.scan("partitions").filter(asset="agreements").sort("attempt").tail(1)
        again = last.with_columns(attempt=pl.col("attempt") + 1, state=pl.lit("building")).collect()
        lake.append("partitions", TABLES["partitions"].conform(again))
        page.reload()
        expect(page.get_by_text("This study is not finished")).to_be_visible()


def test_a_page_comes_soon(chromium: Browser, materialized: Workbench) -> None:
    """Within a session, of a small lake; what a large one takes is measured by hand."""
    with explorer(materialized.lake.uri) as address, opened(chromium) as (page, _):
        page.goto(f"{address}/?page=latents")
        began = time.monotonic()
        page.locator(".llx-hit").first.press("Enter")
        expect(page.locator(".ll-latent")).to_be_visible()
        assert time.monotonic() - began < 10
