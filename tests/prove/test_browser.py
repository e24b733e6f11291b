"""In a real browser: one partition is materialized by clicking, found up to date or computed, and its preview is read.

Screenshots are written to the folder that SCREENSHOTS names; CHROMIUM names the browser where it is not Debian's.
"""

import json
import os
import re
import time
from pathlib import Path

from playwright.sync_api import Page, expect

from tests.prove.chromium import browser
from tests.prove.daemon import IN_PROGRESS
from tests.prove.tiny import Tiny, tiny_study
from tests.workbench import EVERYTHING

ASSET = "scores/default/detection"


class Clicks:
    """What a user does in the Dagster UI of the small study."""

    def __init__(self, tiny: Tiny, page: Page, pictures: Path) -> None:
        self._tiny, self._page, self._pictures = tiny, page, pictures
        pictures.mkdir(parents=True, exist_ok=True)

    def open(self, path: str) -> None:
        """Open a page of the UI."""
        self._page.goto(self._tiny.dev.url + path, wait_until="domcontentloaded")

    def picture(self, name: str) -> None:
        """Take a screenshot, once the page has come to rest."""
        self._page.wait_for_timeout(3000)
        self._page.screenshot(path=self._pictures / f"{name}.png")

    def graph(self) -> None:
        """The asset graph with its groups expanded."""
        self.open("/asset-groups")
        expect(self._page.get_by_text("scores").last).to_be_visible()
        self._page.wait_for_timeout(3000)  # the shortcut is heard once the graph is laid out
        self._page.keyboard.press("Alt+e")
        expect(self._page.get_by_text("surprisal").first).to_be_visible()
        self.picture("graph")

    def materialize(self, name: str, *partition: str) -> None:
        """Materialize one partition from the asset's page, and wait for the end of the run."""
        began = time.time()
        self.open(f"/assets/{ASSET}")
        self._page.get_by_role("button", name="Materialize").first.click()
        for key in partition:
            self._page.get_by_text("Select a partition or create one").first.click()
            self._page.get_by_role("menuitem", name=key).last.click()
            self._page.keyboard.press("Escape")
        launch = self._page.get_by_role("button", name="Launch 1 run")
        expect(launch).to_be_enabled()
        self.picture(f"{name}_dialog")
        launch.click()
        run = self._ended(began)
        self.open(f"/runs/{run}")
        expect(self._page.get_by_text("Success").first).to_be_visible()
        self.picture(f"{name}_run")

    def partition(self, name: str, partition: str) -> str:
        """The text of the page of a partition."""
        self.open(f"/assets/{ASSET}?view=partitions&partition={partition.replace('|', '%7C')}")
        self._page.get_by_text("[Show Markdown]").first.click()
        expect(self._page.get_by_text("balanced_accuracy").first).to_be_visible()
        expect(self._page.get_by_alt_text("judged windows").first).to_be_visible()
        self.picture(f"{name}_partition")
        return self._page.inner_text("body")

    def _ended(self, began: float) -> str:
        dev = self._tiny.dev
        dev.wait(lambda: bool(self._tiny.runs(began)), "a run is launched")
        dev.wait(lambda: self._tiny.runs(began)[0]["status"] not in IN_PROGRESS, "the run ends")
        (run,) = self._tiny.runs(began)
        assert run["status"] == "SUCCESS", dev.report()
        return str(run["runId"])


def test_one_partition_is_materialized_by_clicking(tmp_path: Path) -> None:
    pictures = Path(os.environ.get("SCREENSHOTS", tmp_path / "screenshots"))
    with tiny_study(tmp_path) as tiny:
        assert tiny.bench.run() == EVERYTHING
        tiny.dev.start()
        with browser() as page:
            Clicks(tiny, page, pictures).graph()
        up_to_date(tiny, pictures)
        changed(tiny, pictures)
    print(json.dumps({"screenshots": sorted(str(each) for each in pictures.iterdir())}))


def up_to_date(tiny: Tiny, pictures: Path) -> None:
    """A partition that is up to date is found to be so, and shown all the same."""
    since = time.time()
    with browser() as page:
        clicks = Clicks(tiny, page, pictures)
        clicks.materialize("up_to_date", "0", "one")
        text = clicks.partition("up_to_date", "0|one")
    print(json.dumps({"click": "up to date", "computed": tiny.computed(since)}), flush=True)
    assert tiny.computed(since) == {}
    assert re.search(r"computed\s+false", text)
    assert tiny.bench.stale() == tiny.bench.dagster_stale() == {}


def changed(tiny: Tiny, pictures: Path) -> None:
    """After a change of the prompt the partition is computed, and no other."""
    tiny.edit("detection.txt", "Answer yes or no.", "Say yes or no.")
    tiny.dev.reload()
    since = time.time()
    with browser() as page:
        clicks = Clicks(tiny, page, pictures)
        clicks.materialize("changed", "0", "one")
        text, other = clicks.partition("changed", "0|one"), clicks.partition("other", "1|one")
    print(json.dumps({"click": "changed", "computed": tiny.computed(since)}), flush=True)
    assert tiny.computed(since) == {ASSET: 1}
    assert re.search(r"computed\s+true", text)
    assert tiny.bench.stale() == {ASSET: 1}
    assert tiny.bench.dagster_stale() == {ASSET: 1, "agreements": 1}  # to the plan it waits for the other block
    assert "Unsynced" in other
    assert "Unsynced" not in text
