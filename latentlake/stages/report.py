"""One HTML file of what came out of the study, beside its tables."""

from hashlib import sha256

import polars as pl

from latentlake.keeping.reported import FILE
from latentlake.pages.report import report
from latentlake.reading.given import Given
from latentlake.work import Tables, Work


def compute(work: Work) -> Tables:
    """The file's row; the file itself is in its place before it."""
    made = report(Given(work))
    content = made.html.encode()
    work.put(FILE, content)
    said = {"file": FILE, "sha256": sha256(content).hexdigest(), "bytes": len(content)}
    return {"reports": pl.DataFrame([{**said, "latents": made.latents, "shown": made.shown, "listed": made.listed}])}
