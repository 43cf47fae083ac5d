"""Building a stable-greedy tree: what comes of it is what the definition says."""

from __future__ import annotations

import math

import numpy as np
import pytest

from flatcoat.errors import FlatcoatError, Misuse
from flatcoat.mining.sg_tree import SGTree, TreeSettings
from flatcoat.testing.trees import broken_laws, by_row, slow_tree


def points(count: int, dim: int, seed: int, *, same: int = 0, spread: float = 1.0) -> np.ndarray:
    """Unit vectors around a few centres, the last `same` of them equal to others."""
    rng = np.random.default_rng(seed)
    found = rng.normal(size=(5, dim))[rng.integers(0, 5, count)] + spread * rng.normal(size=(count, dim))
    found = (found / np.linalg.norm(found, axis=1, keepdims=True)).astype(np.float32)
    if same:
        found[-same:] = found[rng.integers(0, count - same, same)]
    return found


def apart(vectors: np.ndarray, least: float = 0.05) -> np.ndarray:
    """Those no nearer than that to one before, or equal to it: so that rounding does not decide which radius they are within."""
    kept: list[np.ndarray] = []
    for own in vectors:
        gaps = np.array([np.linalg.norm(own - other) for other in kept])
        if not ((gaps > 0) & (gaps < least)).any():
            kept.append(own)
    return np.array(kept)


def agree(tree: SGTree) -> None:
    """A forest is what the definition gives for each of its parts, and keeps the laws."""
    level, parent = by_row(tree)
    rows = np.random.default_rng(0).permutation(np.sort(tree.arrays.order))  # what `build` draws with seed 0
    for lo, hi in tree.arrays.bounds():
        part = rows[lo:hi]
        want = slow_tree(tree.vectors, part, tree.settings)
        np.testing.assert_array_equal(level[part], want[0][part])
        np.testing.assert_array_equal(parent[part], want[1][part])
    assert broken_laws(tree, slack=1e-6) == []


@pytest.mark.parametrize("distance", ["euclidean", "exp"])
@pytest.mark.parametrize("base", [1.05, 1.2, 2.0, 3.15])
@pytest.mark.parametrize(("dim", "trees"), [(2, 1), (3, 3), (8, 1), (32, 3)])
def test_building_is_inserting(distance, base, dim, trees):
    vectors = apart(points(150, dim, seed=dim, same=30, spread=0.1 if dim == 8 else 1.0))
    assert len(np.unique(vectors, axis=0)) < len(vectors) - 10 > 25
    agree(SGTree.build(vectors, TreeSettings(base, trees, distance), threads=2))


@pytest.mark.parametrize("base", [1.2, 2.0, 3.15, 4.0])
@pytest.mark.parametrize("spread", [1e-2, 1e-3])
def test_points_that_are_all_but_equal(base, spread):
    tree = SGTree.build(points(120, 6, seed=3, spread=spread), TreeSettings(base, 1))
    assert broken_laws(tree, slack=1e-6) == []


@pytest.mark.parametrize("base", [1.2, 2.0, 3.15])
@pytest.mark.parametrize("dim", [3, 32, 256])
def test_equal_points_lie_side_by_side_at_the_lowest_level(base, dim):
    vectors = np.repeat(points(1, dim, seed=dim), 50, axis=0)
    tree = SGTree.build(vectors, TreeSettings(base, 1))
    agree(tree)
    assert tree.arrays.level[1:].tolist() == [0] * 49
    assert (tree.arrays.parent[1:] == 0).all()


@pytest.mark.parametrize("trees", [1, 3])
def test_one_point_and_two(trees):
    for count in (1, 2):
        tree = SGTree.build(points(count, 4, seed=1), TreeSettings(1.3, trees))
        agree(tree)
        assert len(tree) == count and len(tree.arrays.roots) == min(count, trees)
    opposite = np.array([[1, 0], [-1, 0]], np.float32)
    tree = SGTree.build(opposite, TreeSettings(2.0, 1))
    assert broken_laws(tree) == [] and tree.arrays.level[1] == tree.top - 1


def test_many_kids_at_one_point():
    vectors = np.eye(300, dtype=np.float32)
    tree = SGTree.build(vectors, TreeSettings(1.2, 1))
    agree(tree)
    assert (tree.arrays.parent[1:] == 0).all()


def test_some_rows_only():
    vectors, rows = points(60, 5, seed=2), np.arange(1, 60, 3)
    tree = SGTree.build(vectors, TreeSettings(1.5, 2), rows=rows)
    agree(tree)
    assert sorted(tree.arrays.order.tolist()) == rows.tolist()


def test_threads_give_the_same_bits():
    vectors = points(2000, 16, seed=4, same=100)
    one, two = (SGTree.build(vectors, TreeSettings(1.2, 7), seed=3, threads=n) for n in (1, 2))
    for name, value in one.state().items():
        assert value.tobytes() == two.state()[name].tobytes(), name


def test_the_seed_decides_the_order():
    vectors = points(50, 4, seed=5)
    orders = [SGTree.build(vectors, TreeSettings(1.2, 1), seed=s).arrays.order.tolist() for s in (0, 0, 1)]
    assert orders[0] == orders[1] != orders[2]


