"""Late interaction by centroids and residual codes, in four stages, each over fewer documents and nearer to the truth.

    s(q, d) = Σ_i max_j ⟨q_i, d_j⟩      (ColBERT, Khattab & Zaharia 2020, arXiv 2004.12832)

| stage | documents | a token's score |
|---|---|---|
| probe | those of each query vector's `nprobe` best centroids | its centroid's; what was not probed counts as the last |
| cells | the best `POOL` × `candidates` by that, or all | its centroid's, as a byte, every centroid of the document |
| codes | the best `candidates` | its centroid's and its residual's, by `bits` a dimension |
| full  | the best `rescore` | its vector's: exact, or as signed bytes where `kept` is "int8" |

Centroid interaction is PLAID's (Santhanam et al. 2022, arXiv 2205.09707), the residual codes ColBERTv2's (arXiv 2112.01488),
imputing what was not probed WARP's (Scheerer et al. 2025, arXiv 2501.17788). `MaxSimExact` is the exact twin: with every
centroid probed, every document a candidate and every candidate re-scored, the answers are the same to the bit.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np

from flatcoat.arrays import read_array
from flatcoat.errors import FlatcoatError, Misuse
from flatcoat.index import gone
from flatcoat.index.base import TopK, check_dim, check_k
from flatcoat.index.multivector_build import MOST_CELLS, cells_for, decoded, fit
from flatcoat.index.multivector_exact import best_rows, exact_scores, kernels, lanes_of
from flatcoat.index.multivector_parts import Parts
from flatcoat.index.sparse_segment import in_threads
from flatcoat.representations import MultiVector

POOL = 8  # documents whose cells are looked at, a candidate


@dataclass(frozen=True)
class MultiVectorSettings:
    """How the index is built and searched.

    `bits` (1, 2, 4, 8) of a dimension's residual, `cells` (centroids; None: by size) and `kept` (what `rescore` reads: the
    vectors as given, or signed bytes) are of the build, the others of the search. `rescore` None: codes decide alone.
    """

    kind: Literal["multivector"] = "multivector"
    bits: Literal[1, 2, 4, 8] = 2
    cells: int | None = None
    nprobe: int = 32
    candidates: int = 512
    rescore: int | None = 100
    kept: Literal["full", "int8"] = "full"

    def checked(self) -> MultiVectorSettings:
        """Itself. Raises Misuse where a setting cannot be."""
        if self.kind != "multivector" or self.bits not in (1, 2, 4, 8) or self.kept not in ("full", "int8"):
            raise Misuse(
                f"kind={self.kind!r}, bits={self.bits}, kept={self.kept!r}: want multivector, 1, 2, 4 or 8, full or int8"
            )
        cells = 1 if self.cells is None else self.cells
        if min(self.nprobe, self.candidates, cells) < 1 or cells > MOST_CELLS:
            raise Misuse(
                f"nprobe={self.nprobe}, candidates={self.candidates}, cells={self.cells}: "
                "want at least 1 each, and at most 65536 cells"
            )
        if self.rescore is not None and self.rescore < 0:
            raise Misuse(f"rescore={self.rescore}: want at least 1, or none at all")
        return self


class MultiVectorIndex:
    """Codes of documents' vectors, and beside them the vectors; rows deleted stay numbered until `compacted`."""

    def __init__(
        self, parts: Parts, dead: np.ndarray, settings: MultiVectorSettings, full: MultiVector | None = None,
        where: object = "memory", threads: int | None = None,
    ):  # fmt: skip
        self.parts, self.dead, self.settings, self.full = parts, dead, settings.checked(), full
        self.where, self.threads = where, threads or os.cpu_count() or 1
        self._own = threading.local()
        if settings.rescore and settings.kept == "full" and full is None:
            raise Misuse(f"{where}: rescore={settings.rescore} reads the full vectors, which are not there")
        if settings.rescore and settings.kept == "int8" and parts.bytes is None:
            raise Misuse(f"{where}: rescore={settings.rescore} reads vectors as bytes, which were not kept")

    @classmethod
    def build(
        cls, vectors: MultiVector, settings: MultiVectorSettings = MultiVectorSettings(), *, threads: int | None = None
    ) -> MultiVectorIndex:
        """Build in memory; the same bits whatever `threads` (None: all cores). `vectors` may be memory-mapped.

        Raises:
            Misuse: no vectors, or more cells than vectors.
            FlatcoatError: a value that is not finite.
        """
        settings, tokens, workers = settings.checked(), len(vectors.vectors), threads or os.cpu_count() or 1
        if not tokens:
            raise Misuse("an index needs at least one vector")
        cells = settings.cells or cells_for(tokens)
        if cells > tokens:
            raise Misuse(f"cells={cells} for {tokens} vectors; use 1 to {tokens}")
        codec = fit(vectors, cells, settings.bits, workers)
        parts = Parts.of(vectors, codec, settings.kept == "int8", workers)
        return cls(parts, np.zeros(0, np.uint8), settings, _kept(vectors, settings), threads=threads)

    @property
    def exact_scores(self) -> bool:
        """Whether scores are those of the vectors as they were given."""
        return bool(self.settings.rescore) and self.settings.kept == "full"

    @property
    def dim(self) -> int:
        """The width of every vector."""
        return int(self.parts.codec.centroids.shape[1])

    def __len__(self) -> int:
        return len(self.parts.start) - 1

    def search(self, queries: MultiVector, k: int) -> TopK:
        """About the k best rows of each query; documents of no vectors are no matches, nor has a query of none any.

        Raises FlatcoatError where a query's value is not finite, and Misuse where a query has more vectors than kernels take.
        """
        check_k(k, len(self), self.where)
        check_dim(queries.dim, self.dim, self.where)
        longest = int(np.diff(queries.start).max(initial=0))
        if longest > kernels().MOST_LANES:
            raise Misuse(f"a query of {longest} vectors; at most {kernels().MOST_LANES} are searched for at once")
        if not np.isfinite(queries.vectors).all():
            raise FlatcoatError("a query has a value that is not finite; check the model that made it")
        rows, scores = np.full((len(queries), k), -1, np.int64), np.full((len(queries), k), -np.inf, np.float32)

        def one(i: int) -> None:
            if queries.start[i + 1] > queries.start[i]:
                found = self._one(queries[i : i + 1], k)
                rows[i], scores[i] = found.rows[0], found.scores[0]

        in_threads(one, len(queries), min(self.threads, len(queries)))
        return TopK(rows, scores)

    def _one(self, query: MultiVector, k: int) -> TopK:
        loops, parts, settings = kernels(), self.parts, self.settings
        asked = lanes_of(query)
        lanes = int(asked[2][0])
        width = max(k, settings.rescore or 0)
        many = max(width, settings.candidates)
        scores, table = self._tables(asked[0], lanes)
        rows = self._pool(table, lanes, many)
        if len(rows) > many:
            totals = np.empty(len(rows), np.int64)
            loops.scan_cells(rows, parts.start, parts.coded.cells, table, totals)
            rows = loops.best_of(totals, rows, many)
        if settings.rescore and len(rows) <= width:
            return self._again(query, asked, rows, k)
        values = np.empty(len(rows), np.float32)
        weights, begin, scale = packed(query.vectors, parts.codec.spread, parts.codec.padded)
        given = rows, parts.start, parts.coded.cells, parts.coded.codes, parts.coded.gains, parts.levels
        loops.score_codes(*given, lanes, weights, begin, scale, scores, values)
        if not settings.rescore:
            return best_rows(values[None], rows, k)
        best = np.sort(np.argsort(-values, kind="stable")[:width])
        return self._again(query, asked, rows[best], k)

    def _tables(self, weights: np.ndarray, lanes: int) -> tuple[np.ndarray, np.ndarray]:
        """Centroids' scores float32 [cell, lane], and as bytes from their mean to the greatest there is."""
        loops, cells = kernels(), len(self.parts.codec.centroids)
        size = len(weights) * weights.shape[2]
        held = getattr(self._own, "tables", None)
        if held is None or held[0].shape[1] != size:  # kept for the next query of this thread: new memory is slow
            held = np.empty((cells, size), np.float32), np.empty((cells, size), np.uint8)
            self._own.tables = held
        scores, table = held
        loops.multiply(weights, self.parts.codec.centroids, scores)
        mean, most = np.empty(size, np.float32), np.empty(size, np.float32)
        loops.extent(scores, mean, most)
        reach = float((most - mean).max())
        loops.to_bytes(scores, lanes, mean, np.float32(255 / reach if reach > 0 else 0.0), table)
        return scores, table

    def _pool(self, table: np.ndarray, lanes: int, many: int) -> np.ndarray:
        """Rows whose cells are looked at, rising."""
        loops, parts = kernels(), self.parts
        if self.settings.nprobe < len(table) and POOL * many < len(self):
            keys = np.zeros((lanes, self.settings.nprobe + 1), np.uint64)
            loops.highest(table, keys)
            totals = np.empty(len(self), np.uint32)
            loops.probe(keys, parts.offsets, parts.postings, totals)
            rows, sums = loops.touched(totals, self.dead)
            if len(rows) >= many:
                return loops.best_of(sums, rows, POOL * many)
        alive = np.diff(parts.start) > 0
        if len(self.dead):
            alive &= self.dead == 0
        return np.flatnonzero(alive).astype(np.int32)

    def _again(self, query: MultiVector, asked: tuple[np.ndarray, ...], rows: np.ndarray, k: int) -> TopK:
        """The k best of some rows by the vectors that are kept."""
        if self.settings.kept == "full":
            assert self.full is not None
            return best_rows(exact_scores(self.full, rows, *asked), rows, k)
        parts, values = self.parts, np.empty(len(rows), np.float32)
        assert parts.bytes is not None
        ones = np.ones(self.dim, np.float32)
        packs = packed(query.vectors, ones, parts.bytes[0].shape[1])
        kernels().score_bytes(rows, parts.start, *parts.bytes, int(asked[2][0]), *packs, values)
        return best_rows(values[None], rows, k)

    def decoded(self) -> MultiVector:
        """The vectors as the codes have them: what `rescore` None answers with, but for the query's rounding to bytes."""
        return MultiVector(self.parts.start, decoded(self.parts.coded, self.parts.codec))

    def add(self, vectors: MultiVector) -> MultiVectorIndex:
        """This index with more rows at its end; centroids and codes stay as they were fitted.

        Raises Misuse where they have another width.
        """
        if vectors.dim != self.dim:
            raise Misuse(f"vectors of {vectors.dim} dimensions added to an index of {self.dim}")
        if not len(vectors):
            return self
        parts = self.parts.joined(Parts.of(vectors, self.parts.codec, self.parts.bytes is not None, self.threads))
        dead = gone.lengthened(self.dead, len(vectors))
        full = None if self.full is None else MultiVector.joined([self.full, _as(vectors, self.full)], self.dim)
        return MultiVectorIndex(parts, dead, self.settings, full, threads=self.threads)

    def delete(self, rows: Sequence[int] | np.ndarray) -> MultiVectorIndex:
        """This index without these rows; the others keep their numbers. Raises Misuse where there is no such row."""
        dead = gone.without(self.dead, rows, len(self), self.where)
        return MultiVectorIndex(self.parts, dead, self.settings, self.full, self.where, self.threads)

    def compacted(self) -> tuple[MultiVectorIndex, np.ndarray]:
        """The same without the deleted rows, and the old number of each row left. Raises Misuse where none is left."""
        kept = gone.left(self.dead, len(self), self.where)
        tokens = np.repeat(kept, np.diff(self.parts.start))
        parts = self.parts.only(kept, tokens)
        full = None if self.full is None else MultiVector(parts.start, self.full.vectors[tokens])
        made = MultiVectorIndex(parts, np.zeros(0, np.uint8), self.settings, full, threads=self.threads)
        return made, np.flatnonzero(kept)

    def knob(self) -> tuple[str, list[int]]:
        """The setting that trades cost for quality, and values for it, cheapest first."""
        return "candidates", [64, 128, 256, 512, 1024, 2048, 4096, 8192]

    def with_knob(self, value: int) -> MultiVectorIndex:
        """The same index with another number of candidates."""
        return self.under(replace(self.settings, candidates=value))

    def under(self, settings: MultiVectorSettings) -> MultiVectorIndex:
        """The same index under other settings of the search. Raises Misuse where one is of the build."""
        for name in ("bits", "cells", "kept"):
            if getattr(settings, name) != getattr(self.settings, name):
                raise Misuse(f"{self.where} was built with {name}={getattr(self.settings, name)}; build it again")
        return MultiVectorIndex(self.parts, self.dead, settings, self.full, self.where, self.threads)

    def save(self, folder: Path, *, vectors: bool = True) -> None:
        """Write into a folder that exists; `vectors` false leaves the full vectors, which are then kept elsewhere."""
        self.parts.save(folder)
        if len(self.dead):
            np.save(folder / "deleted.npy", np.flatnonzero(self.dead))
        if vectors and self.full is not None:
            np.save(folder / "vectors.npy", self.full.vectors)

    @classmethod
    def load(
        cls,
        folder: Path,
        settings: MultiVectorSettings,
        vectors: MultiVector | None = None,
        *,
        threads: int | None = None,
    ) -> MultiVectorIndex:
        """Open memory-mapped, over full `vectors` where they are kept elsewhere.

        Raises:
            FlatcoatError: files are absent or do not fit.
            Misuse: `bits` of another build, or re-scoring without what it reads.
        """
        parts = Parts.load(folder)
        if parts.codec.bits != settings.bits:
            raise Misuse(f"{folder} was built with bits={parts.codec.bits}, not {settings.bits}; build it again")
        if vectors is None and settings.kept == "full" and (folder / "vectors.npy").is_file():
            vectors = MultiVector(parts.start, read_array(folder / "vectors.npy"))
        if vectors is not None and (vectors.vectors.shape != (parts.start[-1], parts.codec.centroids.shape[1])):
            raise FlatcoatError(f"{folder}: full vectors {vectors.vectors.shape} do not fit its codes; build it again")
        dead = np.zeros(0, np.uint8)
        if (folder / "deleted.npy").is_file():
            dead = np.zeros(len(parts.start) - 1, np.uint8)
            dead[read_array(folder / "deleted.npy")] = 1
        return cls(parts, dead, settings, vectors, folder, threads)


def packed(vectors: np.ndarray, factors: np.ndarray, padded: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Query vectors × factors [dim] as bytes: int8 [chunk, padded / 4, LANES, 4], what offsets them, and their steps."""
    lanes = kernels().LANES
    chunks = -(-len(vectors) // lanes)
    made = np.empty((chunks, padded // 4, lanes, 4), np.int8), np.empty(chunks * lanes, np.int32)
    scale = np.empty(chunks * lanes, np.float32)
    kernels().pack(np.ascontiguousarray(vectors, dtype=np.float32), factors, *made, scale)
    return *made, scale


def _kept(vectors: MultiVector, settings: MultiVectorSettings) -> MultiVector | None:
    return vectors if settings.rescore and settings.kept == "full" else None


def _as(vectors: MultiVector, like: MultiVector) -> MultiVector:
    return MultiVector(vectors.start, vectors.vectors.astype(like.vectors.dtype, copy=False))
