"""Slow proofs: on the real quickstart with its real models, under a real daemon, in a real browser. ``make prove``."""
