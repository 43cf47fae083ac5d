"""Representations as bytes and back, and rows of them that grow at their end while others read what was there."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import prod
from typing import Any

import numpy as np

from flatcoat.errors import FlatcoatError
from flatcoat.representations import Dense, MultiVector, Representation, Sparse


def pack(vectors: Mapping[str, Representation]) -> tuple[list[dict[str, Any]], bytes]:
    """Representations by key: what JSON says of them, and their arrays end to end, little-endian."""
    described, parts = [], []
    for key, made in vectors.items():
        arrays = _arrays(made)
        shapes = [[array.dtype.newbyteorder("<").str, list(array.shape)] for array in arrays]
        said: dict[str, Any] = {"key": key, "kind": type(made).__name__, "arrays": shapes}
        if isinstance(made, Sparse):
            said["vocab_size"] = made.vocab_size
        described.append(said)
        parts += [array.astype(array.dtype.newbyteorder("<"), copy=False).tobytes() for array in arrays]
    return described, b"".join(parts)


def unpack(described: Sequence[Mapping[str, Any]], body: bytes) -> dict[str, Representation]:
    """What `pack` made bytes of."""
    made: dict[str, Representation] = {}
    offset = 0
    for said in described:
        arrays = []
        for dtype, shape in said["arrays"]:
            count = prod(shape)
            arrays.append(np.frombuffer(body, np.dtype(dtype), count, offset).reshape(shape))
            offset += count * np.dtype(dtype).itemsize
        if said["kind"] == "Sparse":
            start, terms, weights = arrays
            made[said["key"]] = Sparse(start, terms, weights, said["vocab_size"])
        else:
            made[said["key"]] = {"Dense": Dense, "MultiVector": MultiVector}[said["kind"]](*arrays)
    return made


def _arrays(made: Representation) -> tuple[np.ndarray, ...]:
    if isinstance(made, Dense):
        return (made.vectors,)
    return (made.start, made.terms, made.weights) if isinstance(made, Sparse) else (made.start, made.vectors)


def taken(made: Representation, rows: Sequence[int]) -> Any:
    """Some rows of a representation, in the order given."""
    if isinstance(made, Dense):
        return Dense(made.vectors[np.asarray(rows, np.int64)])
    parts: Any = [made[row : row + 1] for row in rows]
    if isinstance(made, Sparse):
        return Sparse.joined(parts, made.vocab_size)
    joined = MultiVector.joined(parts, made.dim)
    return MultiVector(joined.start, joined.vectors.astype(made.vectors.dtype, copy=False))


def check_finite(made: Representation, what: str) -> None:
    """Raise FlatcoatError where a value is not finite."""
    values = made.weights if isinstance(made, Sparse) else made.vectors
    if not np.isfinite(values).all():
        raise FlatcoatError(f"the {what} vectors of a document have a value that is not finite; check the model")


@dataclass(frozen=True)
class Grown:
    """The first rows of a buffer. `extended` gives more of it; what was given out before stays as it was."""

    buffer: np.ndarray
    length: int = 0
    used: list[int] = field(default_factory=lambda: [0])  # how much of the buffer anyone has

    @property
    def array(self) -> np.ndarray:
        """The rows, without a copy."""
        return self.buffer[: self.length]

    def extended(self, more: np.ndarray) -> Grown:
        """These rows and more of them; amortised, each is copied a constant number of times."""
        total = self.length + len(more)
        if self.used[0] == self.length and total <= len(self.buffer):
            self.buffer[self.length : total] = more
            self.used[0] = total
            return Grown(self.buffer, total, self.used)
        buffer = np.empty((max(2 * total, 16), *self.buffer.shape[1:]), self.buffer.dtype)
        buffer[: self.length], buffer[self.length : total] = self.array, more
        return Grown(buffer, total, [total])


@dataclass(frozen=True)
class Items:
    """Items of several entries each (terms and weights, or vectors), growing at their end."""

    start: Grown
    entries: tuple[Grown, ...]

    @classmethod
    def of(cls, *like: np.ndarray) -> Items:
        """No items, of entries like these arrays'."""
        begun = Grown(np.zeros(1, np.int64), 1, [1])
        return cls(begun, tuple(Grown(np.empty((0, *a.shape[1:]), a.dtype)) for a in like))

    def __len__(self) -> int:
        return self.start.length - 1

    def extended(self, start: np.ndarray, *more: np.ndarray) -> Items:
        """These items and more."""
        end = int(self.start.array[-1])
        grown = tuple(own.extended(new) for own, new in zip(self.entries, more, strict=True))
        return Items(self.start.extended(np.asarray(start[1:]) + end), grown)

    def sparse(self, vocab_size: int) -> Sparse:
        """As term weights."""
        terms, weights = (entry.array for entry in self.entries)
        return Sparse(self.start.array, terms, weights, vocab_size)

    def multi(self) -> MultiVector:
        """As several vectors an item."""
        return MultiVector(self.start.array, self.entries[0].array)