@pytest.mark.parametrize("base", [1.01, 1.05, 1.2, 2.0, 3.15, 4.0])
def test_euclidean_radii_are_powers_of_the_base(base):
    radii = TreeSettings(base).radii()
    assert radii[0] == 0 and radii[-1] >= 2 - 1e-12 and radii[-1] / base < 2
    powers = np.log(radii[1:]) / math.log(base)
    np.testing.assert_allclose(powers, np.round(powers), atol=1e-9)
    np.testing.assert_allclose(np.diff(powers), 1)
    assert 1e-3 <= radii[1] <= 1e-3 * base * (1 + 1e-9), "finer than single precision tells"


@pytest.mark.parametrize("base", [1.05, 1.2, 2.0])
def test_radii_by_the_exponential_of_the_inner_product(base):
    settings = TreeSettings(base, 1, "exp")
    radii = settings.radii()
    assert radii[0] == 0 and radii[-1] >= 2 and (np.diff(radii) > 0).all()
    angles = [2 * math.asin(min(1.0, r / 2)) for r in radii[1:] if r <= 2]
    powers = []
    for angle in angles:  # two unit vectors that far apart, in the plane
        x, y = np.array([1.0, 0.0]), np.array([math.cos(angle), math.sin(angle)])
        power = math.log(math.exp(-x @ y)) / math.log(base)
        assert abs(power - round(power)) < 1e-9
        powers.append(round(power))
    assert len(powers) > 2 and set(np.diff(powers)) == {1}


def test_the_laws_are_told_where_they_break():
    vectors = points(80, 4, seed=6, spread=0.3)
    tree = SGTree.build(vectors, TreeSettings(1.3, 2))
    assert broken_laws(tree) == []
    kid = int(np.flatnonzero((tree.arrays.parent >= 0) & (tree.arrays.level > 3))[0])
    changes = {
        "order": (0, tree.arrays.order[1]), "level": (kid, 0), "parent": (kid, kid), "prev": (kid, kid), "last": (0, 0),
        "size": (kid, 99), "reach": (kid, 1.0), "gap": (kid, -1.0), "roots": (1, 0),
    }  # fmt: skip
    for name, (at, value) in changes.items():
        worse = tree.with_vectors(vectors)
        worse.state()[name][at] = value
        assert broken_laws(worse) != [], name
    far = vectors.copy()
    far[tree.arrays.order[kid]] *= -1
    assert any("which covers" in line for line in broken_laws(tree.with_vectors(far)))
    near = vectors.copy()
    near[tree.arrays.order[kid]] = near[tree.arrays.order[tree.arrays.parent[kid]]]
    assert any("apart by" in line for line in broken_laws(tree.with_vectors(near)))


@pytest.mark.parametrize(
    ("vectors", "rows", "says"),
    [
        (np.empty((0, 3), np.float32), None, "at least one"),
        (points(5, 3, seed=1), np.empty(0, np.int64), "at least one"),
        (points(5, 3, seed=1), np.array([0, 5]), "row"),
        (points(5, 3, seed=1), np.array([-1, 2]), "row"),
        (points(5, 3, seed=1), np.array([1, 1]), "row"),
        (2 * points(5, 3, seed=1), None, "unit length"),
        (np.full((5, 3), np.nan, np.float32), None, "unit length"),
        (points(5, 3, seed=1).astype(np.float64), None, "float32"),
    ],
)
def test_what_is_no_tree_is_said_in_one_line(vectors, rows, says):
    with pytest.raises(Misuse, match=says) as told:
        SGTree.build(vectors, TreeSettings(1.2, 2), rows=rows)
    assert "\n" not in str(told.value)


@pytest.mark.parametrize("wrong", [{"base": 1.0}, {"base": 5.0}, {"base": math.nan}, {"trees": 0}])
def test_settings_out_of_range(wrong):
    with pytest.raises(Misuse):
        TreeSettings(**wrong)


def test_a_distance_that_is_none():
    settings = TreeSettings()
    object.__setattr__(settings, "distance", "cosine")  # past the check of types that tests run under
    with pytest.raises(Misuse, match="euclidean or exp"):
        settings.__post_init__()


def test_saved_and_opened(tmp_path):
    vectors = points(90, 6, seed=7)
    tree = SGTree.build(vectors, TreeSettings(1.4, 3, "exp"))
    tree.save(tmp_path / "tree")
    opened = SGTree.open(tmp_path / "tree")
    assert opened.settings == tree.settings and broken_laws(opened) == []
    restored = SGTree.restored(vectors, tree.state(), tree.settings)
    for name, value in tree.state().items():
        assert opened.state()[name].tobytes() == restored.state()[name].tobytes() == value.tobytes(), name
        assert opened.state()[name].dtype == restored.state()[name].dtype == value.dtype, name
    np.testing.assert_array_equal(opened.vectors, vectors)
    with pytest.raises(FlatcoatError):
        SGTree.open(tmp_path / "none")
