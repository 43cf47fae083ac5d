"""A stable-greedy tree that changes: targets come, go and move, one at a time or all at once as a model is trained.

Two ways after all vectors have moved:

* `repair` looks at every kid. What its parent no longer covers, or stands too near to a sibling, comes loose with all that hangs at
  it and is hung anew from the root; the rest stays. Bounds are then measured exactly.
* `rebuild` is Algorithm 3 of Monath et al. 2023 with drift δ, a bound on the change of any distance (Proposition 6: 4wηβLM): from
  the root down, a stretch whose farthest kid may now be beyond its radius (MAXD + δ > b^ℓ) or whose kids may be too near
  (MIND − δ < b^(ℓ−1)) is built anew where it lies, or, where its point no longer covers all of it, from the nearest point above
  that does; where both hold its kids are asked in turn. (The paper's MAXD is of descendants; the law is of kids.)

Either gives a tree that keeps the three laws, so whatever draws from it by its bounds draws from the same distribution as from
one built anew.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from heapq import heapify, heapreplace

import numpy as np

from flatcoat.errors import Misuse
from flatcoat.mining.sg_tree import Arrays, SGTree, check, distinct


@dataclass(frozen=True)
class Followed:
    """What following cost: points hung anew, of how many."""

    moved: int
    points: int


class _Lists:
    """A forest as lists by row, to be changed."""

    def __init__(self, tree: SGTree):
        from flatcoat.mining.sg_edit import lists

        rows, a = len(tree.vectors), tree.arrays
        self.levels = np.empty(rows, np.int16)
        self.parents, self.first, self.following = (np.empty(rows, np.int32) for _ in range(3))
        lists(a.order, a.level, a.parent, a.prev, a.last, self.levels, self.parents, self.first, self.following)
        self.roots: list[int] = a.order[a.roots].tolist()

    @property
    def every(self) -> tuple[np.ndarray, ...]:
        return self.levels, self.parents, self.first, self.following


def _hang(tree: SGTree, lists: _Lists, rows: np.ndarray, root: int) -> int:
    """Hang rows, with what hangs at them, below a root: the first of them first."""
    from flatcoat.mining.sg_edit import insert

    if not len(rows):
        return 0
    return insert(tree.vectors, rows[::-1].astype(np.int32), len(rows), root, tree.top - 1, tree.cosines, *lists.every)


def _lay(tree: SGTree, lists: _Lists, count: int) -> None:
    """Positions of the lists, and their bounds."""
    from flatcoat.mining.sg_edit import lay

    sizes = [0]
    arrays = Arrays.blank(np.zeros(count, np.int32), np.zeros(len(lists.roots) + 1, np.int64), tree.top)
    for root in lists.roots:
        sizes.append(
            lay(root, lists.levels, lists.first, lists.following, arrays.order, arrays.level, arrays.parent, arrays.size, sizes[-1])
        )  # fmt: skip
    arrays.roots[:] = sizes[:-1]
    tree.arrays = arrays
    tree.link()
    measure(tree)


def measure(tree: SGTree) -> None:
    """Every bound anew, exactly, for the vectors as they are."""
    from flatcoat.mining.sg_edit import farthest, nearest

    a = tree.arrays

    def one(bounds: tuple[int, int]) -> None:
        farthest(tree.vectors, a.order, a.level, a.parent, a.prev, a.last, a.reach, *bounds)
        nearest(tree.vectors, a.order, a.level, a.parent, a.prev, a.gap, *bounds)

    tree.each(one, a.bounds())


def insert(tree: SGTree, rows: np.ndarray) -> None:
    """Hang rows of `tree.vectors` that are not yet in it; each goes to the tree of fewest points. Raises Misuse for one that is."""
    if not len(rows):
        return
    rows, lists, a = distinct(np.unique(rows), len(tree.vectors)), _Lists(tree), tree.arrays
    check(tree.vectors[rows])
    if (lists.levels[rows] >= 0).any():
        raise Misuse(f"row {rows[lists.levels[rows] >= 0][0]} is in the tree already; move it")
    sizes = [(hi - lo, at) for at, (lo, hi) in enumerate(a.bounds())]
    heapify(sizes)
    shares: list[list[int]] = [[] for _ in sizes]
    for own in rows.tolist():
        size, at = sizes[0]
        shares[at].append(own)
        heapreplace(sizes, (size + 1, at))

    def one(at: int) -> None:
        _hang(tree, lists, np.array(shares[at]), lists.roots[at])

    tree.each(one, range(len(shares)))
    _lay(tree, lists, len(a.order) + len(rows))


def remove(tree: SGTree, rows: np.ndarray) -> None:
    """Take rows out. Raises Misuse for one that is not in it, or where nothing would be left."""
    if not len(rows):
        return
    rows, lists = np.unique(rows), _Lists(tree)
    absent = rows[(rows < 0) | (rows >= len(tree.vectors))]
    absent = absent if absent.size else rows[lists.levels[rows] < 0]
    if absent.size:
        raise Misuse(f"row {absent[0]} is not in the tree")
    if len(rows) == len(tree):
        raise Misuse("a tree of no points is none; keep one")
    for own in rows.tolist():
        _take(tree, lists, own)
    _lay(tree, lists, len(tree) - len(rows))


def _take(tree: SGTree, lists: _Lists, own: int) -> None:
    """Take one point out; what hung at it is hung anew."""
    from flatcoat.mining.sg_edit import unhang

    kids: list[int] = []
    while (kid := int(lists.first[own])) >= 0:
        unhang(kid, lists.parents, lists.first, lists.following)
        kids.append(kid)
    root = own
    while lists.parents[root] >= 0:
        root = int(lists.parents[root])
    if root == own:
        at = lists.roots.index(own)
        lists.levels[own] = -1
        if not kids:
            del lists.roots[at]
            return
        root = kids.pop(0)
        lists.levels[root], lists.roots[at] = tree.top, root
    else:
        unhang(own, lists.parents, lists.first, lists.following)
        lists.levels[own] = -1
    _hang(tree, lists, np.array(kids, dtype=np.int32), root)


def move(tree: SGTree, rows: np.ndarray, vectors: np.ndarray) -> None:
    """Give rows new vectors (written into `tree.vectors`, or a copy of what was opened from a folder) and hang them anew.

    Raises Misuse where a row is not in the tree or comes twice, or vectors are not as many, as wide and of unit length.
    """
    rows = np.asarray(rows)
    if not len(rows):
        return
    if vectors.shape != (len(rows), tree.vectors.shape[1]) or len(np.unique(rows)) < len(rows):
        raise Misuse(
            f"{len(rows)} rows, each once, want as many vectors of {tree.vectors.shape[1]}, not {list(vectors.shape)}"
        )
    check(vectors)
    absent = rows[~np.isin(rows, tree.arrays.order)]
    if absent.size:
        raise Misuse(f"row {absent[0]} is not in the tree")
    if not tree.vectors.flags.writeable:
        tree.vectors = np.array(tree.vectors)
    if len(rows) == len(tree):
        tree.vectors[rows] = vectors
        repair(tree, tree.vectors)
        return
    remove(tree, rows)
    tree.vectors[rows] = vectors
    insert(tree, rows)


def _check_all(tree: SGTree, vectors: np.ndarray) -> None:
    if vectors.shape != tree.vectors.shape:
        raise Misuse(f"a tree over vectors {list(tree.vectors.shape)} cannot follow {list(vectors.shape)}")
    check(vectors)


def repair(tree: SGTree, vectors: np.ndarray) -> Followed:
    """Follow vectors that have all moved a little; only what breaks a law is hung anew. Raises Misuse where they are no such vectors."""
    from flatcoat.mining.sg_edit import loosen

    _check_all(tree, vectors)
    tree.vectors = vectors
    lists, a = _Lists(tree), tree.arrays
    loose, counts, done = (
        np.empty(len(tree), np.int32),
        np.zeros(len(a.roots), np.int64),
        np.zeros(len(a.roots), np.int64),
    )

    def one(at: int) -> None:
        lo, hi = a.bounds()[at]
        counts[at] = loosen(vectors, a.order, lo, hi, tree.cosines, *lists.every, loose[lo:hi])
        done[at] = _hang(tree, lists, loose[lo : lo + counts[at]], lists.roots[at])

    tree.each(one, range(len(a.roots)))
    _lay(tree, lists, len(tree))
    return Followed(int(done.sum()), len(tree))


def keep(tree: SGTree, vectors: np.ndarray) -> float:
    """Follow vectors without moving a point: bounds are measured, exactly, for the shape as it is. Gives the share of points that their
    parents no longer cover. Draws need no more than bounds that hold; with points that have left their clusters they are looser.

    Raises Misuse where vectors do not fit.
    """
    from flatcoat.mining.sg_edit import uncovered

    _check_all(tree, vectors)
    tree.vectors, a = vectors, tree.arrays
    measure(tree)
    lost = np.zeros(len(a.roots), np.int64)

    def one(at: int) -> None:
        lost[at] = uncovered(vectors, a.order, a.level, a.parent, tree.cosines, *a.bounds()[at])

    tree.each(one, range(len(a.roots)))
    return float(lost.sum()) / len(tree)


def rebuild(tree: SGTree, vectors: np.ndarray, drift: float) -> Followed:
    """Follow vectors by Algorithm 3; `drift` bounds the change of any distance. Raises Misuse where it is below 0, or they do not fit."""
    from flatcoat.mining.sg_edit import broken, farthest_kids, widen

    if not drift >= 0:
        raise Misuse(f"drift {drift}: a bound on the change of distances is 0 or more")
    _check_all(tree, vectors)
    old, a = tree.vectors, Arrays(**{name: np.array(value) for name, value in vars(tree.arrays).items()})
    widest = np.ones(len(tree), np.float32)

    def one(bounds: tuple[int, int]) -> np.ndarray:
        farthest_kids(old, a.order, a.level, a.prev, a.last, widest, *bounds)
        found = broken(a.level, a.prev, a.last, a.size, widest, a.gap, tree.radii, drift, *bounds)
        widen(vectors, a.order, a.level, a.parent, a.size, tree.cosines, found)
        return found

    with ThreadPoolExecutor(tree.threads) as pool:
        found = _outermost([(lo, hi, most) for part in pool.map(one, a.bounds()) for lo, hi, most in part.tolist()])
    tree.vectors, tree.arrays = vectors, a
    tree.grow(found)
    tree.link()
    measure(tree)
    return Followed(sum(hi - lo - 1 for lo, hi, _ in found), len(tree))


def _outermost(stretches: list[tuple[int, int, int]]) -> list[tuple[int, int, int]]:
    """Of stretches that lie within or beside each other, those within no other."""
    kept: list[tuple[int, int, int]] = []
    for lo, hi, most in sorted(stretches, key=lambda stretch: (stretch[0], -stretch[1])):
        if not kept or lo >= kept[-1][1]:
            kept.append((lo, hi, most))
    return kept
