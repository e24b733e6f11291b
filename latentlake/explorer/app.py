"""The pages of the explorer: what stands where. What they show is made in the modules beside this one."""

import marimo

app = marimo.App(width="full", app_title="latentlake")

with app.setup:
    import marimo as mo

    from latentlake import charts
    from latentlake.explorer import opened


@app.cell
def _():
    view = opened.shown()
    return (view,)


@app.cell
def _(view):
    rows = view.latents.select("triage", "density").collect()
    mo.vstack([mo.md(f"# {view.lake.study}"), charts.latents(rows)])
    return


if __name__ == "__main__":
    app.run()
