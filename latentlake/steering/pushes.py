"""Which directions are added, and after which prompts."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import polars as pl

from latentlake.digest import mix, seed_of
from latentlake.protocols import Subject
from latentlake.sampling.prompts import prompts_of
from latentlake.scorers import RANDOM_DIRECTION

if TYPE_CHECKING:
    import torch

    from latentlake.work import Work

CONTROLS = (None, RANDOM_DIRECTION)  # the latent's own direction, and one drawn at random in its place


@dataclass(frozen=True)
class Push:
    """A direction of length 1, float32 [width], that is added to what ``hookpoint`` gives. ``name``: its digest."""

    hookpoint: str
    direction: torch.Tensor

    @cached_property
    def name(self) -> str:
        """Digest of the direction: the ledger's name of it, whatever it was drawn from."""
        return hashlib.sha256(self.direction.cpu().numpy().astype("<f4").tobytes()).hexdigest()[:32]


Pushes = dict[tuple[int, str | None], Push]


def subject_of(work: Work) -> Subject:
    """The subject that a dictionary is of: of the control `model` the one with random weights."""
    return work.handles.subject(work.study.dictionaries[work.dictionary].control == "model")


def prompts_in(work: Work, sample: str, shortest: int) -> pl.DataFrame:
    """The prompts that the windows of a sample make, as `latentlake.sampling.prompts` gives them."""
    bos = work.study.corpus.bos
    opening = None if bos == "none" else (work.handles.subject().bos if bos == "model" else int(bos))
    return prompts_of(work.frame(f"examples/{sample}"), opening, shortest)


def pushes_of(work: Work, latents: Sequence[int]) -> Pushes:
    """The pushes of latents, by latent and control; none for a latent that writes nothing, its direction being of length 0, and
    none where latents are planted, and write nowhere.
    """
    import torch

    writes = work.frame("dictionaries").select("writes").collect().item()
    if writes is None or not latents:
        return {}
    rows = work.handles.coder(work.dictionary).directions[list(latents)].double().cpu()
    own = torch.nn.functional.normalize(rows, dim=1).float()
    drawn = _drawn(latents, rows.shape[1], seed_of(RANDOM_DIRECTION, work.study.seed, work.dictionary))
    return {
        (latent, control): Push(writes, direction)
        for control, directions in zip(CONTROLS, (own, drawn), strict=True)
        for latent, direction, is_there in zip(latents, directions, rows.any(1).tolist(), strict=True)
        if is_there
    }


def _drawn(latents: Sequence[int], width: int, seed: np.uint64) -> torch.Tensor:
    """Directions drawn uniformly from the sphere, by hash, float32 [latents, width]."""
    import torch
    from scipy.special import ndtri

    grid = np.asarray(latents, dtype=np.uint64)[:, None] * np.uint64(width) + np.arange(width, dtype=np.uint64)
    normal = ndtri((mix(grid, seed).astype(np.float64) + 0.5) / 2.0**64)
    return torch.nn.functional.normalize(torch.from_numpy(normal), dim=1).float()
