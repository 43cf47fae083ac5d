"""Draws from the softmax down a tree: frequencies against the exact softmax, bounds against what was measured."""

import numpy as np
import pytest

from flatcoat.errors import Misuse
from flatcoat.mining.sg_follow import keep
from flatcoat.mining.sg_tree import SGTree, TreeSettings
from flatcoat.mining.softmax_tree import SoftmaxSettings, SoftmaxTree, exact_log_p

DRAWS = 40_000


def unit(n, dim, seed):
    found = np.random.default_rng(seed).standard_normal((n, dim)).astype(np.float32)
    return found / np.linalg.norm(found, axis=1, keepdims=True)


def clustered(n, dim, seed, spread=0.15):
    centres = unit(6, dim, seed)
    found = centres[np.arange(n) % 6] + spread * np.random.default_rng(seed + 1).standard_normal((n, dim)).astype(
        np.float32
    )
    return (found / np.linalg.norm(found, axis=1, keepdims=True)).astype(np.float32)


@pytest.fixture(scope="module")
def targets():
    return clustered(60, 6, 0)


@pytest.fixture(scope="module")
def tree(targets):
    return SGTree.build(targets, TreeSettings(1.3, 2))


def drawn(tree, settings, queries, n=DRAWS, seed=0):
    return SoftmaxTree(tree, settings).draw(queries, n, np.random.default_rng(seed))


def variation(rows, p):
    return 0.5 * np.abs(np.bincount(rows, minlength=len(p)) / len(rows) - p).sum()


@pytest.mark.parametrize("opens", ["near", "mass"])
@pytest.mark.parametrize("clusters", [1, 8, 200])
def test_rejection_draws_from_the_softmax(tree, targets, opens, clusters):
    from scipy.stats import chisquare

    queries = unit(3, 6, 5)
    settings = SoftmaxSettings(4.0, "rejection", 3.0, clusters, opens, tries=100_000)
    found, report = drawn(tree, settings, queries)
    p = np.exp(exact_log_p(queries, targets, 4.0))
    for i in range(3):
        assert chisquare(np.bincount(found.rows[i], minlength=60), p[i] * DRAWS).pvalue > 1e-3
        # the probability that is said is that of the softmax, up to Z as the draws estimate it
        np.testing.assert_allclose(found.log_q[i], np.log(p[i][found.rows[i]]), atol=0.1)
    assert report.variation == report.given_up == 0


def test_a_tree_that_kept_its_shape_draws_from_the_softmax_of_what_moved(targets):
    from scipy.stats import chisquare

    moved = unit(60, 6, 21) + targets
    moved = (moved / np.linalg.norm(moved, axis=1, keepdims=True)).astype(np.float32)
    kept = SGTree.build(targets, TreeSettings(1.3, 2))
    assert keep(kept, moved) > 0.1
    queries = unit(3, 6, 5)
    found, _ = drawn(kept, SoftmaxSettings(4.0, "rejection", 3.0, 8, "mass", tries=100_000), queries)
    p = np.exp(exact_log_p(queries, moved, 4.0))
    for i in range(3):
        assert chisquare(np.bincount(found.rows[i], minlength=60), p[i] * DRAWS).pvalue > 1e-3


def test_a_chain_of_one_is_the_proposal_exactly(tree, targets):
    query = unit(1, 6, 7)
    for members in ("uniform", "descend"):
        settings = SoftmaxSettings(4.0, clusters=4, chain=1, members=members)
        found, _ = drawn(tree, settings, query)
        said = np.zeros(60)
        said[found.rows[0]] = np.exp(found.log_q[0])
        assert said.sum() == pytest.approx(1, abs=1e-3)
        assert variation(found.rows[0], said) < 0.03


def test_a_chain_nears_the_softmax_within_its_bound_and_faster_when_longer(tree, targets):
    query = unit(1, 6, 11)
    p = np.exp(exact_log_p(query, targets, 4.0))[0]
    noise = variation(np.random.default_rng(1).choice(60, DRAWS, p=p), p)
    apart = []
    for chain in (1, 2, 4, 16):
        settings = SoftmaxSettings(4.0, clusters=6, chain=chain, members="uniform", opens="mass")
        found, report = drawn(tree, settings, query)
        apart.append(variation(found.rows[0], p))
        assert apart[-1] <= report.variation + 2 * noise
        assert report.bias == pytest.approx(2 * report.variation * 4.0)
    assert apart[0] > apart[1] > apart[2] > apart[3] - 1e-9
    assert apart[3] < 3 * noise + 0.02


def test_the_bound_holds_for_every_target(tree, targets):
    """γ of the report is no less than the worst P/Q, which a chain of one tells exactly."""
    for seed in range(5):
        query = unit(1, 6, 20 + seed)
        settings = SoftmaxSettings(6.0, clusters=10, chain=1, members="uniform", opens="mass")
        found, report = drawn(tree, settings, query)
        p = exact_log_p(query, targets, 6.0)[0]
        worst = np.exp((p[found.rows[0]] - found.log_q[0]).max())
        assert worst <= report.worst_gamma * (1 + 1e-3)


