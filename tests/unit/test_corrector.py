"""Correctors of stale codes: a ridge and a small network, by their laws, by hand and by finite differences."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

from flatcoat.errors import FlatcoatError, Misuse
from flatcoat.mining.corrector import Affine, Batch, Correction, Corrector, Hidden, Network, Residual, Ridge, loss
from flatcoat.mining.nystrom import apart, to_unit


def sample(s: int = 200, code: int = 12, dim: int = 20) -> tuple[np.ndarray, np.ndarray]:
    """Codes and a function of them that no affine map is."""
    rng = np.random.default_rng(2)
    codes = rng.standard_normal((s, code)).astype(np.float32) / np.sqrt(code).astype(np.float32)
    bent = np.abs(codes @ rng.standard_normal((code, dim))) + codes @ rng.standard_normal((code, dim))
    return codes, to_unit(bent.astype(np.float32))


def test_the_ridge_recovers_an_exact_linear_drift():
    codes, _ = sample()
    weights, bias = np.random.default_rng(1).standard_normal((12, 20)), np.arange(20.0)
    found = Ridge().fit(codes, codes @ weights + bias)
    np.testing.assert_allclose(found.weights, weights, atol=1e-5)
    np.testing.assert_allclose(found.bias, bias, atol=1e-5)


def test_the_ridge_is_the_normal_equations_and_kernel_ridge_regression():
    codes, fresh = sample()
    found = Ridge(penalty=0.1).fit(codes, fresh)
    x, y = codes - codes.mean(0, dtype=np.float64), fresh - fresh.mean(0, dtype=np.float64)
    penalty = 0.1 * np.trace(x.T @ x) / 12
    primal = np.linalg.solve(x.T @ x + penalty * np.eye(12), x.T @ y)
    dual = x.T @ np.linalg.solve(x @ x.T + penalty * np.eye(200), y)
    np.testing.assert_allclose(found.weights, primal, atol=1e-6)
    np.testing.assert_allclose(found.weights, dual, atol=1e-6)


def test_cross_validation_is_leave_one_out_where_all_rows_weigh_alike():
    """GCV is leave-one-out with the mean leverage: its λ must be near the best of the plain leave-one-out by hand."""
    rng = np.random.default_rng(4)
    codes = rng.standard_normal((40, 12)).astype(np.float32)
    fresh = (codes @ rng.standard_normal((12, 3)) + 3 * rng.standard_normal((40, 3))).astype(np.float32)

    def left_out(ridge: Ridge) -> float:
        others = [np.delete(np.arange(40), i) for i in range(40)]
        gaps = [ridge.fit(codes[o], fresh[o]).predict(codes[i : i + 1]) - fresh[i] for i, o in enumerate(others)]
        return float(np.mean(np.square(gaps)))

    best = min(left_out(Ridge(10.0**power)) for power in np.arange(-4, 2.1, 0.5))
    assert left_out(Ridge()) <= 1.03 * best
    assert left_out(Ridge()) < 0.95 * left_out(Ridge(1e-6))


def test_a_ridge_of_fewer_rows_than_numbers_is_finite():
    codes, fresh = sample(s=6)
    assert np.isfinite(Ridge().fit(codes, fresh).weights).all()
    same = Ridge().fit(np.ones((6, 3), np.float32), fresh)
    np.testing.assert_allclose(same.predict(np.ones((1, 3), np.float32))[0], fresh.mean(0), atol=1e-6)


@pytest.mark.parametrize("asks", [False, True])
def test_the_networks_gradient_is_that_of_finite_differences(asks):
    rng = np.random.default_rng(0)
    hidden = Hidden(rng.standard_normal((5, 4)), rng.standard_normal(5), rng.standard_normal((6, 5)))
    queries = rng.standard_normal((3, 6)) if asks else None
    batch = Batch(rng.standard_normal((7, 4)), rng.standard_normal((7, 6)), rng.standard_normal((7, 6)), queries)
    gradient = loss(hidden, batch, 2.0, 0.7)[1]
    for name in Hidden._fields:
        expected = np.zeros_like(getattr(hidden, name))
        for at in np.ndindex(expected.shape):
            values = []
            for sign in (1, -1):
                part = getattr(hidden, name).copy()
                part[at] += sign * 1e-5
                values.append(loss(hidden._replace(**{name: part}), batch, 2.0, 0.7)[0])
            expected[at] = (values[0] - values[1]) / 2e-5
        np.testing.assert_allclose(getattr(gradient, name), expected, atol=1e-6, rtol=1e-6)


def test_the_networks_loss_by_hand():
    hidden = Hidden(np.array([[1.0]]), np.array([-1.0]), np.array([[2.0]]))
    batch = Batch(np.array([[2.0], [0.5]]), np.array([[0.0], [1.0]]), np.array([[1.0], [1.0]]), np.array([[1.0]]))
    # h = 0 + 2 relu(1) = 2 and 1 + 2 relu(-0.5) = 1; squared error (1 + 0) / 2; softmax(1, 1) against softmax(2, 1)
    cross = -0.5 * np.log(np.exp(2) / (np.exp(2) + np.exp(1))) - 0.5 * np.log(np.exp(1) / (np.exp(2) + np.exp(1)))
    assert loss(hidden, batch, 1.0, 3.0)[0] == pytest.approx(3 * 0.5 + cross)


@pytest.mark.parametrize("asks", [False, True])
def test_the_network_learns_what_bends_and_repeats_itself(asks):
    codes, fresh = sample(s=600)
    queries = to_unit(np.random.default_rng(6).standard_normal((50, 20)).astype(np.float32)) if asks else None
    network = Network(queries=queries, hidden=64, rate=3e-3)
    found = network.fit(codes[:500], fresh[:500])
    error = apart(found.predict(codes[500:]), fresh[500:], fresh)[0]
    assert error < 0.9 * apart(Ridge().fit(codes[:500], fresh[:500]).predict(codes[500:]), fresh[500:], fresh)[0]
    again = network.fit(codes[:500], fresh[:500])
    for name, array in found.arrays().items():
        np.testing.assert_array_equal(array, again.arrays()[name])


@pytest.mark.parametrize("seed", range(4))
def test_the_network_is_never_worse_than_its_ridge_on_what_it_holds_out(seed):
    rng = np.random.default_rng(seed)
    codes, fresh = sample(s=60)
    queries = rng.standard_normal((20, 20)).astype(np.float32)
    found = Network(queries=queries, hidden=32, rate=1e-2, seed=seed).fit(codes, fresh)
    held = np.sort(np.random.default_rng(seed).permutation(60)[:6])
    mine, base = found.predict(codes[held]), found.base.predict(codes[held])
    assert ((mine - fresh[held]) ** 2).sum() <= ((base - fresh[held]) ** 2).sum() * (1 + 1e-6)


def test_more_epochs_are_never_worse_on_what_is_held_out():
    """With noise, so that training on and on overshoots."""
    codes, fresh = sample()
    fresh = fresh + 0.1 * np.random.default_rng(8).standard_normal(fresh.shape).astype(np.float32)
    queries = to_unit(np.random.default_rng(0).standard_normal((20, 20)).astype(np.float32))
    held = np.sort(np.random.default_rng(0).permutation(200)[:20])
    values = []
    for epochs in (5, 10, 20, 40, 80, 160, 161, 162):
        network = Network(queries=queries, hidden=32, rate=1e-2, patience=1000, epochs=epochs)
        found = network.fit(codes, fresh)
        assert found.out.any()
        batch = Batch(codes[held], found.base.predict(codes[held]), fresh[held], queries)
        values.append(loss(Hidden(found.weights, found.shift, found.out), batch, network.beta, network.squared)[0])
    assert all(late <= early + 1e-6 for early, late in pairwise(values)), values
    assert values[-1] < values[0]


def test_where_there_is_nothing_to_learn_the_network_is_the_ridge():
    codes = sample(s=200)[0]
    linear = (codes @ np.random.default_rng(1).standard_normal((12, 20))).astype(np.float32)
    found = Network(hidden=32).fit(codes, linear)
    assert not found.out.any()
    np.testing.assert_array_equal(found.predict(codes), Ridge().fit(codes, linear).predict(codes))


@pytest.mark.parametrize(
    "corrector, made", [(Ridge(), Affine), (Network(hidden=16), Residual)], ids=["ridge", "network"]
)
def test_correctors_keep_the_protocols_and_come_back_from_their_arrays(corrector, made):
    codes, fresh = sample()
    assert isinstance(corrector, Corrector)
    found = corrector.fit(codes, fresh)
    assert isinstance(found, Correction)
    again = made.from_arrays({name: array.copy() for name, array in found.arrays().items()})
    np.testing.assert_array_equal(again.predict(codes), found.predict(codes))
    factor = np.random.default_rng(0).standard_normal((7, 20))
    np.testing.assert_allclose(found.through(factor).predict(codes), found.predict(codes) @ factor.T, atol=1e-5)


def test_samples_that_teach_nothing():
    codes, fresh = sample(s=30)
    with pytest.raises(Misuse, match="1 given"):
        Ridge().fit(codes[:1], fresh[:1])
    with pytest.raises(Misuse, match="9 targets"):
        Network().fit(codes[:9], fresh[:9])
    fresh[3, 2] = np.nan
    for corrector in (Ridge(), Network()):
        with pytest.raises(FlatcoatError, match="1 of 30 fresh encodings"):
            corrector.fit(codes, fresh)
    with pytest.raises(Misuse, match="penalty"):
        Ridge(penalty=0.0)


def test_training_stops_after_epochs_without_a_better_loss(monkeypatch):
    """A rate at which nothing changes: the first `patience` epochs are not better, and the next is not begun."""
    codes, fresh = sample(60)
    begun = []
    batches = Network._batches
    monkeypatch.setattr(Network, "_batches", lambda self, *rest: begun.append(1) or batches(self, *rest))
    Network(hidden=4, rate=0.0, patience=3, epochs=20, squared=10.0).fit(codes, fresh)
    assert len(begun) == 3
