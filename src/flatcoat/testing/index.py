"""The contract of every `Index` over dense vectors: subclass, and give `build`."""

from __future__ import annotations

from typing import Any

import numpy as np

from flatcoat.index.exact import search_slowly
from flatcoat.representations import Dense
from flatcoat.testing.refused import refused


def unit(rows: int, dim: int, seed: int = 0) -> np.ndarray:
    """Random unit vectors [rows, dim]."""
    vectors = np.random.default_rng(seed).standard_normal((rows, dim)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


class IndexContract:
    """What holds for every index; `least_recall` is what it promises at 10 on random vectors."""

    least_recall = 1.0

    def build(self, vectors: np.ndarray) -> Any:
        """The index under test over `vectors`."""
        raise NotImplementedError

    def test_it_finds_what_the_slow_twin_finds(self) -> None:
        """Recall at 10 is what the index promises, and each score is the exact one of its row."""
        vectors, queries = unit(500, 32), unit(20, 32, seed=1)
        found, truth = self.build(vectors).search(Dense(queries), 10), search_slowly(vectors, queries, 10)
        recall = np.mean([len(set(a) & set(b)) / 10 for a, b in zip(found.rows, truth.rows, strict=True)])
        assert recall >= self.least_recall
        exact = np.einsum("qkd,qd->qk", vectors[np.maximum(found.rows, 0)], queries)
        np.testing.assert_allclose(found.scores[found.rows >= 0], exact[found.rows >= 0], atol=1e-5)

    def test_scores_fall_and_rows_differ(self) -> None:
        """A ranking is sorted and names no row twice."""
        found = self.build(unit(200, 16)).search(Dense(unit(5, 16, seed=2)), 20)
        with np.errstate(invalid="ignore"):
            assert not (np.diff(found.scores, axis=1) > 1e-6).any()
        for rows in found.rows:
            kept = rows[rows >= 0]
            assert len(set(kept)) == len(kept)

    def test_one_vector(self) -> None:
        """The smallest index answers."""
        found = self.build(unit(1, 16)).search(Dense(unit(3, 16, seed=3)), 1)
        assert found.rows.tolist() == [[0], [0], [0]]

    def test_no_queries(self) -> None:
        """No questions, no answers."""
        found = self.build(unit(50, 16)).search(Dense(np.zeros((0, 16), np.float32)), 5)
        assert found.rows.shape == (0, 5)

    def test_k_is_checked(self) -> None:
        """K of nothing, or of more than there is, is refused."""
        index = self.build(unit(50, 16))
        for k in (0, 51):
            refused(lambda k=k: index.search(Dense(unit(1, 16)), k), "k=")

    def test_width_is_checked(self) -> None:
        """Queries of another model's width are refused."""
        refused(lambda: self.build(unit(50, 16)).search(Dense(unit(1, 8)), 1), "dimensions")