def test_opening_by_mass_reaches_the_gamma_that_is_asked_for(targets):
    tree = SGTree.build(targets, TreeSettings(1.1, 1))
    for gamma in (1.5, 3.0, 20.0):
        _, report = drawn(tree, SoftmaxSettings(3.0, "rejection", gamma, 10_000, "mass"), unit(4, 6, 3), n=500)
        assert report.worst_gamma <= gamma * 1.3  # measured from the share of begins that end: 1 / Pr


def test_opening_by_level_reaches_the_gamma_of_proposition_2():
    targets = clustered(300, 4, 2, spread=0.002)  # tight clusters: radii that the proposition can use
    tree = SGTree.build(targets, TreeSettings(1.2, 1))
    settings = SoftmaxSettings(5.0, gamma=4.0, clusters=10_000, members="uniform")
    _, report = drawn(tree, settings, unit(3, 4, 1), n=100)
    # a cluster's members lie within b^ℓ·(1 + 1/b + …) of its centre, which is what is measured
    assert report.worst_gamma <= 4.0 ** (1.2 / 0.2) * 1.01
    assert report.clusters < 300


def test_corrected_gradients_are_those_of_the_full_softmax(tree, targets):
    """Σ over draws of weights × gradients of scores, with log q, against E_P: within Monte-Carlo error."""
    query = unit(1, 6, 13)
    beta = 4.0
    p = np.exp(exact_log_p(query, targets, beta))[0]
    truth = p @ targets
    for settings in (
        SoftmaxSettings(beta, "rejection", clusters=50, opens="mass", tries=10_000),
        SoftmaxSettings(beta, clusters=6, chain=1, members="descend"),
        SoftmaxSettings(beta, clusters=6, chain=1, members="uniform"),
    ):
        found, _ = drawn(tree, settings, query)
        rows, log_q = found.rows[0], found.log_q[0].astype(np.float64)
        weights = np.exp(beta * (targets[rows] @ query[0]) - log_q)
        weights /= weights.sum()
        error = np.sqrt((weights**2).sum())  # of an average of unit vectors
        assert np.abs(weights @ targets[rows] - truth).max() < 5 * error


def test_the_heuristic_finds_the_best_where_every_cluster_is_open(targets):
    tree = SGTree.build(targets, TreeSettings(1.3, 2))
    query = unit(2, 6, 17)
    found, _ = drawn(tree, SoftmaxSettings(4.0, "best", clusters=1000), query, n=5)
    best = np.argsort(-(query @ targets.T), axis=1)[:, :5]
    np.testing.assert_array_equal(found.rows, best)
    few, _ = drawn(SGTree.build(targets[:3]), SoftmaxSettings(4.0, "best"), query, n=7)
    assert set(few.rows[0]) == {0, 1, 2}


def test_a_query_s_length_is_its_temperature(tree, targets):
    query = unit(1, 6, 19)
    one, _ = drawn(tree, SoftmaxSettings(8.0, "rejection", clusters=20), query, n=200)
    half, _ = drawn(tree, SoftmaxSettings(16.0, "rejection", clusters=20), query / 2, n=200)
    np.testing.assert_array_equal(one.rows, half.rows)


def test_threads_change_nothing(tree):
    queries = unit(37, 6, 23)
    for method in ("mh", "rejection", "best"):
        settings = SoftmaxSettings(4.0, method, clusters=9)
        a, _ = SoftmaxTree(tree, settings, threads=1).draw(queries, 8, np.random.default_rng(2))
        b, _ = SoftmaxTree(tree, settings, threads=3).draw(queries, 8, np.random.default_rng(2))
        np.testing.assert_array_equal(a.rows, b.rows)
        np.testing.assert_array_equal(a.log_q, b.log_q)


def test_rejection_that_gives_up_says_so(tree):
    _, report = drawn(tree, SoftmaxSettings(60.0, "rejection", clusters=2, tries=1), unit(2, 6, 29), n=50)
    assert report.given_up > 0 and report.variation == 1.0


def test_one_target_and_equal_targets():
    one = SGTree.build(unit(1, 4, 0))
    found, _ = drawn(one, SoftmaxSettings(), unit(2, 4, 1), n=3)
    assert (found.rows == 0).all() and (found.log_q == 0).all()
    same = SGTree.build(np.repeat(unit(1, 4, 0), 9, axis=0))
    found, _ = drawn(same, SoftmaxSettings(method="rejection", clusters=3), unit(1, 4, 1), n=9000)
    assert variation(found.rows[0], np.full(9, 1 / 9)) < 0.03


def test_the_length_of_chain_for_a_variation():
    settings = SoftmaxSettings(gamma=5.0)
    assert (1 - 1 / 5) ** (settings.chain_for(0.01) - 1) <= 0.01 < (1 - 1 / 5) ** (settings.chain_for(0.01) - 2)
    assert settings.finest == pytest.approx(np.log(5) / 40)


def test_settings_that_cannot_be_meant():
    with pytest.raises(Misuse, match="gamma above 1"):
        SoftmaxSettings(gamma=1.0)
    with pytest.raises(Exception, match="rejection"):
        SoftmaxSettings(method="gibbs")
    tree = SGTree.build(unit(5, 4, 0))
    with pytest.raises(Misuse, match="query 1 holds a number"):
        SoftmaxTree(tree).draw(np.array([[1, 0, 0, 0], [np.nan, 0, 0, 0]], np.float32), 1, np.random.default_rng(0))
