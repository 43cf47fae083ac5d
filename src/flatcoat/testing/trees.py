"""Slow twins of the stable-greedy tree: built by the definition, one point after another, and its laws read off in words."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator

import numpy as np

from flatcoat.mining.sg_tree import SGTree, TreeSettings


def slow_tree(vectors: np.ndarray, order: np.ndarray, settings: TreeSettings) -> tuple[np.ndarray, np.ndarray]:
    """One tree of rows that come in an order: each row's level and its parent's row, -1 where there is none.

    From the highest level down a row goes to the nearest of a point and its kids of that level; where none of them covers it,
    it becomes a kid there. Cosines are taken in double precision and compared with the radii's own in single precision.
    """
    radii = settings.radii()
    top, cosines, exact = len(radii) - 1, (1 - radii**2 / 2).astype(np.float32), vectors.astype(np.float64)
    level, parent = np.full(len(vectors), -1), np.full(len(vectors), -1)
    kids: dict[tuple[int, int], list[int]] = defaultdict(list)
    root, *rest = (int(row) for row in order)
    level[root] = top
    for own in rest:
        p, at = root, top
        for at in range(top - 1, -1, -1):
            near = [p, *kids[p, at]]
            found = exact[near] @ exact[own]
            if at == 0 or found.max() < cosines[at]:
                break
            p = near[int(found.argmax())]
        level[own], parent[own] = at, p
        kids[p, at].append(own)
    return level, parent


def by_row(tree: SGTree) -> tuple[np.ndarray, np.ndarray]:
    """A forest as `slow_tree` tells it: levels and parents' rows by row, -1 where there is none."""
    a = tree.arrays
    level, parent = np.full(len(tree.vectors), -1), np.full(len(tree.vectors), -1)
    level[a.order] = a.level
    parent[a.order] = np.where(a.parent < 0, -1, a.order[a.parent])
    return level, parent


def broken_laws(tree: SGTree, *, slack: float = 2e-5, bound: float = 2e-4) -> list[str]:
    """Every breach of a law, in words; none where all is well.

    `slack` is how far a cosine may be on the wrong side of a radius, `bound` how far `reach` and `gap` may be from exact.
    """
    found = list(_rows(tree))
    if not found:  # positions have to be sound before distances can be asked for
        found = [line for p in range(len(tree)) for line in _stretch(tree, p)]
    if not found:
        cosines = tree.vectors[tree.arrays.order].astype(np.float64)
        cosines = cosines @ cosines.T
        found = [line for p in range(len(tree)) for line in _distances(tree, p, cosines, slack, bound)]
    return found


def _rows(tree: SGTree) -> Iterator[str]:
    """Rows are in the tree once, and trees lie side by side."""
    a = tree.arrays
    if len(np.unique(a.order)) < len(tree) or a.order.min() < 0 or a.order.max() >= len(tree.vectors):
        yield "order: not each row once"
    if len(a.roots) == 0 or a.roots[0] != 0 or (np.diff([*a.roots, len(tree)]) <= 0).any():
        yield f"roots {a.roots.tolist()}: trees do not lie side by side"
        return
    for lo, hi in a.bounds():
        if a.size[lo] != hi - lo or a.parent[lo] != -1 or a.prev[lo] != -1 or a.level[lo] != tree.top:
            yield f"root at {lo}: size {a.size[lo]} of {hi - lo}, parent {a.parent[lo]}, level {a.level[lo]}"
        if not a.reach[lo] == a.gap[lo] == 1:
            yield f"root at {lo}: bounds {a.reach[lo]}, {a.gap[lo]} are not 1"


def _stretch(tree: SGTree, p: int) -> Iterator[str]:
    """The kids of a point follow it one after another, by rising level, and fill its stretch."""
    a = tree.arrays
    at, end, before = p + 1, p + int(a.size[p]), -1
    if not p < end <= len(tree):
        yield f"{p}: size {a.size[p]}, with {len(tree) - p} places left"
        return
    while at < end:
        if a.parent[at] != p or a.prev[at] != before:
            yield f"{at}: parent {a.parent[at]} and sibling {a.prev[at]}, not {p} and {before}"
        if not 0 <= a.level[at] < a.level[p]:
            yield f"{at}: level {a.level[at]} below a point of level {a.level[p]}"
        if before >= 0 and a.level[before] > a.level[at]:
            yield f"{at}: level {a.level[at]} after {a.level[before]}"
        if not 1 <= a.size[at] <= end - at:
            yield f"{at}: size {a.size[at]}, with {end - at} places left"
            return
        at, before = at + int(a.size[at]), at
    if at != end or a.last[p] != before:
        yield f"{p}: stretch ends at {end}, kids at {at}; last {a.last[p]}, not {before}"


def _distances(tree: SGTree, p: int, cosines: np.ndarray, slack: float, bound: float) -> Iterator[str]:
    """Covering, separation and bounds of the kids of a point."""
    a, c = tree.arrays, int(tree.arrays.last[p])
    while c >= 0:
        here, end, group = int(a.level[c]), c + int(a.size[c]), []
        while c >= 0 and a.level[c] == here:
            group.append(c)
            c = int(a.prev[c])
        reach = cosines[p, p + 1 : end].min()
        for i, kid in enumerate(group):
            if cosines[p, kid] < tree.cosines[here + 1] - slack:
                yield f"{kid}: cosine {cosines[p, kid]:.6f} with {p}, which covers {tree.cosines[here + 1]:.6f}"
            near = [p, *group[i + 1 :]] if here else [p]
            gap = cosines[kid, near].max()
            if here and gap > tree.cosines[here] + slack:
                yield f"{kid}: cosine {gap:.6f} with one of {near}, apart by {tree.cosines[here]:.6f}"
            if abs(a.reach[kid] - reach) > bound:
                yield f"{kid}: reach {a.reach[kid]:.6f}, really {reach:.6f}"
            if abs(a.gap[kid] - gap) > bound:
                yield f"{kid}: gap {a.gap[kid]:.6f}, really {gap:.6f}"
