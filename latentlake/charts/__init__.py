"""Frames in, pictures out: what says more as a picture than as numbers, a module for each thing that is shown.

What belongs here: charts of rows of the lake's tables, how these are counted for a chart, and charts as SVG. ``picture``, where a
module has it, is all of it as one, on white: what a preview shows. What does not: reading a lake, what numbers mean
(``measures/``), pages.

Altair and what renders it take most of a second to start: they are imported where a chart is made.
"""
