"""Debian's chromium, or the one that CHROMIUM names, without a window."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect, sync_playwright

SECONDS = 180  # for a page, on a busy machine


@contextmanager
def browser() -> Iterator[Page]:
    """A page of a browser without a window."""
    path = os.environ.get("CHROMIUM", "/usr/bin/chromium")
    if not Path(path).exists():
        pytest.fail(f"there is no browser at {path}: apt-get install chromium, or name another one in CHROMIUM")
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        page = chromium.new_page(viewport={"width": 1600, "height": 1000})
        page.set_default_timeout(SECONDS * 1000)
        expect.set_options(timeout=SECONDS * 1000)
        yield page
        chromium.close()
