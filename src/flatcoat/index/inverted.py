"""Learned sparse vectors (SPLADE, Formal et al. 2021, arXiv 2107.05720) by an inverted index: every match, exactly.

    score(q, d) = Σ_t q̂_t × d̂_t      d̂_t = impact × 2^-shift(t), impact = max(1, round(d_t × 2^shift(t))) ≤ 255
                                     q̂_t = round(q_t / unit(t)) × unit(t), unit(t) = step × 2^shift(t)

`step` is the least power of two that keeps a query's greatest possible sum below 2^23, so that sums of integers are
exact, order equals the order of the scores, and scores are on the scale of the true dot product. With `bits` 16 the
impacts go to 65535, with 32 the weights stay floats; both are summed in doubles. `search_slowly_sparse` is the plain
twin: an index answers as it does over `index.dequantised()` and `index.used(queries)`.

| kind     | what is read |
|---|---|
| inverted | every posting of the query's terms, but for blocks of documents none of which can reach the k-th score so far |
| pruned   | those of the terms that make `mass` percent of the score that could be had at most; the best `candidates` |
|          | (4 k at least) by them are scored again over all terms, through a copy of the entries by row. Knob `mass` |
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np

from flatcoat.arrays import read_array
from flatcoat.errors import FlatcoatError, Misuse
from flatcoat.files import read_json, write_json
from flatcoat.index import gone
from flatcoat.index.base import TopK, check_k
from flatcoat.index.sparse_plain import PlainSegment, joined_plain
from flatcoat.index.sparse_segment import UNUSED, Segment, builders, in_threads, joined, kernels
from flatcoat.representations import Sparse

HEAVIEST = 1e15  # a weight above this would leave the range of float32 scores
ROOM = float(1 << 22)
CHEAPER = 0.25  # terms are added by falling contribution / cost ** this: dear ones late, where they may be spared
ALONE = 16  # queries answered by one thread


@dataclass(frozen=True)
class InvertedSettings:
    """How an inverted index is built and searched.

    `query_terms` keeps a query's heaviest terms only, `query_share` drops those lighter than this share of its
    heaviest; `mass` (percent) and `candidates` are for kind pruned, which needs `bits` 8.
    """

    kind: Literal["inverted", "pruned"] = "inverted"
    bits: Literal[8, 16, 32] = 8
    query_terms: int | None = None
    query_share: float = 0.0
    mass: int = 80
    candidates: int = 100

    def checked(self) -> InvertedSettings:
        """Itself. Raises Misuse where a setting cannot be."""
        if self.kind not in ("inverted", "pruned") or self.bits not in (8, 16, 32):
            raise Misuse(f"kind={self.kind!r}, bits={self.bits}: want inverted or pruned, and 8, 16 or 32")
        if self.kind == "pruned" and self.bits != 8:
            raise Misuse(f"kind='pruned' works on impacts of 8 bits, not {self.bits}")
        if (self.query_terms is not None and self.query_terms < 1) or not 0 <= self.query_share <= 1:
            raise Misuse(f"query_terms={self.query_terms}, query_share={self.query_share}: want ≥ 1 and 0 to 1")
        if not 1 <= self.mass <= 100 or self.candidates < 1:
            raise Misuse(f"mass={self.mass}, candidates={self.candidates}: want a percentage, 1 to 100, and at least 1")
        return self


class _Asked(NamedTuple):
    """Queries as a kernel takes them."""

    start: np.ndarray
    terms: np.ndarray
    ints: np.ndarray
    steps: np.ndarray
    stop: np.ndarray


class InvertedIndex:
    """Postings of sparse vectors in one segment or more; rows deleted stay numbered until `compacted`."""

    def __init__(
        self, segments: Sequence[Any], dead: np.ndarray, vocab_size: int, settings: InvertedSettings,
        where: object = "memory", threads: int | None = None,
    ):  # fmt: skip
        self.segments, self.dead, self.vocab_size = tuple(segments), dead, vocab_size
        self.settings, self.where = settings.checked(), where
        self.threads = threads or os.cpu_count() or 1
        self.firsts = np.cumsum([0, *(s.rows for s in self.segments)]).tolist()
        self.finest = np.max([s.shifts for s in self.segments], axis=0)
        if settings.bits == 8:
            self._ups = [
                np.where(s.shifts == UNUSED, 0, self.finest - s.shifts.astype(np.int32)) for s in self.segments
            ]
            reaches = [np.ldexp(s.most.astype(np.float64), up) for s, up in zip(self.segments, self._ups, strict=True)]
            self._reach = np.max(reaches, axis=0)
            self._cheap = sum(s.costs for s in self.segments) ** -CHEAPER

    @classmethod
    def build(
        cls, vectors: Sparse, settings: InvertedSettings = InvertedSettings(), *, threads: int | None = None
    ) -> InvertedIndex:
        """Build in memory; the same bits whatever `threads` (None: all cores).

        Raises:
            FlatcoatError: no items, a weight that is not above 0 and at most 1e15, or a term twice in one item.
        """
        if not len(vectors):
            raise Misuse("an index needs at least one vector")
        made = _segment(vectors, None, settings.checked(), threads or os.cpu_count() or 1)
        return cls([made], np.zeros(0, np.uint8), vectors.vocab_size, settings, threads=threads)

    @property
    def exact_scores(self) -> bool:
        """Whether scores are those of the vectors as they were given."""
        return self.settings.bits == 32

    def __len__(self) -> int:
        return self.firsts[-1]

    def search(self, queries: Sparse, k: int) -> TopK:
        """The k best rows of each query; rows that share no term with it are not matches.

        Raises Misuse where the vocabularies differ in size.
        """
        check_k(k, len(self), self.where)
        if queries.vocab_size != self.vocab_size:
            raise Misuse(
                f"queries over {queries.vocab_size} terms do not fit {self.where}, "
                f"built from vectors over {self.vocab_size}: another model?"
            )
        asked = self._prepared(queries)
        width = k if self.settings.kind == "inverted" else min(len(self), max(4 * k, self.settings.candidates))
        keys, sizes = np.zeros((len(queries), width), np.uint64), np.zeros(len(queries), np.int64)
        parts = 1 if len(queries) < 2 * ALONE else min(self.threads, len(queries) // ALONE)
        bounds = np.linspace(0, len(queries), parts + 1).astype(int)
        in_threads(lambda i: self._scan(asked, slice(bounds[i], bounds[i + 1]), keys, sizes), parts, parts)
        rows, scores = np.full((len(queries), k), -1, np.int64), np.full((len(queries), k), -np.inf, np.float32)
        kernels().finish(keys, sizes, asked.steps, self.settings.bits != 8, rows, scores)
        return TopK(rows, scores)

    def _scan(self, asked: _Asked, some: slice, keys: np.ndarray, sizes: np.ndarray) -> None:
        loops, pruned = kernels(), self.settings.kind == "pruned"
        start, stop = asked.start[some.start : some.stop + 1], asked.stop[some]
        for number, (first, s) in enumerate(zip(self.firsts, self.segments, strict=False)):
            if self.settings.bits == 8:
                ints = self._ints(asked, number)
                loops.scan(s.packed, first, s.rows, self.dead, start, stop, asked.terms, ints, keys[some], sizes[some])
            else:
                loops.scan_plain(s.base, s.numbers, s.values, s.factors, first, s.rows, self.dead,
                                 start, asked.terms, asked.ints, keys[some], sizes[some])  # fmt: skip
        for number, (first, s) in enumerate(zip(self.firsts, self.segments, strict=False)) if pruned else ():
            ints = self._ints(asked, number)
            loops.complete(s.forward, self.vocab_size, first, start, asked.terms, ints, keys[some], sizes[some])

    def _ints(self, asked: _Asked, segment: int) -> np.ndarray:
        """Query weights in a segment's units."""
        if len(self.segments) == 1:
            return asked.ints
        return asked.ints << self._ups[segment][asked.terms].astype(np.uint32)

    def _prepared(self, queries: Sparse) -> _Asked:
        kept, share = self.settings.query_terms or self.vocab_size, self.settings.query_share
        if self.settings.bits != 8:
            return _plain_queries(queries, kept, share)
        made = _Asked(
            np.zeros(len(queries) + 1, np.int64), np.empty(len(queries.terms), np.int32),
            np.empty(len(queries.terms), np.uint32), np.empty(len(queries)), np.empty(len(queries), np.int64),
        )  # fmt: skip
        mass = self.settings.mass / 100 if self.settings.kind == "pruned" else 1.0
        given, held = (queries.start, queries.terms, queries.weights), (self.finest, self._reach, self._cheap)
        wrong = kernels().prepare(*given, HEAVIEST, *held, kept, share, ROOM, mass, *made)
        if wrong >= 0:
            raise _refusal(queries, int(wrong), "query")
        n = int(made.start[-1])
        return made._replace(terms=made.terms[:n], ints=made.ints[:n])

    def used(self, queries: Sparse) -> Sparse:
        """The queries as they are scored: chosen terms, quantised weights."""
        asked = self._prepared(queries)
        terms, weights = asked.terms, asked.ints.astype(np.float64)
        if self.settings.bits == 8:
            steps = np.repeat(asked.steps, np.diff(asked.start))
            weights = np.ldexp(weights * steps, self.finest[terms].astype(np.int32))
        return Sparse(asked.start, terms, weights.astype(np.float32), self.vocab_size)

    def dequantised(self) -> Sparse:
        """The documents as they are scored, deleted ones as empty rows."""
        whole = Sparse.joined([s.dequantised() for s in self.segments], self.vocab_size)
        return _without(whole, self.dead) if len(self.dead) else whole

    def add(self, vectors: Sparse) -> InvertedIndex:
        """This index with more rows at its end; a last segment no longer than the new one is merged into it.

        A term keeps its shift unless its new weights are too great for it: then the new rows have a coarser one, and
        a merge brings the older there.

        Raises Misuse where the vocabularies differ in size.
        """
        if vectors.vocab_size != self.vocab_size:
            raise Misuse(f"vectors over {vectors.vocab_size} terms added to an index over {self.vocab_size}")
        if not len(vectors):
            return self
        segments = [*self.segments, _segment(vectors, self.finest, self.settings, self.threads)]
        while len(segments) > 1 and segments[-2].rows <= segments[-1].rows:
            last = segments.pop()
            segments[-1] = self._joined([segments[-1], last], None)
        dead = gone.lengthened(self.dead, len(vectors))
        return InvertedIndex(segments, dead, self.vocab_size, self.settings, threads=self.threads)

    def delete(self, rows: Sequence[int] | np.ndarray) -> InvertedIndex:
        """This index without these rows; the others keep their numbers. Raises Misuse where there is no such row."""
        dead = gone.without(self.dead, rows, len(self), self.where)
        return InvertedIndex(self.segments, dead, self.vocab_size, self.settings, self.where, self.threads)

    def compacted(self) -> tuple[InvertedIndex, np.ndarray]:
        """One segment without the deleted rows, and the old number of each row left. Raises Misuse where none is left."""
        kept = gone.left(self.dead, len(self), self.where)
        whole = self._joined(self.segments, kept)
        made = InvertedIndex([whole], np.zeros(0, np.uint8), self.vocab_size, self.settings, threads=self.threads)
        return made, np.flatnonzero(kept)

    def _joined(self, segments: Sequence[Any], kept: np.ndarray | None) -> Any:
        if self.settings.bits == 8:
            return joined(segments, kept, self.threads, self.settings.kind == "pruned")
        return joined_plain(segments, kept, self.settings.bits)

    def knob(self) -> tuple[str, list[int]]:
        """The setting that trades cost for quality, and values for it, cheapest first; kind inverted has but one."""
        return "mass", [40, 50, 60, 70, 80, 90, 100] if self.settings.kind == "pruned" else [100]

    def with_knob(self, value: int) -> InvertedIndex:
        """The same index under another mass."""
        settings = replace(self.settings, mass=value)
        return InvertedIndex(self.segments, self.dead, self.vocab_size, settings, self.where, self.threads)

    def save(self, folder: Path) -> None:
        """Write into a folder that exists: the segments' arrays, the deleted rows, and `inverted.json`."""
        for number, segment in enumerate(self.segments):
            segment.save(folder, f"segment{number}")
        if len(self.dead):
            np.save(folder / "deleted.npy", np.flatnonzero(self.dead))
        said = {"vocab_size": self.vocab_size, "bits": self.settings.bits, "rows": [s.rows for s in self.segments]}
        write_json(folder / "inverted.json", {**said, "deleted": int(self.dead.sum())})

    @classmethod
    def load(cls, folder: Path, settings: InvertedSettings, *, threads: int | None = None) -> InvertedIndex:
        """Open memory-mapped. Raises FlatcoatError where files are absent or do not fit, Misuse under other bits."""
        said = read_json(folder / "inverted.json")
        if said["bits"] != settings.bits:
            raise Misuse(f"{folder} was built with bits={said['bits']}, not {settings.bits}; build it again")
        named = [(folder, f"segment{n}", rows) for n, rows in enumerate(said["rows"])]
        forward = settings.kind == "pruned"
        segments = [Segment.load(*n, forward) if settings.bits == 8 else PlainSegment.load(*n) for n in named]
        dead = np.zeros(0, np.uint8)
        if said["deleted"]:
            dead = np.zeros(sum(said["rows"]), np.uint8)
            dead[read_array(folder / "deleted.npy")] = 1
        return cls(segments, dead, int(said["vocab_size"]), settings, folder, threads)


