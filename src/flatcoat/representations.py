"""What an encoder makes of texts: dense vectors, sparse vectors, or several vectors an item."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float16, Float32, Int32, Int64


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
    """Several vectors an item, laid end to end: item i is `vectors[start[i]:start[i+1]]`; float16 where they are kept so."""

    start: Int64[np.ndarray, " item_plus_1"]
    vectors: Float32[np.ndarray, "token dim"] | Float16[np.ndarray, "token dim"]

    def __len__(self) -> int:
        return len(self.start) - 1

    @property
    def dim(self) -> int:
        """The width of every vector."""
        return int(self.vectors.shape[1])

    def __getitem__(self, items: slice) -> MultiVector:
        """A run of items, without a copy of its vectors."""
        low, high, step = items.indices(len(self))
        if step != 1:
            raise IndexError("items of several vectors are taken in runs, of step 1")
        start = self.start[low : max(low, high) + 1]
        return MultiVector(start - start[0], self.vectors[int(start[0]) : int(start[-1])])

    def item(self, i: int) -> np.ndarray:
        """Item i's vectors [token, dim], without a copy. Raises IndexError where there is no such item."""
        if not 0 <= i < len(self):
            raise IndexError(f"item {i} of {len(self)}")
        return self.vectors[int(self.start[i]) : int(self.start[i + 1])]

    @classmethod
    def joined(cls, parts: Sequence[MultiVector], dim: int) -> MultiVector:
        """Items of several, one after another; float16 where all are."""
        sizes = np.concatenate([np.zeros(1, np.int64), *(np.diff(part.start) for part in parts)])
        if not parts:
            return cls(np.cumsum(sizes), np.zeros((0, dim), np.float32))
        return cls(np.cumsum(sizes), np.concatenate([part.vectors for part in parts]))

    @classmethod
    def of(cls, items: Sequence[np.ndarray], dim: int) -> MultiVector:
        """Items given one by one, as arrays [token, dim], in float32."""
        start = np.cumsum([0, *(len(item) for item in items)], dtype=np.int64)
        return cls(start, np.concatenate([np.zeros((0, dim), np.float32), *items]).astype(np.float32, copy=False))


Representation = Dense | Sparse | MultiVector
