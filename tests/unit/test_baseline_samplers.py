"""Samplers that follow the model: stochastic part, cache, whole corpus, ambiguous negatives. Laws, twins, and by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy import stats

from flatcoat.errors import FlatcoatError, Misuse
from flatcoat.mining.cache import NegativeCache
from flatcoat.mining.draws import (
    Choosing,
    barred_rows,
    choose,
    log_softmax,
    query_vectors,
    softmax_draw,
    top_draw,
    top_positions,
    top_positions_slowly,
)
from flatcoat.mining.exhaustive import A_SCORE, Exhaustive
from flatcoat.mining.mine import MineSettings
from flatcoat.mining.simans import SimANS
from flatcoat.mining.stochastic import Stochastic
from flatcoat.testing.index import unit
from flatcoat.testing.sampler import DOCUMENTS, QUERIES, FixedEncode, SamplerContract

ALL = np.arange(QUERIES)
POSITIVES = [np.array([q, q + 20]) for q in range(QUERIES)]


class Moving:
    """A model that is another after each step; it counts what it encodes."""

    def __init__(self):
        self.step, self.encoded = 0, 0

    def queries(self, rows):
        self.encoded += len(rows)
        return unit(QUERIES, 16, seed=100 + self.step)[rows]

    def documents(self, rows=None):
        return unit(DOCUMENTS, 16, seed=200 + self.step)[np.arange(DOCUMENTS) if rows is None else rows]


def stochastic(encode, **more):
    return Stochastic(DOCUMENTS, encode, **{"every": 3, "size": 15, "choosing": Choosing("softmax", 5.0), **more})


def cache(encode, **more):
    return NegativeCache(DOCUMENTS, encode, **{"size": 12, "refresh": 3, "beta": 5.0, **more})


def exhaustive(encode, **more):
    return Exhaustive(DOCUMENTS, encode, **{"every": 2, "choosing": Choosing("softmax", 5.0), **more})


def simans(encode, **more):
    return SimANS(ALL, POSITIVES, DOCUMENTS, MineSettings(1, 15), **{"every": 3, **more})


KINDS = {
    "stochastic": stochastic,
    "stochastic top": lambda e: stochastic(e, choosing=Choosing("top", pool=6)),
    "fifo": cache,
    "lru": lambda e: cache(e, replace="lru"),
    "exhaustive": exhaustive,
    "exhaustive top": lambda e: exhaustive(e, choosing=Choosing("top")),
    "simans": simans,
}


class TestStochastic(SamplerContract):
    def build(self):
        return stochastic(FixedEncode(), choosing=Choosing("softmax"))


class TestStochasticTop(SamplerContract):
    def build(self):
        return Stochastic(DOCUMENTS, FixedEncode(), every=2, share=0.5, choosing=Choosing("top", pool=5))


class TestFifo(SamplerContract):
    def build(self):
        return cache(FixedEncode(), beta=20.0)


class TestLru(SamplerContract):
    def build(self):
        return cache(FixedEncode(), replace="lru")


class TestExhaustive(SamplerContract):
    def build(self):
        return Exhaustive(DOCUMENTS, FixedEncode())


class TestExhaustiveTop(SamplerContract):
    def build(self):
        return Exhaustive(DOCUMENTS, FixedEncode(), choosing=Choosing("top", pool=7))


class TestSimANS(SamplerContract):
    def build(self):
        return simans(FixedEncode())


class TestSimANSEmpty(SamplerContract):
    """Margins that leave nothing: the whole corpus."""

    def build(self):
        return SimANS(ALL, POSITIVES, DOCUMENTS, MineSettings(1, 15, absolute_margin=9.0))


def fits(drawn, chances):
    """Whether counts of rows are as likely as chances say (χ², rare ones together)."""
    counts = np.bincount(drawn.reshape(-1), minlength=len(chances))
    expected = chances * drawn.size
    rare = expected < 5
    assert counts[chances == 0].sum() == 0
    got, want = np.append(counts[~rare], counts[rare].sum()), np.append(expected[~rare], expected[rare].sum())
    return stats.chisquare(got[want > 0], want[want > 0]).pvalue > 1e-3


# ---- draws


def test_softmax_draw_is_the_generators_own_choice():
    scores = np.random.default_rng(0).normal(size=(5, 30)).astype(np.float32)
    scores[1, 4:9] = -np.inf
    picked = softmax_draw(scores, 8, 3.0, np.random.default_rng(1))
    rng, chances = np.random.default_rng(1), np.exp(3.0 * scores.astype(np.float64))
    chances /= chances.sum(1, keepdims=True)
    slowly = np.stack([rng.choice(30, 8, p=chances[i]) for i in range(5)])
    np.testing.assert_array_equal(picked.positions, slowly)
    np.testing.assert_allclose(picked.log_q, np.log(np.take_along_axis(chances, slowly, 1)), rtol=1e-5)


def test_softmax_draw_has_the_exact_frequencies():
    scores = np.random.default_rng(2).normal(size=(1, 30)).astype(np.float32)
    scores[0, [0, 7, 29]] = -np.inf
    chances = np.exp(log_softmax(scores, 1.5))[0]
    assert chances[[0, 7, 29]].tolist() == [0, 0, 0] and abs(chances.sum() - 1) < 1e-12
    assert fits(softmax_draw(scores, 100_000, 1.5, np.random.default_rng(3)).positions, chances)


class Least(np.random.Generator):
    """Draws the least number there is."""

    def random(self, size: Any = None) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        return np.zeros(size)


def test_softmax_draw_at_the_edges():
    huge = np.array([[1e30, -1e30, 1e30, -np.inf]], dtype=np.float32)
    picked = softmax_draw(huge, 500, 20.0, np.random.default_rng(0))
    assert set(picked.positions[0]) == {0, 2}
    np.testing.assert_allclose(picked.log_q, -np.log(2), rtol=1e-6)
    flat = softmax_draw(huge, 500, 0.0, np.random.default_rng(0))
    assert set(flat.positions[0]) == {0, 1, 2}
    np.testing.assert_allclose(flat.log_q, -np.log(3), rtol=1e-6)
    first = np.array([[-np.inf, 1.0, 2.0]], dtype=np.float32)
    assert softmax_draw(first, 2, 1.0, Least(np.random.PCG64(0))).positions.tolist() == [[1, 1]]
    assert softmax_draw(huge[:0], 3, 1.0, np.random.default_rng(0)).positions.shape == (0, 3)
    assert softmax_draw(huge, 0, 1.0, np.random.default_rng(0)).positions.shape == (1, 0)


@pytest.mark.parametrize("scores", [[[1.0, 2.0], [-np.inf, -np.inf]], [[1.0, 2.0], [np.nan, 1.0]], np.zeros((2, 0))])
def test_nothing_to_draw_is_an_error(scores):
    scores = np.array(scores, dtype=np.float32)
    for draw in (
        lambda: softmax_draw(scores, 1, 1.0, np.random.default_rng(0)),
        lambda: top_draw(scores, 1, np.random.default_rng(0)),
    ):
        with pytest.raises(FlatcoatError, match="want a finite one"):
            draw()


@pytest.mark.parametrize("k", [0, 1, 3, 9, 10])
def test_top_is_its_slow_twin(k):
    rng = np.random.default_rng(k)
    scores = rng.integers(0, 4, (200, 10)).astype(np.float32)  # ties everywhere
    scores[rng.random(scores.shape) < 0.2] = -np.inf
    np.testing.assert_array_equal(top_positions(scores, k), top_positions_slowly(scores, k))


def test_top_draw_by_hand():
    scores = np.array([[0.1, 0.9, 0.5, 0.9, 0.2], [0.1, 0.2, 0.3, -np.inf, -np.inf]], dtype=np.float32)
    picked = top_draw(scores, 400, np.random.default_rng(0), pool=3)
    assert set(picked.positions[0]) == {1, 2, 3} and set(picked.positions[1]) == {0, 1, 2}
    np.testing.assert_allclose(picked.log_q, -np.log(3), rtol=1e-6)
    assert fits(picked.positions[0], np.array([0, 1, 1, 1, 0]) / 3)
    barred = np.array([[False, True, False, True, False], [True] * 5])
    picked = top_draw(scores, 400, np.random.default_rng(0), pool=4, barred=barred)
    assert set(picked.positions[0]) == {0, 2, 4}
    assert set(picked.positions[1]) == {0, 1, 2}  # all is barred, so nothing is
    np.testing.assert_allclose(picked.log_q, -np.log(3), rtol=1e-6)
    alone = top_draw(scores, 1, np.random.default_rng(0))
    assert alone.positions[:, 0].tolist() == [1, 2] and alone.log_q.tolist() == [[0.0], [0.0]]
    many = top_draw(scores, 90, np.random.default_rng(0))  # more than there are: the pool is what there is
    np.testing.assert_allclose(many.log_q[:, 0], [-np.log(5), -np.log(3)], rtol=1e-6)


def test_choosing_says_which_and_is_checked():
    scores = np.random.default_rng(0).normal(size=(3, 9)).astype(np.float32)
    barred = scores > 0
    soft = choose(Choosing("softmax", 2.0), scores, 4, np.random.default_rng(1), barred)
    np.testing.assert_array_equal(soft.positions, softmax_draw(scores, 4, 2.0, np.random.default_rng(1)).positions)
    top = choose(Choosing("top", pool=2), scores, 4, np.random.default_rng(1), barred)
    assert not np.take_along_axis(barred, top.positions, 1).any()
    wrongs: list[dict[str, Any]] = [{"beta": -1.0}, {"beta": float("inf")}, {"pool": 0}]
    for wrong in wrongs:
        with pytest.raises(Misuse, match=next(iter(wrong))):
            Choosing(**wrong)


def test_known_positives_are_barred():
    rows, queries = np.array([3, 5, 8, 9]), np.array([4, 2, 4])
    barred = barred_rows(rows, queries, np.array([5, 9, 1]), lambda query: np.array([query * 2, 3]))
    assert barred.tolist() == [[True, True, True, False], [True, False, False, True], [True, False, True, False]]
    assert barred_rows(rows, queries, np.array([5, 9, 1])).sum() == 2


def test_a_query_that_comes_twice_is_encoded_once():
    model = Moving()
    vectors = query_vectors(model, np.array([7, 2, 7, 7]))
    assert model.encoded == 2
    np.testing.assert_allclose(vectors, model.queries(np.array([7, 2, 7, 7])), atol=1e-6)


# ---- every kind


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("stop", [1, 4])
def test_stopped_and_resumed_is_never_stopped(kind, stop):
    def steps(sampler, model, first, last):
        for step in range(first, last):
            model.step = step
            if step != stop or first == 0:
                sampler.after_step(step, model)
            if step == stop and last == stop + 1:
                return None
            yield sampler.draw(ALL, ALL, 5, np.random.default_rng([9, step]))

    model = Moving()
    whole = list(steps(KINDS[kind](model), model, 0, 8))
    first = KINDS[kind](model)
    list(steps(first, model, 0, stop + 1))
    kept = first.state()
    first.draw(ALL, ALL, 5, np.random.default_rng(0))  # goes on, and must not change what was kept
    other = KINDS[kind](model)
    other.restore(kept)
    rest = list(steps(other, model, stop, 8))
    assert len(rest) == 8 - stop
    for want, got in zip(whole[stop:], rest, strict=True):
        np.testing.assert_array_equal(want.rows, got.rows)
        np.testing.assert_array_equal(want.log_q, got.log_q)


@pytest.mark.parametrize("kind", KINDS)
def test_a_draw_before_the_first_step_is_an_error(kind):
    with pytest.raises(FlatcoatError, match="after_step"):
        KINDS[kind](FixedEncode()).draw(ALL, ALL, 2, np.random.default_rng(0))


def test_a_model_of_other_representations_is_refused():
    class Lexical:
        def queries(self, rows):
            return ["not", "vectors"]

        def documents(self, rows=None):
            return ["not", "vectors"]

    for kind in KINDS.values():
        with pytest.raises(Misuse, match="one vector a text"):
            kind(Lexical()).after_step(0, Lexical())


# ---- stochastic


def test_the_best_of_the_part_are_drawn():
    model = Moving()
    sampler = stochastic(model, choosing=Choosing("top", pool=4), known=lambda query: POSITIVES[query])
    sampler.after_step(0, model)
    assert len(set(sampler.rows)) == 15
    model.step = 2  # the queries' present vectors, the documents' old ones
    drawn = sampler.draw(ALL, ALL, 200, np.random.default_rng(0))
    old, now = unit(DOCUMENTS, 16, seed=200), unit(QUERIES, 16, seed=102)
    for query in range(QUERIES):
        order = sorted(sampler.rows, key=lambda row: -float(old[row] @ now[query]))
        best = [row for row in order if row not in POSITIVES[query]][:4]
        assert set(drawn.rows[query]) == set(best)
    np.testing.assert_allclose(drawn.log_q, -np.log(4), rtol=1e-6)


def test_the_part_is_drawn_anew_when_it_is_due():
    model = Moving()
    sampler, parts = stochastic(model), []
    for step in range(7):
        model.step = step
        sampler.after_step(step, model)
        parts.append(sampler.rows.tolist())
        np.testing.assert_allclose(
            sampler.vectors, unit(DOCUMENTS, 16, seed=200 + step // 3 * 3)[sampler.rows], atol=1e-6
        )
    assert parts[0] == parts[2] and parts[3] == parts[5] and len({tuple(p) for p in parts}) == 3


def test_every_document_gets_into_a_part_alike():
    counts = np.zeros(DOCUMENTS)
    sampler = stochastic(FixedEncode(), every=1, size=10)
    for step in range(2000):
        sampler.after_step(step, FixedEncode())
        counts[sampler.rows] += 1
    assert abs(counts - 500).max() < 5 * np.sqrt(2000 * 0.25 * 0.75)


def test_parts_are_checked():
    for wrong, says in [
        ({}, "say one of them"), ({"size": 3, "share": 0.1}, "say one of them"), ({"share": 0.0}, "share=0.0"),
        ({"size": 0}, "size=0"), ({"size": DOCUMENTS + 1}, "size=41"), ({"size": 3, "every": 0}, "every=0"),
    ]:  # fmt: skip
        with pytest.raises(Misuse, match=says):
            Stochastic(DOCUMENTS, FixedEncode(), **{"every": 1, **wrong})
    assert Stochastic(DOCUMENTS, FixedEncode(), every=1, share=0.01).size == 1
    assert Stochastic(100, FixedEncode(), every=1, share=0.07).size == 7  # 0.07 · 100 is a little above 7 in floats
    assert Stochastic(100, FixedEncode(), every=1, share=0.071).size == 8


# ---- exhaustive


def test_the_oracle_is_the_exact_softmax():
    sampler = Exhaustive(30, Fewer(), choosing=Choosing("softmax", 4.0))
    sampler.after_step(0, Fewer())
    drawn = sampler.draw(np.array([3]), np.array([3]), 100_000, np.random.default_rng(5))
    weights = np.exp(4.0 * (Fewer().documents() @ Fewer().queries(np.array([3]))[0]).astype(np.float64))
    chances = weights / weights.sum()
    assert fits(drawn.rows, chances)
    np.testing.assert_allclose(drawn.log_q, np.log(chances)[drawn.rows], rtol=1e-5, atol=1e-6)


class Fewer(FixedEncode):
    """Thirty documents."""

    def documents(self, rows=None):
        return unit(30, 16, seed=6)[np.arange(30) if rows is None else rows]


@pytest.mark.parametrize("how", ["softmax", "top"])
def test_blocks_change_nothing(how):
    drawn = []
    for queries in (1, 5, 1000):
        sampler = exhaustive(FixedEncode(), choosing=Choosing(how, 5.0), score_bytes=queries * DOCUMENTS * A_SCORE)
        assert sampler.block == queries
        sampler.after_step(0, FixedEncode())
        drawn.append(sampler.draw(ALL, ALL, 20, np.random.default_rng(0)))
    for other in drawn[1:]:
        np.testing.assert_array_equal(other.rows, drawn[0].rows)
        np.testing.assert_allclose(other.log_q, drawn[0].log_q, rtol=1e-5, atol=1e-6)


def test_the_oracle_is_never_stale_or_as_stale_as_told():
    for every, of in [(1, [0, 1, 2, 3, 4]), (2, [0, 0, 2, 2, 4]), (None, [0, 0, 0, 0, 0])]:
        model = Moving()
        sampler = exhaustive(model, every=every)
        for step in range(5):
            model.step = step
            sampler.after_step(step, model)
            np.testing.assert_allclose(sampler.vectors, unit(DOCUMENTS, 16, seed=200 + of[step]), atol=1e-6)


def test_scores_that_do_not_fit_are_refused():
    with pytest.raises(Misuse, match=f"use at least {DOCUMENTS * A_SCORE}"):
        exhaustive(FixedEncode(), score_bytes=DOCUMENTS * A_SCORE - 1)
