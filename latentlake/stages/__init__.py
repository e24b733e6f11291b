"""Rows from rows: one module a stage, each with a ``compute`` from `latentlake.work.Work` to tables.

What belongs here: the computation of a stage's rows. What does not: reading or writing the lake, Dagster, the network,
printing, another stage's internals, and the texts of prompts.
"""
