"""Windows of the chosen latents: one sample, one block.

Who is drawn follows from hashes of (seed, latent, window) alone, not from order, other latents, or how work is split.
"""

from collections.abc import Iterator

import numpy as np
import polars as pl

from latentlake.digest import mix, seed_of
from latentlake.protocols import Subject
from latentlake.study import Sample
from latentlake.study_corpus import SPLITS
from latentlake.windows import Firings, Windows, find_windows, read_firings
from latentlake.work import Tables, Work

DECILES = 10
# Between documents stands Unicode's paragraph separator: a line break would make windows of different tokens one text.
SEPARATOR = "\u2029"


def compute(work: Work) -> Tables:
    """The windows of one sample for the chosen latents of one block."""
    sample = work.study.samples[work.stage.constants["sample"]]
    chosen = work.frame("latents").filter("is_chosen").select("latent").collect()["latent"].sort().to_numpy()
    windows = find_windows(work.frame("contexts"), work.shards, work.study.selection.window)
    firings = read_firings(work.frame("activations"), windows, pl.col("latent").is_in(chosen.tolist()))
    drawn = [pl.DataFrame(schema=_DRAWN)]
    for place, latent in enumerate(chosen.tolist()):
        drawn.extend(_draw(latent, _of(firings, latent), windows, sample, work.study.seed + sample.seed))
        work.progress.share((place + 1) / len(chosen))
    has_bos = work.study.corpus.bos != "none"
    frame = _describe(pl.concat(drawn), firings, windows, work.handles.subject(), has_bos)
    return {"examples": frame.with_columns(**work.columns(len(frame)))}


_DRAWN = {
    "latent": pl.Int32,
    "window": pl.Int64,
    "rank": pl.Int32,
    "decile": pl.Int32,
    "is_activating": pl.Boolean,
    "source": pl.String,
}


def _of(firings: Firings, latent: int) -> Firings:
    """The firings of one latent; a view."""
    here = slice(*np.searchsorted(firings.latent, [latent, latent + 1]))
    return Firings(firings.latent[here], firings.position[here], firings.activation[here])


def _draw(latent: int, firings: Firings, windows: Windows, sample: Sample, seed: int) -> Iterator[pl.DataFrame]:
    """Activating windows of one latent, then windows in which it never fires."""
    fired, first = np.unique(windows.of(firings.position), return_index=True)
    strength = np.maximum.reduceat(firings.activation, first) if len(first) else np.zeros(0, np.float32)
    split = SPLITS.index(sample.split)
    is_candidate = windows.counts[fired] & (windows.split[fired] == split)
    fired_here, strength = fired[is_candidate], strength[is_candidate]
    hashes = mix(windows.hash, seed_of(seed, latent))
    decile = deciles(strength, hashes[fired_here])
    order = draw_order(sample.sampler, strength, decile, hashes[fired_here])[: sample.windows]
    yield _drawn(latent, fired_here[order], decile[order], True, sample.sampler)
    if not sample.negatives:
        return
    silent = windows.counts & (windows.split == split)
    silent[fired] = False
    others = np.flatnonzero(silent)
    order = np.argsort(hashes[others], kind="stable")[: sample.negatives]
    yield _drawn(latent, others[order], None, False, "random")


def deciles(strength: np.ndarray, hashes: np.ndarray) -> np.ndarray:
    """Decile of each window by strength, 0 the weakest; ties are ordered by hash. int32."""
    decile = np.empty(len(strength), dtype=np.int32)
    decile[np.lexsort((hashes, strength))] = np.arange(len(strength)) * DECILES // max(1, len(strength))
    return decile


def draw_order(sampler: str, strength: np.ndarray, decile: np.ndarray, hashes: np.ndarray) -> np.ndarray:
    """Windows in the order in which they are drawn.

    ``quantiles`` goes round the deciles, in an order by hash, so that any first n windows spread over them evenly.
    """
    if sampler == "top":
        return np.lexsort((hashes, -strength))
    if sampler == "random":
        return np.argsort(hashes, kind="stable")
    by_decile = np.lexsort((hashes, decile))
    turn = np.empty(len(decile), dtype=np.int64)
    turn[by_decile] = np.arange(len(decile)) - np.searchsorted(decile[by_decile], decile[by_decile])
    return np.lexsort((hashes, turn))


