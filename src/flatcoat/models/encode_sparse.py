"""Encoding many texts into term weights: the dense encoder's windows and batches, of which only non-zeros are kept.

`encode_sparse_to` writes a folder a window at a time and goes on where it stopped (`encode_parts.py`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from flatcoat.errors import FlatcoatError
from flatcoat.models.base import Runtime
from flatcoat.models.encode import WINDOW, Tokens, each_batch, windows
from flatcoat.models.encode_parts import kept_windows
from flatcoat.records import Track, silent
from flatcoat.representations import Sparse
from flatcoat.sparse_vectors import SparseFolder, write_sparse


@torch.inference_mode()
def encode_sparse_window(tower: Tokens, texts: Sequence[str], runtime: Runtime) -> Sparse:
    """Term weights of one window of texts."""
    rows = tower.tokenize(texts)
    terms: list[np.ndarray] = [np.zeros(0, np.int32)] * len(texts)
    weights: list[np.ndarray] = [np.zeros(0, np.float32)] * len(texts)

    def take(batch: list[int], found: Tensor) -> None:
        made = Sparse.of(found.float().cpu().numpy())
        for place, i in enumerate(batch):
            entries = slice(int(made.start[place]), int(made.start[place + 1]))
            terms[i], weights[i] = made.terms[entries], made.weights[entries]

    each_batch(tower, rows, runtime, take)
    start = np.concatenate([np.zeros(1, np.int64), np.cumsum([len(t) for t in terms], dtype=np.int64)])
    empty = [np.zeros(0, np.int32)], [np.zeros(0, np.float32)]
    return Sparse(start, np.concatenate(empty[0] + terms), np.concatenate(empty[1] + weights), tower.dim)


def encode_sparse(
    tower: Tokens, texts: Sequence[str], runtime: Runtime, *, track: Track = silent, label: str = "encode"
) -> Sparse:
    """Term weights of all texts, in memory."""
    make = lambda some: encode_sparse_window(tower, some, runtime)  # noqa: E731
    parts = [part for _, part in windows(tower, texts, make, size=WINDOW, track=track, label=label)]
    return Sparse.joined(parts, tower.dim)


def encode_sparse_to(
    path: Path,
    tower: Tokens,
    texts: Sequence[str],
    ids: Sequence[str],
    vocabulary: Sequence[str],
    facts: Mapping[str, Any],
    runtime: Runtime,
    *,
    track: Track = silent,
    label: str = "encode",
) -> SparseFolder:
    """Write the term weights of `texts` under `ids`; `facts` go into the manifest.

    Raises:
        FlatcoatError: a weight is not finite.
    """
    with kept_windows(path, facts, WINDOW) as kept:
        make = lambda some: encode_sparse_window(tower, some, runtime)  # noqa: E731
        for start, block in windows(tower, texts, make, first=kept.done, size=WINDOW, track=track, label=label):
            if not np.isfinite(block.weights).all():
                row = start + int(np.searchsorted(block.start, np.flatnonzero(~np.isfinite(block.weights))[0], "right"))
                raise FlatcoatError(
                    f"a weight of {ids[row - 1]!r} is not finite; is the model damaged or trained to NaN?"
                )
            kept.keep(start, {"start": block.start, "terms": block.terms, "weights": block.weights})
        parts = [Sparse(f["start"], f["terms"], f["weights"], tower.dim) for f in kept.read(len(texts))]
        return write_sparse(path, Sparse.joined(parts, tower.dim), ids, vocabulary, facts)
