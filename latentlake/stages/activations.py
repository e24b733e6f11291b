"""Activations of sparse coders: one forward pass of the subject over a shard serves every dictionary that needs it.

Planted latents fire by the texts, and need none.
"""

from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np
import pyarrow as pa

from latentlake.coders import planted
from latentlake.errors import InputError
from latentlake.fetching import Fetched, rows_at
from latentlake.hookpoints import neutral
from latentlake.protocols import Coder, Subject
from latentlake.sampling.texts import tokens_of
from latentlake.tables import TABLES
from latentlake.work import Tables, Work

# A firing packed into 64 bits: latent, position, and of the float32 the sign, exponent and ten bits of the mantissa.
_LATENT_BITS, _POSITION_BITS, _VALUE_BITS = 22, 23, 19
# of the float32's 23 bits of mantissa, those that a precision leaves out
DROPPED_BITS = {"half": 13, "bfloat16": 16}


def compute(works: Sequence[Work]) -> Iterator[Tables]:
    """Sparse activations of one shard, a table for each dictionary.

    Raises:
        InputError: a coder has no latent that fires anywhere in the shard.
    """
    of_coders = _encoded([work for work in works if not _is_planted(work)])
    for work in works:
        keys = _planted(work) if _is_planted(work) else of_coders.pop(work.dictionary)
        yield {"activations": rows_of(keys, work.stage.columns(work.values))}


def _is_planted(work: Work) -> bool:
    return work.study.dictionaries[work.dictionary].planted is not None


def _planted(work: Work) -> np.ndarray:
    """Firings of latents that are rules on texts, packed and sorted."""
    rules = work.origins.rules(work.dictionary)
    held = work.frame("contexts").sort("context").select("offsets", "documents").collect()
    documents = work.frame("contexts", "documents").sort("number").select("number", "document", "text").collect()
    latents, positions = planted.fire(rules, documents, tokens_of(held))
    values = planted.strengths(latents, positions, work.values["shard"])
    _require_fit(int(held["offsets"].list.len().sum()), {work.dictionary: len(rules)})
    dropped = DROPPED_BITS[work.study.activations.precision]
    return _sorted([_pack(np.arange(len(values)), latents, values, positions, dropped)])


def _encoded(works: Sequence[Work]) -> dict[str, np.ndarray]:
    """Firings of coders by dictionary, packed and sorted. Those on a subject of random weights come in a pass of their own."""
    if not works:
        return {}
    rows = works[0].frame("contexts").sort("context").select("tokens", "excluded").collect()
    contexts, excluded = rows["tokens"].to_list(), rows["excluded"].to_list()
    coders = {work.dictionary: work.handles.coder(work.dictionary) for work in works}
    hookpoints = {work.dictionary: neutral(work.study.dictionaries[work.dictionary].hookpoint) for work in works}
    dropped = DROPPED_BITS[works[0].study.activations.precision]
    packed: dict[str, np.ndarray] = {}
    apart = [[work for work in works if _is_random(work) is is_random] for is_random in (False, True)]
    for own in filter(None, apart):
        some = {work.dictionary: coders[work.dictionary] for work in own}
        subject, report = own[0].handles.subject(_is_random(own[0])), own[0].progress.share
        packed |= encode(subject, contexts, excluded, some, hookpoints, dropped, report)
    for work in works:
        if not len(packed[work.dictionary]) and any(
            len(each) > len(out) for each, out in zip(contexts, excluded, strict=True)
        ):
            raise InputError(
                f"no latent of dictionary {work.dictionary} fires on any token of shard {work.values['shard']}; check that "
                "the coder was trained on this hookpoint of this model"
            )
    return packed


def _is_random(work: Work) -> bool:
    return work.study.dictionaries[work.dictionary].control == "model"


