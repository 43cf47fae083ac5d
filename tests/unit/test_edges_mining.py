"""What the samplers' other tests leave open: choosing, readings, and margins of every representation, by hand."""

from __future__ import annotations

import numpy as np
import pytest
from drawing import NONE, RNG

from flatcoat.errors import FlatcoatError, Misuse
from flatcoat.index.base import TopK
from flatcoat.mining.draws import (
    Choosing,
    barred_rows,
    choose,
    document_vectors,
    log_softmax,
    query_vectors,
    softmax_draw,
    top_draw,
    top_positions,
)
from flatcoat.mining.mine import BLOCK, MineSettings, as_pairs, mine
from flatcoat.mining.reading import WIDTH, dense_reading
from flatcoat.representations import Dense, MultiVector, Sparse
from flatcoat.testing.sampler import DOCUMENTS, FixedEncode

# ---- draws


def test_defaults_of_choosing_are_the_papers():
    assert (Choosing().how, Choosing().beta, Choosing().pool) == ("softmax", 20.0, None)
    assert Choosing("top", 0.0, 1).pool == 1  # edges of what is allowed


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"beta": -0.1}, "beta=-0.1 is no inverse temperature"), ({"beta": np.inf}, "beta=inf"), ({"pool": 0}, "pool=0"),
    ],
)  # fmt: skip
def test_choosing_is_checked(given, says):
    with pytest.raises(Misuse, match=says):
        Choosing(**given)


def test_softmax_draws_of_extremes():
    scores = np.array([[1e30, -1e30, 0.0], [-np.inf, 2.0, -np.inf], [5.0, 5.0, 5.0]], np.float32)
    drawn = softmax_draw(scores, 300, 1.0, RNG(0))
    assert (drawn.positions[0] == 0).all() and (drawn.positions[1] == 1).all() and set(drawn.positions[2]) == {0, 1, 2}
    np.testing.assert_allclose(drawn.log_q[:, 0], [0, 0, -np.log(3)], atol=1e-6)
    flat = softmax_draw(scores[1:], 300, 0.0, RNG(0))  # of beta 0: alike, but what is masked stays so
    assert (flat.positions[0] == 1).all() and np.allclose(flat.log_q[1], -np.log(3))
    assert log_softmax(scores[1:2], 3.0).tolist() == [[-np.inf, 0.0, -np.inf]]
    np.testing.assert_allclose(
        log_softmax(np.array([[1.0, 0.0]]), 2.0), np.log([[1 / (1 + np.exp(-2)), 1 / (1 + np.exp(2))]])
    )


@pytest.mark.parametrize("bad", [[-np.inf, -np.inf], [np.inf, 0.0], [np.nan, 0.0]])
def test_a_row_without_a_finite_best_is_named(bad):
    scores = np.array([[0.0, 1.0], bad], np.float32)
    for call in (
        lambda: softmax_draw(scores, 2, 1.0, RNG(0)),
        lambda: log_softmax(scores, 1.0),
        lambda: top_draw(scores, 2, RNG(0)),
    ):
        with pytest.raises(
            FlatcoatError, match=r"query 1 of 2: the best score of its 2 candidates is (-?inf|nan); want a finite one"
        ):
            call()


def test_draws_of_no_query_are_none():
    none = np.zeros((0, 4), np.float32)
    assert softmax_draw(none, 3, 1.0, RNG(0)).positions.shape == top_draw(none, 3, RNG(0)).positions.shape == (0, 3)
    assert top_positions(none, 2).shape == (0, 2) and top_positions(np.zeros((3, 4)), 0).shape == (3, 0)


def test_the_best_places_with_ties_at_the_edge():
    scores = np.array([[1.0, 3.0, 1.0, 2.0, 1.0], [0.0, 0.0, 0.0, 0.0, 0.0]])
    assert top_positions(scores, 3).tolist() == [[1, 3, 0], [0, 1, 2]]
    assert top_positions(scores, 5).tolist() == [[1, 3, 0, 2, 4], [0, 1, 2, 3, 4]]
    assert top_positions(scores, 1).tolist() == [[1], [0]]


