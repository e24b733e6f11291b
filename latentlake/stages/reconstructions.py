"""How well coders reconstruct what they read: a wrong scaling, site or model shows here before anything is explained.

The subject reads some contexts as it is, and once more for each dictionary with the coder's reconstruction in the place of what
the hookpoint gives (of a transcoder: in the place of what it writes). BOS and separators, which coders are not made for, stay
as they are.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import polars as pl

from latentlake.digest import mix, seed_of
from latentlake.errors import InputError
from latentlake.hookpoints import neutral, written_by
from latentlake.protocols import Coder, Splice, Subject
from latentlake.work import Tables, Work

if TYPE_CHECKING:
    import torch


def compute(works: Sequence[Work]) -> Iterator[Tables]:
    """Figures of each dictionary, all on the same contexts.

    Raises:
        InputError: there is nothing to encode.
    """
    contexts, excluded = _drawn(works[0])
    clean: dict[bool, float] = {}
    for done, work in enumerate(works):
        choice = work.study.dictionaries[work.dictionary]
        is_random = choice.control == "model"
        subject = work.handles.subject(is_random)
        if is_random not in clean:
            clean[is_random] = _mean(subject, contexts, None)
        measured = _Measured(work.handles.coder(work.dictionary), excluded, [len(each) for each in contexts])
        splice = Splice(neutral(choice.hookpoint), written_by(choice.hookpoint, choice.writes), measured.reconstruct)
        spliced = _mean(subject, contexts, splice)
        work.progress.share((done + 1) / len(works))
        row = {
            "dictionary": work.dictionary,
            **measured.figures(),
            "cross_entropy": clean[is_random],
            "cross_entropy_spliced": spliced,
            "cross_entropy_added": spliced - clean[is_random],
        }
        yield {"reconstructions": pl.DataFrame([row])}


def _drawn(work: Work) -> tuple[list[list[int]], list[list[int]]]:
    """Contexts of about as many tokens as are asked for, drawn by hash, with their excluded positions."""
    assert work.study.reconstruction is not None
    n, out = (pl.col(name).list.len() for name in ("tokens", "excluded"))
    places = work.frame("contexts").filter(n > out).select("shard", "context", n=n).collect()
    if places.is_empty():
        raise InputError("no context of the shards in use has a token that is encoded; there is nothing to reconstruct")
    ranked = pl.concat(
        own.with_columns(
            rank=pl.Series(mix(own["context"].to_numpy(), seed_of("reconstruction", work.study.seed, shard)))
        )
        for (shard,), own in places.partition_by("shard", as_dict=True).items()
    ).sort("rank", "shard", "context")
    before = pl.col("n").cum_sum() - pl.col("n")
    wanted = ranked.filter(before < work.study.reconstruction.tokens).select("shard", "context")
    rows = work.frame("contexts").join(wanted.lazy(), on=["shard", "context"], how="semi")
    drawn = rows.sort("shard", "context").select("tokens", "excluded").collect()
    return drawn["tokens"].to_list(), drawn["excluded"].to_list()


def _mean(subject: Subject, contexts: Sequence[Sequence[int]], splice: Splice | None) -> float:
    """Mean cross-entropy of the tokens that are predicted, in nats."""
    import torch

    parts: dict[int, torch.Tensor] = {}
    for batch, losses in subject.losses(contexts, splice):
        lengths = [len(contexts[index]) for index in batch]
        parts |= zip(batch, torch.split(losses.double().cpu(), lengths), strict=True)
    # in the order of the contexts, so that the sum does not follow the batches
    return float(torch.cat([parts[index] for index in range(len(contexts))]).nanmean())


@dataclass
class _Measured:
    """A coder that keeps account of what it reconstructs."""

    coder: Coder
    excluded: Sequence[Sequence[int]]
    lengths: Sequence[int]
    _tokens: int = 0
    _fired: int = 0
    _error: float = 0.0
    _sum: torch.Tensor | float = 0.0
    _squares: float = 0.0

    def reconstruct(self, batch: list[int], read: torch.Tensor, written: torch.Tensor) -> torch.Tensor:
        """What is to stand in the place of ``written``: the reconstruction, and at excluded positions what was there."""
        kept = self._kept(batch)
        inputs, target = (each[kept.to(each.device)] for each in (read, written))
        firings = self.coder.encode(inputs)
        outputs = self.coder.decode(firings, inputs)
        self._add(target.double(), outputs.to(target.device).double(), int((firings.values > 0).sum()))
        changed = written.clone()
        changed[kept.to(written.device)] = outputs.to(written)
        return changed

    def _kept(self, batch: list[int]) -> torch.Tensor:
        """Numbers of the batch's tokens that are not excluded."""
        import torch

        masks = [np.ones(self.lengths[number], dtype=bool) for number in batch]
        for number, mask in zip(batch, masks, strict=True):
            mask[list(self.excluded[number])] = False
        return torch.from_numpy(np.flatnonzero(np.concatenate(masks)))

    def _add(self, target: torch.Tensor, outputs: torch.Tensor, fired: int) -> None:
        self._tokens += len(target)
        self._fired += fired
        self._error += float((target - outputs).square().sum())
        self._sum = self._sum + target.sum(0)
        self._squares += float(target.square().sum())

    def figures(self) -> dict[str, float]:
        """Tokens, share of variance unexplained, latents that fire on a token."""
        variance = self._squares - float((self._sum * self._sum).sum()) / self._tokens  # type: ignore[union-attr]
        return {
            "n_tokens": self._tokens,
            "variance_unexplained": self._error / variance if variance > 0 else np.nan,
            "l0": self._fired / self._tokens,
        }
