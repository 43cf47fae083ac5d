"""Changing a stable-greedy tree: whatever is done to it, in whatever order, it keeps the laws."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from flatcoat.errors import Misuse
from flatcoat.mining import sg_follow
from flatcoat.mining.sg_tree import SGTree, TreeSettings
from flatcoat.testing.trees import broken_laws, by_row, slow_tree

ROWS = 60


def unit(found: np.ndarray) -> np.ndarray:
    return (found / np.linalg.norm(found, axis=-1, keepdims=True)).astype(np.float32)


def points(count: int, dim: int, seed: int, spread: float = 1.0) -> np.ndarray:
    """Unit vectors around a few centres; one in four is equal to another."""
    rng = np.random.default_rng(seed)
    found = rng.normal(size=(4, dim))[rng.integers(0, 4, count)] + spread * rng.normal(size=(count, dim))
    return unit(np.where(rng.random((count, 1)) < 0.25, found[rng.integers(0, min(count, 5), count)], found))


def nudged(vectors: np.ndarray, by: float, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return unit(vectors + by * unit(rng.normal(size=vectors.shape)))


def distances(vectors: np.ndarray) -> np.ndarray:
    exact = vectors.astype(np.float64)
    return np.linalg.norm(exact[:, None] - exact[None], axis=-1)


def drift_of(tree: SGTree, vectors: np.ndarray) -> float:
    """The greatest change of any distance between points of the tree."""
    rows = tree.arrays.order
    return float(np.abs(distances(tree.vectors[rows]) - distances(vectors[rows])).max())


class Changes(RuleBasedStateMachine):
    """A tree that comes, goes, moves, drifts, and is kept."""

    @initialize(
        seed=st.integers(0, 2**16), dim=st.integers(2, 6), count=st.integers(1, 40), spread=st.sampled_from([0.03, 0.3, 1.0]),
        base=st.sampled_from([1.05, 1.2, 1.5, 2.0, 3.15]), trees=st.integers(1, 3),
        distance=st.sampled_from(["euclidean", "exp"]),
    )  # fmt: skip
    def begin(self, seed, dim, count, spread, base, trees, distance):
        vectors = points(ROWS, dim, seed, spread)
        rows = np.random.default_rng(seed).permutation(ROWS)[:count]
        self.tree = SGTree.build(vectors, TreeSettings(base, trees, distance), seed=seed, rows=rows, threads=1)
        self.present = set(rows.tolist())

    def some(self, data, rows, most):
        chosen = data.draw(st.sets(st.sampled_from(sorted(rows)), min_size=1, max_size=most))
        return np.array(sorted(chosen))

    @precondition(lambda self: len(self.present) < ROWS)
    @rule(data=st.data())
    def insert(self, data):
        rows = self.some(data, set(range(ROWS)) - self.present, 10)
        sg_follow.insert(self.tree, rows)
        self.present |= set(rows.tolist())

    @precondition(lambda self: len(self.present) > 1)
    @rule(data=st.data())
    def remove(self, data):
        rows = self.some(data, self.present, min(10, len(self.present) - 1))
        sg_follow.remove(self.tree, rows)
        self.present -= set(rows.tolist())

    @rule(data=st.data(), seed=st.integers(0, 2**16), everything=st.booleans())
    def move(self, data, seed, everything):
        rows = np.array(sorted(self.present)) if everything else self.some(data, self.present, 10)
        vectors = self.tree.vectors
        new = points(len(rows), vectors.shape[1], seed)
        new[::2] = vectors[np.random.default_rng(seed).integers(0, ROWS, len(new[::2]))]
        sg_follow.move(self.tree, rows, new)
        np.testing.assert_array_equal(self.tree.vectors[rows], new)

    @rule(seed=st.integers(0, 2**16), by=st.sampled_from([0.0, 1e-3, 0.03, 0.3, 3.0]))
    def repair(self, seed, by):
        told = sg_follow.repair(self.tree, nudged(self.tree.vectors, by, seed))
        assert told.moved >= 0 and told.points == len(self.present)

    @rule(seed=st.integers(0, 2**16), by=st.sampled_from([0.0, 1e-3, 0.03, 0.3, 3.0]), few=st.booleans())
    def rebuild(self, seed, by, few):
        vectors = nudged(self.tree.vectors, by, seed)
        if few:
            still = np.random.default_rng(seed).random(ROWS) < 0.9
            vectors[still] = self.tree.vectors[still]
        told = sg_follow.rebuild(self.tree, vectors, drift_of(self.tree, vectors))
        assert 0 <= told.moved < told.points == len(self.present)

    @rule()
    def keep(self):
        with tempfile.TemporaryDirectory() as folder:
            self.tree.save(Path(folder) / "tree")
            opened = SGTree.open(Path(folder) / "tree")
            assert broken_laws(opened) == []
            self.tree = opened.with_vectors(np.array(opened.vectors))

    @rule()
    def restore(self):
        self.tree = SGTree.restored(self.tree.vectors, self.tree.state(), self.tree.settings)

    @invariant()
    def keeps_the_laws(self):
        if hasattr(self, "tree"):
            assert set(self.tree.arrays.order.tolist()) == self.present
            assert broken_laws(self.tree) == []


TestChanges = Changes.TestCase
TestChanges.settings = settings(
    max_examples=50, stateful_step_count=15, deadline=None, derandomize=True, database=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much],
)  # fmt: skip


@pytest.mark.parametrize("base", [1.2, 2.0])
@pytest.mark.parametrize("distance", ["euclidean", "exp"])
def test_inserting_at_the_end_is_building_with_that_order(base, distance):
    vectors, known = points(80, 5, seed=1), np.arange(50)
    vectors[70:] = vectors[:10]
    tree = SGTree.build(vectors, TreeSettings(base, 1, distance), rows=known)
    order = np.concatenate([np.random.default_rng(0).permutation(known), np.arange(50, 80)])
    sg_follow.insert(tree, np.arange(79, 49, -1))
    level, parent = by_row(tree)
    want = slow_tree(vectors, order, tree.settings)
    np.testing.assert_array_equal(level, want[0])
    np.testing.assert_array_equal(parent, want[1])
    assert broken_laws(tree) == []


def test_one_at_a_time_is_all_at_once():
    vectors = points(60, 4, seed=2)
    one, all_ = (SGTree.build(vectors, TreeSettings(1.3, 3), rows=np.arange(20)) for _ in range(2))
    for row in range(20, 60):
        sg_follow.insert(one, np.array([row]))
    sg_follow.insert(all_, np.arange(20, 60))
    for name, value in one.state().items():
        assert value.tobytes() == all_.state()[name].tobytes(), name
    assert max(hi - lo for lo, hi in one.arrays.bounds()) == 20


@pytest.mark.parametrize("trees", [1, 3])
def test_out_and_in_again(trees):
    vectors = points(60, 4, seed=3, spread=0.3)
    tree = SGTree.build(vectors, TreeSettings(1.3, trees))
    roots = tree.arrays.order[tree.arrays.roots].copy()
    sg_follow.remove(tree, roots)
    assert broken_laws(tree) == [] and len(tree) == 60 - trees
    sg_follow.insert(tree, roots)
    assert broken_laws(tree) == [] and sorted(tree.arrays.order.tolist()) == list(range(60))
    sg_follow.remove(tree, np.arange(59))
    assert broken_laws(tree) == [] and tree.arrays.order.tolist() == [59] and len(tree.arrays.roots) == 1


def test_a_tree_that_was_opened_is_changed_in_memory(tmp_path):
    vectors = points(40, 4, seed=4)
    SGTree.build(vectors, TreeSettings(1.3, 2), rows=np.arange(30)).save(tmp_path / "tree")
    for change in (
        lambda tree: sg_follow.insert(tree, np.array([35])),
        lambda tree: sg_follow.remove(tree, np.array([3])),
        lambda tree: sg_follow.repair(tree, nudged(vectors, 0.3, 1)),
        lambda tree: sg_follow.rebuild(tree, nudged(vectors, 0.3, 1), 4.0),
        lambda tree: sg_follow.move(tree, np.array([3]), vectors[:1]),
    ):
        opened = SGTree.open(tmp_path / "tree")
        change(opened)
        assert broken_laws(opened) == []
    again = SGTree.open(tmp_path / "tree")
    np.testing.assert_array_equal(again.vectors, vectors)
    assert len(again) == 30 and broken_laws(again) == []


@pytest.mark.parametrize("follow", [sg_follow.repair, lambda tree, vectors: sg_follow.rebuild(tree, vectors, 4.0)])
def test_a_snapshot_stays_as_it_was(follow):
    vectors = points(60, 4, seed=5)
    tree = SGTree.build(vectors, TreeSettings(1.3, 2))
    state = tree.state()
    before = {name: value.copy() for name, value in state.items()}
    follow(tree, nudged(vectors, 0.5, 1))
    for name, value in before.items():
        np.testing.assert_array_equal(state[name], value)


@pytest.mark.parametrize("by", [0.0, 0.05, 0.5, 3.0])
@pytest.mark.parametrize("base", [1.05, 1.3, 2.0])
def test_a_kept_tree_keeps_its_shape_and_has_exact_bounds(base, by):
    vectors = points(200, 5, seed=3)
    tree = SGTree.build(vectors, TreeSettings(base, 2))
    before = {name: value.copy() for name, value in tree.state().items()}
    moved = nudged(vectors, by, 4)
    lost = sg_follow.keep(tree, moved)
    for name in ("order", "level", "parent", "prev", "last", "size", "roots"):
        np.testing.assert_array_equal(tree.state()[name], before[name])
    assert broken_laws(tree, slack=4.0) == []  # any distance goes; bounds are still those of the vectors
    a = tree.arrays
    kids = np.flatnonzero(a.parent >= 0)
    cosines = np.einsum("nd,nd->n", moved[a.order[kids]], moved[a.order[a.parent[kids]]], dtype=np.float64)
    slowly = (cosines < tree.cosines[a.level[kids] + 1]).sum() / len(tree)
    assert lost == pytest.approx(slowly, abs=0.02)
    assert (lost == 0) == (by == 0) and (by < 3 or lost > 0.1)


@pytest.mark.parametrize("base", [1.05, 1.3, 2.0])
def test_what_did_not_move_is_not_built_anew(base):
    tree = SGTree.build(points(300, 6, seed=6), TreeSettings(base, 2))
    before = tree.state()
    assert sg_follow.rebuild(tree, tree.vectors.copy(), 0.0).moved == 0
    for name in ("order", "level", "parent", "prev", "last", "size", "roots"):
        np.testing.assert_array_equal(tree.state()[name], before[name])
    assert sg_follow.repair(tree, tree.vectors.copy()).moved == 0
    for name in ("order", "level", "parent", "prev", "last", "size", "roots"):
        np.testing.assert_array_equal(tree.state()[name], before[name])


def _planted(tree: SGTree) -> tuple[int, int]:
    """A point deep down, with a few points below it that are close to one another: its position, and where its stretch ends."""
    a = tree.arrays
    for p in np.flatnonzero((a.size >= 3) & (a.size <= 12) & (a.level < tree.top - 4)):
        if a.level[a.last[p]] > 3:
            return int(p), int(p + a.size[p])
    raise AssertionError("no such point")


def test_a_breach_deep_down_is_all_that_is_built_anew():
    vectors = points(400, 6, seed=7)
    tree = SGTree.build(vectors, TreeSettings(1.3, 2))
    a = tree.arrays
    p, end = _planted(tree)
    before = {name: value.copy() for name, value in tree.state().items()}
    moved = vectors.copy()
    moved[a.order[a.last[p]]] = moved[a.order[p]]  # the highest kid falls onto its parent: too near
    # what is told to the tree is a change of nothing, but its bounds are those of the vectors as they are
    tree.vectors = moved
    sg_follow.measure(tree)
    told = sg_follow.rebuild(tree, moved, 0.0)
    assert told.moved == end - p - 1
    assert broken_laws(tree) == []
    outside = np.r_[0:p, end : len(tree)]
    for name in ("order", "level", "parent", "size"):
        np.testing.assert_array_equal(tree.state()[name][outside], before[name][outside])
    assert sorted(tree.arrays.order[p:end]) == sorted(before["order"][p:end])
    assert (tree.arrays.order[p:end] != before["order"][p:end]).any() or (
        tree.arrays.level[p:end] != before["level"][p:end]
    ).any()


@pytest.mark.parametrize("base", [1.2, 2.0])
@pytest.mark.parametrize("few", [True, False])
def test_a_kid_that_leaves_its_parents_cover_is_hung_higher(base, few):
    """A stretch built anew where it lies would keep it: it has to be built anew from where it is covered."""
    vectors = points(400, 6, seed=8, spread=0.2)
    tree = SGTree.build(vectors, TreeSettings(base, 2), threads=1)
    a = tree.arrays
    c = int(np.flatnonzero((a.level > 3) & (a.level < tree.top - 3))[0])
    moved = vectors.copy()
    moved[a.order[c] : a.order[c] + (1 if few else 200)] *= -1
    told = sg_follow.rebuild(tree, moved, drift_of(tree, moved))
    assert told.moved > 0 and broken_laws(tree) == []
    # and where the bounds are exact already, so that only what is broken is built anew
    tree = SGTree.build(vectors, TreeSettings(base, 2), threads=1)
    tree.vectors = moved
    sg_follow.measure(tree)
    told = sg_follow.rebuild(tree, moved, 0.0)
    assert told.moved > 0 and broken_laws(tree) == []


@pytest.mark.parametrize("by", [1e-3, 1e-2, 0.1, 1.0])
def test_repair_and_rebuild_and_threads(by):
    vectors = points(500, 8, seed=9, spread=0.3)
    found = []
    for threads in (1, 2):
        for follow in ("repair", "rebuild"):
            tree = SGTree.build(vectors, TreeSettings(1.3, 3), threads=threads)
            new = nudged(vectors, by, 2)
            if follow == "repair":
                sg_follow.repair(tree, new)
            else:
                sg_follow.rebuild(tree, new, drift_of(tree, new))
            assert broken_laws(tree) == [], (threads, follow)
            found.append({name: value.tobytes() for name, value in tree.state().items()})
    assert found[0] == found[2] and found[1] == found[3]


@pytest.mark.parametrize("change", ["insert", "move", "repair", "rebuild"])
def test_vectors_that_are_not_of_unit_length(change):
    vectors = points(20, 4, seed=10)
    tree = SGTree.build(vectors, TreeSettings(1.3, 1), rows=np.arange(15))
    bad = 2 * vectors
    before = {name: value.copy() for name, value in tree.state().items()}
    with pytest.raises(Misuse, match="unit length"):
        if change == "insert":
            tree.vectors[15] *= 2
            sg_follow.insert(tree, np.array([15]))
        elif change == "move":
            sg_follow.move(tree, np.array([3]), bad[:1])
        elif change == "repair":
            sg_follow.repair(tree, bad)
        else:
            sg_follow.rebuild(tree, bad, 4.0)
    for name, value in before.items():
        np.testing.assert_array_equal(tree.state()[name], value)
    assert broken_laws(tree) == []


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda t, v: sg_follow.insert(t, np.array([20])), "not all of the 20"),
        (lambda t, v: sg_follow.insert(t, np.array([-1])), "not all of the 20"),
        (lambda t, v: sg_follow.insert(t, np.array([17, 3])), "row 3 is in the tree already"),
        (lambda t, v: sg_follow.remove(t, np.array([3, 16])), "row 16 is not in the tree"),
        (lambda t, v: sg_follow.remove(t, np.array([20])), "row 20 is not in the tree"),
        (lambda t, v: sg_follow.remove(t, np.array([-1])), "row -1 is not in the tree"),
        (lambda t, v: sg_follow.remove(t, np.arange(15)), "no points"),
        (lambda t, v: sg_follow.move(t, np.array([16]), v[:1]), "row 16 is not in the tree"),
        (lambda t, v: sg_follow.move(t, np.array([1, 1]), v[:2]), "once"),
        (lambda t, v: sg_follow.move(t, np.array([1, 2]), v[:1]), "2 rows"),
        (lambda t, v: sg_follow.move(t, np.array([1]), v[:1].astype(np.float64)), "float32"),
        (lambda t, v: sg_follow.repair(t, v[:10]), "20"),
        (lambda t, v: sg_follow.repair(t, v.astype(np.float64)), "float32"),
        (lambda t, v: sg_follow.rebuild(t, v[:10], 1.0), "20"),
        (lambda t, v: sg_follow.rebuild(t, v, -1.0), "drift"),
        (lambda t, v: sg_follow.rebuild(t, v, float("nan")), "drift"),
    ],
)
def test_what_cannot_be_is_said_in_one_line(change, says):
    vectors = points(20, 4, seed=11)
    tree = SGTree.build(vectors, TreeSettings(1.3, 2), rows=np.arange(15))
    with pytest.raises(Misuse, match=says) as told:
        change(tree, vectors)
    assert "\n" not in str(told.value)
    assert broken_laws(tree) == [] and len(tree) == 15


def test_no_rows_change_nothing():
    tree = SGTree.build(points(20, 4, seed=12), TreeSettings(1.3, 2), rows=np.arange(15))
    none, before = np.empty(0, np.int64), tree.arrays.order.copy()
    sg_follow.insert(tree, none)
    sg_follow.remove(tree, none)
    sg_follow.move(tree, none, np.empty((0, 4), np.float32))
    np.testing.assert_array_equal(tree.arrays.order, before)
