"""The lake as its readers see it: frames of what is published, now or then, and what follows from them for a latent or a study.

What belongs here: views, traces, searches, differences between moments, a study in a few lines of text. What does not: whatever
writes, and how things look (``pages/``, ``explorer/``, ``commands/``).
"""
