"""The study file's sections: choices of one subject each, typed and validated by themselves.

What belongs here: a section's keys, and what must be so within it. What does not: what sections must have in common, which the
study (``study.py``) checks, and how anything is computed.
"""
