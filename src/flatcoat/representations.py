"""What an encoder makes of texts: dense vectors, sparse vectors, or several vectors an item."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float32, Int32, Int64


@dataclass(frozen=True)
class Dense:
    """One vector an item."""

    vectors: Float32[np.ndarray, "item dim"]

    def __len__(self) -> int:
        return len(self.vectors)


@dataclass(frozen=True)
class Sparse:
    """Term weights, rows laid end to end: row i is `terms[start[i]:start[i+1]]` with its `weights`."""

    start: Int64[np.ndarray, " item_plus_1"]
    terms: Int32[np.ndarray, " entry"]
    weights: Float32[np.ndarray, " entry"]
    vocab_size: int

    def __len__(self) -> int:
        return len(self.start) - 1


@dataclass(frozen=True)
class MultiVector:
    """Several vectors an item, laid end to end: item i is `vectors[start[i]:start[i+1]]`."""

    start: Int64[np.ndarray, " item_plus_1"]
    vectors: Float32[np.ndarray, "token dim"]

    def __len__(self) -> int:
        return len(self.start) - 1


Representation = Dense | Sparse | MultiVector
