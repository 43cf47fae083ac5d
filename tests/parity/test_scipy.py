"""Statistics and sparse products are scipy's over random inputs: tests, bootstrap, correction, inverted index, sparse vectors."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from flatcoat.evaluation.significance import bootstrap, compare, holm, randomisation_p
from flatcoat.index.inverted import InvertedIndex, InvertedSettings
from flatcoat.index.multivector_exact import maxsim_slowly
from flatcoat.representations import MultiVector, Sparse

sparse = pytest.importorskip("scipy.sparse")
stats = pytest.importorskip("scipy.stats")
SEEDS = range(4)


def scores(seed, queries=40, shift=0.03):
    """Two systems' values of a measure, many of them equal, as nDCG's are."""
    rng = np.random.default_rng(seed)
    one = rng.choice([0.0, 0.3869, 0.5, 0.6309, 1.0], queries)
    other = np.where(rng.random(queries) < 0.5, one, np.clip(one + rng.normal(-shift, 0.2, queries), 0, 1))
    ids = [f"q{i}" for i in range(queries)]
    return dict(zip(ids, one.tolist(), strict=True)), dict(zip(ids, other.tolist(), strict=True))


@pytest.mark.parametrize("seed", SEEDS)
def test_scipy_paired_t_test_over_random_scores(seed):
    system, baseline = scores(seed)
    found = compare("nDCG@10", system, baseline)
    wanted = stats.ttest_rel(list(system.values()), list(baseline.values()))
    assert found.t_p == pytest.approx(wanted.pvalue, rel=1e-9)
    assert found.effect == pytest.approx(wanted.statistic / np.sqrt(len(system)), rel=1e-9)


@pytest.mark.parametrize("seed", SEEDS)
def test_scipy_permutation_test_over_random_scores(seed):
    """Both draw signs: their p's part by what 10,000 draws leave open."""
    system, baseline = scores(seed)
    differences = np.array(list(system.values())) - np.array(list(baseline.values()))
    theirs = stats.permutation_test(
        (differences,), lambda x, axis: x.mean(axis=axis), permutation_type="samples", n_resamples=10_000, vectorized=True,
        random_state=np.random.default_rng(seed),
    ).pvalue  # fmt: skip
    ours = randomisation_p(differences)
    assert abs(ours - theirs) < 5 * np.sqrt(2 * theirs * (1 - theirs) / 10_000) + 3e-4


@pytest.mark.parametrize("seed", SEEDS)
def test_scipy_exact_permutation_test_of_few_queries(seed):
    differences = np.random.default_rng(seed).normal(0.1, 0.3, 9)
    signs = np.array(list(itertools.product([-1, 1], repeat=9)))
    exact = stats.permutation_test(
        (differences,),
        lambda x, axis: x.mean(axis=axis),
        permutation_type="samples",
        n_resamples=np.inf,
        vectorized=True,
    ).pvalue
    assert exact == pytest.approx(float((np.abs(signs @ differences) >= abs(differences.sum()) - 1e-12).mean()))
    assert randomisation_p(differences, rounds=20_000) == pytest.approx(exact, abs=5 * np.sqrt(exact / 20_000) + 1e-4)


@pytest.mark.parametrize("seed", SEEDS)
def test_scipy_percentile_bootstrap_over_random_scores(seed):
    """Ends agree to what resampling leaves open: a tenth of the interval's own width."""
    system, baseline = scores(seed, queries=120)
    differences = np.array(list(system.values())) - np.array(list(baseline.values()))
    theirs = stats.bootstrap(
        (differences,), np.mean, method="percentile", n_resamples=4000, random_state=np.random.default_rng(seed)
    ).confidence_interval
    low, high = bootstrap(differences, rounds=4000)
    room = 0.1 * (theirs.high - theirs.low)
    assert low == pytest.approx(theirs.low, abs=room) and high == pytest.approx(theirs.high, abs=room)


@pytest.mark.parametrize("seed", SEEDS)
def test_scipy_ranks_order_holms_correction(seed):
    """p_(i) ← max over j ≤ i of min(1, (m − j + 1) p_(j)), with scipy's ranks."""
    p = np.random.default_rng(seed).uniform(0, 0.3, 7)
    rank = stats.rankdata(p, method="ordinal").astype(int)
    wanted = [max(min(1.0, (7 - rank[j] + 1) * p[j]) for j in range(7) if rank[j] <= rank[i]) for i in range(7)]
    assert holm(p.tolist()) == pytest.approx(wanted)


def drawn(seed, items, vocabulary=60, density=0.15):
    """Random term weights, one item empty, as scipy's CSR and as ours."""
    rng = np.random.default_rng(seed)
    weights = np.where(rng.random((items, vocabulary)) < density, rng.gamma(2.0, 0.5, (items, vocabulary)), 0)
    weights[items // 2] = 0
    return sparse.csr_matrix(weights.astype(np.float32)), Sparse.of(weights.astype(np.float32))


@pytest.mark.parametrize("seed", SEEDS)
def test_scipy_csr_rows_are_our_sparse_vectors(seed):
    theirs, ours = drawn(seed, 30)
    np.testing.assert_array_equal(ours.start, theirs.indptr)
    np.testing.assert_array_equal(ours.terms, theirs.indices)
    np.testing.assert_array_equal(ours.weights, theirs.data)
    np.testing.assert_array_equal(ours.array(), theirs.toarray())
    np.testing.assert_array_equal(ours[5:20].array(), theirs[5:20].toarray())


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize(("bits", "tolerance"), [(32, 1e-6), (16, 1e-3), (8, 0.03)])
def test_scipy_sparse_products_are_the_inverted_indexs_scores(seed, bits, tolerance):
    documents, our_documents = drawn(seed, 200)
    queries, our_queries = drawn(seed + 50, 20, density=0.1)
    exact = (queries.astype(np.float64) @ documents.T.astype(np.float64)).toarray()
    top = InvertedIndex.build(our_documents, InvertedSettings(bits=bits), threads=1).search(our_queries, 200)
    for q in range(20):
        there = top.rows[q] >= 0
        assert set(top.rows[q][there]) == set(np.flatnonzero(exact[q] > 0))
        np.testing.assert_allclose(top.scores[q][there], exact[q, top.rows[q][there]], rtol=tolerance, atol=tolerance)
        if bits == 32:
            order = np.lexsort((np.arange(200), -exact[q].astype(np.float32)))[: there.sum()]
            np.testing.assert_array_equal(top.rows[q][there], order)


@pytest.mark.parametrize("seed", SEEDS)
def test_scipy_distances_give_maxsim(seed):
    """Of unit vectors, 1 − cosine distance is the product: MaxSim by `scipy.spatial.distance.cdist`."""
    distance = pytest.importorskip("scipy.spatial.distance")
    rng = np.random.default_rng(seed)

    def items(count):
        vectors = [rng.standard_normal((rng.integers(1, 7), 5)) for _ in range(count)]
        return [(v / np.linalg.norm(v, axis=1, keepdims=True)).astype(np.float32) for v in vectors]

    queries, documents = items(4), items(9)
    top = maxsim_slowly(MultiVector.of(queries, 5), MultiVector.of(documents, 5), 9)
    for q, query in enumerate(queries):
        wanted = np.array([(1 - distance.cdist(query, d, "cosine")).max(1).sum() for d in documents])
        np.testing.assert_allclose(top.scores[q], wanted[top.rows[q]], atol=1e-5)
