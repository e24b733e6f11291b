"""The report in a real browser, opened from the disk without a network: legible in light and dark, on a phone, on paper."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from playwright.sync_api import Page

from latentlake.pages.report import report
from latentlake.reading.view import View, open_lake
from tests.prove.chromium import browser
from tests.test_report import NASTY, Changed

LEAST = 4.5  # WCAG 2.2, contrast (minimum), level AA
# Of every text that is shown: the contrast of its colour with what lies behind it, grounds of all elements around it composed.
CONTRASTS = """
() => {
  const canvas = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
  canvas.canvas.width = canvas.canvas.height = 1;
  const over = (colors) => {
    canvas.clearRect(0, 0, 1, 1);
    for (const color of colors) { canvas.fillStyle = color; canvas.fillRect(0, 0, 1, 1); }
    return [...canvas.getImageData(0, 0, 1, 1).data].slice(0, 3);
  };
  const luminance = (rgb) => {
    const [r, g, b] = rgb.map((c) => c / 255).map((c) => (c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const found = {};
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const element = walker.currentNode.parentElement;
    if (!walker.currentNode.data.trim() || element.closest("svg, style")) continue;
    const grounds = [];
    for (let each = element; each; each = each.parentElement) grounds.unshift(getComputedStyle(each).backgroundColor);
    const ground = over(["white", ...grounds]);
    const text = over([`rgb(${ground})`, getComputedStyle(element).color]);
    const [low, high] = [luminance(ground), luminance(text)].sort((a, b) => a - b);
    const kind = `${element.tagName.toLowerCase()}.${element.className}`;
    found[kind] = Math.min(found[kind] ?? 99, (high + 0.05) / (low + 0.05));
  }
  return found;
}
"""


@pytest.fixture(scope="module")
def view(finished: Path) -> View:
    """The finished study."""
    return open_lake(f"{finished}/study/lake")


@pytest.fixture(scope="module")
def file(view: View, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Its report, with a script in every window and explanation."""
    changed = Changed(
        view,
        examples=view.examples.with_columns(text=pl.lit(NASTY) + pl.col("text")),
        explanations=view.explanations.with_columns(explanation=pl.lit(NASTY)),
    )
    path = tmp_path_factory.mktemp("report") / "report.html"
    path.write_text(report(changed).html)
    return path


@pytest.fixture(scope="module")
def opened() -> Iterator[Page]:
    """A page that reaches no network; what it asks for, says or complains of is in ``page.heard``."""
    with browser() as page:
        yield page


@pytest.fixture
def page(opened: Page, file: Path) -> Iterator[tuple[Page, list[str]]]:
    """The report in it, and what it asked for beside itself, said or complained of."""
    heard: list[str] = []

    def listen(request: Any) -> None:
        if request.url != file.as_uri():
            heard.append(request.url)

    opened.on("request", listen)
    opened.on("console", lambda message: heard.append(message.text))
    opened.on("pageerror", lambda error: heard.append(str(error)))
    opened.on("dialog", lambda dialog: (heard.append(dialog.message), dialog.dismiss()))
    opened.context.set_offline(True)
    opened.set_viewport_size({"width": 1280, "height": 900})
    opened.goto(file.as_uri())
    yield opened, heard
    opened.remove_listener("request", listen)


def test_it_asks_for_nothing_and_scripts_in_it_are_text(page: tuple[Page, list[str]]) -> None:
    shown, heard = page
    shown.wait_for_timeout(500)
    assert heard == []
    assert shown.locator("script").count() == 0
    first = shown.locator(".ll-windows .ll-text").first
    assert "<script>alert('1')</script> &" in first.inner_text()
    assert shown.locator("h1").inner_text() == "tiny"
    assert shown.locator("figure svg").count() > 8


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_all_text_stands_out_from_what_is_behind_it(page: tuple[Page, list[str]], scheme: Any) -> None:
    shown, _ = page
    shown.emulate_media(color_scheme=scheme)
    found = shown.evaluate(CONTRASTS)
    assert len(found) > 40
    assert sum(kind.startswith("mark.") for kind in found) > 5
    assert {kind: round(ratio, 2) for kind, ratio in found.items() if ratio < LEAST} == {}


def test_a_phone_scrolls_it_down_only(page: tuple[Page, list[str]]) -> None:
    shown, _ = page
    shown.set_viewport_size({"width": 390, "height": 800})
    assert shown.evaluate("document.documentElement.scrollWidth") == 390
    wide = "[...document.querySelectorAll('main *')].filter(e => !e.closest('.ll-scroll, svg, details:not([open])'))"
    beyond = shown.evaluate(
        f"{wide}.filter(e => e.getBoundingClientRect().right > 391).map(e => e.outerHTML.slice(0, 80))"
    )
    assert beyond == []


def test_links_of_its_contents_lead_to_what_they_say(page: tuple[Page, list[str]]) -> None:
    shown, _ = page
    for link in shown.locator("nav a").all():
        link.click()
        target = shown.locator(f"[id='{link.get_attribute('href')[1:]}']")  # type: ignore[index]
        assert target.evaluate("e => e.getBoundingClientRect().top") < 900
    assert shown.locator(".ll-report-chips a").first.is_visible()


def test_it_prints_in_full(page: tuple[Page, list[str]]) -> None:
    shown, _ = page
    pdf = shown.pdf(format="A4")
    assert pdf.startswith(b"%PDF") and len(re.findall(rb"/Type\s*/Page\b", pdf)) > 5
    shown.emulate_media(media="print")
    folded = shown.locator("details pre").first
    assert folded.evaluate("e => e.getBoundingClientRect().height") > 100
    shown.emulate_media(media="screen")
