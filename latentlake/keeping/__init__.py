"""How a lake is kept: what lies beside its tables, what is tidied and what is deleted.

What belongs here: files written whole or not at all, compaction, pruning, dropping what can be derived again. What does not:
tables and their commits (``lake.py``), and what is published (``catalog.py``).
"""
