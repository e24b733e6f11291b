"""What the chosen latents of a block promote: the tokens whose logits their decoder directions raise most, and lower most.

VocabProj of Gur-Arieh et al. 2025 (arXiv 2501.08319), the top logits of dashboards: the direction goes through the final norm and
the unembedding. The softmax does not see what is added to all logits alike, so their mean over the tokens is taken off, and a
logit tells a token from the others (``center_unembed`` of TransformerLens does the same to the weights).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import polars as pl

from latentlake.hookpoints import is_residual
from latentlake.protocols import Subject
from latentlake.sampling.texts import token_texts
from latentlake.tables import TABLES
from latentlake.work import Tables, Work

if TYPE_CHECKING:
    import torch

NOT_RESIDUAL = "not_residual"
NO_DIRECTION = "no_direction"

# Logits held at once: 8 MiB, and twice as much beside them. Of more, fetching the memory anew takes longer than the logits.
_NUMBERS = 2**20
_DIGITS = 4  # of a logit: those that do not depend on how the work is divided


def compute(work: Work) -> Tables:
    """A row for each chosen latent."""
    chosen = work.frame("latents").filter("is_chosen").select("latent").collect()["latent"].sort().to_list()
    writes = work.frame("dictionaries").select("writes").collect().item()
    rows: list[dict[str, Any]] = [{"error": NOT_RESIDUAL}] * len(chosen)
    if chosen and writes is not None and is_residual(writes):  # planted latents write nowhere
        rows = list(_promoted(work, chosen))
    common = work.stage.columns(work.values)
    made = [{**common, "latent": latent, **row} for latent, row in zip(chosen, rows, strict=True)]
    return {"logits": pl.DataFrame(made, schema=TABLES["logits"].empty().schema)}


def _promoted(work: Work, latents: list[int]) -> Iterator[dict[str, Any]]:
    """Lists of tokens for each of some latents, computed for so many latents at once as memory has room for."""
    assert work.study.logits is not None
    is_random = work.study.dictionaries[work.dictionary].control == "model"
    subject = work.handles.subject(is_random)
    directions = work.handles.coder(work.dictionary).directions[latents]
    size = subject.unembed(directions[:0]).shape[1]
    texts: dict[int, str] = work.shared(("texts", is_random), lambda: token_texts(subject, range(size)))
    without_text = [token for token, text in texts.items() if not text]
    step = max(1, _NUMBERS // size)
    for first in range(0, len(latents), step):
        yield from _rows(subject, directions[first : first + step], texts, without_text, work.study.logits.k)
        work.progress.share(min(1.0, (first + step) / len(latents)))


def _rows(
    subject: Subject, directions: torch.Tensor, texts: dict[int, str], without_text: list[int], k: int
) -> Iterator[dict[str, Any]]:
    """Lists of tokens for each of some directions."""
    import torch

    logits = subject.unembed(directions)
    silent = torch.tensor(without_text, dtype=torch.int64, device=logits.device)
    spoken = len(texts) - len(silent)
    mean = (logits.sum(1) - logits[:, silent].sum(1)) / spoken
    steps = ((logits - mean[:, None]) * 10**_DIGITS).round().long()  # whole numbers, so that last digits decide nothing
    k = min(k, spoken)
    promoted, suppressed = _largest(steps, silent, k), _largest(-steps, silent, k)
    for direction, own, most, least in zip(directions, steps, promoted, suppressed, strict=True):
        if bool(direction.any()):
            yield {"promoted": _tokens(own, most, texts), "suppressed": _tokens(own, least, texts)}
        else:
            yield {"error": NO_DIRECTION}


def _largest(steps: torch.Tensor, silent: torch.Tensor, k: int) -> torch.Tensor:
    """The k tokens of each row with the largest numbers, largest first, of equal ones the first; never a silent one."""
    import torch

    n = steps.shape[1]
    keys = steps * n + torch.arange(n - 1, -1, -1, device=steps.device)
    keys[:, silent] = torch.iinfo(torch.int64).min
    return n - 1 - keys.topk(k).values % n


def _tokens(steps: torch.Tensor, tokens: torch.Tensor, texts: dict[int, str]) -> list[dict[str, Any]]:
    """Some tokens of a row with texts and logits."""
    pairs = zip(tokens.tolist(), steps[tokens].tolist(), strict=True)
    return [{"token": token, "text": texts[token], "logit": step / 10**_DIGITS} for token, step in pairs]