def test_a_pool_of_the_best():
    scores = np.array([[0.0, 4.0, 3.0, 2.0, 1.0]])
    drawn = top_draw(scores, 400, RNG(0), pool=2)
    assert set(drawn.positions[0]) == {1, 2} and np.allclose(drawn.log_q, -np.log(2))
    as_many = top_draw(scores, 3, RNG(0))
    assert set(as_many.positions[0]) <= {1, 2, 3} and np.allclose(as_many.log_q, -np.log(3))
    assert np.allclose(top_draw(scores, 9, RNG(0)).log_q, -np.log(5))  # no more than there are
    assert top_draw(scores, 0, RNG(0)).positions.shape == (1, 0)
    one = top_draw(scores, 50, RNG(0), pool=1)
    assert (one.positions == 1).all() and not one.log_q.any()


def test_what_is_barred_takes_no_place_unless_everything_is():
    scores = np.array([[4.0, 3.0, 2.0], [4.0, 3.0, 2.0], [4.0, 3.0, 2.0]])
    barred = np.array([[True, False, False], [True, True, True], [True, True, False]])
    drawn = top_draw(scores, 500, RNG(1), pool=2, barred=barred)
    assert [set(row) for row in drawn.positions.tolist()] == [{1, 2}, {0, 1}, {2}]
    np.testing.assert_allclose(drawn.log_q[:, 0], [-np.log(2), -np.log(2), 0], atol=1e-6)
    both = choose(Choosing("top", pool=2), scores, 500, RNG(1), barred)
    np.testing.assert_array_equal(both.positions, drawn.positions)
    assert set(choose(Choosing("softmax", 0.0), scores, 500, RNG(1), barred).positions[2]) == {0, 1, 2}


def test_barred_are_the_positive_and_what_is_known():
    rows, queries, positives = np.array([5, 6, 7]), np.array([2, 1, 2]), np.array([5, 9, 7])
    assert barred_rows(rows, queries, positives).tolist() == [[True, False, False], [False] * 3, [False, False, True]]
    known = {1: np.array([7]), 2: np.array([6, 99])}
    found = barred_rows(rows, queries, positives, lambda q: known[q])
    assert found.tolist() == [[True, True, False], [False, False, True], [False, True, True]]
    assert barred_rows(rows, NONE, NONE, lambda q: known[q]).shape == (0, 3)


class Counting(FixedEncode):
    """Remembers what it encoded."""

    def __init__(self):
        self.asked = []

    def queries(self, rows):
        self.asked.append(rows.tolist())
        return 3 * super().queries(rows)

    def documents(self, rows=None):
        self.asked.append(rows if rows is None else rows.tolist())
        return super().documents(rows)


def test_a_repeated_query_is_encoded_once_and_made_of_length_one():
    encode = Counting()
    found = query_vectors(encode, np.array([4, 1, 4]))
    assert encode.asked == [[1, 4]]
    np.testing.assert_allclose(found, FixedEncode().queries(np.array([4, 1, 4])), atol=1e-6)
    assert len(document_vectors(encode)) == DOCUMENTS and len(document_vectors(encode, np.array([3]))) == 1
    assert encode.asked[1:] == [None, [3]]


# ---- one vector of whatever a model makes


def test_readings_by_hand():
    multi = MultiVector(np.array([0, 2, 2, 3]), np.array([[3, 0], [0, 3], [0, -2]], np.float16))
    half = 0.5**0.5
    np.testing.assert_allclose(dense_reading(multi), [[half, half], [0, 0], [0, -1]], atol=1e-6)
    for dense in (Dense(np.array([[3.0, 4.0]], np.float32)), np.array([[3.0, 4.0]])):
        np.testing.assert_allclose(dense_reading(dense), [[0.6, 0.8]], atol=1e-6)
    assert dense_reading(np.ones((1, 3))).dtype == np.float32
    for wrong in ("text", np.ones(3), np.ones((1, 2, 3)), None):
        with pytest.raises(Misuse, match="one vector a text"):
            dense_reading(wrong)


def test_term_weights_are_projected_by_fixed_signs():
    made = Sparse(np.array([0, 2, 2, 3]), np.array([1, 4, 4], np.int32), np.array([3, 4, 2], np.float32), 6)
    found = dense_reading(made)
    signs = RNG(0).integers(0, 2, (6, WIDTH), dtype=np.int8) * 2 - 1
    assert WIDTH == 256 and set(np.unique(signs)) == {-1, 1}
    plain = 3.0 * signs[1] + 4.0 * signs[4]
    np.testing.assert_allclose(found[0], plain / np.linalg.norm(plain), atol=1e-6)
    assert not found[1].any()
    np.testing.assert_allclose(found[2], signs[4] / 16, atol=1e-6)


# ---- mining


