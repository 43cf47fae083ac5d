"""Exact inner-product search, blocked; `search_slowly` is its plain twin and the oracle of every approximation."""

from __future__ import annotations

import numpy as np

from flatcoat.index.base import TopK, check_dim, check_k
from flatcoat.representations import Dense

BLOCK = 65536


def search_slowly(vectors: np.ndarray, queries: np.ndarray, k: int) -> TopK:
    """All scores, sorted; equal scores by rising row. The definition."""
    scores = queries @ vectors.T
    rows = np.argsort(-scores, axis=1, kind="stable")[:, :k]
    return TopK(rows.astype(np.int64), np.take_along_axis(scores, rows, 1).astype(np.float32))


class ExactIndex:
    """Every query against every vector, through faiss's blocked kernel over the memory-mapped array."""

    def __init__(self, vectors: np.ndarray, where: object = "memory"):
        self.vectors, self.where = vectors, where

    def __len__(self) -> int:
        return len(self.vectors)

    def search(self, queries: Dense, k: int) -> TopK:
        """The k best rows of each query."""
        check_k(k, len(self), self.where)
        check_dim(queries.vectors.shape[1], self.vectors.shape[1], self.where)
        best = None
        wanted = np.ascontiguousarray(queries.vectors, dtype=np.float32)
        for start in range(0, len(self), BLOCK):
            block = np.ascontiguousarray(self.vectors[start : start + BLOCK])
            best = merge(best, _block(wanted, block, min(k, len(block)), start), k)
        assert best is not None
        return best


def _block(queries: np.ndarray, vectors: np.ndarray, k: int, start: int) -> TopK:
    import faiss

    scores, rows = faiss.knn(queries, vectors, k, metric=faiss.METRIC_INNER_PRODUCT)
    return TopK(rows.astype(np.int64) + start, scores)


def merge(left: TopK | None, right: TopK, k: int) -> TopK:
    """The k best of two answers; equal scores by rising row."""
    if left is None and right.rows.shape[1] <= k:
        return right
    rows = right.rows if left is None else np.concatenate([left.rows, right.rows], axis=1)
    scores = right.scores if left is None else np.concatenate([left.scores, right.scores], axis=1)
    order = np.lexsort((rows, -scores), axis=1)[:, :k]
    return TopK(np.take_along_axis(rows, order, 1), np.take_along_axis(scores, order, 1))
