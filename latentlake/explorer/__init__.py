"""The explorer: a marimo app over the published tables of a study, in a browser.

What belongs here: the app, and what its pages show, as functions of a `View` that give small frames, Altair charts or HTML. What
does not: what numbers mean (``measures/``, ``calls/costs.py``), charts that others show too (``charts/``), a
latent as HTML (``pages/``). Every query is lazy, names its columns and counts in Polars: a million latents are not sent to a
browser.
"""
