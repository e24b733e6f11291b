"""How windows are found, drawn and told: rows of `contexts` and `activations` in, windows of latents out.

What belongs here: where contexts and windows lie, where latents fire in them, which are drawn, and their texts. What does not:
which tables this is read from and written to (``stages/``), the lake, and what is shown to a model.
"""
