"""A text embedder run by sentence-transformers, in this process."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

import numpy as np
from sentence_transformers import SentenceTransformer

from latentlake.errors import InputError

logger = logging.getLogger("latentlake.engines")


class SentenceTransformersEmbedder:
    """A sentence-transformers directory; implements `latentlake.protocols.Embedder`.

    Args:
        path: directory with ``modules.json``; loaded at the first text, from the disk only.
        device: where the model runs.
        batch_size: texts in a batch.
    """

    def __init__(self, path: Path, device: str = "cpu", batch_size: int = 64) -> None:
        self._path = path
        self._device = device
        self._batch_size = batch_size

    @cached_property
    def _model(self) -> SentenceTransformer:
        logger.info("loading %s", self._path)
        try:
            return SentenceTransformer(str(self._path), device=self._device, local_files_only=True)
        except (OSError, ValueError) as error:
            raise InputError(f"Embedder {self._path} cannot be loaded: {error}. Check its files.") from error

    def embed(self, texts: Sequence[str]) -> np.ndarray:
        """Unit-length embeddings, float32 [texts, width]; a text beyond the model's length is cut.

        Raises:
            InputError: the directory holds no embedder.
        """
        vectors = self._model.encode(
            list(texts),
            batch_size=self._batch_size,
            normalize_embeddings=True,
            convert_to_numpy=True,
            show_progress_bar=False,
        )
        return np.asarray(vectors, dtype=np.float32)
