"""Calls of models: each made once, within a budget, counted and priced.

What belongs here: the ledger and what is read from it or goes by it: budgets, batches, costs, estimates. What does not: how a
model is run or a server asked (``engines/``), and what it is asked (``explainers/``, ``scorers/``).
"""
