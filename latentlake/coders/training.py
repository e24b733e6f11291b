"""Training a coder with `sparsify` (the extra ``train``) on what a subject gives at a hookpoint.

sparsify's trainer expects a model whose modules it hooks. It is given one with a single module, which passes on the states of
the subject: so any hookpoint can be trained on, the subject is stopped there, and BOS and separators are left out.
"""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from latentlake.coders.opening import Source, facts
from latentlake.digest import mix, seed_of
from latentlake.errors import InputError
from latentlake.protocols import Subject
from latentlake.sections.dictionaries import Training

if TYPE_CHECKING:
    import torch
    from torch import Tensor

_SITE = "site"  # the one module of the model that the trainer is given
_LEFT_OUT = -1
_KEPT = 2**36  # bytes of states that are kept for later epochs, at most: of more, the subject reads every context anew


@dataclass(frozen=True)
class Step:
    """How training stood at a step: tokens seen before it, and of its own the losses; latents that count as dead."""

    step: int
    tokens: int
    variance_unexplained: float
    auxiliary: float
    dead: int


@dataclass(frozen=True)
class Lesson:
    """What a coder learns from. ``excluded``: positions of each context that are left out. ``reads``, ``writes``: hookpoints."""

    subject: Subject
    contexts: Sequence[Sequence[int]]
    excluded: Sequence[Sequence[int]]
    reads: str
    writes: str


def require_trainer() -> None:
    """Refuse to train where sparsify is not installed."""
    if find_spec("sparsify") is None:
        raise InputError("training a coder needs the extra `train`: pip install 'latentlake[train]'")


