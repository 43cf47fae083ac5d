"""Negatives that a file gives: mined before, or by another tool. Drawn uniformly from each query's own list.

A query without a list draws from the whole corpus; how many do is `without`.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from flatcoat.errors import Misuse
from flatcoat.mining.base import Drawn, Encode


class Given:
    """Lists of negatives by query row, laid end to end."""

    def __init__(self, pairs: np.ndarray, queries: int, documents: int):
        """`pairs` is int64 [n, 2]: query row, document row. Raises Misuse where it is empty."""
        if not len(pairs):
            raise Misuse("no negatives are given; mine some (flatcoat mine) or choose another kind")
        order = np.argsort(pairs[:, 0], kind="stable")
        self.rows = np.ascontiguousarray(pairs[order, 1])
        self.start = np.searchsorted(pairs[order, 0], np.arange(queries + 1))
        self.documents = documents

    @property
    def without(self) -> int:
        """Queries that have no list."""
        return int((np.diff(self.start) == 0).sum())

    def draw(self, queries: np.ndarray, positives: np.ndarray, n: int, rng: np.random.Generator) -> Drawn:
        """N rows a query, with replacement only where its list is shorter than n."""
        rows = np.empty((len(queries), n), dtype=np.int64)
        log_q = np.empty(rows.shape, dtype=np.float32)
        for i, query in enumerate(queries.tolist()):
            own = self.rows[self.start[query] : self.start[query + 1]]
            if len(own):
                rows[i] = own[rng.choice(len(own), n, replace=len(own) < n)]
            else:
                rows[i] = rng.integers(0, self.documents, n)
            log_q[i] = -np.log(len(own) or self.documents)
        return Drawn(rows, log_q)

    def after_step(self, step: int, encode: Encode) -> None:
        """Nothing: given negatives do not follow the model."""

    def state(self) -> Mapping[str, np.ndarray]:
        """Nothing to keep: the file is the state."""
        return {}

    def restore(self, state: Mapping[str, np.ndarray]) -> None:
        """Nothing to take over."""
