"""Exact inner-product search, s(q, d) = Σ_i q_i d_i: matrix products over blocks of rows, and a heap a query.

`search_slowly` is its plain twin and the oracle of every approximation.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import cache
from threading import Lock
from typing import Any, cast

import numpy as np

from flatcoat.index.base import TopK, asked
from flatcoat.representations import Dense

MANY = 16  # queries from which on our own product is the quicker
ROWS, TOGETHER = 16_384, 256  # rows and queries of one product: its scores stay in the last cache


def search_slowly(vectors: np.ndarray, queries: np.ndarray, k: int) -> TopK:
    """All scores, sorted; equal scores by rising row. The definition."""
    scores = queries @ vectors.T
    rows = np.argsort(-scores, axis=1, kind="stable")[:, :k]
    return TopK(rows.astype(np.int64), np.take_along_axis(scores, rows, 1).astype(np.float32))


class ExactIndex:
    """Every query against every vector of the memory-mapped array; equal scores by rising row, whatever k."""

    def __init__(self, vectors: np.ndarray, where: object = "memory"):
        self.vectors, self.where = vectors, where

    def __len__(self) -> int:
        return len(self.vectors)

    def search(self, queries: Dense, k: int) -> TopK:
        """The k best rows of each query."""
        wanted = asked(queries, k, self.vectors.shape, self.where)
        parts = [self._best(wanted[start : start + TOGETHER], k) for start in range(0, len(wanted), TOGETHER)]
        if not parts:
            return TopK(np.zeros((0, k), np.int64), np.zeros((0, k), np.float32))
        return TopK(np.concatenate([part.rows for part in parts]), np.concatenate([part.scores for part in parts]))

    def _best(self, queries: np.ndarray, k: int) -> TopK:
        return self._tiled(queries, k) if len(queries) >= MANY and self._flat() else self._blocked(queries, k)

    def _flat(self) -> bool:
        return self.vectors.dtype == np.float32 and bool(self.vectors.flags.c_contiguous) and len(self) > 0

    def _tiled(self, queries: np.ndarray, k: int) -> TopK:
        """Many queries as lanes of our own product, a stretch of the vectors a thread."""
        from flatcoat.index.exact_kernels import scan
        from flatcoat.simd import BLOCK

        count, dim = queries.shape
        blocks = np.zeros((-(-count // BLOCK), BLOCK, dim), np.float32)
        blocks.reshape(-1, dim)[:count] = queries
        lanes = np.ascontiguousarray(blocks.transpose(0, 2, 1))

        def part(first: int, last: int) -> TopK:
            rows, scores = np.full((count, k), -1, np.int64), np.full((count, k), -np.inf, np.float32)
            scan(self.vectors, first, last, lanes, count, rows, scores)
            return TopK(rows, scores)

        with _threads(len(self) // ROWS + 1) as (threads, pool):
            ends = [len(self) * i // threads for i in range(threads + 1)]
            return _joined(pool.map(part, ends[:-1], ends[1:]), k)

    def _blocked(self, queries: np.ndarray, k: int) -> TopK:
        """Blocks shared out to threads, each with a product of its own: a library's idle threads would spin, and slow what comes next."""
        starts = range(0, len(self), ROWS)
        with _threads(len(starts)) as (threads, pool):

            def part(own: int) -> TopK:
                return self._of(queries, k, starts[own::threads])

            return _joined(pool.map(part, range(threads)), k)

    def _of(self, queries: np.ndarray, k: int, starts: Sequence[int]) -> TopK:
        """The best of some blocks (rising)."""
        from flatcoat.index.exact_kernels import keep

        rows, scores = np.full((len(queries), k), -1, np.int64), np.full((len(queries), k), -np.inf, np.float32)
        for start in starts:
            block = np.ascontiguousarray(self.vectors[start : start + ROWS], dtype=np.float32)
            keep(queries @ block.T, start, rows, scores)
        return merge(None, TopK(rows, scores), k, ordered=False)


@contextmanager
def _threads(most: int) -> Generator[tuple[int, ThreadPoolExecutor], None, None]:
    """At most `most` threads to share work out to, each alone within a numeric library.

    A search has all threads: two at once would also give the library back the other's setting.
    """
    blas, alone = _blas()
    with alone:
        count = max(1, min(most, max((lib["num_threads"] for lib in blas.info()), default=1)))
        with blas.limit(limits=1), ThreadPoolExecutor(count) as pool:
            yield count, pool


def _joined(parts: Iterable[TopK], k: int) -> TopK:
    """The k best of what threads found."""
    found = list(parts)
    rows, scores = (np.concatenate([one[i] for one in found], axis=1) for i in (0, 1))
    return merge(None, TopK(rows, scores), k, ordered=False)


@cache
def _blas() -> tuple[Any, Lock]:
    """The numeric libraries that are loaded, to be told how many threads they have, and who may tell them."""
    from threadpoolctl import ThreadpoolController

    np.matmul(np.ones((2, 2), np.float32), np.ones((2, 2), np.float32))
    return cast(Any, ThreadpoolController()).select(user_api="blas"), Lock()


def merge(left: TopK | None, right: TopK, k: int, *, ordered: bool = True) -> TopK:
    """The k best of two answers; equal scores by rising row. `ordered`: each is in order already."""
    if left is None and ordered and right.rows.shape[1] <= k:
        return right
    rows = right.rows if left is None else np.concatenate([left.rows, right.rows], axis=1)
    scores = right.scores if left is None else np.concatenate([left.scores, right.scores], axis=1)
    order = np.lexsort((rows, -scores), axis=1)[:, :k]
    return TopK(np.take_along_axis(rows, order, 1), np.take_along_axis(scores, order, 1))