def _segment(vectors: Sparse, known: np.ndarray | None, settings: InvertedSettings, threads: int) -> Any:
    seen = np.full(vectors.vocab_size, -1, np.int64)
    wrong = builders().faulty(vectors.start, vectors.terms, vectors.weights, vectors.vocab_size, HEAVIEST, seen)
    if wrong >= 0:
        raise _refusal(vectors, wrong, "item")
    if settings.bits == 8:
        return Segment.of(vectors, known, threads, settings.kind == "pruned")
    return PlainSegment.of(vectors, known, settings.bits)


def _refusal(vectors: Sparse, entry: int, what: str) -> FlatcoatError:
    row = int(np.searchsorted(vectors.start, entry, side="right")) - 1
    term, weight = int(vectors.terms[entry]), float(vectors.weights[entry])
    if not 0 <= term < vectors.vocab_size:
        return FlatcoatError(f"{what} {row} names term {term} of a vocabulary of {vectors.vocab_size}")
    if 0 < weight <= HEAVIEST:
        return FlatcoatError(f"{what} {row} names term {term} twice; each term once is right")
    return FlatcoatError(
        f"{what} {row} gives term {term} the weight {weight}; above 0 and at most {HEAVIEST:g} is right"
    )


def _plain_queries(queries: Sparse, kept: int, share: float) -> _Asked:
    start = [0]
    terms: list[np.ndarray] = []
    weights: list[np.ndarray] = []
    for row in range(len(queries)):
        entries = slice(int(queries.start[row]), int(queries.start[row + 1]))
        some, given = queries.terms[entries], queries.weights[entries]
        wrong = np.flatnonzero(~((given > 0) & (given <= HEAVIEST) & (some >= 0) & (some < queries.vocab_size)))
        if len(wrong):
            raise _refusal(queries, entries.start + int(wrong[0]), "query")
        best = np.argsort(-given, kind="stable")[:kept]
        best = best[given[best] >= share * given.max(initial=0)]
        best = best[np.argsort(some[best], kind="stable")]
        terms.append(some[best])
        weights.append(given[best])
        start.append(start[-1] + len(best))
    return _Asked(
        np.array(start, np.int64), np.concatenate([np.zeros(0, np.int32), *terms]),
        np.concatenate([np.zeros(0, np.float32), *weights]).astype(np.float64), np.ones(len(queries)), np.array(start[1:], np.int64),
    )  # fmt: skip


