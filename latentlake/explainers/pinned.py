"""Explanations that people pinned to latents, each with who said it; where nothing is pinned, what another explainer says."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, ClassVar, Literal

import polars as pl

from latentlake.choices import DictionaryFiles, ReadExplainerOrNone
from latentlake.explainers import Explainer, Hypothesis
from latentlake.registry import EXPLAINERS

if TYPE_CHECKING:
    from latentlake.work import Work


@EXPLAINERS.register("pinned")
class Pinned(Explainer):
    """``files``: of each dictionary the file of its pins, relative to the study file, as `latentlake pin` keeps it.
    ``otherwise``: the explainer whose explanations are taken over where there is no pin; None: these latents get none.
    """

    version: ClassVar[str] = "1"
    method: Literal["pinned"]
    files: DictionaryFiles
    otherwise: ReadExplainerOrNone = None

    def explain(self, work: "Work", latents: Sequence[int]) -> Mapping[int, Sequence[Hypothesis]]:
        """One hypothesis a latent: its pin, or what is taken over."""
        known = self._taken_over(work, latents) | self._pinned(work)
        nothing = Hypothesis("pinned", None, error="not_pinned")
        return {latent: [known.get(latent, nothing)] for latent in latents}

    def _pinned(self, work: "Work") -> dict[int, Hypothesis]:
        file = work.origins.imported("explainers", work.stage.constants["explainer"], work.dictionary)
        if file is None:
            return {}
        rows = work.shared(("pinned", work.dictionary), file.read)
        return {
            row["latent"]: Hypothesis("pinned", row["explanation"], provenance=_provenance(row))
            for row in rows.iter_rows(named=True)
        }

    def _taken_over(self, work: "Work", latents: Sequence[int]) -> dict[int, Hypothesis]:
        if self.otherwise is None:
            return {}
        rows = work.frame(f"explanations/{self.otherwise}").filter(pl.col("latent").is_in(list(latents))).collect()
        return {
            row["latent"]: Hypothesis(
                "otherwise", row["explanation"], row["error"], row["call"], provenance=self.otherwise
            )
            for row in rows.iter_rows(named=True)
        }


def _provenance(row: Mapping[str, str | None]) -> str | None:
    """Who said it and when, as far as the pin says so."""
    return ", ".join(said for name in ("by", "at") if (said := row[name])) or None