def train(choice: Training, lesson: Lesson, folder: Path, report: Callable[[float], None]) -> list[Step]:
    """Train a coder, and leave it in sparsify's format (``cfg.json``, ``sae.safetensors``) in a folder; returns its steps.

    Deterministic for a choice and a lesson on one kind of device.

    Raises:
        InputError: there are not enough contexts for a step, or training diverges.
    """
    import torch

    order = _order(choice, lesson)
    if len(order) < choice.contexts:
        raise InputError(
            f"training takes {choice.contexts} contexts a step, and the shards it reads have {len(order)}; lower `contexts`, or "
            "raise `shards` or `epochs`"
        )
    with _quiet(), torch.random.fork_rng():
        trainer = _trainer(choice, lesson, order, folder)
        steps = _record(trainer, -(-len(order) // choice.contexts), report)
        trainer.fit()
    if not math.isfinite(steps[-1].variance_unexplained):
        raise InputError("training diverged, and its losses are no numbers any more; lower `lr`")
    (folder / "run" / _SITE).rename(folder / "coder")
    _require_weights(folder / "coder")
    return steps


def _require_weights(folder: Path) -> None:
    """Refuse a coder that could not be read again; the last step is seen in its weights alone."""
    try:
        facts("sparsify", Source(folder, "the trained coder"))
    except InputError as error:
        raise InputError(f"training diverged; lower `lr` ({error})") from error


def _order(choice: Training, lesson: Lesson) -> np.ndarray:
    """Numbers of the contexts in the order in which they are read: shuffled by hash, anew for each epoch."""
    has_tokens = [len(each) > len(out) for each, out in zip(lesson.contexts, lesson.excluded, strict=True)]
    usable = np.flatnonzero(has_tokens)
    epochs = range(choice.epochs)
    return np.concatenate([usable[np.argsort(mix(usable, seed_of("training", choice.seed, each)))] for each in epochs])


def _trainer(choice: Training, lesson: Lesson, order: np.ndarray, folder: Path) -> Any:
    from sparsify import SparseCoderConfig, TrainConfig, Trainer

    sae = SparseCoderConfig(
        activation=choice.activation,
        num_latents=choice.latents,
        k=choice.k,
        skip_connection=choice.skip,
        transcode=lesson.reads != lesson.writes,
    )
    config = TrainConfig(
        sae,
        batch_size=choice.contexts,
        optimizer=choice.optimizer,
        lr=choice.lr,
        auxk_alpha=choice.auxk,
        dead_feature_threshold=choice.dead_after,
        exclude_tokens=[_LEFT_OUT],
        hookpoints=[_SITE],
        init_seeds=[choice.seed],
        save_every=10**9,  # once, at the end
        log_to_wandb=False,
        run_name="run",
        save_dir=str(folder),
    )
    rows = _rows(lesson)
    states = _States(lesson, rows.shape[1], folder / "states" if choice.epochs > 1 else None)
    return Trainer(config, [{"input_ids": rows[number]} for number in order], _model(states, rows))


def _rows(lesson: Lesson) -> Tensor:
    """For each context the places of its tokens, counted over all contexts padded to the longest; `_LEFT_OUT` where a token
    is excluded or there is none. int64 [contexts, longest]."""
    import torch

    longest = max(map(len, lesson.contexts))
    rows = torch.arange(len(lesson.contexts) * longest).reshape(-1, longest)
    for row, context, excluded in zip(rows, lesson.contexts, lesson.excluded, strict=True):
        row[len(context) :] = _LEFT_OUT
        row[torch.tensor(list(excluded), dtype=torch.long)] = _LEFT_OUT
    return rows


class _States:
    """What the subject gives for contexts, float32, padded to ``longest``. ``kept``: a folder in which it is kept for the next
    time, since to read a context costs several times what a coder learns from it.
    """

    def __init__(self, lesson: Lesson, longest: int, kept: Path | None) -> None:
        self._lesson = lesson
        self._longest = longest
        self._folder = kept
        self._kept: dict[str, np.ndarray] = {}
        self._is_kept = np.zeros(len(lesson.contexts), dtype=bool)
        self._devices: dict[str, torch.device] = {}

    def of(self, numbers: list[int]) -> tuple[Tensor, Tensor]:
        """What is read and what is to be written, both [contexts, longest, width]."""
        import torch

        rows = np.array(numbers)
        if self._is_kept[rows].all():
            states = {name: torch.from_numpy(kept[rows]).to(self._devices[name]) for name, kept in self._kept.items()}
        else:
            states = self._read(numbers)
            self._keep(rows, states)
        read = states[self._lesson.reads]
        return read, states[self._lesson.writes].to(read.device)

    def _read(self, numbers: list[int]) -> dict[str, Tensor]:
        import torch

        contexts = [self._lesson.contexts[number] for number in numbers]
        padded: dict[str, Tensor] = {}
        names = sorted({self._lesson.reads, self._lesson.writes})
        for batch, states in self._lesson.subject.activations(contexts, names):
            for name, state in states.items():
                if name not in padded:
                    padded[name] = torch.zeros(len(contexts), self._longest, state.shape[1], device=state.device)
                lengths = [len(contexts[row]) for row in batch]
                for row, own in zip(batch, torch.split(state, lengths), strict=True):
                    padded[name][row, : len(own)] = own.float()
        self._devices = {name: state.device for name, state in padded.items()}
        return padded

    def _keep(self, rows: np.ndarray, states: dict[str, Tensor]) -> None:
        shape = {name: (len(self._is_kept), *state.shape[1:]) for name, state in states.items()}
        if self._folder is None or 4 * sum(map(math.prod, shape.values())) > _KEPT:
            return
        for name, state in states.items():
            if name not in self._kept:
                self._kept[name] = _made(self._folder / f"{len(self._kept)}.float32", shape[name])
            self._kept[name][rows] = state.cpu().numpy()
        self._is_kept[rows] = True


def _made(file: Path, shape: tuple[int, ...]) -> np.ndarray:
    """Zeros, float32, in a file. They are written first: a disk that is full is an error then, and the end of the process where
    numbers are put into a mapped file.

    Raises:
        InputError: there is no room.
    """
    size = 4 * math.prod(shape)
    try:
        file.parent.mkdir(exist_ok=True)
        with file.open("wb") as there:
            for _ in range(shape[0]):
                there.write(bytes(size // shape[0]))
    except OSError as error:
        raise InputError(
            f"what the model gives for {shape[0]:,} contexts is kept for later epochs, {size / 2**30:.1f} GiB in "
            f"{file.parent}, and cannot be: {error}; make room there, name another place with TMPDIR, or train for one epoch"
        ) from error
    return np.memmap(file, np.float32, "r+", shape=shape)


def _model(states: _States, rows: Tensor) -> Any:
    """What the trainer takes for a model: a module that passes on the states of contexts, given their `_rows`."""
    from torch import nn

    longest = rows.shape[1]

    class Site(nn.Module):
        def forward(self, read: Tensor, written: Tensor) -> Tensor:
            return written

    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.site = Site()
            self.dummy_inputs = {"places": rows[rows.max(1).values >= 0][:1]}
            self.device = states.of([0])[0].device

        @property
        def base_model(self) -> nn.Module:
            return self

        def forward(self, places: Tensor) -> None:
            self.site(*states.of((places.max(1).values // longest).tolist()))

    return Model()


def _record(trainer: Any, last: int, report: Callable[[float], None]) -> list[Step]:
    """Have every step of a trainer noted in the list that is returned."""
    (name,) = trainer.saes
    steps: list[Step] = []
    seen = 0

    def note(_module: Any, _args: Any, given: dict[str, Any], out: Any) -> None:
        nonlocal seen
        dead = int((trainer.num_tokens_since_fired[name] > trainer.cfg.dead_feature_threshold).sum())
        steps.append(Step(len(steps), seen, float(out.fvu.detach()), float(out.auxk_loss.detach()), dead))
        seen += len(given["x"])
        report(len(steps) / last)

    trainer.saes[name].register_forward_hook(note, with_kwargs=True)
    return steps


@contextmanager
def _quiet() -> Iterator[None]:
    """Without what sparsify prints, and without the precision that it leaves torch with."""
    import torch

    before = torch.get_float32_matmul_precision()
    try:
        with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
            yield
    finally:
        torch.set_float32_matmul_precision(before)
