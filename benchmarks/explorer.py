"""What the explorer takes on a large lake, in a browser: ``python -m benchmarks.explorer LAKE [--times N]``.

Starts `latentlake explore` on a lake (of `benchmarks.biglake`, say) and opens it in Debian's chromium, or the one that CHROMIUM
names. Prints seconds: from the start to the server's first answer; from there to what the study is, and to the whole overview,
in a server that has read nothing yet, and again; to a page that reads nothing and says so, which is what marimo takes; to a
latent's page by its link; all these in windows that hold nothing of before; and by a click on a hit. What a latent's page shows
is of a latent that was not asked for before.
"""

import argparse
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from urllib.request import urlopen

from playwright.sync_api import Browser, expect, sync_playwright

from latentlake.digest import mix, seed_of
from latentlake.reading.view import open_lake

ROOT = Path(__file__).resolve().parents[1]
SECONDS = 120  # after which a page is given up


@contextmanager
def server(lake: str) -> Iterator[tuple[str, float]]:
    """Address of an explorer of a lake, once it answers, and how long that took."""
    command = [sys.executable, "-m", "latentlake.cli", "--lake", lake, "explore", "--port", "0", "--no-browser"]
    began = time.perf_counter()
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        assert process.stdout is not None
        try:
            said = process.stdout.readline()
            found = re.search(r"http://127\.0\.0\.1:\d+", said)
            if found is None:
                raise SystemExit(said + process.stdout.read())
            urlopen(found[0], timeout=SECONDS).read()
            yield found[0], time.perf_counter() - began
        finally:
            process.terminate()


def overview(browser: Browser, address: str) -> tuple[float, float]:
    """Seconds until what the study is is there, and until the whole is, the last table too."""
    page = browser.new_page()
    began = time.perf_counter()
    page.goto(address)
    expect(page.get_by_text("last published")).to_be_visible()
    first = time.perf_counter() - began
    expect(page.get_by_role("heading", name="Costs")).to_be_visible()
    for title in (
        "How often latents fire",
        "Scores against controls",
        "Where scores are high",
        "Scorers against each other",
    ):
        expect(page.get_by_role("heading", name=title)).to_be_visible()
    took = time.perf_counter() - began
    page.close()
    return first, took


def nothing(browser: Browser, address: str) -> float:
    """Seconds until a page that reads nothing is there."""
    page = browser.new_page()
    began = time.perf_counter()
    page.goto(f"{address}/?page=latent&dictionary=nowhere")
    expect(page.get_by_text("nowhere").first).to_be_visible()
    took = time.perf_counter() - began
    page.close()
    return took


def by_link(browser: Browser, address: str, dictionary: str, latent: int) -> float:
    """Seconds until a latent's windows are there, in a new window."""
    page = browser.new_page()
    began = time.perf_counter()
    page.goto(f"{address}/?page=latent&dictionary={dictionary}&latent={latent}")
    expect(page.locator(".ll-latent mark").first).to_be_visible()
    took = time.perf_counter() - began
    page.close()
    return took


def by_click(browser: Browser, address: str, n: int) -> tuple[float, list[float]]:
    """Seconds until hits are there, in a new window; and of the first n until the latent's windows are there, after a click."""
    page = browser.new_page()
    began = time.perf_counter()
    page.goto(f"{address}/?page=latents")
    hits = page.locator(".llx-hit")
    expect(hits.first).to_be_visible()
    listed, found = time.perf_counter() - began, []
    for place in range(n):
        began = time.perf_counter()
        hits.nth(place).click()
        expect(page.locator(".ll-latent mark").first).to_be_visible()
        found.append(time.perf_counter() - began)
        page.go_back()
        expect(hits.first).to_be_visible()
    page.close()
    return listed, found


def report(name: str, took: list[float]) -> None:
    """One line."""
    print(f"{name:44} {median(took):6.2f} s, at most {max(took):.2f}", flush=True)


def latents_of(lake: str, n: int) -> list[tuple[str, int]]:
    """Some explained latents, drawn by hash."""
    rows = open_lake(lake).explanations.select("dictionary", "latent").unique().sort("dictionary", "latent").collect()
    order = mix(rows["latent"].to_numpy().astype("uint64"), seed_of("drawn")).argsort(kind="stable")
    return [(str(rows["dictionary"][int(place)]), int(rows["latent"][int(place)])) for place in order[:n]]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("lake")
    parser.add_argument("--times", type=int, default=5, help="pages of each kind (5)")
    given = parser.parse_args()
    drawn = latents_of(given.lake, given.times)
    expect.set_options(timeout=SECONDS * 1000)
    with server(given.lake) as (address, started), sync_playwright() as playwright:
        path = os.environ.get("CHROMIUM", "/usr/bin/chromium")
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        report("from the start to the first answer", [started])
        first, whole = overview(browser, address)
        report("the first page, what the study is", [first])
        report("the first page, the whole overview", [whole])
        again = [overview(browser, address) for _ in range(given.times)]
        report("again, what the study is", [each[0] for each in again])
        report("again, the whole overview", [each[1] for each in again])
        report("a page that reads nothing", [nothing(browser, address) for _ in range(given.times)])
        report("a latent by link", [by_link(browser, address, *each) for each in drawn])
        listed, clicked = by_click(browser, address, given.times)
        report("hits, the first page", [listed])
        report("a latent by a click on a hit", clicked)
        browser.close()


if __name__ == "__main__":
    main()
