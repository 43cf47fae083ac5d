"""Exact search and every approximate kind are faiss's over random vectors: same candidates, exact scores, ties by rising row."""

from __future__ import annotations

import numpy as np
import pytest

from flatcoat.index.exact import ExactIndex
from flatcoat.index.vector import LEAST, VectorIndex, VectorSettings
from flatcoat.representations import Dense

faiss = pytest.importorskip("faiss")
SEEDS = range(3)


def drawn(seed, items=700, queries=12, dim=24):
    """Clustered vectors, so that neighbours mean something, and queries near some of them."""
    rng = np.random.default_rng(seed)
    centres = rng.standard_normal((12, dim))
    vectors = (centres[rng.integers(0, 12, items)] + 0.4 * rng.standard_normal((items, dim))).astype(np.float32)
    asked = vectors[rng.integers(0, items, queries)] + 0.2 * rng.standard_normal((queries, dim)).astype(np.float32)
    return vectors, Dense(np.ascontiguousarray(asked, np.float32))


def flat(vectors):
    index = faiss.IndexFlatIP(vectors.shape[1])
    index.add(vectors)
    return index


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("queries", [1, 12, 40])
@pytest.mark.parametrize("k", [1, 10, 700])
def test_faiss_flat_gives_the_rows_and_scores_of_exact_search(seed, queries, k):
    vectors, asked = drawn(seed, queries=queries)
    scores, rows = flat(vectors).search(asked.vectors, k)
    top = ExactIndex(vectors).search(asked, k)
    np.testing.assert_allclose(top.scores, scores, rtol=1e-4, atol=1e-4)
    apart = top.rows != rows  # two products may round two near scores to another order: then they are equal to rounding
    np.testing.assert_allclose(top.scores[apart], scores[apart], rtol=1e-5, atol=1e-5)
    assert apart.mean() < 0.01


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("k", [1, 3, 10, 60])
@pytest.mark.parametrize("queries", [2, 20])
def test_faiss_flat_with_ties_agrees_in_scores_and_ours_are_the_lowest_rows(seed, k, queries):
    """Whole numbers, so that sums are exact and scores tie: faiss takes any of the equal, we the first."""
    rng = np.random.default_rng(seed)
    vectors = rng.integers(-1, 2, (300, 6)).astype(np.float32)
    asked = Dense(rng.integers(-1, 2, (queries, 6)).astype(np.float32))
    scores, _ = flat(vectors).search(asked.vectors, k)
    top = ExactIndex(vectors).search(asked, k)
    np.testing.assert_array_equal(top.scores, scores)
    every = asked.vectors @ vectors.T
    np.testing.assert_array_equal(top.rows, np.argsort(-every, axis=1, kind="stable")[:, :k])


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize(("kind", "factory"), [("scan", "PQ12x4fs"), ("bits", "RaBitQfs"), ("sq", "SQ8")])
def test_faiss_codes_choose_the_candidates_that_are_scored_again(seed, kind, factory):
    vectors, asked = drawn(seed)
    ours = VectorIndex.build(vectors, VectorSettings(kind, rescore=4))
    theirs = faiss.index_factory(24, factory, faiss.METRIC_INNER_PRODUCT)
    theirs.train(vectors)
    theirs.add(vectors)
    for k in (1, 10, 30):
        width = max(4 * k, LEAST)
        candidates = theirs.search(asked.vectors, width)[1]
        top = ours.search(asked, k)
        exact = asked.vectors @ vectors.T
        for q in range(len(asked)):
            assert set(top.rows[q]) <= set(candidates[q])
            best = candidates[q][np.lexsort((candidates[q], -exact[q, candidates[q]]))][:k]
            np.testing.assert_allclose(top.scores[q], exact[q, best], rtol=1e-4, atol=1e-4)
        np.testing.assert_allclose(top.scores, np.take_along_axis(exact, top.rows, 1), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("nprobe", [1, 3, 16])
def test_faiss_ivf_gives_the_same_answer(seed, nprobe):
    vectors, asked = drawn(seed)
    ours = VectorIndex.build(vectors, VectorSettings("ivf", cells=16, nprobe=nprobe))
    theirs = faiss.clone_index(ours.index)
    theirs.nprobe = nprobe
    scores, rows = theirs.search(asked.vectors, 20)
    top = ours.search(asked, 20)
    np.testing.assert_array_equal(top.rows, rows)
    np.testing.assert_array_equal(top.scores[rows >= 0], scores[rows >= 0])
    assert np.isneginf(top.scores[rows < 0]).all()
    if nprobe == 16:  # all cells: nothing may be lost
        np.testing.assert_allclose(top.scores, ExactIndex(vectors).search(asked, 20).scores, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("ef", [16, 128])
def test_faiss_hnsw_gives_the_same_answer_and_its_recall_grows_with_ef(seed, ef):
    vectors, asked = drawn(seed)
    ours = VectorIndex.build(vectors, VectorSettings("hnsw", ef_search=ef))
    theirs = faiss.clone_index(ours.index)
    theirs.hnsw.efSearch = max(ef, 10)
    scores, rows = theirs.search(asked.vectors, 10)
    top = ours.search(asked, 10)
    np.testing.assert_array_equal(top.rows, rows)
    np.testing.assert_array_equal(top.scores, scores)
    exact = flat(vectors).search(asked.vectors, 10)[1]
    recall = [
        np.mean(
            [
                len(set(a) & set(b)) / 10
                for a, b in zip(ours.with_knob(value).search(asked, 10).rows, exact, strict=True)
            ]
        )
        for value in (16, 512)
    ]
    assert recall[1] >= recall[0] and recall[1] > 0.95


@pytest.mark.parametrize("seed", SEEDS)
def test_faiss_recall_is_the_one_that_fidelity_reports(seed):
    """Share of IndexFlatIP's ten that an index finds, counted by hand, against `evaluation/fidelity.py`."""
    from flatcoat.evaluation.fidelity import Judge

    rng = np.random.default_rng(seed)  # no clusters, so that one cell of sixteen loses much
    vectors, asked = rng.standard_normal((700, 24), np.float32), Dense(rng.standard_normal((12, 24), np.float32))
    index = VectorIndex.build(vectors, VectorSettings("ivf", cells=16, nprobe=1))
    exact, found = flat(vectors).search(asked.vectors, 10)[1], index.search(asked, 10).rows
    by_hand = np.mean([len(set(a) & set(b)) / 10 for a, b in zip(found, exact, strict=True)])
    judged = Judge(ExactIndex(vectors), asked).measure(index, "")
    assert judged.recall[10] == pytest.approx(by_hand)
    assert by_hand < 0.8