def _without(vectors: Sparse, dead: np.ndarray) -> Sparse:
    counts = np.diff(vectors.start)
    entries = np.repeat(dead == 0, counts)
    start = np.concatenate([np.zeros(1, np.int64), np.cumsum(np.where(dead, 0, counts))])
    return Sparse(start, vectors.terms[entries], vectors.weights[entries], vectors.vocab_size)


def search_slowly_sparse(documents: Sparse, queries: Sparse, k: int) -> TopK:
    """All dot products, summed in doubles over rising terms, as float32; sorted, ties by rising row. The definition."""
    rows = np.repeat(np.arange(len(documents)), np.diff(documents.start))
    order = np.lexsort((documents.terms, rows))
    rows, terms, weights = rows[order], documents.terms[order], documents.weights[order].astype(np.float64)
    best_rows = np.full((len(queries), k), -1, np.int64)
    best_scores = np.full((len(queries), k), -np.inf, np.float32)
    for i in range(len(queries)):
        asked = queries[i : i + 1]
        wanted = np.zeros(documents.vocab_size)
        np.add.at(wanted, asked.terms, asked.weights.astype(np.float64))
        scores = np.bincount(rows, wanted[terms] * weights, minlength=len(documents)).astype(np.float32)
        best = np.argsort(-scores, kind="stable")[:k]
        best = best[scores[best] > 0]
        best_rows[i, : len(best)], best_scores[i, : len(best)] = best, scores[best]
    return TopK(best_rows, best_scores)
