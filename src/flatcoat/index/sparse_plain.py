"""A run of documents of an inverted index at 16 or 32 bits: rows and values by term, summed in doubles.

At 16 bits value(d, t) = round(weight(d, t) × 2^shift(t)), at least 1, with the greatest shift that keeps values
≤ 65535; at 32 bits it is the weight itself. Files: `base` (each term's first posting), `numbers` (rows),
`values`, `shifts`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from flatcoat.errors import FlatcoatError
from flatcoat.index.sparse_segment import UNUSED, builders, mapped, shifts_of
from flatcoat.representations import Sparse

PARTS = ("base", "numbers", "values", "shifts")


@dataclass(frozen=True)
class PlainSegment:
    """Postings of `rows` documents."""

    rows: int
    base: np.ndarray
    numbers: np.ndarray
    values: np.ndarray
    shifts: np.ndarray

    @classmethod
    def of(cls, vectors: Sparse, known: np.ndarray | None, bits: int) -> PlainSegment:
        """Lay out by term. A term keeps its shift in `known` [term] where its weights allow it."""
        shifts = shifts_of(vectors)
        shifts = np.where(shifts == UNUSED, UNUSED, shifts + 8 if bits == 16 else 0).astype(np.int16)
        if known is not None:
            shifts = np.where((known != UNUSED) & (known <= shifts), known, shifts).astype(np.int16)
        values = vectors.weights
        if bits == 16:
            scaled = np.ldexp(values.astype(np.float64), shifts[vectors.terms].astype(np.int32))
            values = np.clip(np.floor(scaled + 0.5), 1, 65535).astype(np.uint16)
        rows = np.repeat(np.arange(len(vectors), dtype=np.uint32), np.diff(vectors.start))
        return cls.by_term(len(vectors), rows, vectors.terms, values, shifts)

    @classmethod
    def by_term(
        cls, count: int, rows: np.ndarray, terms: np.ndarray, values: np.ndarray, shifts: np.ndarray
    ) -> PlainSegment:
        """Order entries, given by rising row, by term."""
        base = np.concatenate([np.zeros(1, np.int64), np.cumsum(np.bincount(terms, minlength=len(shifts)))])
        numbers, ordered = np.empty(len(rows), np.uint32), np.empty(len(rows), values.dtype)
        builders().by_rows(base.copy(), terms, rows, values, numbers, ordered)
        return cls(count, base, numbers, ordered, shifts)

    @property
    def postings(self) -> int:
        """How many postings there are."""
        return len(self.numbers)

    @cached_property
    def factors(self) -> np.ndarray:
        """What a value of each term counts, float64 [term]."""
        return np.where(self.shifts == UNUSED, 0.0, np.ldexp(1.0, -np.maximum(self.shifts, -1000).astype(np.int32)))

    def entries(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Every posting by rising term and row: row, value, term."""
        terms = np.repeat(np.arange(len(self.base) - 1, dtype=np.int32), np.diff(self.base))
        return self.numbers, self.values, terms

    def dequantised(self) -> Sparse:
        """The documents as their values stand for them."""
        rows, values, terms = self.entries()
        weights = (values * self.factors[terms]).astype(np.float32)
        start = np.concatenate([np.zeros(1, np.int64), np.cumsum(np.bincount(rows, minlength=self.rows))])
        to_terms, to_weights = np.empty(len(terms), np.int32), np.empty(len(terms), np.float32)
        builders().by_rows(start.copy(), rows, terms, weights, to_terms, to_weights)
        return Sparse(start, to_terms, to_weights, len(self.shifts))

    def save(self, folder: Path, name: str) -> None:
        """Write `NAME-PART.npy` files into a folder that exists."""
        for part in PARTS:
            np.save(folder / f"{name}-{part}.npy", getattr(self, part))

    @classmethod
    def load(cls, folder: Path, name: str, rows: int) -> PlainSegment:
        """Open memory-mapped. Raises FlatcoatError where a file is absent or the files disagree."""
        parts = mapped(folder, name, PARTS)
        sizes = (len(parts["shifts"]) + 1, int(parts["base"][-1]), len(parts["numbers"]))
        if (len(parts["base"]), len(parts["numbers"]), len(parts["values"])) != sizes:
            raise FlatcoatError(f"{folder}/{name}-*.npy: the files do not fit one another; build the index again")
        return cls(rows, **parts)


def joined_plain(segments: Sequence[PlainSegment], kept: np.ndarray | None, bits: int) -> PlainSegment:
    """Several segments as one; `kept` (bool, a flag a row) leaves rows out. A term's coarsest shift is its new one."""
    whole = Sparse.joined([s.dequantised() for s in segments], len(segments[0].shifts))
    used = np.stack([s.shifts for s in segments]).astype(np.int32)
    shifts = np.where(used == UNUSED, 32767, used).min(axis=0)
    shifts = np.where(shifts == 32767, UNUSED, shifts).astype(np.int16)
    if kept is not None:
        counts = np.diff(whole.start)
        entries = np.repeat(kept, counts)
        start = np.concatenate([np.zeros(1, np.int64), np.cumsum(counts[kept])])
        whole = Sparse(start, whole.terms[entries], whole.weights[entries], whole.vocab_size)
    return PlainSegment.of(whole, shifts, bits)
