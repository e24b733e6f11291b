# /// script
# [tool.marimo.display]
# theme = "system"
# ///
"""The pages of the explorer: what stands where. What they show is made in the modules beside this one."""

import marimo

app = marimo.App(width="full", app_title="latentlake", css_file="app.css", html_head_file="head.html")

with app.setup:
    from random import Random

    import marimo as mo

    from latentlake.explorer import address, opened, pages
    from latentlake.pages import style


@app.cell
def _():
    view = opened.shown()
    return (view,)


@app.cell
def _():
    params = mo.query_params()
    followed, set_followed = mo.state(0)
    return followed, params, set_followed


@app.cell
def _(params, set_followed):
    def go(said):
        """Look at something else: what the address says from now on."""
        for name in [*params.to_dict()]:
            if name not in said:
                params.remove(name)
        for name, value in said.items():
            if params.get(name) != value:
                params.set(name, value)

    def follow(link):
        """Go where a link leads; boxes and menus then say what it says."""
        go(address.said(link))
        set_followed(lambda number: number + 1)

    def ask(name, value):
        """Change one thing that is searched for, and start with the first hits."""
        said = {**params.to_dict(), name: str(value), "page": "latents"}
        go({name: value for name, value in said.items() if value and name != "first"})

    # links of pages are followed through this box: head.html
    box = mo.ui.text(on_change=follow)
    mo.Html(f'<div id="llx-link" hidden>{box}</div>')
    return ask, box, follow, go


@app.cell
def _(params, view):
    given = pages.plain(params.to_dict())
    page = given.get("page", "overview")
    mo.Html(pages.frame(view, page))
    return given, page


@app.cell
def _(ask, followed, view):
    followed()
    filters = pages.filters(view, pages.plain(mo.query_params().to_dict()), ask)
    return (filters,)


@app.cell
def _(filters, given, page, view):
    mo.stop(page != "latents")
    mo.Html(pages.search(view, given, filters))
    return


@app.cell
def _(follow, given, page, view):
    mo.stop(page != "latent")
    turning = pages.Turning(
        view, given, follow, Random()
    )  # kept: what has no name is forgotten, and its clicks with it
    mo.Html(f"<style>{style()}</style>" + turning.html())
    return (turning,)


@app.cell
def _(given, page, view):
    mo.stop(page == "overview")
    mo.Html(pages.body(view, page, given))
    return


@app.cell
def _(page, view):
    mo.stop(page != "overview")
    mo.Html(pages.facts(view))
    return


@app.cell
def _(given, page, view):
    mo.stop(page != "overview")
    dictionary = pages.dictionary(view, given)
    mo.Html(pages.firing(view, dictionary))
    return (dictionary,)


@app.cell
def _(dictionary, view):
    mo.Html(pages.scores(view, dictionary))
    return


@app.cell
def _(dictionary, view):
    mo.Html(pages.where(view, dictionary))
    return


@app.cell
def _(dictionary, view):
    mo.Html(pages.agreements(view, dictionary))
    return


@app.cell
def _(page, view):
    mo.stop(page != "overview")
    mo.Html(pages.comparisons(view))
    return


@app.cell
def _(page, view):
    mo.stop(page != "overview")
    mo.Html(pages.tables(view))
    return


if __name__ == "__main__":
    app.run()
