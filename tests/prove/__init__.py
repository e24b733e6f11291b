"""Slow proofs on the real quickstart, with its real models: ``make prove``."""
