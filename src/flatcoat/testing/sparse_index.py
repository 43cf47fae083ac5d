"""The contract of every `Index` over sparse vectors: subclass, and give `build`."""

from __future__ import annotations

from typing import Any

import numpy as np

from flatcoat.index.inverted import search_slowly_sparse
from flatcoat.representations import Sparse
from flatcoat.testing.refused import falling, refused

VOCABULARY = 400


def zipfian(rows: int, terms: int, seed: int = 0, vocab_size: int = VOCABULARY) -> Sparse:
    """Random sparse vectors of about `terms` entries a row, few terms common and most rare, as encoders make them."""
    rng = np.random.default_rng(seed)
    chance = 1 / np.arange(1, vocab_size + 1)
    chance = np.minimum(0.9, chance * terms / chance.sum())
    present = rng.random((rows, vocab_size)) < chance
    return Sparse.of(np.where(present, rng.gamma(2.0, 0.5, present.shape) + 0.01, 0).astype(np.float32))


class SparseIndexContract:
    """What holds for every index; `least_recall` is what it promises at 10, `close` how near its scores come."""

    least_recall = 1.0
    close = 1e-5

    def build(self, vectors: Sparse) -> Any:
        """The index under test over `vectors`."""
        raise NotImplementedError

    def test_it_finds_what_the_slow_twin_finds(self) -> None:
        """Recall at 10 is what the index promises, and each score is near the true one of its row."""
        vectors, queries = zipfian(500, 20), zipfian(30, 8, seed=1)
        found, truth = self.build(vectors).search(queries, 10), search_slowly_sparse(vectors, queries, 10)
        recall = np.mean([len(set(a) & set(b)) / 10 for a, b in zip(found.rows, truth.rows, strict=True)])
        assert recall >= self.least_recall, recall
        true = queries.array() @ vectors.array().T
        exact = np.take_along_axis(true, np.maximum(found.rows, 0), 1)
        some = found.rows >= 0
        np.testing.assert_allclose(found.scores[some], exact[some], rtol=self.close, atol=self.close)

    def test_scores_fall_and_rows_differ(self) -> None:
        """A ranking is sorted, equal scores by rising row, and names no row twice."""
        vectors = zipfian(100, 10)
        found = self.build(Sparse.joined([vectors, vectors], VOCABULARY)).search(zipfian(8, 6, seed=2), 60)
        for rows, scores in zip(found.rows, found.scores, strict=True):
            kept = rows >= 0
            falling(rows[kept], scores[kept])

    def test_rows_without_a_common_term_are_no_matches(self) -> None:
        """Past the last match there is -1 and -inf; an empty query matches nothing, an empty item is never found."""
        vectors = Sparse.of(np.array([[1, 0, 0], [0, 0, 0], [0, 2, 0], [3, 1, 0]], np.float32))
        found = self.build(vectors).search(Sparse.of(np.array([[1, 0, 0], [0, 0, 5], [0, 0, 0]], np.float32)), 4)
        assert found.rows.tolist() == [[3, 0, -1, -1], [-1] * 4, [-1] * 4]
        np.testing.assert_allclose(found.scores[0], [3, 1, -np.inf, -np.inf], rtol=self.close)
        assert np.isneginf(found.scores[1:]).all()

    def test_one_item_and_no_queries(self) -> None:
        """The smallest index answers, and no questions get no answers."""
        index = self.build(Sparse.of(np.array([[0, 1.5]], np.float32)))
        assert index.search(Sparse.of(np.array([[1, 1]], np.float32)), 1).rows.tolist() == [[0]]
        assert index.search(Sparse.of(np.zeros((0, 2), np.float32)), 1).rows.shape == (0, 1)

    def test_k_is_checked(self) -> None:
        """K of nothing, or of more than there is, is refused."""
        index = self.build(zipfian(50, 10))
        for k in (0, 51):
            refused(lambda k=k: index.search(zipfian(1, 5), k), "k=")

    def test_vocabulary_is_checked(self) -> None:
        """Queries over another model's vocabulary are refused."""
        refused(lambda: self.build(zipfian(50, 10)).search(zipfian(1, 5, vocab_size=99), 1), "99 terms")
