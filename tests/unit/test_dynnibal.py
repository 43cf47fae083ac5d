"""The sampler that follows the model: its contract, its upkeep, and that neither a thread nor a stop changes anything."""

import time

import numpy as np
import pytest

from flatcoat.errors import FlatcoatError, Misuse
from flatcoat.mining.dynnibal import Dynnibal, DynnibalSettings, estimated_drift, lifted
from flatcoat.mining.reading import dense_reading
from flatcoat.mining.sg_follow import keep
from flatcoat.mining.sg_tree import TreeSettings
from flatcoat.mining.softmax_tree import SoftmaxSettings
from flatcoat.mining.uniform import Uniform
from flatcoat.mining.warmup import Warmed
from flatcoat.representations import MultiVector, Sparse
from flatcoat.testing.sampler import DOCUMENTS, QUERIES, FixedEncode, SamplerContract


def unit(found):
    return (found / np.linalg.norm(found, axis=1, keepdims=True)).astype(np.float32)


class Moving:
    """A model whose vectors drift with the step."""

    def __init__(self, documents=300, dim=12):
        rng = np.random.default_rng(0)
        self.begin = rng.standard_normal((documents + 20, dim))
        self.end = self.begin @ rng.standard_normal((dim, dim)) + 0.2 * rng.standard_normal(self.begin.shape)
        self.n, self.step, self.asked = documents, 0, 0

    def all(self):
        return unit(self.begin + 0.02 * self.step * self.end)

    def queries(self, rows):
        return self.all()[self.n + rows]

    def documents(self, rows=None):
        vectors = self.all()[: self.n]
        self.asked += self.n if rows is None else len(rows)
        return vectors if rows is None else vectors[rows]


def small(**changes):
    said = {
        "every": 4,
        "landmarks": 8,
        "sample": 60,
        "tree": TreeSettings(1.2, 2),
        "draw": SoftmaxSettings(8.0, clusters=20),
    }
    return DynnibalSettings(**{**said, **changes})


def play(sampler, model, steps, begin=0):
    """What is drawn after each step."""
    found, queries = [], np.arange(6)
    for step in range(begin, steps):
        model.step = step
        sampler.after_step(step, model)
        drawn = sampler.draw(queries, queries, 6, np.random.default_rng([1, step]))
        found.append((drawn.rows, drawn.log_q))
    return found


class TestContract(SamplerContract):
    def build(self):
        settings = small(landmarks=16, sample=20, uniform=0.25, draw=SoftmaxSettings(4.0, clusters=1000))
        return Dynnibal(DOCUMENTS, FixedEncode(), settings)


class TestContractOfRejection(SamplerContract):
    def build(self):
        draw = SoftmaxSettings(4.0, "rejection", clusters=1000, gamma=1.0001)  # everything is opened: Z is known
        return Dynnibal(DOCUMENTS, FixedEncode(), small(landmarks=16, sample=20, uniform=0.0, draw=draw))


class TestContractOfWarmed(SamplerContract):
    def build(self):
        return Warmed(Dynnibal(DOCUMENTS, FixedEncode(), small(sample=20)), DOCUMENTS, 3)


@pytest.mark.parametrize("follow", ["keep", "anew", "repair", "rebuild"])
@pytest.mark.parametrize("lag", [0, 3])
@pytest.mark.parametrize("stop", [3, 5, 8])
def test_a_stop_changes_nothing(follow, lag, stop):
    settings = small(follow=follow, lag=lag)
    model = Moving()
    whole = play(Dynnibal(300, model, settings), model, 13)
    first = Dynnibal(300, model, settings)
    before = play(first, model, stop)
    state = {name: np.array(value) for name, value in first.state().items()}
    second = Dynnibal(300, model, settings)
    second.restore(state)
    after = play(second, model, 13, begin=stop)
    for (rows, log_q), (others, other_log_q) in zip(whole, before + after, strict=True):
        np.testing.assert_array_equal(rows, others)
        np.testing.assert_array_equal(log_q, other_log_q)


def test_a_slow_thread_changes_nothing(monkeypatch):
    settings, model = small(lag=3), Moving()
    fast = play(Dynnibal(300, model, settings), model, 10)
    slow = Dynnibal(300, model, settings)
    real = Dynnibal._refreshed
    monkeypatch.setattr(Dynnibal, "_refreshed", lambda self, held, task: (time.sleep(0.05), real(self, held, task))[1])
    for (rows, _), (others, _) in zip(fast, play(slow, model, 10), strict=True):
        np.testing.assert_array_equal(rows, others)


def test_a_refresh_is_in_use_after_its_lag_and_no_sooner():
    model, notes = Moving(), []
    sampler = Dynnibal(300, model, small(lag=2), note=notes.append)
    play(sampler, model, 6)
    assert [note.split(":")[0] for note in notes] == ["step 0"]
    play(sampler, model, 7, begin=6)
    assert notes[-1].startswith("step 6: 60 of 300 targets moved all codes")


def test_refreshing_encodes_a_sample_and_follows_the_model():
    """After a drift the refreshed codes rank targets as the model does, better than stale ones, at a fraction of the encodings."""
    model = Moving()
    settings = small(every=10, landmarks=12, sample=60)
    sampler, stale = Dynnibal(300, model, settings), Dynnibal(300, model, small(every=1000, landmarks=12))
    for each in (sampler, stale):
        model.step = 0
        each.after_step(0, model)
    model.step, model.asked = 10, 0
    sampler.after_step(10, model)
    assert model.asked == 60 + 12

    def apart(each):
        asked = each.held.landmarks.code(model.queries(np.arange(20)))
        scores = asked @ each.held.points[:, :-1].T
        return np.abs(scores - model.queries(np.arange(20)) @ model.documents().T).mean()

    assert apart(sampler) < 0.5 * apart(stale)