def _drawn(
    latent: int, window: np.ndarray, decile: np.ndarray | None, is_activating: bool, source: str
) -> pl.DataFrame:
    n = len(window)
    return pl.DataFrame(
        {
            "latent": [latent] * n,
            "window": window,
            "rank": range(n),
            "decile": [None] * n if decile is None else decile,
            "is_activating": [is_activating] * n,
            "source": [source] * n,
        },
        schema=_DRAWN,
    )


def _describe(drawn: pl.DataFrame, firings: Firings, windows: Windows, subject: Subject, has_bos: bool) -> pl.DataFrame:
    """Put place, tokens, activations and text to windows that were drawn. ``has_bos``: whether contexts open with BOS."""
    window = drawn["window"].to_numpy()
    places = windows.start[window][:, None] + np.arange(windows.length)
    tokens, is_excluded = windows.tokens[places], windows.is_excluded[places]
    context = windows.context[window]
    shards = pl.Series(windows.shards, dtype=pl.String)
    opens = np.zeros(places.shape, dtype=bool)
    opens[:, 0] = has_bos & (windows.start_in_context[window] == 0)
    pieces = [list(_pieces(row, subject)) for row in _texts(tokens, is_excluded, opens, subject)]
    return drawn.select("latent", "rank", "is_activating", "source", "decile").with_columns(
        shard=shards.gather(windows.context_shard[context].astype(np.int64)),
        context=pl.Series(windows.context_index[context], dtype=pl.Int32),
        start=pl.Series(windows.start_in_context[window].astype(np.int32)),
        tokens=pl.Series(tokens.tolist(), dtype=pl.List(pl.Int32)),
        activations=pl.Series(
            _activations(drawn["latent"].to_numpy(), places, firings, len(windows.tokens)).tolist(),
            dtype=pl.List(pl.Float32),
        ),
        pieces=pl.Series(pieces, dtype=pl.List(pl.String)),
        text=pl.Series(["".join(each) for each in pieces], dtype=pl.String),
    )


def _activations(latent: np.ndarray, places: np.ndarray, firings: Firings, positions: int) -> np.ndarray:
    """Activation of each row's latent on each position of its window, 0 where it does not fire; float32."""
    known = firings.latent * positions + firings.position
    wanted = latent.astype(np.int64)[:, None] * positions + places
    at = np.minimum(np.searchsorted(known, wanted), max(0, len(known) - 1))
    if not len(known):
        return np.zeros(places.shape, dtype=np.float32)
    return np.where(known[at] == wanted, firings.activation[at], np.float32(0))


def _texts(
    tokens: np.ndarray, is_excluded: np.ndarray, opens: np.ndarray, subject: Subject
) -> Iterator[list[tuple[int, str]]]:
    """(token, text) of each token of each window; BOS has no text, a separator has one that no token has."""
    unique = np.unique(tokens).tolist()
    texts = dict(zip(unique, subject.detokenize([[token] for token in unique]), strict=True))
    for row, skip, opening in zip(tokens.tolist(), is_excluded.tolist(), opens.tolist(), strict=True):
        yield [
            (-1, "" if is_bos else SEPARATOR) if out else (token, texts[token])
            for token, out, is_bos in zip(row, skip, opening, strict=True)
        ]


def _pieces(row: list[tuple[int, str]], subject: Subject) -> Iterator[str]:
    """Text of each token. Tokens that are parts of one character give it to the first of them."""
    parts: list[int] = []
    for token, text in row:
        if "\ufffd" in text:
            parts.append(token)
            if "\ufffd" in subject.detokenize([parts])[0]:
                continue  # not yet a whole character
            yield from _together(parts, subject)
        else:
            yield from (*_together(parts, subject), text)
        parts = []
    yield from _together(parts, subject)  # the window ends within a character


def _together(parts: list[int], subject: Subject) -> list[str]:
    """The text of some tokens for the first of them, none for the others."""
    return [subject.detokenize([parts])[0], *[""] * (len(parts) - 1)] if parts else []