class Fixed:
    """An index whose every answer is the same ranking: document d scores 1 − d / 100."""

    def __init__(self, size=30):
        self.size, self.asked = size, []

    def __len__(self):
        return self.size

    def search(self, queries, k):
        self.asked.append((len(queries), k))
        rows = np.tile(np.arange(k), (len(queries), 1))
        return TopK(rows, (1 - rows / 100).astype(np.float32))


def test_mining_searches_as_deep_as_it_must_and_in_blocks():
    index = Fixed(1000)
    queries = np.zeros((BLOCK + 3, 2), np.float32)
    positives = [np.array([1, 3])] * (BLOCK + 2) + [np.array([0, 1, 2])]
    mined = mine(index, queries, positives, MineSettings(2, 4))
    assert index.asked == [(BLOCK, 7), (3, 7)] and BLOCK == 256
    assert mined.rows[0].tolist() == [2, 4, 5] and mined.rows[-1].tolist() == [4, 5, 6]
    np.testing.assert_allclose(mined.scores[0], [0.98, 0.96, 0.95], rtol=1e-6)
    mine(index, queries[:1], positives[:1], MineSettings(2, 4), keys=np.arange(1000))
    assert index.asked[-1] == (1, 14)  # some more, for those that are equal in text
    assert mine(index, queries[:0], [], MineSettings(1, 2)).rows.shape == (0, 2)


def test_mining_past_the_end_is_filled_up():
    mined = mine(Fixed(5), np.zeros((1, 2), np.float32), [np.array([0])], MineSettings(3, 8))
    assert mined.rows.tolist() == [[3, 4, -1, -1, -1, -1]] and np.isneginf(mined.scores[0, 2:]).all()
    assert as_pairs(mined, [9]).tolist() == [[9, 3], [9, 4]]
    assert as_pairs(mine(Fixed(5), np.zeros((0, 2), np.float32), [], MineSettings()), []).shape == (0, 2)


def test_defaults_of_mining():
    said = MineSettings()
    assert (said.first, said.last, said.absolute_margin, said.relative, said.max_score) == (1, 50, None, None, None)
    assert MineSettings(1, 1).last == 1 and not said.wants_positive_scores
    assert MineSettings(absolute_margin=0.0).wants_positive_scores and MineSettings(relative=1.0).wants_positive_scores
    with pytest.raises(Misuse, match="ranks 0 to 2: want 1 <= first <= last"):
        MineSettings(0, 2)
    with pytest.raises(Misuse, match="a margin against the positive needs its score"):
        mine(Fixed(), np.zeros((1, 2), np.float32), [np.array([0])], MineSettings(absolute_margin=0.1))


@pytest.mark.parametrize(
    ("settings", "first"),
    [
        (MineSettings(1, 30, max_score=0.9), 10),  # not above it
        (MineSettings(1, 30, absolute_margin=0.125), 13),  # below 1 − 0.125
        (MineSettings(1, 30, relative=0.875), 13),
        (MineSettings(1, 30, absolute_margin=0.0), 2),
    ],
)
@pytest.mark.parametrize("kind", ["dense", "sparse", "late"])
def test_margins_are_against_the_least_positive(settings, first, kind):
    """Documents 0 and 1 answer; by the representations their scores are 1 and 2."""
    if kind == "dense":
        queries, vectors = np.array([[1.0, 0.0]], np.float32), np.zeros((30, 2), np.float32)
        vectors[0], vectors[1] = [1, 5], [2, 5]
    elif kind == "sparse":
        queries = Sparse(np.array([0, 2]), np.array([1, 3], np.int32), np.array([0.5, 2], np.float32), 4)
        terms, weights = np.array([0, 1, 3, 2], np.int32), np.array([9, 2, 1, 9], np.float32)
        vectors = Sparse(np.array([0, 2, 3, *[4] * 28]), terms, weights, 4)
    else:
        queries = MultiVector(np.array([0, 2]), np.array([[1, 0], [0, 1]], np.float32))
        held = np.array([[0.5, 0.25], [0.25, 0.5], [1, 0], [0.5, 1]], np.float16)
        vectors = MultiVector(np.array([0, 2, 4, *[4] * 28]), held)
    index = Fixed()
    mined = mine(index, queries, [np.array([0, 1])], settings, vectors=vectors)
    wanted = np.arange(max(first, 2), 30)
    assert mined.rows[0][mined.rows[0] >= 0].tolist() == wanted.tolist()
