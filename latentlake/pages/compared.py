"""Comparisons of dictionaries, as the report and the explorer show them: pairs in words and figures, and pictures."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import polars as pl

from latentlake.measures.comparing import by_pair
from latentlake.pages.figures import Figure, comparisons
from latentlake.reading.results import Results, choices_of

_SAID = {
    "directions": "Latents of each two dictionaries are aligned one to one, by what they write (decoder) and apart from that by "
    "what they read (encoder): mean cosines with 95 % intervals. Where both give the same partner, at a cosine of {:g} or more "
    "each, a latent is shared; beside their number, the share of the latents of the smaller dictionary.",
    "activations": "Latents of each two dictionaries are aligned one to one by the tokens on which both fire, as a share of "
    "those on which either does: means with 95 % intervals. Similar are those at a share of {:g} or more; beside their number, "
    "the share of the latents of the smaller dictionary.",
}
_NEAREST = " ≈: only the nearest of each latent were considered."
_ALIKE = (
    " Explanations: mean cosine of those of aligned latents; exchanged: after partners were exchanged for one another."
)


class Compared(NamedTuple):
    """A comparison. ``by``: as in the study. ``said``: what was compared, in words. ``rows``: as `by_pair` gives them, none where
    it was not made yet."""

    name: str
    by: str
    said: str
    rows: pl.DataFrame
    figures: list[Figure]

    @property
    def pairs(self) -> list[list[dict[str, Any]]]:
        """The rows of each pair."""
        return [own.to_dicts() for own in self.rows.partition_by("pair", maintain_order=True)]


def compared(results: Results) -> list[Compared]:
    """The comparisons of the study, in its order."""
    sums, alike = results.comparisons.collect(), results.similarities.collect()
    return [_compared(name, choice, sums, alike) for name, choice in choices_of(results).get("comparisons", {}).items()]


def _compared(name: str, choice: Mapping[str, Any], sums: pl.DataFrame, alike: pl.DataFrame) -> Compared:
    own = sums.filter(comparison=name), alike.filter(comparison=name)
    rows = by_pair(*own)
    is_about = choice["by"] == "directions" and not rows.filter(pl.col("error").is_null())["is_exact"].all()
    said = _SAID[choice["by"]].format(choice["shared"]) + _NEAREST * is_about + _ALIKE * (own[1].height > 0)
    return Compared(name, choice["by"], said, rows, comparisons(*own))
