"""Interventions: directions that are added to what a subject computes, how far they move it, and what it then says.

What belongs here: which vectors are added after which prompts (`pushes`), how strongly (`search`), and texts drawn through the
ledger (`steered`). What does not: running the subject (`engines`), and the rows that are made of it (`stages`).
"""
