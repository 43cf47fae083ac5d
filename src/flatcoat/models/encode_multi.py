"""Encoding many texts into several vectors each: the dense encoder's windows and batches, of which only present tokens are
kept.

`encode_multi_to` writes a folder a window at a time and goes on where it stopped (`encode_parts.py`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from flatcoat.errors import FlatcoatError
from flatcoat.models.base import Runtime
from flatcoat.models.encode import WINDOW, Tokens, each_batch, windows
from flatcoat.models.encode_parts import kept_windows
from flatcoat.multi_vectors import TYPES, MultiFolder, Precision, write_multi_parts
from flatcoat.records import Track, silent
from flatcoat.representations import MultiVector


@torch.inference_mode()
def encode_multi_window(tower: Tokens, texts: Sequence[str], runtime: Runtime) -> MultiVector:
    """Token vectors of one window of texts, float32. The tower gives `tokens` and which of them are `present`."""
    rows = tower.tokenize(texts)
    items: list[np.ndarray] = [np.zeros((0, tower.dim), np.float32)] * len(texts)

    def take(batch: list[int], made: Any) -> None:
        sizes = made["present"].sum(1).tolist()
        vectors = made["tokens"][made["present"]].float().cpu().numpy()
        for i, item in zip(batch, np.split(vectors, np.cumsum(sizes)[:-1]), strict=True):
            items[i] = item

    each_batch(tower, rows, runtime, take)
    return MultiVector.of(items, tower.dim)


def encode_multi(
    tower: Tokens, texts: Sequence[str], runtime: Runtime, *, track: Track = silent, label: str = "encode"
) -> MultiVector:
    """Token vectors of all texts, in memory, float32."""
    make = lambda some: encode_multi_window(tower, some, runtime)  # noqa: E731
    parts = [part for _, part in windows(tower, texts, make, size=WINDOW, track=track, label=label)]
    return MultiVector.joined(parts, tower.dim)


def encode_multi_to(
    path: Path,
    tower: Tokens,
    texts: Sequence[str],
    ids: Sequence[str],
    facts: Mapping[str, Any],
    runtime: Runtime,
    *,
    precision: Precision = "fp16",
    track: Track = silent,
    label: str = "encode",
) -> MultiFolder:
    """Write the token vectors of `texts` under `ids`; `facts` go into the manifest. Memory holds a window.

    Raises:
        FlatcoatError: a vector is not finite.
    """
    full = {**facts, "items": len(texts), "dim": tower.dim, "stored": precision}
    with kept_windows(path, full, WINDOW) as kept:
        make = lambda some: encode_multi_window(tower, some, runtime)  # noqa: E731
        for start, block in windows(tower, texts, make, first=kept.done, size=WINDOW, track=track, label=label):
            _refuse_broken(block, ids, start)
            kept.keep(start, {"start": block.start, "vectors": block.vectors.astype(TYPES[precision])})
        parts = (MultiVector(file["start"], file["vectors"]) for file in kept.read(len(texts)))
        return write_multi_parts(path, parts, ids, tower.dim, facts, precision)


def _refuse_broken(block: MultiVector, ids: Sequence[str], start: int) -> None:
    broken = np.flatnonzero(~np.isfinite(block.vectors).all(1))
    if len(broken):
        row = start + int(np.searchsorted(block.start, broken[0], "right")) - 1
        raise FlatcoatError(f"a vector of {ids[row]!r} is not finite; is the model damaged or trained to NaN?")
