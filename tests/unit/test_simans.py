"""SimANS: negatives that are neither too hard nor too easy, by their laws and by hand."""

from __future__ import annotations

import numpy as np
import pytest
from test_baseline_samplers import fits, simans

from flatcoat.errors import FlatcoatError, Misuse
from flatcoat.mining.simans import ambiguity
from flatcoat.testing.sampler import DOCUMENTS, FixedEncode


def test_ambiguity_by_hand():
    scores = np.array([[0.9, 0.5, 0.3, -np.inf], [0.2, -np.inf, -np.inf, -np.inf]], dtype=np.float32)
    got = ambiguity(scores, np.array([0.5, 0.2], dtype=np.float32), 2.0, 1.0, 10.0)
    want = [[-2 * 3.0**2, -2 * 1.0**2, -2 * 3.0**2, -np.inf], [-2.0, -np.inf, -np.inf, -np.inf]]
    np.testing.assert_allclose(got, want, rtol=1e-5)
    flat = ambiguity(scores, np.array([0.5, 0.2], dtype=np.float32), 0.0, 1.0, 10.0)
    assert flat.tolist() == [[0, 0, 0, -np.inf], [0, -np.inf, -np.inf, -np.inf]]


@pytest.mark.parametrize("positive", [3, 23])
def test_simans_draws_by_its_formula(positive):
    sampler = simans(FixedEncode(), a=0.5, b=0.5, beta=6.0)
    sampler.after_step(0, FixedEncode())
    drawn = sampler.draw(np.array([3]), np.array([positive]), 100_000, np.random.default_rng(4))
    scores = (FixedEncode().documents() @ FixedEncode().queries(np.array([3]))[0]).astype(np.float64)
    ranking = [row for row in np.argsort(-scores) if row not in (3, 23)][:15]
    weights = np.zeros(DOCUMENTS)
    weights[ranking] = np.exp(-0.5 * (6.0 * (scores[ranking] - scores[positive]) - 0.5) ** 2)
    chances = weights / weights.sum()
    assert fits(drawn.rows, chances)
    np.testing.assert_allclose(drawn.log_q, np.log(chances[drawn.rows]), rtol=1e-3, atol=1e-5)


def test_simans_of_an_empty_ranking_is_uniform():
    refuse = lambda query, rows: np.full(len(rows), query == 3)  # noqa: E731
    sampler = simans(FixedEncode(), refuse=refuse)
    sampler.after_step(0, FixedEncode())
    drawn = sampler.draw(np.array([3, 4]), np.array([3, 4]), 50_000, np.random.default_rng(4))
    assert fits(drawn.rows[0], np.full(DOCUMENTS, 1 / DOCUMENTS))
    np.testing.assert_allclose(drawn.log_q[0], -np.log(DOCUMENTS), rtol=1e-6)
    assert len(set(drawn.rows[1])) <= 15


def test_simans_refuses_strangers():
    sampler = simans(FixedEncode())
    sampler.after_step(0, FixedEncode())
    for queries, positives, says in [([99], [3], "query row 99"), ([3], [4], "document row 4")]:
        with pytest.raises(FlatcoatError, match=says):
            sampler.draw(np.array(queries), np.array(positives), 1, np.random.default_rng(0))
    for wrong in ({"a": -1.0}, {"b": float("nan")}, {"every": 0}, {"beta": -2.0}):
        with pytest.raises(Misuse, match=next(iter(wrong))):
            simans(FixedEncode(), **wrong)
