"""One vector a text of whatever a model makes of it, so that every kind of student can be served hard negatives.

A dense model's vectors as they are; of token vectors the mean; of term weights a random projection (each term a fixed random sign in
each of `WIDTH` dimensions, which keeps inner products up to 1/√WIDTH: Johnson and Lindenstrauss 1984). All are of length one.
"""

from __future__ import annotations

from typing import Any, cast

import numpy as np
from jaxtyping import Float32

from flatcoat.errors import Misuse
from flatcoat.representations import Dense, MultiVector, Sparse

WIDTH = 256


def dense_reading(made: object) -> Float32[np.ndarray, "text dim"]:
    """Unit vectors of texts. Raises Misuse where it is no representation."""
    kind = type(made).__name__
    if isinstance(made, Sparse):
        found = _projected(made)
    elif isinstance(made, MultiVector):
        found = _means(made)
    elif isinstance(made, Dense):
        found = made.vectors
    elif isinstance(made, np.ndarray) and made.ndim == 2:
        found = cast(Any, made)
    else:
        raise Misuse(f"negatives are drawn by one vector a text; {kind} has none")
    found = np.asarray(found, dtype=np.float32)  # pyright: ignore[reportUnknownArgumentType]  # any array
    return found / np.maximum(np.linalg.norm(found, axis=1, keepdims=True), np.finfo(np.float32).tiny)


def _means(made: MultiVector) -> np.ndarray:
    return np.stack(
        [made.item(i).astype(np.float32).mean(0) if len(made.item(i)) else np.zeros(made.dim) for i in range(len(made))]
    )


def _projected(made: Sparse) -> np.ndarray:
    signs = np.random.default_rng(0).integers(0, 2, (made.vocab_size, WIDTH), dtype=np.int8) * 2 - 1
    found = np.zeros((len(made), WIDTH), np.float32)
    for i in range(len(made)):
        entries = slice(int(made.start[i]), int(made.start[i + 1]))
        found[i] = made.weights[entries].astype(np.float32) @ signs[made.terms[entries]].astype(np.float32)
    return found
