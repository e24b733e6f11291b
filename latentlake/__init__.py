"""latentlake: explains and scores the latents of sparse coders, as partitioned Delta tables with lineage.

This package is the core: plain Python that knows nothing of Dagster. What belongs here: what a study is, how tables
look, which stage needs which, how rows are computed from rows, and how they are published. What does not: partitions
and metadata of assets (``assets/``), settings turned into handles (``resources/``), when things run (``jobs/``).
"""

from latentlake.reading.trace import trace
from latentlake.reading.view import open_lake as open  # noqa: A004 - latentlake.open reads better than any other name

__all__ = ["open", "trace"]