def test_a_budget_that_is_passed_encodes_everything():
    model, notes = Moving(), []
    sampler = Dynnibal(300, model, small(budget=1e-9), note=notes.append)
    play(sampler, model, 5)
    assert "above the budget" in notes[1] and "encoded all 300" in notes[2]
    assert sampler.full_at == 4


def test_a_full_refresh_comes_when_it_is_due():
    model, notes = Moving(), []
    play(Dynnibal(300, model, small(full_every=6), note=notes.append), model, 13)
    assert [note.split(":")[0] for note in notes if "encoded all" in note] == ["step 0", "step 6", "step 12"]


def test_warm_up_is_uniform_and_asks_the_model_for_nothing():
    model = Moving()
    sampler = Warmed(Dynnibal(300, model, small()), 300, 4)
    rng = [np.random.default_rng([1, step]) for step in range(4)]
    queries = np.arange(6)
    for step, (rows, _) in enumerate(play(sampler, model, 4)):
        np.testing.assert_array_equal(rows, Uniform(300).draw(queries, queries, 6, rng[step]).rows)
    assert model.asked == 0 and not sampler.told(3)
    play(sampler, model, 6, begin=4)
    assert model.asked == 300 and sampler.told(5)["negatives/stale"] == 1


def test_lifted_codes_are_of_length_one_and_keep_inner_products():
    codes = np.random.default_rng(0).standard_normal((9, 5)).astype(np.float32)
    codes *= (np.array([0, 0.3, 0.99, 1, 1.5, 0.1, 0.2, 0.5, 0.7]) / np.linalg.norm(codes, axis=1))[:, None].astype(
        np.float32
    )
    points = lifted(codes)
    np.testing.assert_allclose(np.linalg.norm(points, axis=1), 1, atol=1e-6)
    short = np.linalg.norm(codes, axis=1) <= 1
    np.testing.assert_allclose(points[short, :-1], codes[short], atol=1e-6)


def test_what_is_held_is_counted():
    model = Moving()
    sampler = Dynnibal(300, model, small())
    sampler.after_step(0, model)
    held = sampler.held_bytes()
    assert held["beside_model"] == 4 * 12 * (60 + 16) and held["all_vectors"] == 4 * 12 * 300


def test_estimated_drift_is_zero_for_what_stands_and_for_a_rotation():
    model = Moving()
    old = model.documents()
    turn = np.linalg.qr(np.random.default_rng(2).standard_normal((12, 12)))[0].astype(np.float32)
    assert estimated_drift(old, old, 0) == 0 and estimated_drift(old, old @ turn, 0) < 1e-5
    model.step = 10
    assert estimated_drift(old, model.documents(), 0) > 0.05


def test_one_vector_a_text_of_every_kind():
    start = np.array([0, 2, 2, 3])
    late = MultiVector(start, np.array([[1, 0], [0, 1], [0, 2]], np.float32))
    np.testing.assert_allclose(dense_reading(late)[[0, 2]], [[0.5**0.5, 0.5**0.5], [0, 1]], atol=1e-6)
    rng = np.random.default_rng(0)
    terms = np.concatenate([np.sort(rng.choice(1000, 40, replace=False)) for _ in range(30)]).astype(np.int32)
    sparse = Sparse(np.arange(31) * 40, terms, rng.random(1200).astype(np.float32), 1000)
    found, whole = dense_reading(sparse), sparse.array()
    whole /= np.linalg.norm(whole, axis=1, keepdims=True)
    assert np.abs(found @ found.T - whole @ whole.T).max() < 5 / np.sqrt(256)
    with pytest.raises(Misuse, match="str has none"):
        dense_reading("text")


def test_bad_settings_and_draws_too_soon():
    with pytest.raises(Misuse, match="less than every=4"):
        small(lag=4)
    with pytest.raises(Misuse, match="8 landmarks of 5 documents"):
        Dynnibal(5, Moving(), small())
    with pytest.raises(FlatcoatError, match="no tree is built yet"):
        Dynnibal(QUERIES * 10, Moving(), small()).draw(np.arange(2), np.arange(2), 3, np.random.default_rng(0))


@pytest.mark.parametrize("wrong", [{"every": 0}, {"landmarks": 0}, {"sample": 9}, {"lag": -1}])
def test_settings_below_their_least_are_refused(wrong):
    with pytest.raises(Misuse, match="every and landmarks want to be at least 1, sample 10, lag 0"):
        small(**wrong)
    assert small(every=1, landmarks=1, sample=10, lag=0).sample == 10


@pytest.mark.parametrize(("lost", "anew"), [(0.0, False), (0.5, False), (0.51, True)])
def test_a_kept_tree_is_built_anew_only_where_most_points_have_left(lost, anew, monkeypatch):
    model, notes = Moving(), []
    monkeypatch.setattr("flatcoat.mining.dynnibal.keep", lambda tree, points: lost + 0 * keep(tree, points))
    sampler = Dynnibal(model.n, model, small(follow="keep"), note=notes.append)
    play(sampler, model, 5)
    assert f"; {model.n if anew else 0} hung anew;" in notes[-1]


@pytest.mark.parametrize(("share", "deep"), [(0.0, 8), (0.25, 6), (0.5, 4), (1.0, 0)])
def test_so_many_negatives_are_of_the_tree(share, deep):
    model = Moving()
    sampler = Dynnibal(model.n, model, small(uniform=share))
    play(sampler, model, 1)
    drawn = sampler.draw(np.arange(6), np.arange(6), 8, np.random.default_rng(0))
    assert drawn.rows.shape == (6, 8) and sampler._looked[1].shape[1] == deep
