"""Tests mirror the rooms. ``workbench.py`` makes a small study on fakes; ``prove/`` holds the slow proofs."""
