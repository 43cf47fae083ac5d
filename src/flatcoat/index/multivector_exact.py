"""Late interaction, exactly: s(q, d) = Σ_i max_j ⟨q_i, d_j⟩ (ColBERT, Khattab & Zaharia 2020, arXiv 2004.12832).

`maxsim_slowly` is the definition and the oracle of every approximation. A document of no vectors is never a match, and a
query of none has no matches.
"""

from __future__ import annotations

import os
from typing import Any

import numpy as np
from jaxtyping import Float32

from flatcoat.index.base import TopK, check_dim, check_k
from flatcoat.index.exact import merge
from flatcoat.index.sparse_segment import in_threads
from flatcoat.representations import MultiVector

BLOCK = 4096  # documents scored at once
TOGETHER = 16  # queries scored in one pass over the documents


def maxsim_slowly(queries: MultiVector, documents: MultiVector, k: int) -> TopK:
    """All scores, one by one, summed in doubles; sorted, equal scores by rising row. The definition."""
    scores = np.full((len(queries), len(documents)), -np.inf)
    for q in range(len(queries)):
        for d in range(len(documents)):
            asked, tokens = queries.item(q).astype(np.float32), documents.item(d).astype(np.float32)
            if len(asked) and len(tokens):
                scores[q, d] = (asked @ tokens.T).max(axis=1).sum(dtype=np.float64)
    return best_rows(scores.astype(np.float32), np.arange(len(documents)), k)


def best_rows(scores: np.ndarray, rows: np.ndarray, k: int) -> TopK:
    """The k best of `rows` (rising) by scores [query, row], equal scores by rising row; -1 where the score is -inf."""
    order = np.argsort(-scores, axis=1, kind="stable")[:, :k]
    top = np.take_along_axis(scores, order, 1).astype(np.float32)
    found = np.where(np.isneginf(top), -1, rows[order]).astype(np.int64) if len(rows) else order.astype(np.int64)
    if found.shape[1] == k:
        return TopK(found, top)
    full = np.full((len(scores), k), -1, np.int64), np.full((len(scores), k), -np.inf, np.float32)
    full[0][:, : found.shape[1]], full[1][:, : found.shape[1]] = found, top
    return TopK(*full)


def kernels() -> Any:
    """The compiled loops."""
    from flatcoat.index import multivector_kernels

    return multivector_kernels


def lanes_of(queries: MultiVector) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Queries as the kernels take them: floats [chunk, dim, LANES], each query's first lane, and its count of them."""
    from flatcoat.index.multivector_simd import LANES

    counts = np.diff(queries.start)
    chunks = -(-counts // LANES)
    firsts = (np.cumsum(chunks) - chunks) * LANES
    padded = np.zeros((max(1, int(chunks.sum())) * LANES, queries.dim), np.float32)
    places = np.repeat(firsts - queries.start[:-1], counts) + np.arange(len(queries.vectors))
    padded[places] = queries.vectors
    return np.ascontiguousarray(padded.reshape(-1, LANES, queries.dim).transpose(0, 2, 1)), firsts, counts


def exact_scores(
    documents: MultiVector, rows: np.ndarray, weights: np.ndarray, firsts: np.ndarray, counts: np.ndarray
) -> Float32[np.ndarray, "query row"]:
    """MaxSim of queries (as `lanes_of` gives them) and some documents, float32 [query, row]; -inf where there is none.

    A score does not depend on what else is scored, nor on the threads.
    """
    out = np.empty((len(firsts), len(rows)), np.float32)
    start, vectors = documents.start, documents.vectors
    if vectors.dtype == np.float16:
        kernels().maxsim_halves(rows, start, vectors.view(np.uint16), weights, firsts, counts, out)
    else:
        kernels().maxsim_floats(rows, start, vectors, weights, firsts, counts, out)
    return out


class MaxSimExact:
    """Every query against every document, over memory-mapped float16 or float32 vectors; memory is bounded by blocks."""

    exact_scores = True

    def __init__(self, vectors: MultiVector, where: object = "memory", threads: int | None = None):
        self.vectors = MultiVector(np.asarray(vectors.start), np.ascontiguousarray(vectors.vectors))
        self.where, self.threads = where, threads or os.cpu_count() or 1

    def __len__(self) -> int:
        return len(self.vectors)

    def search(self, queries: MultiVector, k: int) -> TopK:
        """The k best rows of each query."""
        check_k(k, len(self), self.where)
        check_dim(queries.dim, self.vectors.dim, self.where)
        found = [self._together(queries[i : i + TOGETHER], k) for i in range(0, len(queries), TOGETHER)]
        empty = TopK(np.zeros((0, k), np.int64), np.zeros((0, k), np.float32))
        return TopK(*(np.concatenate(parts) for parts in zip(empty, *found, strict=True)))

    def _together(self, queries: MultiVector, k: int) -> TopK:
        asked, blocks = lanes_of(queries), range(0, len(self), BLOCK)
        parts: list[TopK | None] = [None] * len(blocks)

        def score(number: int) -> None:
            rows = np.arange(blocks[number], min(blocks[number] + BLOCK, len(self)), dtype=np.int32)
            parts[number] = best_rows(exact_scores(self.vectors, rows, *asked), rows, min(k, len(rows)))

        in_threads(score, len(blocks), self.threads)
        best = None
        for part in parts:
            assert part is not None
            best = merge(best, part, k)
        assert best is not None
        return best
