"""A run of documents of an inverted index, packed: impacts of 8 bits and the words of `sparse_kernels`.

    impact(d, t) = round(weight(d, t) × 2^shift(t)), at least 1      shift(t): the greatest that keeps impacts ≤ 255

A power of two, so that an impact stands for a weight that a float holds exactly. Files: `words` (uint16), `base` (each
term's first word), `lengths` (uint16 [term, block]: words), `tops` (uint8 [term, block]: greatest impact), `shifts`
(int16), `forms` (uint8 [term]: how it is written); where candidates are scored by themselves also `start`, `terms` and
`impacts`, the entries by row.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, cast

import numpy as np

from flatcoat.arrays import read_array
from flatcoat.errors import FlatcoatError
from flatcoat.representations import Sparse

PARTS = ("words", "base", "lengths", "tops", "shifts", "forms")
BY_ROW = ("start", "terms", "impacts")
ROOMIER = 1.3  # a term is written densely where that takes no more than so many times the room
UNUSED = np.int16(-32768)  # the shift of a term that no document has


def kernels() -> Any:
    """The compiled loops that search."""
    from flatcoat.index import sparse_kernels

    return sparse_kernels


def builders() -> Any:
    """The compiled loops that build."""
    from flatcoat.index import sparse_build

    return sparse_build


def in_threads(work: Callable[[int], None], items: int, threads: int) -> None:
    """Call `work(0)` to `work(items - 1)`, several at a time; the first exception is raised."""
    if threads <= 1 or items <= 1:
        for item in range(items):
            work(item)
        return
    with ThreadPoolExecutor(threads) as pool:
        for _ in pool.map(work, range(items)):
            pass


@dataclass(frozen=True)
class Segment:
    """Packed postings of `rows` documents."""

    rows: int
    words: np.ndarray
    base: np.ndarray
    lengths: np.ndarray
    tops: np.ndarray
    shifts: np.ndarray
    forms: np.ndarray
    entries_by_row: tuple[np.ndarray, np.ndarray, np.ndarray] | None = None

    @classmethod
    def of(cls, vectors: Sparse, known: np.ndarray | None, threads: int, forward: bool) -> Segment:
        """Quantise and pack. A term keeps its shift in `known` [term] where its weights allow it."""
        shifts = shifts_of(vectors)
        if known is not None:
            shifts = np.where((known != UNUSED) & (known <= shifts), known, shifts)
        impacts = np.empty(len(vectors.terms), np.uint8)
        builders().to_impacts(vectors.terms, vectors.weights, shifts, impacts)
        return cls.pack(vectors.start, vectors.terms, impacts, shifts, threads, forward)

    @classmethod
    def pack(
        cls, start: np.ndarray, terms: np.ndarray, impacts: np.ndarray, shifts: np.ndarray, threads: int, forward: bool
    ) -> Segment:
        """Pack impacts that lie by rows, and with `forward` keep them by rows too.

        Holds about 20 bytes a term and block beside what it returns.
        """
        loops, search = builders(), kernels()
        edges = [*range(0, len(start) - 1, search.BLOCK), len(start) - 1]
        size, blocks = len(shifts), len(edges) - 1
        given = start, terms, impacts
        gaps, numbers = (np.zeros((blocks, size), np.uint16) for _ in range(2))
        tops = np.zeros((blocks, size), np.uint8)

        def count(b: int) -> None:
            loops.count_block(*given, edges[b], edges[b + 1], gaps[b], numbers[b], tops[b])

        in_threads(count, blocks, threads)
        plain = ((numbers.astype(np.uint32) * 3 + 1) // 2).astype(np.uint16)
        full = -(-np.diff(edges) // 2)[:, None]
        costs = [each.sum(0, dtype=np.int64) for each in (plain, gaps)]
        cheaper = cast(np.ndarray, np.where(costs[1] <= costs[0], search.GAPS, search.NUMBERS))
        forms = np.where(full.sum() <= ROOMIER * np.minimum(*costs), search.DENSE, cheaper).astype(np.uint8)
        lengths = np.where(forms == search.DENSE, full, np.where(forms == search.GAPS, gaps, plain)).astype(np.uint16)
        del gaps, plain
        base = np.concatenate([np.zeros(1, np.int64), np.cumsum(lengths.sum(0, dtype=np.int64))])
        words = np.zeros(int(base[-1]), np.uint16)
        at = base[:-1] + np.cumsum(lengths, axis=0, dtype=np.int64) - lengths

        def fill(b: int) -> None:
            loops.fill_block(*given, edges[b], edges[b + 1], at[b], numbers[b], forms, words, words.view(np.uint8))

        in_threads(fill, blocks, threads)
        lengths, tops = np.ascontiguousarray(lengths.T), np.ascontiguousarray(tops.T)
        narrow = terms.astype(np.uint16 if size <= 1 << 16 else np.int32) if forward else terms
        kept = (np.asarray(start), narrow, np.asarray(impacts)) if forward else None
        return cls(len(start) - 1, words, base, lengths, tops, shifts.astype(np.int16), forms, kept)

    @property
    def packed(self) -> tuple[np.ndarray, ...]:
        """What the scan reads."""
        return self.words, self.words.view(np.uint8), self.base, self.lengths, self.tops, self.forms

    @property
    def forward(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Entries by row: start [row + 1], terms, impacts; all empty where they are not kept."""
        if self.entries_by_row is None:
            return np.zeros(0, np.int64), np.zeros(0, np.uint16), np.zeros(0, np.uint8)
        return self.entries_by_row

    @cached_property
    def most(self) -> np.ndarray:
        """Each term's greatest impact, uint8 [term]."""
        return self.tops.max(axis=1, initial=0)

    @cached_property
    def costs(self) -> np.ndarray:
        """About what adding each term takes, in words, float64 [term]."""
        return 1.0 + np.diff(self.base) / np.where(self.forms == kernels().DENSE, 8, 1)

    @property
    def postings(self) -> int:
        """How many postings there are."""
        return len(self.entries()[0])

    def entries(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Every posting by rising term and row: row (int32), impact (uint8), term (int32)."""
        most = 2 * len(self.words)
        rows, impacts, terms = np.empty(most, np.int32), np.empty(most, np.uint8), np.empty(most, np.int32)
        parts = (self.words, self.words.view(np.uint8), self.base, self.lengths, self.forms, kernels().BLOCK)
        n = builders().read_back(*parts, rows, impacts, terms)
        return rows[:n], impacts[:n], terms[:n]

    def by_rows(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Every entry by row and rising term: start [row + 1], terms, impacts."""
        rows, impacts, terms = self.entries()
        start = np.concatenate([np.zeros(1, np.int64), np.cumsum(np.bincount(rows, minlength=self.rows))])
        to_terms, to_impacts = np.empty(len(terms), np.int32), np.empty(len(terms), np.uint8)
        builders().by_rows(start.copy(), rows, terms, impacts, to_terms, to_impacts)
        return start, to_terms, to_impacts

    def dequantised(self) -> Sparse:
        """The documents as their impacts stand for them."""
        start, terms, impacts = self.by_rows()
        weights = np.ldexp(impacts.astype(np.float32), -self.shifts[terms].astype(np.int32))
        return Sparse(start, terms, weights.astype(np.float32), len(self.shifts))

    def save(self, folder: Path, name: str) -> None:
        """Write `NAME-PART.npy` files into a folder that exists."""
        for part in PARTS:
            np.save(folder / f"{name}-{part}.npy", getattr(self, part))
        if self.entries_by_row is not None:
            for part, array in zip(BY_ROW, self.entries_by_row, strict=True):
                np.save(folder / f"{name}-{part}.npy", array)

    @classmethod
    def load(cls, folder: Path, name: str, rows: int, forward: bool) -> Segment:
        """Open memory-mapped. Raises FlatcoatError where a file is absent or the files disagree."""
        parts = mapped(folder, name, (*PARTS, *BY_ROW) if forward else PARTS)
        by_row = tuple(parts.pop(p) for p in BY_ROW) if forward else None
        size, blocks = len(parts["shifts"]), -(-rows // kernels().BLOCK)
        shapes = [parts[p].shape for p in ("base", "lengths", "tops", "forms")]
        if shapes != [(size + 1,), (size, blocks), (size, blocks), (size,)] or parts["base"][-1] != len(parts["words"]):
            raise FlatcoatError(f"{folder}/{name}-*.npy: the files do not fit one another; build the index again")
        return cls(rows, **parts, entries_by_row=by_row)  # pyright: ignore[reportArgumentType]


def mapped(folder: Path, name: str, parts: Sequence[str]) -> dict[str, np.ndarray]:
    """Open `NAME-PART.npy` files memory-mapped. Raises FlatcoatError where one cannot be read."""
    try:
        return {p: np.asarray(read_array(folder / f"{name}-{p}.npy")) for p in parts}
    except FlatcoatError as error:
        raise FlatcoatError(f"{error}; build the index again") from error


def shifts_of(vectors: Sparse) -> np.ndarray:
    """Each term's greatest shift under which every impact is at most 255, int16 [term]; UNUSED where it has none."""
    most = np.zeros(vectors.vocab_size, np.float32)
    builders().greatest_weights(vectors.terms, vectors.weights, most)
    used = most > 0
    safe = np.where(used, most, 1.0).astype(np.float64)
    shifts = 8 - np.frexp(safe)[1]
    shifts = np.where(np.ldexp(safe, shifts) >= 255.5, shifts - 1, shifts)  # would round to 256
    return np.where(used, shifts, UNUSED).astype(np.int16)


def joined(segments: Sequence[Segment], kept: np.ndarray | None, threads: int, forward: bool) -> Segment:
    """Several segments as one; `kept` (bool, a flag a row) leaves rows out. A term's coarsest shift is its new one."""
    used = np.stack([s.shifts for s in segments]).astype(np.int32)
    shifts = np.where(used == UNUSED, 32767, used).min(axis=0)
    shifts = np.where(shifts == 32767, UNUSED, shifts)
    parts: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []
    for segment in segments:
        start, some, values = segment.by_rows()
        lost = segment.shifts[some] - shifts[some]
        if lost.any():
            values = np.clip(np.floor(np.ldexp(values.astype(np.float64), -lost) + 0.5), 1, 255).astype(np.uint8)
        parts.append((np.diff(start), some, values))
    counts, all_terms, all_impacts = (np.concatenate([part[i] for part in parts]) for i in range(3))
    if kept is not None:
        entries = np.repeat(kept, counts)
        counts, all_terms, all_impacts = counts[kept], all_terms[entries], all_impacts[entries]
    start = np.concatenate([np.zeros(1, np.int64), np.cumsum(counts)])
    return Segment.pack(start, all_terms, all_impacts, shifts, threads, forward)
