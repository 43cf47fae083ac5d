"""Negatives drawn uniformly from the corpus: q(d) = 1/N."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from flatcoat.mining.base import Drawn, Encode


class Uniform:
    """Every document alike."""

    def __init__(self, documents: int):
        self.documents = documents

    def draw(self, queries: np.ndarray, positives: np.ndarray, n: int, rng: np.random.Generator) -> Drawn:
        """N rows a query, with replacement."""
        rows = rng.integers(0, self.documents, (len(queries), n), dtype=np.int64)
        return Drawn(rows, np.full(rows.shape, -np.log(self.documents), dtype=np.float32))

    def after_step(self, step: int, encode: Encode) -> None:
        """Nothing: a uniform draw does not depend on the model."""

    def state(self) -> Mapping[str, np.ndarray]:
        """Nothing to keep."""
        return {}

    def restore(self, state: Mapping[str, np.ndarray]) -> None:
        """Nothing to take over."""
