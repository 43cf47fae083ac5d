"""Kernels on inputs small enough to run as plain Python too (NUMBA_DISABLE_JIT=1): what coverage and planted faults are measured with."""

from __future__ import annotations

import numpy as np
import pytest

from flatcoat.errors import Misuse
from flatcoat.index.inverted import InvertedIndex, InvertedSettings, search_slowly_sparse
from flatcoat.mining import sg_follow
from flatcoat.mining import softmax_kernels as kernels
from flatcoat.mining.sg_tree import SGTree, TreeSettings
from flatcoat.mining.softmax_tree import SoftmaxSettings, SoftmaxTree, exact_log_p
from flatcoat.testing.sparse_index import zipfian
from flatcoat.testing.trees import broken_laws, by_row, slow_tree

FEW = 48


def unit(found):
    return (found / np.linalg.norm(found, axis=-1, keepdims=True)).astype(np.float32)


def points(count, dim=3, seed=0, spread=0.4):
    """Unit vectors around a few centres, some of them equal."""
    rng = np.random.default_rng(seed)
    found = rng.normal(size=(4, dim))[rng.integers(0, 4, count)] + spread * rng.normal(size=(count, dim))
    found[count // 2 :: 5] = found[0]
    return unit(found)


def same_as_slow(tree, seed=0):
    order = np.random.default_rng(seed).permutation(np.arange(len(tree.vectors), dtype=np.int32))
    level, parent = slow_tree(tree.vectors, order, tree.settings)
    for found, wanted in zip(by_row(tree), (level, parent), strict=True):
        np.testing.assert_array_equal(found, wanted)


@pytest.mark.parametrize("base", [1.2, 2.0])
@pytest.mark.parametrize(("count", "spread"), [(1, 1.0), (2, 1.0), (FEW, 0.4), (90, 0.01)])
def test_a_tree_is_the_slow_one(base, count, spread):
    tree = SGTree.build(points(count, spread=spread), TreeSettings(base, 1))
    assert broken_laws(tree) == []
    same_as_slow(tree)


def test_a_point_of_more_kids_than_there_is_room_for():
    """Equal points are kids of one, side by side: 150 of them, where lists begin with room for 64."""
    vectors = np.concatenate([np.tile(points(1), (150, 1)), points(20, seed=3)])
    tree = SGTree.build(vectors, TreeSettings(1.5, 1))
    assert broken_laws(tree) == [] and np.bincount(tree.arrays.parent[1:]).max() > 128
    sg_follow.remove(tree, tree.arrays.order[:1])  # the root, which many hang at
    assert broken_laws(tree) == [] and len(tree) == 169
    sg_follow.measure(tree)
    assert broken_laws(tree) == []


@pytest.mark.parametrize(("base", "spread"), [(1.2, 0.4), (1.6, 1.0), (2.0, 0.02)])
def test_points_that_come_one_by_one_make_the_slow_tree(base, spread):
    vectors, order = points(40, seed=2, spread=spread), np.random.default_rng(4).permutation(40)
    tree = SGTree.build(vectors, TreeSettings(base, 1), rows=order[:1])
    for row in order[1:]:
        sg_follow.insert(tree, np.array([row]))
        assert tree.arrays.order.dtype == np.int32
    assert broken_laws(tree) == []
    for found, wanted in zip(by_row(tree), slow_tree(vectors, order, tree.settings), strict=True):
        np.testing.assert_array_equal(found, wanted)


def test_points_come_go_and_move():
    vectors = points(FEW)
    tree = SGTree.build(vectors.copy(), TreeSettings(1.3, 2), rows=np.arange(30))
    sg_follow.insert(tree, np.arange(30, FEW))
    assert broken_laws(tree) == [] and len(tree) == FEW
    sg_follow.remove(tree, np.arange(0, 20, 3))
    assert broken_laws(tree) == [] and len(tree) == FEW - 7
    sg_follow.move(tree, np.array([1, 2, 40]), points(3, seed=8))
    assert broken_laws(tree) == []
    sg_follow.insert(tree, np.arange(0, 20, 3))
    assert broken_laws(tree) == [] and sorted(tree.arrays.order.tolist()) == list(range(FEW))


@pytest.mark.parametrize("by", [0.0, 0.05, 2.0])
def test_a_tree_follows_vectors_that_moved(by):
    vectors = points(FEW, spread=0.2)
    moved = unit(vectors + by * np.random.default_rng(1).normal(size=vectors.shape) / 2)
    drift = 2 * float(np.linalg.norm(moved.astype(np.float64) - vectors, axis=1).max())
    for follow in (sg_follow.repair, lambda tree, new: sg_follow.rebuild(tree, new, drift)):
        tree = SGTree.build(vectors, TreeSettings(1.4, 2))
        followed = follow(tree, moved)
        assert broken_laws(tree) == [] and followed.points == FEW and len(tree) == FEW
        assert (followed.moved > 0) == (by > 0) or followed.moved == 0
        if by == 0.0 and follow is sg_follow.repair:
            assert followed.moved == 0
    kept = SGTree.build(vectors, TreeSettings(1.4, 2))
    shape = by_row(kept)
    share = sg_follow.keep(kept, moved)
    for found, wanted in zip(by_row(kept), shape, strict=True):
        np.testing.assert_array_equal(found, wanted)
    a, cosines = kept.arrays, moved[kept.arrays.order] @ moved[kept.arrays.order].T
    inner = np.flatnonzero(a.parent >= 0)
    lost = cosines[inner, a.parent[inner]] < kept.cosines[a.level[inner] + 1] - 1e-5
    assert share == pytest.approx(lost.sum() / FEW) and (share > 0) == (by > 0)


TARGETS = points(24, spread=0.6)
QUERIES = points(2, seed=5)
EXACT = exact_log_p(QUERIES, TARGETS, 3.0)
METHODS = {
    "chain": SoftmaxSettings(3.0, "mh", clusters=6, chain=8, members="uniform", opens="mass"),
    "dive": SoftmaxSettings(3.0, "mh", clusters=6, chain=6, members="descend"),
    "one step": SoftmaxSettings(3.0, "mh", clusters=4, chain=1, members="descend", opens="mass"),
    "rejection": SoftmaxSettings(3.0, "rejection", 3.0, 4, "mass", tries=400),
    "rejection near": SoftmaxSettings(3.0, "rejection", 1.5, 9, "near", tries=400),
}


@pytest.mark.parametrize("name", METHODS)
def test_draws_come_as_often_as_the_softmax_or_their_own_log_q_says(name):
    tree = SGTree.build(TARGETS, TreeSettings(1.4, 2))
    found, report = SoftmaxTree(tree, METHODS[name]).draw(QUERIES, 1500, np.random.default_rng(3))
    for i in range(2):
        said = np.exp(EXACT[i])
        if name == "one step":
            said = np.zeros(24)
            said[found.rows[i]] = np.exp(found.log_q[i])
            assert said.sum() == pytest.approx(1, abs=0.05)
        else:
            np.testing.assert_allclose(found.log_q[i], EXACT[i][found.rows[i]], atol=0.25)
        apart = 0.5 * np.abs(np.bincount(found.rows[i], minlength=24) / 1500 - said).sum()
        assert apart < 0.08
    assert report.given_up == 0 and report.clusters >= 2 and 0 <= report.accepted <= 1 and 0 < report.effective <= 1


def law_of_a_dive(query, beta, p, c, tree):
    """The probability of each position below cluster (p, c), by its own recursion: the kids of a level, or what is left of the point."""
    a, near = tree.arrays, lambda at: float(query @ tree.vectors[tree.arrays.order[at]])
    if c < 0:
        return {p: 1.0}
    group, rest = [], c
    while rest >= 0 and a.level[rest] == a.level[c]:
        group, rest = [*group, rest], a.prev[rest]
    parts = [(kernels.members(p, rest, a.size), p, rest)]
    parts += [(a.size[kid] * np.exp(beta * (near(kid) - near(p))), kid, a.last[kid]) for kid in group]
    whole, law = sum(weight for weight, _, _ in parts), {}
    for weight, at, kid in parts:
        for place, share in law_of_a_dive(query, beta, at, kid, tree).items():
            law[place] = law.get(place, 0.0) + weight / whole * share
    return law


def test_a_dive_keeps_its_law():
    """Every part of a fan of kids is taken as often as its weight says, and the log probability told is the law's."""
    tree = SGTree.build(points(24, spread=0.9, seed=4), TreeSettings(3.0, 1))
    a, state = tree.arrays, np.array([7], np.uint64)
    fan = max(np.bincount(a.parent[a.parent >= 0] * 100 + a.level[a.parent >= 0]))
    assert fan >= 4  # kids of one point and one level
    law = law_of_a_dive(QUERIES[0], 2.0, 0, a.last[0], tree)
    assert sum(law.values()) == pytest.approx(1) and len(law) == 24
    s, weights, near = float(QUERIES[0] @ tree.vectors[a.order[0]]), np.empty(24), np.empty(24)
    seen = np.zeros(24)
    for _ in range(3000):
        at, cosine, log = kernels.dive(
            QUERIES[0],
            2.0,
            0,
            a.last[0],
            s,
            tree.vectors,
            a.order,
            a.level,
            a.prev,
            a.last,
            a.size,
            state,
            weights,
            near,
        )
        seen[at] += 1
        assert log == pytest.approx(np.log(law[at]), abs=1e-5)
        assert cosine == pytest.approx(float(QUERIES[0] @ tree.vectors[a.order[at]]), abs=1e-5)
    wanted = 3000 * np.array([law[at] for at in range(24)])
    assert ((seen - wanted) ** 2 / wanted).sum() < 60  # chi-square with 23 degrees: 60 is one in 30,000


@pytest.mark.parametrize(
    "follow", [sg_follow.repair, sg_follow.keep, lambda tree, new: sg_follow.rebuild(tree, new, 0.1)]
)
def test_vectors_that_do_not_fit_are_not_followed(follow):
    tree = SGTree.build(points(8), TreeSettings(1.4, 1))
    before = tree.vectors
    with pytest.raises(Misuse, match=r"over vectors \[8, 3\] cannot follow \[9, 3\]"):
        follow(tree, points(9))
    with pytest.raises(Misuse, match="unit length"):
        follow(tree, 2 * points(8))
    assert tree.vectors is before and broken_laws(tree) == []


@pytest.mark.parametrize("wrong", [{"beta": 0.0}, {"gamma": 1.0}, {"clusters": 0}, {"chain": 0}, {"tries": 0}])
def test_settings_of_draws_are_checked(wrong):
    with pytest.raises(Misuse, match="beta wants to be above 0, gamma above 1"):
        SoftmaxSettings(**wrong)


def test_the_hardest_are_the_best():
    tree = SGTree.build(TARGETS, TreeSettings(1.4, 2))
    found, report = SoftmaxTree(tree, SoftmaxSettings(3.0, "best", clusters=100, chain=3)).draw(
        QUERIES, 3, np.random.default_rng(0)
    )
    scores = QUERIES @ TARGETS.T
    for i in range(2):
        assert sorted(scores[i][found.rows[i]], reverse=True) == scores[i][found.rows[i]].tolist()
        assert scores[i].max() == pytest.approx(scores[i][found.rows[i]].max()) and len(set(found.rows[i])) == 3
    np.testing.assert_allclose(found.log_q, -np.log(3), rtol=1e-6)
    many, _ = SoftmaxTree(tree, SoftmaxSettings(3.0, "best", clusters=100, chain=3)).draw(
        QUERIES, 60, np.random.default_rng(0)
    )
    for row, log_q in zip(many.rows.tolist(), many.log_q, strict=True):  # each once, then the best again
        once = len(set(row))
        assert 12 <= once <= 24 and row == (row[:once] * 5)[:60]
        np.testing.assert_allclose(log_q, -np.log(once), rtol=1e-6)
    assert report.variation == 1.0


def test_the_hardest_are_members_of_the_nearest_clusters():
    tree = SGTree.build(TARGETS, TreeSettings(1.4, 1))
    a, state = tree.arrays, np.array([3], np.uint64)
    kid = next(c for c in range(24) if a.last[c] >= 0 and a.parent[c] >= 0 and a.size[c] >= 3)
    cosines, rows, values = np.array([0.5]), np.empty(3, np.int64), np.empty(3)
    within = set(a.order[kid : a.last[kid] + a.size[a.last[kid]]].tolist())
    for _ in range(50):
        one = np.array([kid]), np.array([a.last[kid]], np.int64), cosines, 1
        count = kernels.hardest(TARGETS, a.order, a.size, QUERIES[0], 3, *one, state, rows, values)
        assert 1 <= count <= 3 and set(rows[:count].tolist()) <= within and len(within) < 24


def test_a_draw_that_is_given_up_is_a_chains():
    tree = SGTree.build(TARGETS, TreeSettings(1.4, 1))
    settings = SoftmaxSettings(9.0, "rejection", 1e6, 1, "mass", tries=1)
    found, report = SoftmaxTree(tree, settings).draw(QUERIES, 200, np.random.default_rng(0))
    assert (
        0 < report.given_up < 1
        and (found.rows >= 0).all()
        and np.isfinite(found.log_q).all()
        and report.variation == 1.0
    )


@pytest.mark.parametrize("kind", ["inverted", "pruned"])
@pytest.mark.parametrize("count", [1, 40, 300])
def test_an_inverted_index_finds_what_the_slow_one_finds(kind, count):
    vectors, queries = zipfian(count, 9, seed=0, vocab_size=30), zipfian(5, 4, seed=1, vocab_size=30)
    settings = InvertedSettings(kind, mass=100, candidates=count) if kind == "pruned" else InvertedSettings(kind)
    index = InvertedIndex.build(vectors, settings)
    k = min(count, 7)
    found, truth = index.search(queries, k), search_slowly_sparse(index.dequantised(), index.used(queries), k)
    np.testing.assert_allclose(found.scores, truth.scores, rtol=1e-5)
    if kind == "inverted":
        np.testing.assert_array_equal(found.rows, truth.rows)


def test_chains_of_points_longer_than_there_is_room_for():
    """Points along an arc, each covered by the one before it, and many that hang at one: every list begins with room for 64."""
    angle = np.linspace(0, 3, 200)
    vectors = unit(np.stack([np.cos(angle), np.sin(angle), np.zeros(200)], 1))
    for base in (1.05, 1.3):
        tree = SGTree.build(vectors, TreeSettings(base, 1))
        assert broken_laws(tree) == []
        moved = unit(vectors + 0.02 * np.random.default_rng(0).normal(size=vectors.shape))
        drift = 2 * float(np.linalg.norm(moved.astype(np.float64) - vectors, axis=1).max())
        followed = sg_follow.rebuild(tree, moved, drift)
        assert broken_laws(tree) == [] and followed.points == 200
        sg_follow.remove(tree, tree.arrays.order[:1])
        assert broken_laws(tree) == [] and len(tree) == 199


def test_bounds_of_cosines_are_those_of_angles():
    for a in np.linspace(0.1, 3.0, 7):
        for b in np.linspace(0.1, 3.0, 7):
            s, r = float(np.cos(a)), float(np.cos(b))
            assert kernels.upper(s, r) == pytest.approx(np.cos(max(a - b, 0)), abs=1e-9)
            assert kernels.lower(s, r) == pytest.approx(np.cos(min(a + b, np.pi)), abs=1e-9)
    assert kernels.upper(0.25, 1.0) == kernels.lower(0.25, 1.0) == 0.25


def test_a_heap_stays_one():
    rng = np.random.default_rng(0)
    keys, items = np.empty(30), np.arange(30)
    wanted = rng.random(30)
    for at in range(30):
        keys[at] = wanted[at]
        kernels._up(keys, items, at)
    taken = []
    for count in range(30, 0, -1):
        taken.append(int(items[0]))
        keys[0], items[0] = keys[count - 1], items[count - 1]
        kernels._down(keys, items, count - 1 or 1)
    assert taken == np.argsort(-wanted).tolist()
