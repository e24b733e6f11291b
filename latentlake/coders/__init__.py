"""Sparse coders behind `latentlake.protocols.Coder`: one module a checkpoint format.

Here belongs what knows a format's files, names and formula. Where activations come from belongs to
`latentlake.engines`; how they are stored, to the stages. Each class states its format by name (``format``) and is
tested against the formula in `tests/test_coders.py`.

Importing this room, or inspecting a checkpoint with it, does not load torch.
"""