def encode(
    subject: Subject,
    contexts: Sequence[Sequence[int]],
    excluded: Sequence[Sequence[int]],
    coders: dict[str, Coder],
    hookpoints: dict[str, str],
    dropped: int,
    report: Callable[[float], None] = lambda share: None,
) -> dict[str, np.ndarray]:
    """For each dictionary its firings as sorted uint64: latent, position, value, from the top.

    Packed like this numpy puts them in order, several times faster than sorting rows. Positions count all tokens of the
    contexts, end to end; excluded ones are left out. ``dropped``: bits of the mantissa that are rounded away. What a device
    has computed is fetched while it computes the next batch.

    Raises:
        InputError: the shard has more tokens, or a dictionary more latents, than fit.
    """
    starts, is_kept = _positions(contexts, excluded)
    _require_fit(int(starts[-1]), {name: coder.width for name, coder in coders.items()})
    parts: dict[str, list[np.ndarray]] = {name: [] for name in coders}
    under_way: deque[tuple[str, Fetched, np.ndarray]] = deque()

    def collect(most: int) -> None:
        while len(under_way) > most:
            name, fetched, positions = under_way.popleft()
            parts[name].append(_pack(*fetched.arrays(), positions, dropped))

    done = 0
    for batch, states in subject.activations(contexts, sorted({hookpoints[name] for name in coders})):
        positions = np.concatenate([np.arange(starts[index], starts[index + 1]) for index in batch])
        kept = np.flatnonzero(is_kept[positions])
        for name, coder in coders.items():
            firings = coder.encode(rows_at(states[hookpoints[name]], kept))
            under_way.append((name, Fetched(firings), positions[kept]))
        collect(len(coders))
        done += len(positions)
        report(done / starts[-1])
    collect(0)
    return {name: _sorted(parts.pop(name)) for name in coders}


def _positions(contexts: Sequence[Sequence[int]], excluded: Sequence[Sequence[int]]) -> tuple[np.ndarray, np.ndarray]:
    """Where each context starts, int64 [contexts + 1], and whether a position carries activations, bool [positions]."""
    starts = np.concatenate([[0], np.cumsum([len(context) for context in contexts], dtype=np.int64)])
    is_kept = np.ones(starts[-1], dtype=bool)
    for start, places in zip(starts, excluded, strict=False):
        is_kept[start + np.asarray(places, dtype=np.int64)] = False
    return starts, is_kept


def _sorted(parts: list[np.ndarray]) -> np.ndarray:
    keys = np.concatenate(parts) if parts else np.zeros(0, dtype=np.uint64)
    parts.clear()
    keys.sort()
    return keys


def rows_of(keys: np.ndarray, where: Mapping[str, str | int]) -> pa.Table:
    """Packed firings as rows of the table ``activations``. ``where``: values of its partition columns."""
    latent = (keys >> np.uint64(64 - _LATENT_BITS)).astype(np.int32)
    position = ((keys >> np.uint64(_VALUE_BITS)) & np.uint64((1 << _POSITION_BITS) - 1)).astype(np.int32)
    bits = (keys & np.uint64((1 << _VALUE_BITS) - 1)).astype(np.uint32) << np.uint32(32 - _VALUE_BITS)
    columns = {
        **{name: pa.repeat(pa.scalar(value), len(keys)) for name, value in where.items()},
        "latent": latent,
        "position": position,
        "activation": bits.view(np.float32),
    }
    return pa.table(columns).select(TABLES["activations"].schema.names)


def round_mantissa(values: np.ndarray, dropped: int) -> np.ndarray:
    """Float32 without the last bits of the mantissa (ties to even), the range kept: half the bytes once compressed."""
    bits = values.astype(np.float32).view(np.uint32)
    last = (bits >> np.uint32(dropped)) & np.uint32(1)
    bits = (bits + np.uint32((1 << dropped - 1) - 1) + last) & np.uint32(0xFFFFFFFF << dropped & 0xFFFFFFFF)
    return bits.view(np.float32)


def _require_fit(tokens: int, widths: Mapping[str, int]) -> None:
    if tokens > 1 << _POSITION_BITS:
        raise InputError(
            f"a shard of {tokens:,} tokens is too large: at most {1 << _POSITION_BITS:,}; lower corpus.documents_per_shard"
        )
    for name, width in widths.items():
        if width > 1 << _LATENT_BITS:
            raise InputError(f"dictionary {name} has {width:,} latents; at most {1 << _LATENT_BITS:,} are supported")


def _pack(rows: np.ndarray, latents: np.ndarray, values: np.ndarray, positions: np.ndarray, dropped: int) -> np.ndarray:
    """What fires, packed and unsorted. ``positions``: of the rows."""
    if not np.isfinite(values).all():
        raise InputError("an activation is not a finite number; give the subject the dtype float32 or bfloat16")
    values = round_mantissa(values, dropped)
    fires = np.flatnonzero(values > 0)
    top = latents[fires].astype(np.uint64) << np.uint64(64 - _LATENT_BITS)
    middle = positions[rows[fires]].astype(np.uint64) << np.uint64(_VALUE_BITS)
    low = values[fires].view(np.uint32) >> np.uint32(32 - _VALUE_BITS)
    packed: np.ndarray = top | middle | low.astype(np.uint64)
    return packed
