"""The cache of negatives: what is renewed, what goes, and how near its draws are to the softmax."""

from __future__ import annotations

import numpy as np
import pytest
from test_baseline_samplers import ALL, Moving, cache, exhaustive, fits

from flatcoat.errors import Misuse
from flatcoat.mining.cache import NegativeCache, unlike
from flatcoat.mining.draws import log_softmax
from flatcoat.testing.index import unit
from flatcoat.testing.sampler import DOCUMENTS, FixedEncode


class Scripted:
    """Query q is at the vector of document q, so that a high β draws document q where it is in the cache."""

    def queries(self, rows):
        return np.eye(DOCUMENTS, dtype=np.float32)[rows]

    def documents(self, rows=None):
        return np.eye(DOCUMENTS, dtype=np.float32)[np.arange(DOCUMENTS) if rows is None else rows]


def begun(replace):
    sampler = NegativeCache(DOCUMENTS, Scripted(), size=4, refresh=1, replace=replace, beta=1e4)
    sampler.after_step(0, Scripted())
    return sampler


def use(sampler, *places):
    rows = sampler.rows[list(places)]
    drawn = sampler.draw(rows, rows, 3, np.random.default_rng(0))
    np.testing.assert_array_equal(drawn.rows, np.repeat(rows[:, None], 3, axis=1))


def replaced(sampler, step):
    before = sampler.rows.copy()
    sampler.after_step(step, Scripted())
    return np.flatnonzero(before != sampler.rows).tolist() or np.flatnonzero(sampler.encoded_at == step).tolist()


def test_fifo_replaces_the_oldest():
    sampler = begun("fifo")
    use(sampler, 0, 0)  # being drawn does not save
    assert [replaced(sampler, step) for step in (1, 2, 3, 4, 5, 6)] == [[0], [1], [2], [3], [0], [1]]
    assert sampler.encoded_at.tolist() == [5, 6, 3, 4]
    assert sampler.staleness() == (1 + 0 + 3 + 2) / 4


def test_lru_replaces_the_least_recently_drawn():
    sampler = begun("lru")
    use(sampler, 0, 1)  # used: 1 1 0 0
    assert replaced(sampler, 1) == [2]  # used: 1 1 1 0
    assert sampler.used_at.tolist() == [1, 1, 1, 0]
    use(sampler, 3)  # used: 1 1 1 2
    assert replaced(sampler, 2) == [0]  # of 0, 1, 2, used alike, 0 and 1 are the oldest; used: 2 1 1 2
    use(sampler, 1)  # used: 2 3 1 2
    assert replaced(sampler, 3) == [2]  # used: 2 3 3 2
    assert replaced(sampler, 4) == [3]  # encoded after 0, where 0 came after 2
    assert sampler.encoded_at.tolist() == [2, 0, 3, 4]


def test_the_cache_keeps_rows_once_and_vectors_of_their_time():
    model, seen = Moving(), set()
    sampler = cache(model)
    for step in range(80):
        model.step = step
        sampler.after_step(step, model)
        seen |= set(sampler.rows.tolist())
        assert len(set(sampler.rows)) == 12
        for row, vector, when in zip(sampler.rows, sampler.vectors, sampler.encoded_at, strict=True):
            np.testing.assert_allclose(vector, unit(DOCUMENTS, 16, seed=200 + int(when))[row], atol=1e-6)
    assert len(seen) == DOCUMENTS
    assert sampler.staleness() == np.repeat([0, 1, 2, 3], 3).mean()
    assert np.isnan(cache(model).staleness())


def test_a_cache_of_everything_is_the_exhaustive_sampler():
    model = Moving()
    sampler = cache(model, size=DOCUMENTS, refresh=DOCUMENTS)
    truth = exhaustive(model, every=1)
    for step in range(3):
        model.step = step
        sampler.after_step(step, model)
        truth.after_step(step, model)
        drawn = sampler.draw(ALL, ALL, 50, np.random.default_rng(step))
        exact = log_softmax(model.queries(ALL) @ truth.vectors.T, 5.0)
        np.testing.assert_allclose(drawn.log_q, np.take_along_axis(exact, drawn.rows, 1), rtol=1e-4, atol=1e-5)


def test_the_cache_is_sampled_exactly():
    model = Moving()
    sampler = NegativeCache(DOCUMENTS, model, size=30, refresh=5, beta=4.0)
    for step in range(4):
        model.step = step
        sampler.after_step(step, model)
    drawn = sampler.draw(np.array([6]), np.array([6]), 100_000, np.random.default_rng(1))
    chances = np.zeros(DOCUMENTS)
    chances[sampler.rows] = np.exp(4.0 * (sampler.vectors @ model.queries(np.array([6]))[0]).astype(np.float64))
    assert fits(drawn.rows, chances / chances.sum())


def test_newcomers_are_uniform_among_those_outside():
    rng, taken, counts = np.random.default_rng(0), np.arange(0, 30, 2), np.zeros(30)
    for _ in range(4000):
        rows = unlike(taken, 3, 30, rng)
        assert len(set(rows)) == 3
        counts[rows] += 1
    assert counts[taken].sum() == 0
    assert abs(counts[1::2] - 800).max() < 5 * np.sqrt(4000 * 0.2 * 0.8)


def test_caches_are_checked():
    for wrong, says in [
        ({"refresh": 0}, "refresh=0"), ({"refresh": 13}, "refresh=13"), ({"size": 41}, "size=41"), ({"beta": -1.0}, "beta"),
    ]:  # fmt: skip
        with pytest.raises(Misuse, match=says):
            cache(FixedEncode(), **wrong)
