"""Which tokens become likelier when latents are pushed: what explanations by outputs are made of.

TokenChange of Gur-Arieh et al. 2025 (arXiv 2501.08319): of the next token's distribution after each prompt, the tokens whose
probability rises most.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import polars as pl

from latentlake.sampling.texts import token_texts
from latentlake.steering.pushes import prompts_in, pushes_of, subject_of
from latentlake.tables import TABLES
from latentlake.work import Tables, Work

if TYPE_CHECKING:
    import torch

_DIGITS = 6  # of a probability: those that do not depend on how the work is divided
_PLACE = ("latent", "rank", "shard", "context", "start")

Rises = list[tuple[int, int]]  # tokens, and how far their probability rises, in units of the last digit


def compute(work: Work) -> Tables:
    """A row for each latent, target that is reached, and prompt."""
    name = work.stage.constants["intervention"]
    choice = work.study.interventions[name]
    assert choice.show is not None
    is_reached = pl.col("control").is_null() & pl.col("error").is_null()
    found = (
        work.frame(f"strengths/{name}")
        .filter(is_reached)
        .select("latent", "target", "strength")
        .sort("target")
        .collect()
    )
    prompts = prompts_in(work, choice.show, choice.shortest)
    prompts = prompts.join(found, on="latent", how="semi", maintain_order="left")
    risen = list(_risen(work, prompts, found, choice.rising)) if len(prompts) else []
    tokens = {token for _, rises in risen for token, _ in rises}
    texts = token_texts(subject_of(work), sorted(tokens)) if tokens else {}
    rows = [
        {**work.stage.columns(work.values), **place, "tokens": [_listed(token, texts, rise) for token, rise in rises]}
        for place, rises in risen
    ]
    return {"token_changes": pl.DataFrame(rows, schema=TABLES["token_changes"].empty().schema)}


def _listed(token: int, texts: dict[int, str], rise: int) -> dict[str, Any]:
    return {"token": token, "text": texts[token], "rise": rise / 10**_DIGITS}


def _risen(work: Work, prompts: pl.DataFrame, found: pl.DataFrame, k: int) -> Iterator[tuple[dict[str, Any], Rises]]:
    """Of each prompt and target of its latent the k tokens that rise most."""
    import torch

    pushes = pushes_of(work, found["latent"].unique().sort().to_list())
    strengths: dict[int, list[tuple[float, float]]] = {}
    for latent, target, strength in found.iter_rows():
        strengths.setdefault(latent, []).append((target, strength))
    rows, done = prompts.to_dicts(), 0
    tokens, latents = ([row[name] for row in rows] for name in ("tokens", "latent"))
    for batch, prompted in subject_of(work).prompted(tokens, latents):
        asked = [(place, number, *each) for place, number in enumerate(batch) for each in strengths[latents[number]]]
        own = [pushes[latents[number], None] for _, number, _, _ in asked]
        vectors = torch.stack([push.direction * strength for push, (*_, strength) in zip(own, asked, strict=True)])
        of = [place for place, *_ in asked]
        for some, clean, pushed in prompted.next_tokens(of, own[0].hookpoint, vectors):
            for (_, number, target, _), rises in zip(asked[some], _largest(clean, pushed, k), strict=True):
                yield {**{name: rows[number][name] for name in _PLACE}, "target": target}, rises
        done += len(batch)
        work.progress.share(done / len(rows))


def _largest(clean: torch.Tensor, pushed: torch.Tensor, k: int) -> Iterator[Rises]:
    """The k tokens of each row whose probability rises most, of equal ones the first; none that does not rise."""
    import torch

    steps = ((pushed.double().exp() - clean.double().exp()) * 10**_DIGITS).round().long()
    n = steps.shape[1]
    keys = steps * n + torch.arange(n - 1, -1, -1, device=steps.device)
    tokens = n - 1 - keys.topk(min(k, n)).values % n
    for row, rises in zip(tokens.tolist(), steps.gather(1, tokens).tolist(), strict=True):
        yield [(token, rise) for token, rise in zip(row, rises, strict=True) if rise > 0]
