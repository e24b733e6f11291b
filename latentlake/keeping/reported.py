"""The report that lies beside a study's tables: whether it is there, and what becomes of it.

Its row says what was made last. There is one file, at one place: no past state has it, and a run that was killed, or that another
overtook, may leave the file newer than its row.
"""

from latentlake.keeping.beside import Beside
from latentlake.lake import Lake
from latentlake.reading.view import View

FILE = "report.html"


def said_of(lake: Lake) -> str:
    """Where the report is, or why there is none."""
    rows = View(lake).reports.collect().to_dicts()
    place = lake.beside(FILE)
    if not rows:
        return "there is no report yet; `make run` makes one when all else is there"
    if Beside(lake).size(FILE) != rows[0]["bytes"]:
        return f"the report {place} was deleted or changed; `latentlake report --out FILE` makes it again"
    return f"the report is {place}"


def sweep(lake: Lake, hours: int) -> int:
    """Delete the report where no row speaks of it, and what killed writers left of one, older than so many hours."""
    is_spoken_of = not lake.scan("reports").head(1).collect().is_empty()
    return Beside(lake).sweep(lambda name: name != FILE or is_spoken_of, hours)
