"""Checkpoint formats of sparse coders: one module each, with one registered class (`latentlake.coders.opening.Format`).

Here belongs what knows a format's files, names and formula, and turns them into `latentlake.coders.parameters.Parameters`;
what all formats have in common belongs one room higher. Each is tested against its formula in `tests/test_formats.py`.
"""
