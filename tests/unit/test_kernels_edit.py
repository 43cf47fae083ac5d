"""What Algorithm 3 looks for in a tree, and how far it builds anew, against their definitions."""

from __future__ import annotations

import numpy as np
import pytest
from test_kernels_small import points, unit

from flatcoat.mining.sg_edit import SLACK, broken, farthest_kids, widen
from flatcoat.mining.sg_tree import SGTree, TreeSettings


def apart(cosine):
    return float(np.sqrt(max(0.0, 2 - 2 * float(cosine))))


def broken_slowly(tree, widest, drift):
    """The highest groups of kids that may leave their radius, or come within one another's, when distances change by up to drift."""
    a, found = tree.arrays, []

    def visit(p):
        c = a.last[p]
        while c >= 0:
            here, group = a.level[c], []
            while c >= 0 and a.level[c] == here:
                group, c = [*group, c], a.prev[c]
            leaves = tree.radii[here + 1] <= drift or apart(widest[group[0]] + SLACK) + drift > tree.radii[here + 1]
            near = here > 0 and apart(max(a.gap[kid] for kid in group) - SLACK) - drift < tree.radii[here]
            if leaves or near:
                found.append((p, group[0] + a.size[group[0]], here))
                return
            for kid in group:
                visit(kid)

    visit(0)
    return sorted(found)


@pytest.mark.parametrize("drift", [0.0, 0.01, 0.03, 0.1, 0.3, 1.0])
@pytest.mark.parametrize("spread", [0.05, 0.4, 1.0])
def test_what_may_be_broken(drift, spread):
    vectors = points(60, spread=spread, seed=6)
    tree = SGTree.build(vectors, TreeSettings(1.4, 1))
    a, widest = tree.arrays, np.ones(60, np.float32)
    farthest_kids(vectors, a.order, a.level, a.prev, a.last, widest, 0, 60)
    found = broken(a.level, a.prev, a.last, a.size, widest, a.gap, tree.radii, drift, 0, 60)
    wanted = broken_slowly(tree, widest, drift)
    assert sorted(map(tuple, found.tolist())) == wanted and (drift < 1 or wanted)

    moved = unit(vectors + drift * np.random.default_rng(2).normal(size=vectors.shape) / 4)
    wider = found.copy()
    widen(moved, a.order, a.level, a.parent, a.size, tree.cosines, wider)
    for (p, end, most), (q, past, top) in zip(found.tolist(), wider.tolist(), strict=True):
        assert q <= p and past >= end
        least = min((float(moved[a.order[q]] @ moved[a.order[at]]) for at in range(q + 1, past)), default=1.0)
        whole = past == q + a.size[q]
        assert (whole and a.parent[q] < 0) or least >= tree.cosines[top + 1] - 1e-6  # the point covers all of it
        alone = min((float(moved[a.order[p]] @ moved[a.order[at]]) for at in range(p + 1, end)), default=1.0)
        own = a.level[p] if end == p + a.size[p] else a.level[end]
        if (
            alone >= tree.cosines[own] + 1e-6
        ):  # covered as it is: nothing is taken in, and only the levels go up to its own
            assert (q, past, top) == (p, end, own - 1) and top >= most
