"""The contract of every `Index` over several vectors an item: subclass, and give `build`."""

from __future__ import annotations

from typing import Any

import numpy as np

from flatcoat.index.multivector_exact import maxsim_slowly
from flatcoat.representations import MultiVector
from flatcoat.testing.refused import falling, refused

DIM = 16


def tokens(items: int, least: int, most: int, dim: int = DIM, seed: int = 0) -> MultiVector:
    """Random items of `least` to `most` unit vectors, drawn about a few common directions, as encoders make them."""
    rng = np.random.default_rng(seed)
    themes = np.random.default_rng(12345).standard_normal((40, dim))
    sizes = rng.integers(least, most + 1, items)
    vectors = themes[rng.integers(0, len(themes), sizes.sum())] + 0.7 * rng.standard_normal((sizes.sum(), dim))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    start = np.concatenate([np.zeros(1, np.int64), np.cumsum(sizes, dtype=np.int64)])
    return MultiVector(start, vectors.astype(np.float32))


class MultiIndexContract:
    """What holds for every index; `least_recall` is what it promises at 10, `close` how near its scores come."""

    least_recall = 1.0
    close = 1e-5

    def build(self, vectors: MultiVector) -> Any:
        """The index under test over `vectors`."""
        raise NotImplementedError

    def test_it_finds_what_the_slow_twin_finds(self) -> None:
        """Recall at 10 is what the index promises, and each score is near the true one of its row."""
        vectors, queries = tokens(400, 1, 20), tokens(25, 1, 40, seed=1)
        found, truth = self.build(vectors).search(queries, 10), maxsim_slowly(queries, vectors, 10)
        recall = np.mean([len(set(a) & set(b)) / 10 for a, b in zip(found.rows, truth.rows, strict=True)])
        assert recall >= self.least_recall, recall
        every = maxsim_slowly(queries, vectors, len(vectors))
        for q in range(len(queries)):
            true = dict(zip(every.rows[q].tolist(), every.scores[q].tolist(), strict=True))
            wanted = [true[row] for row in found.rows[q].tolist()]
            np.testing.assert_allclose(found.scores[q], wanted, rtol=self.close, atol=self.close)

    def test_scores_fall_and_rows_differ(self) -> None:
        """A ranking is sorted, equal scores by rising row, and names no row twice."""
        vectors = tokens(60, 1, 8)
        found = self.build(MultiVector.joined([vectors, vectors], DIM)).search(tokens(8, 2, 6, seed=2), 60)
        for rows, scores in zip(found.rows, found.scores, strict=True):
            kept = rows >= 0
            assert kept.any()
            falling(rows[kept], scores[kept])

    def test_what_has_no_vectors_matches_nothing(self) -> None:
        """A document of none is never found, a query of none finds nothing; past the last match there is -1 and -inf."""
        some = tokens(3, 2, 4)
        none = MultiVector(np.zeros(2, np.int64), np.zeros((0, DIM), np.float32))
        index = self.build(MultiVector.joined([some[:1], none, some[1:]], DIM))
        found = index.search(MultiVector.joined([some[2:], none], DIM), 4)
        assert found.rows[0, 0] == 3 and sorted(found.rows[0].tolist()) == [-1, 0, 2, 3]
        assert found.rows[1].tolist() == [-1] * 4
        assert np.isneginf(found.scores[1]).all() and np.isneginf(found.scores[0, 3]) and found.rows[0, 3] == -1

    def test_one_item_and_no_queries(self) -> None:
        """The smallest index answers, and no questions get no answers."""
        index = self.build(tokens(1, 1, 1))
        assert index.search(tokens(2, 3, 3, seed=3), 1).rows.tolist() == [[0], [0]]
        assert index.search(tokens(0, 1, 1), 1).rows.shape == (0, 1)

    def test_float16_is_read_as_what_it_is(self) -> None:
        """Stored vectors need not be float32, and neither need queries."""
        vectors, queries = tokens(100, 1, 9), tokens(5, 1, 9, seed=4)
        halves = MultiVector(vectors.start, vectors.vectors.astype(np.float16))
        asked = MultiVector(queries.start, queries.vectors.astype(np.float16))
        found = self.build(halves).search(asked, 5)
        truth = maxsim_slowly(asked, halves, 5)
        np.testing.assert_allclose(found.scores[:, 0], truth.scores[:, 0], rtol=self.close, atol=4 * self.close)

    def test_k_is_checked(self) -> None:
        """K of nothing, or of more than there is, is refused."""
        index = self.build(tokens(50, 1, 3))
        for k in (0, 51):
            refused(lambda k=k: index.search(tokens(1, 2, 2), k), "k=")

    def test_width_is_checked(self) -> None:
        """Queries of another model's width are refused."""
        refused(lambda: self.build(tokens(50, 1, 3)).search(tokens(1, 2, 2, dim=8), 1), "dimensions")
