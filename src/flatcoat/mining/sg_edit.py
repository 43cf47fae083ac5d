"""The compiled loops that change a stable-greedy tree: points come, go and move. Imported only where one is changed.

A tree that is changed is a forest of lists: each point's first kid, and each kid's next sibling, by falling level. `lay` makes
positions of lists again, and `measure` what the bounds need. Points are told by their row.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from flatcoat.mining.sg_kernels import below, dot
from flatcoat.simd import F32, F64, I16, I32, I64, quick

SLACK = np.float32(1e-5)  # of a cosine in single precision: what is on the edge stays


@quick
def lists(
    order: I32, level: I16, parent: I32, prev: I32, last: I32, levels: I16, parents: I32, first: I32, following: I32
) -> None:
    """Positions to lists. What has no position has level -1."""
    levels[:] = -1
    parents[:], first[:], following[:] = -1, -1, -1
    for p in range(len(order)):
        own = order[p]
        levels[own] = level[p]
        if parent[p] >= 0:
            parents[own] = order[parent[p]]
        if last[p] >= 0:
            first[own] = order[last[p]]
        if prev[p] >= 0:
            following[own] = order[prev[p]]


@quick
def hang(kid: int, p: int, at: int, levels: I16, parents: I32, first: I32, following: I32) -> None:
    """Hang a point at p at a level."""
    levels[kid], parents[kid] = at, p
    if first[p] < 0 or levels[first[p]] <= at:
        following[kid], first[p] = first[p], kid
        return
    before = first[p]
    while following[before] >= 0 and levels[following[before]] > at:
        before = following[before]
    following[kid], following[before] = following[before], kid


@quick
def unhang(kid: int, parents: I32, first: I32, following: I32) -> None:
    """Take a point, with what hangs at it, from its parent."""
    p = parents[kid]
    if first[p] == kid:
        first[p] = following[kid]
    else:
        before = first[p]
        while following[before] != kid:
            before = following[before]
        following[before] = following[kid]
    parents[kid], following[kid] = -1, -1


@quick
def find(
    vectors: F32, x: int, root: int, most: int, cosines: F32, levels: I16, first: I32, following: I32
) -> tuple[Any, Any]:
    """Where a point hangs: its parent and its level, as if it came last of all."""
    p, top = root, most
    s = dot(vectors[p], vectors[x])
    kid = first[p]
    while True:
        here = below(s, cosines, top)
        while kid >= 0 and levels[kid] > top:
            kid = following[kid]
        if kid < 0 or levels[kid] < max(here, 1):
            return p, here
        group = levels[kid]
        best, nearest = s, p
        while kid >= 0 and levels[kid] == group:
            found = dot(vectors[kid], vectors[x])
            if found > best:
                best, nearest = found, kid
            kid = following[kid]
        if best < cosines[group]:
            return p, group
        top = group - 1
        if nearest != p:
            p, s, kid = nearest, best, first[nearest]


@quick
def insert(
    vectors: F32, stack: I32, height: int, root: int, most: int, cosines: F32, levels: I16, parents: I32, first: I32,
    following: I32,
) -> int:  # fmt: skip
    """Hang the rows of `stack` below a root, each with what hangs at it; what then is too high comes loose and follows. Gives how many."""
    done = 0
    while height:
        height -= 1
        x = stack[height]
        p, at = find(vectors, x, root, most, cosines, levels, first, following)
        while first[x] >= 0 and levels[first[x]] >= at:
            loose = first[x]
            first[x] = following[loose]
            parents[loose], following[loose] = -1, -1
            if height == len(stack):
                wider = np.empty(2 * len(stack), stack.dtype)
                wider[:height] = stack
                stack = wider
            stack[height] = loose
            height += 1
        hang(x, p, at, levels, parents, first, following)
        done += 1
    return done


@quick
def _crowded(vectors: F32, own: F32, other: int, kid: int, most: float, following: I32) -> bool:
    """Whether a vector is too near to one of the kids from `other` on to before `kid`."""
    while other != kid:
        if dot(vectors[other], own) > most:
            return True
        other = following[other]
    return False


@quick
def loosen(
    vectors: F32, order: I32, lo: int, hi: int, cosines: F32, levels: I16, parents: I32, first: I32, following: I32,
    loose: I32,
) -> int:  # fmt: skip
    """Take from a tree every kid that its parent no longer covers, or that stands too near to it or to a sibling. Gives how many."""
    count = 0
    for at in range(lo, hi):
        p = order[at]
        kid, before = first[p], -1
        group = kid
        while kid >= 0:
            here = levels[kid]
            if levels[group] != here:
                group = kid
            own = vectors[kid]
            s = dot(vectors[p], own)
            bad = s < cosines[here + 1] - SLACK
            if here > 0 and not bad:
                bad = s > cosines[here] + SLACK or _crowded(vectors, own, group, kid, cosines[here] + SLACK, following)
            after = following[kid]
            if bad:
                if before < 0:
                    first[p] = after
                else:
                    following[before] = after
                if group == kid:
                    group = after
                parents[kid], following[kid] = -1, -1
                loose[count] = kid
                count += 1
            else:
                before = kid
            kid = after
    return count


@quick
def lay(
    root: int, levels: I16, first: I32, following: I32, order: I32, level: I16, parent: I32, size: I32, lo: int
) -> int:
    """Lists to positions from `lo` on, depth first, the lowest level first. Gives where the tree ends."""
    stack = np.empty((64, 2), np.int64)
    stack[0] = root, -1
    height, at = 1, lo
    while height:
        height -= 1
        own, above = stack[height]
        order[at], level[at], parent[at], size[at] = own, levels[own], above, 1
        kid = first[own]
        while kid >= 0:
            if height == len(stack):
                wider = np.empty((2 * len(stack), 2), np.int64)
                wider[:height] = stack
                stack = wider
            stack[height, 0], stack[height, 1] = kid, at
            height += 1
            kid = following[kid]
        at += 1
    for place in range(at - 1, lo, -1):
        size[parent[place]] += size[place]
    return at


@quick
def farthest(
    vectors: F32, order: I32, level: I16, parent: I32, prev: I32, last: I32, reach: F32, lo: int, hi: int
) -> None:
    """`reach` of a tree as it lies, exactly: each point against all that it hangs below."""
    reach[lo:hi] = 1
    for place in range(lo + 1, hi):
        own, k = vectors[order[place]], place
        while k > lo:
            reach[k] = min(reach[k], dot(vectors[order[parent[k]]], own))
            k = parent[k]
    kids = np.empty(64, np.int64)
    for p in range(lo, hi):
        count, c = 0, last[p]
        while c >= 0:
            if count == len(kids):
                wider = np.empty(2 * count, np.int64)
                wider[:count] = kids
                kids = wider
            kids[count] = c
            count, c = count + 1, prev[c]
        least, end = np.float32(1), count
        while end > 0:  # groups from the lowest on, each with all that lie lower
            start = end
            while start > 0 and level[kids[start - 1]] == level[kids[end - 1]]:
                start -= 1
                least = min(least, reach[kids[start]])
            reach[kids[start:end]] = least
            end = start


@quick
def uncovered(vectors: F32, order: I32, level: I16, parent: I32, cosines: F32, lo: int, hi: int) -> int:
    """How many points of a tree as it lies their parents no longer cover."""
    count = 0
    for place in range(lo + 1, hi):
        s = dot(vectors[order[parent[place]]], vectors[order[place]])
        if s < cosines[level[place] + 1] - SLACK:
            count += 1
    return count


@quick
def nearest(vectors: F32, order: I32, level: I16, parent: I32, prev: I32, gap: F32, lo: int, hi: int) -> None:
    """`gap` of a tree as it lies, exactly: each kid against its parent and the siblings of its level before it."""
    gap[lo] = 1
    for c in range(lo + 1, hi):
        own, other = vectors[order[c]], prev[c]
        most = dot(vectors[order[parent[c]]], own)
        while level[c] > 0 and other >= 0 and level[other] == level[c]:
            most = max(most, dot(vectors[order[other]], own))
            other = prev[other]
        gap[c] = most


@quick
def farthest_kids(vectors: F32, order: I32, level: I16, prev: I32, last: I32, widest: F32, lo: int, hi: int) -> None:
    """`widest[c]`: the least cosine between c's parent and its kids of c's level."""
    for p in range(lo, hi):
        c = last[p]
        while c >= 0:
            here, start, least = level[c], c, np.float32(1)
            while c >= 0 and level[c] == here:
                least = min(least, dot(vectors[order[p]], vectors[order[c]]))
                c = prev[c]
            while start != c:
                widest[start] = least
                start = prev[start]


@quick
def _apart(cosine: float) -> float:
    return np.sqrt(max(0.0, 2.0 - 2.0 * cosine))


@quick
def broken(
    level: I16, prev: I32, last: I32, size: I32, widest: F32, gap: F32, radii: F64, drift: float, lo: int, hi: int
) -> I64:
    """The stretches of a tree that fail a test of Algorithm 3, the highest of each branch: begin, end, highest level of its kids."""
    found = np.empty((64, 3), np.int64)
    stack = np.empty(64, np.int64)
    stack[0] = lo
    height, count = 1, 0
    while height:
        height -= 1
        p = stack[height]
        c = last[p]
        while c >= 0:
            here, start = level[c], c
            closest = np.float32(-1)
            while c >= 0 and level[c] == here:
                closest = max(closest, gap[c])
                c = prev[c]
            near = here > 0 and _apart(closest - SLACK) - drift < radii[here]
            if radii[here + 1] <= drift or _apart(widest[start] + SLACK) + drift > radii[here + 1] or near:
                if count == len(found):
                    wider = np.empty((2 * count, 3), np.int64)
                    wider[:count] = found
                    found = wider
                found[count, 0], found[count, 1], found[count, 2] = p, start + size[start], here
                count += 1
                break
            while start != c:
                if height == len(stack):
                    taller = np.empty(2 * height, np.int64)
                    taller[:height] = stack
                    stack = taller
                stack[height] = start
                height += 1
                start = prev[start]
    return found[:count]


@quick
def widen(vectors: F32, order: I32, level: I16, parent: I32, size: I32, cosines: F32, found: I64) -> None:
    """Stretches to be built anew, each as much wider as it takes for its point to cover all of it, so that none has to leave.

    A point covers what hangs at it if all is within the radius of the level it is built below: that of its next kid, or its own.
    Where it is not, the stretch takes in those kids, or becomes the parent's. A root covers everything.
    """
    for i in range(len(found)):
        p, end = found[i, 0], found[i, 1]
        at, far = p + 1, np.float32(1)
        while True:
            while at < end:
                far = min(far, dot(vectors[order[p]], vectors[order[at]]))
                at += 1
            whole = end == p + size[p]
            here = level[p] if whole else level[end]
            if (whole and parent[p] < 0) or far >= cosines[here]:
                found[i, 0], found[i, 1], found[i, 2] = p, end, here - 1
                break
            if whole:
                p = parent[p]
                at, far = p + 1, np.float32(1)
            while end < p + size[p] and level[end] == here:
                end += size[end]
