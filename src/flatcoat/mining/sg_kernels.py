"""The compiled loops that build a stable-greedy tree. Imported only where one is built.

Vectors are of unit length and a distance is told by its cosine, d² = 2 − 2·cos, so that nearest is greatest. Positions lay a tree
out depth first: a point, then what hangs at it from the lowest level to the highest. What a point covers at a level is
therefore one stretch that begins at it.
"""

from __future__ import annotations

import numpy as np

from flatcoat.simd import F32, I16, I32, I64, quick


@quick
def dot(a: F32, b: F32) -> np.float32:
    """⟨a, b⟩."""
    total = np.float32(0)
    for d in range(len(a)):
        total += a[d] * b[d]
    return total


@quick
def begin(vectors: F32, order: I32, sims: F32, lo: int, hi: int) -> None:
    """Cosines of the points at (lo, hi) to the one at lo."""
    root = vectors[order[lo]]
    for at in range(lo + 1, hi):
        sims[at] = dot(root, vectors[order[at]])


@quick
def below(cosine: float, cosines: F32, most: int) -> int:
    """The highest level up to `most` whose radius a point of that cosine is outside of; 0 where there is none."""
    level = most
    while level > 0 and cosine >= cosines[level]:
        level -= 1
    return level


@quick
def _doubled(kids: F32) -> F32:
    wider = np.empty((2 * len(kids), kids.shape[1]), kids.dtype)
    wider[: len(kids)] = kids
    return wider


@quick
def _split(
    vectors: F32, order: I32, sims: F32, p: int, end: int, level: int, cosines: F32, owner: I32, kids: F32, gap: F32
) -> tuple[F32, int]:
    """Members (p, end) of point p each to its nearest cover at a level, a new kid where there is none. Gives kids and their number."""
    count = 0
    for at in range(p + 1, end):
        own = vectors[order[at]]
        best, nearest = sims[at], 0
        if level > 0:
            for k in range(count):
                found = dot(kids[k], own)
                if found > best:
                    best, nearest = found, k + 1
        if level == 0 or best < cosines[level]:
            if count == len(kids):
                kids = _doubled(kids)
            kids[count] = own
            gap[p + 1 + count] = best  # kept here until the kids have their places
            count += 1
            owner[at], sims[at] = -count, np.float32(1)
        else:
            owner[at], sims[at] = nearest, best
    return kids, count


@quick
def _settle(
    order: I32, sims: F32, p: int, end: int, count: int, owner: I32, other: I32, others: F32, starts: I64
) -> None:
    """Lay members out by owner: p's own first, then each kid with its own. `starts[k]` is where kid k's begin."""
    starts[: count + 2] = 0
    for at in range(p + 1, end):
        starts[abs(owner[at]) + 1] += 1
    starts[0] = p + 1
    for k in range(1, count + 2):
        starts[k] += starts[k - 1]
    for at in range(p + 1, end):
        other[at], others[at] = order[at], sims[at]
    # a kid comes before every member of its own, since it was there when they came: one counter an owner is enough
    for at in range(p + 1, end):
        k = abs(owner[at])
        order[starts[k]], sims[starts[k]] = other[at], others[at]
        starts[k] += 1


@quick
def grow(
    vectors: F32, order: I32, sims: F32, other: I32, others: F32, owner: I32, level: I16, parent: I32, size: I32, reach: F32,
    gap: F32, cosines: F32, lo: int, hi: int, most: int,
) -> None:  # fmt: skip
    """Build over positions [lo, hi), whose first is the root; its members hang at levels up to `most`.

    `sims` are cosines to the root. `reach[c]` is the least cosine between c's parent and what hangs at it up to c's level; `gap[c]`
    the greatest between c, its parent, and the kids that stood there before it.
    """
    kids = np.empty((64, vectors.shape[1]), np.float32)
    starts = np.empty(66, np.int64)
    stack = np.empty((64, 3), np.int64)
    stack[0] = lo, hi, most
    height = 1
    while height:
        height -= 1
        p, end, top = stack[height]
        if end - p == 1:
            continue
        far = np.float32(1)
        for at in range(p + 1, end):
            far = min(far, sims[at])
        here = below(far, cosines, top)
        kids, count = _split(vectors, order, sims, p, end, here, cosines, owner, kids, gap)
        gaps = gap[p + 1 : p + 1 + count].copy()
        if len(starts) < count + 2:
            starts = np.empty(2 * count + 2, np.int64)
        _settle(order, sims, p, end, count, owner, other, others, starts)
        while height + count + 1 > len(stack):
            wider = np.empty((2 * len(stack), 3), np.int64)
            wider[: len(stack)] = stack
            stack = wider
        stack[height] = p, starts[0], here - 1
        height += 1
        for k in range(1, count + 1):  # starts[k - 1] is now where owner k − 1 ends and k begins
            c = starts[k - 1]
            level[c], parent[c], size[c], reach[c], gap[c] = here, p, starts[k] - c, far, gaps[k - 1]
            stack[height] = c, starts[k], here - 1
            height += 1


@quick
def chain(size: I32, parent: I32, prev: I32, last: I32, lo: int, hi: int) -> None:
    """Each point's last kid, and each kid's sibling before it, -1 for none."""
    for p in range(lo, hi):
        before = -1
        c, end = p + 1, p + size[p]
        while c < end:
            prev[c], parent[c] = before, p
            before = c
            c += size[c]
        last[p] = before
