"""Figures out of frames: scores of judgements, and what they come to over latents, scorers and dictionaries.

What belongs here: metrics with their intervals, means, agreement, calibration, alignment. What does not: who judges
(``scorers/``), what is read for it (``reading/``), and how it is drawn (``charts/``).
"""
