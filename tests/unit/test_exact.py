"""Exact search: blocks and heaps against sorting everything, ties included."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flatcoat.index import exact
from flatcoat.index.exact import ExactIndex, search_slowly
from flatcoat.index.exact_kernels import keep, keep_slowly
from flatcoat.representations import Dense


@settings(max_examples=80, deadline=None)
@given(st.integers(0, 2**16), st.integers(1, 3), st.integers(1, 300), st.integers(1, 40), st.integers(1, 3))
def test_heaps_hold_what_sorting_gives(seed, queries, items, k, distinct):
    """With few distinct scores, so that most are equal."""
    rng = np.random.default_rng(seed)
    rows, best = np.full((queries, k), -1, np.int64), np.full((queries, k), -np.inf, np.float32)
    slow_rows, slow_best = rows.copy(), best.copy()
    for start in range(0, items, 70):
        scores = rng.integers(0, distinct + 1, (queries, min(70, items - start))).astype(np.float32)
        keep(scores, start, rows, best)
        keep_slowly(scores, start, slow_rows, slow_best)
    np.testing.assert_array_equal(np.sort(rows, axis=1), np.sort(slow_rows, axis=1))
    np.testing.assert_array_equal(np.sort(best, axis=1), np.sort(slow_best, axis=1))


@pytest.mark.parametrize("queries", [1, 2, 9])
@pytest.mark.parametrize("k", [1, 7, 500])
def test_blocks_give_what_sorting_everything_gives(monkeypatch, queries, k):
    monkeypatch.setattr(exact, "ROWS", 64)
    monkeypatch.setattr(exact, "TOGETHER", 4)
    rng = np.random.default_rng(0)
    vectors = rng.integers(-2, 3, (500, 8)).astype(np.float32)  # whole numbers: sums are exact, and many are equal
    asked = rng.integers(-2, 3, (queries, 8)).astype(np.float32)
    found, slow = ExactIndex(vectors).search(Dense(asked), k), search_slowly(vectors, asked, k)
    np.testing.assert_array_equal(found.rows, slow.rows)
    np.testing.assert_array_equal(found.scores, slow.scores)


@pytest.mark.parametrize("queries", [exact.MANY, 64, 65, 150])
@pytest.mark.parametrize(("items", "dim"), [(3, 8), (7, 5), (383, 16), (1200, 33)])
def test_tiles_give_what_sorting_everything_gives(queries, items, dim):
    rng = np.random.default_rng(items)
    vectors = rng.integers(-2, 3, (items, dim)).astype(np.float32)
    asked = rng.integers(-2, 3, (queries, dim)).astype(np.float32)
    for k in {1, 3, min(40, items), items}:
        found, slow = ExactIndex(vectors)._tiled(asked, k), search_slowly(vectors, asked, k)
        np.testing.assert_array_equal(found.rows, slow.rows)
        np.testing.assert_array_equal(found.scores, slow.scores)


def test_many_queries_take_the_tiles_and_few_do_not(monkeypatch):
    taken = []
    real = ExactIndex._tiled
    monkeypatch.setattr(ExactIndex, "_tiled", lambda self, asked, k: taken.append(len(asked)) or real(self, asked, k))
    vectors = np.eye(8, dtype=np.float32)
    for count in (1, exact.MANY - 1, exact.MANY, 300):
        ExactIndex(vectors).search(Dense(np.ones((count, 8), np.float32)), 2)
    ExactIndex(vectors.astype(np.float16)).search(
        Dense(np.ones((300, 8), np.float32)), 2
    )  # other types go by the library
    assert taken == [exact.MANY, exact.TOGETHER, 300 - exact.TOGETHER]


def test_no_queries_and_scores_that_are_no_numbers():
    vectors = np.ones((5, 2), np.float32)
    assert ExactIndex(vectors).search(Dense(np.zeros((0, 2), np.float32)), 3).rows.shape == (0, 3)
    found = ExactIndex(vectors).search(Dense(np.full((1, 2), np.nan, np.float32)), 3)
    assert found.rows.tolist() == [[-1, -1, -1]]
