"""What an encoder makes of texts: dense vectors, sparse vectors, or several vectors an item."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float32, Int32, Int64


@dataclass(frozen=True)
class Dense:
    """One vector an item."""

    vectors: Float32[np.ndarray, "item dim"]

    def __len__(self) -> int:
        return len(self.vectors)

    def __getitem__(self, items: slice) -> Dense:
        """A run of items."""
        return Dense(np.ascontiguousarray(self.vectors[items]))


@dataclass(frozen=True)
class Sparse:
    """Term weights, rows laid end to end: row i is `terms[start[i]:start[i+1]]` with its `weights`."""

    start: Int64[np.ndarray, " item_plus_1"]
    terms: Int32[np.ndarray, " entry"]
    weights: Float32[np.ndarray, " entry"]
    vocab_size: int

    def __len__(self) -> int:
        return len(self.start) - 1

    def __getitem__(self, items: slice) -> Sparse:
        """A run of items, without a copy of its entries."""
        low, high, step = items.indices(len(self))
        if step != 1:
            raise IndexError("sparse items are taken in runs, of step 1")
        start = self.start[low : max(low, high) + 1]
        entries = slice(int(start[0]), int(start[-1]))
        return Sparse(start - start[0], self.terms[entries], self.weights[entries], self.vocab_size)

    @classmethod
    def joined(cls, parts: Sequence[Sparse], vocab_size: int) -> Sparse:
        """Items of several, one after another."""
        sizes = np.concatenate([np.zeros(1, np.int64), *(np.diff(part.start) for part in parts)])
        terms = np.concatenate([np.zeros(0, np.int32), *(part.terms for part in parts)])
        weights = np.concatenate([np.zeros(0, np.float32), *(part.weights for part in parts)])
        return cls(np.cumsum(sizes), terms, weights, vocab_size)

    @classmethod
    def of(cls, weights: np.ndarray) -> Sparse:
        """The non-zero entries of an array [item, term]."""
        rows, terms = np.nonzero(weights)
        start = np.concatenate([np.zeros(1, np.int64), np.cumsum(np.bincount(rows, minlength=len(weights)))])
        return cls(start, terms.astype(np.int32), weights[rows, terms].astype(np.float32), weights.shape[1])

    def array(self) -> np.ndarray:
        """All weights, zeros included, as float32 [item, term]."""
        out = np.zeros((len(self), self.vocab_size), np.float32)
        out[np.repeat(np.arange(len(self)), np.diff(self.start)), self.terms] = self.weights
        return out


@dataclass(frozen=True)
class MultiVector:
    """Several vectors an item, laid end to end: item i is `vectors[start[i]:start[i+1]]`."""

    start: Int64[np.ndarray, " item_plus_1"]
    vectors: Float32[np.ndarray, "token dim"]

    def __len__(self) -> int:
        return len(self.start) - 1


Representation = Dense | Sparse | MultiVector
