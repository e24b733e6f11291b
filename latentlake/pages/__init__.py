"""HTML of latents and of studies, for the explorer, the report and previews.

What belongs here: how results look as HTML: templates, one style sheet, and what turns frames into what templates show. What does
not: reading a lake (``reading/``), counting and averaging (``measures/``), charts (``charts/``), a server.

All text of corpora and models is escaped, by the templates' own doing. Pages are well-formed as XML too, so that they can
stand in pictures, and hold no script.
"""

from importlib.resources import files

from markupsafe import Markup

from latentlake.pages.rendering import render


def style() -> str:
    """The style sheet of all pages. Classes begin with ``ll-``; colours follow the reader's light or dark theme."""
    return (files("latentlake.pages") / "style.css").read_text(encoding="utf-8")


def document(title: str, body: str) -> str:
    """A whole HTML document that needs nothing beside it. ``body`` is HTML."""
    return render("document.html", title=title, style=Markup(style()), body=Markup(body))
