"""The compiled loops that draw from a softmax down a tree of targets. One query a call, so that threads share nothing.

A cluster is (p, c): point p and what hangs at it up to its kid c, one stretch of positions; c = -1 is p alone. With s = cos(x, p) and
r the least cosine within the cluster, every member's cosine with x lies between those of the angles' sum and difference.
"""

from __future__ import annotations

import numpy as np

from flatcoat.mining.sg_kernels import dot
from flatcoat.simd import F32, F64, I16, I32, I64, U64
from flatcoat.simd import compiled as exact


@exact
def roll(state: U64) -> float:
    """The next uniform number in [0, 1) of a splitmix64 generator; `state` is uint64 [1]."""
    state[0] += np.uint64(0x9E3779B97F4A7C15)
    z = state[0]
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    z = z ^ (z >> np.uint64(31))
    return (z >> np.uint64(11)) * (1.0 / 9007199254740992.0)


@exact
def upper(s: float, r: float) -> float:
    """The greatest cosine that a member can have."""
    if r >= 1.0:
        return s
    if s >= r:
        return 1.0
    return s * r + np.sqrt(max(0.0, 1.0 - s * s) * max(0.0, 1.0 - r * r))


@exact
def lower(s: float, r: float) -> float:
    """The least cosine that a member can have."""
    if r >= 1.0:
        return s
    if s + r <= 0.0:
        return -1.0
    return s * r - np.sqrt(max(0.0, 1.0 - s * s) * max(0.0, 1.0 - r * r))


@exact
def members(p: int, c: int, size: I32) -> int:
    """How many points a cluster has."""
    return 1 if c < 0 else c + size[c] - p


@exact
def _up(keys: F64, items: I64, at: int) -> None:
    key, item = keys[at], items[at]
    while at > 0 and keys[(at - 1) >> 1] < key:
        keys[at], items[at] = keys[(at - 1) >> 1], items[(at - 1) >> 1]
        at = (at - 1) >> 1
    keys[at], items[at] = key, item


@exact
def _down(keys: F64, items: I64, count: int) -> None:
    key, item = keys[0], items[0]
    at = 0
    while True:
        child = 2 * at + 1
        if child >= count:
            break
        if child + 1 < count and keys[child + 1] > keys[child]:
            child += 1
        if keys[child] <= key:
            break
        keys[at], items[at] = keys[child], items[child]
        at = child
    keys[at], items[at] = key, item


@exact
def _weigh(
    at: int, points: I64, kids: I64, cosines: F64, highs: F64, lows: F64, size: I32, reach: F32, beta: float
) -> tuple[float, float]:
    """Bounds of cluster `at`, and by how much its mass is unknown."""
    c, s = kids[at], cosines[at]
    r = 1.0 if c < 0 else float(reach[c])
    highs[at], lows[at] = upper(s, r), lower(s, r)
    count = members(points[at], c, size)
    return count * np.exp(beta * (highs[at] - 1.0)), count * np.exp(beta * (lows[at] - 1.0))


@exact
def _priority(
    at: int, kids: I64, cosines: F64, level: I16, radii: F64, finest: float, by_level: bool, mass: float, low: float
) -> float:
    """What is opened first: what is least known; by level, the nearest of what is too wide. 0 where nothing is to be gained."""
    if kids[at] < 0:
        return 0.0
    if by_level:
        return cosines[at] + 2.0 if radii[level[kids[at]] + 1] > finest else 0.0
    return mass - low


@exact
def frontier(
    query: F32, beta: float, gamma: float, limit: int, by_level: bool, finest: float, roots: I64, vectors: F32, order: I32,
    level: I16, prev: I32, last: I32, size: I32, reach: F32, radii: F64, points: I64, kids: I64, cosines: F64, highs: F64,
    lows: F64, keys: F64, items: I64,
) -> int:  # fmt: skip
    """Open clusters until their masses are known to a factor gamma, or there are `limit` of them. Gives how many there are.

    By level, every cluster whose level's radius is above `finest` is opened, the nearest first (Algorithm 2 as it is run).
    """
    count = 0
    total, sure = 0.0, 0.0
    for p in roots:
        points[count], kids[count] = p, last[p]
        cosines[count] = dot(query, vectors[order[p]])
        mass, low = _weigh(count, points, kids, cosines, highs, lows, size, reach, beta)
        total, sure = total + mass, sure + low
        keys[count], items[count] = _priority(count, kids, cosines, level, radii, finest, by_level, mass, low), count
        _up(keys, items, count)
        count += 1
    while count < limit and keys[0] > 0.0 and (by_level or total > gamma * sure):
        at = items[0]
        c = kids[at]
        mass, low = _weigh(at, points, kids, cosines, highs, lows, size, reach, beta)
        total, sure = total - mass, sure - low
        here, rest = level[c], c
        while rest >= 0 and level[rest] == here:
            rest = prev[rest]
        kids[at] = rest
        mass, low = _weigh(at, points, kids, cosines, highs, lows, size, reach, beta)
        total, sure = total + mass, sure + low
        keys[0] = _priority(at, kids, cosines, level, radii, finest, by_level, mass, low)
        _down(keys, items, count)  # before others come, of which one may go to the top
        while c != rest:
            points[count], kids[count] = c, last[c]
            cosines[count] = dot(query, vectors[order[c]])
            mass, low = _weigh(count, points, kids, cosines, highs, lows, size, reach, beta)
            total, sure = total + mass, sure + low
            keys[count] = _priority(count, kids, cosines, level, radii, finest, by_level, mass, low)
            items[count] = count
            _up(keys, items, count)
            count += 1
            c = prev[c]
    return count


@exact
def _pick(running: F64, count: int, share: float) -> int:
    """The first of the running sums above share × the last."""
    wanted = share * running[count - 1]
    lo, hi = 0, count - 1
    while lo < hi:
        middle = (lo + hi) >> 1
        if running[middle] > wanted:
            hi = middle
        else:
            lo = middle + 1
    return lo


@exact
def dive(
    query: F32, beta: float, p: int, c: int, s: float, vectors: F32, order: I32, level: I16, prev: I32, last: I32, size: I32,
    state: U64, weights: F64, near: F64,
) -> tuple[int, float, float]:  # fmt: skip
    """Down from a cluster to one point, each part chosen by members × exp(β·centre). Gives position, cosine, log probability.

    `weights` and `near` are room for the kids of one group.
    """
    log = 0.0
    while c >= 0:
        here, rest, kids = level[c], c, 0
        total = 0.0
        while rest >= 0 and level[rest] == here:
            near[kids] = dot(query, vectors[order[rest]])
            weights[kids] = size[rest] * np.exp(beta * (near[kids] - s))
            total += weights[kids]
            kids, rest = kids + 1, prev[rest]
        own = float(members(p, rest, size))
        left = roll(state) * (total + own) - own
        if left < 0.0:
            log += np.log(own / (total + own))
            c = rest
            continue
        chosen, at = c, 0
        left -= weights[0]
        while left >= 0.0 and at < kids - 1:
            at, chosen = at + 1, prev[chosen]
            left -= weights[at]
        log += np.log(weights[at] / (total + own))
        p, c, s = chosen, last[chosen], near[at]
    return p, s, log


@exact
def chains(
    query: F32, beta: float, length: int, deep: bool, vectors: F32, order: I32, level: I16, prev: I32, last: I32, size: I32,
    points: I64, kids: I64, cosines: F64, highs: F64, lows: F64, count: int, running: F64, weights: F64, near: F64, state: U64,
    rows: I64, logs: F64, facts: F64,
) -> None:  # fmt: skip
    """Independent Metropolis–Hastings chains, one a negative wanted: rows drawn and the log of their probability.

    Proposals are a cluster by members × exp(β·centre), then a member: any, or by a dive. `facts` are the worst density ratio
    P/Q that the clusters' bounds allow (infinite for dives, which have none), clusters, share of moves accepted, and effective sample size
    as a share of proposals.
    """
    sure, worst, sum_ = 0.0, 0.0, 0.0
    for at in range(count):
        many = members(points[at], kids[at], size)
        centre = cosines[at]
        sum_ += many * np.exp(beta * (centre - 1.0))
        running[at] = sum_
        sure += many * np.exp(beta * (lows[at] - 1.0))
        worst = max(worst, beta * (highs[at] - centre))
    log_sum = np.log(sum_)
    once, twice, accepted = 0.0, 0.0, 0
    for i in range(len(rows)):
        place, value, ratio = 0, 0.0, 0.0
        for step in range(length):
            at = _pick(running, count, roll(state))
            p, c = points[at], kids[at]
            centre = cosines[at]
            if deep:
                y, cosine, log = dive(
                    query, beta, p, c, centre, vectors, order, level, prev, last, size, state, weights, near
                )
                share = np.log(members(p, c, size)) + beta * (centre - 1.0) + log
            else:
                y = p + int(roll(state) * members(p, c, size))
                cosine = centre if y == p else float(dot(query, vectors[order[y]]))
                share = beta * (centre - 1.0)
            new = beta * (cosine - 1.0) - share  # log of exp(β·s) / Q, up to what is alike for all
            once += np.exp(new)
            twice += np.exp(2.0 * new)
            if step == 0 or np.log(1.0 - roll(state)) < new - ratio:
                accepted += step > 0
                place, value, ratio = y, cosine, new
        rows[i] = order[place]
        logs[i] = beta * (value - 1.0) - log_sum if length > 1 else -ratio + beta * (value - 1.0) - log_sum
    proposals = len(rows) * length
    if length > 1:
        logs -= np.log(once / proposals)
    facts[0] = np.inf if deep else np.exp(worst + log_sum) / sure
    facts[1], facts[2] = count, accepted / max(1, proposals - len(rows))
    facts[3] = once * once / (twice * proposals)


@exact
def reject(
    query: F32, beta: float, tries: int, vectors: F32, order: I32, level: I16, prev: I32, last: I32, size: I32, reach: F32,
    points: I64, kids: I64, cosines: F64, highs: F64, count: int, running: F64, state: U64, rows: I64, logs: F64, facts: F64,
) -> None:  # fmt: skip
    """Exact draws (Algorithm 1): a cluster by members × exp(β·greatest), then down by the parts' own such masses, and anew with what they
    fall short. A draw that has begun `tries` times is given up: row -1. `facts` as `chains`, the third the share of begins that ended well.
    """
    sum_ = 0.0
    for at in range(count):
        sum_ += members(points[at], kids[at], size) * np.exp(beta * (highs[at] - 1.0))
        running[at] = sum_
    begun, done = 0, 0
    for i in range(len(rows)):
        rows[i] = -1
        for _ in range(tries):
            begun += 1
            at = _pick(running, count, roll(state))
            y, cosine = _descend(
                query, beta, points[at], kids[at], cosines[at], highs[at], vectors, order, level, prev, last, size, reach,
                state,
            )  # fmt: skip
            if y >= 0:
                rows[i], logs[i] = order[y], beta * (cosine - 1.0)
                done += 1
                break
    share = max(done, 1) / begun
    logs -= np.log(sum_ * share)  # Z = the clusters' mass × the share of begins that end
    facts[0], facts[1], facts[2], facts[3] = 1.0 / share, count, share, share


@exact
def _descend(
    query: F32, beta: float, p: int, c: int, s: float, high: float, vectors: F32, order: I32, level: I16, prev: I32, last: I32,
    size: I32, reach: F32, state: U64,
) -> tuple[int, float]:  # fmt: skip
    """Down from a cluster of mass members × exp(β·high) to a point by its own mass; -1 where the mass that is left over was drawn."""
    while c >= 0:
        left = roll(state) * members(p, c, size) * np.exp(beta * (high - 1.0))
        here, k = level[c], c
        chosen, cosine, bound = -1, s, high
        while k >= 0 and level[k] == here:
            cosine = float(dot(query, vectors[order[k]]))
            bound = min(high, upper(cosine, 1.0 if last[k] < 0 else float(reach[last[k]])))
            left -= size[k] * np.exp(beta * (bound - 1.0))
            if left < 0.0:
                chosen = k
                break
            k = prev[k]
        if chosen >= 0:
            p, c, s, high = chosen, last[chosen], cosine, bound
            continue
        bound = min(high, upper(s, 1.0 if k < 0 else float(reach[k])))
        left -= members(p, k, size) * np.exp(beta * (bound - 1.0))
        if left >= 0.0:
            return -1, s
        c, high = k, bound
    return p, s


@exact
def hardest(
    vectors: F32, order: I32, size: I32, query: F32, length: int, points: I64, kids: I64, cosines: F64, count: int, state: U64,
    rows: I64, values: F64,
) -> int:  # fmt: skip
    """The paper's heuristic: of the clusters nearest to the query their representatives and `length` − 1 members of each, and of those the
    best, each once. Gives how many there are, no more than `rows` holds.
    """
    wanted = len(rows)
    nearest = np.argsort(-cosines[:count])
    found = 0
    pool, scores = np.empty(wanted * length, np.int64), np.empty(wanted * length)
    for at in nearest[:wanted]:
        p, many = points[at], members(points[at], kids[at], size)
        for member in range(min(length, many)):
            y = p if member == 0 else p + int(roll(state) * many)
            pool[found] = order[y]
            scores[found] = cosines[at] if y == p else dot(query, vectors[order[y]])
            found += 1
    ranked = np.argsort(-scores[:found])
    taken = 0
    for at in ranked:
        again = False
        for before in range(taken):
            again = again or rows[before] == pool[at]
        if not again and taken < wanted:
            rows[taken], values[taken] = pool[at], scores[at]
            taken += 1
    return taken


@exact
def _take(rows: I64, logs: F64, facts: F64, own: I64, said: F64, told: F64, all_of_them: bool) -> None:
    """Take over a chain's draws: all, or where there is none."""
    for k in range(len(own)):
        if all_of_them or rows[k] < 0:
            rows[k], logs[k] = own[k], said[k]
    if all_of_them:
        facts[:] = told


@exact
def draw_block(
    method: int, queries: F32, lengths: F64, beta: float, gamma: float, limit: int, by_level: bool, finest: float, length: int,
    deep: bool, tries: int, seeds: U64, roots: I64, vectors: F32, order: I32, level: I16, prev: I32, last: I32, size: I32,
    reach: F32, radii: F64, widest: int, rows: I64, logs: F64, facts: F64,
) -> None:  # fmt: skip
    """Draw for some queries of unit length; `beta` times a query's own length is its inverse temperature. Method 0 is chains, 1
    rejection, 2 the heuristic. `widest` is the most kids that one opening can bring.
    """
    cap = limit + len(roots) + widest + 1
    points, kids, items = np.empty(cap, np.int64), np.empty(cap, np.int64), np.empty(cap, np.int64)
    cosines, highs, lows = np.empty(cap), np.empty(cap), np.empty(cap)
    keys, running = np.empty(cap), np.empty(cap)
    weights, near = np.empty(widest + 1), np.empty(widest + 1)
    state = np.empty(1, np.uint64)
    for i in range(len(queries)):
        query, sharp = queries[i], beta * lengths[i]
        state[0] = seeds[i]
        count = frontier(
            query, sharp, gamma, limit, by_level, finest, roots, vectors, order, level, prev, last, size, reach, radii,
            points, kids, cosines, highs, lows, keys, items,
        )  # fmt: skip
        if method == 1:
            reject(
                query, sharp, tries, vectors, order, level, prev, last, size, reach, points, kids, cosines, highs, count,
                running, state, rows[i], logs[i], facts[i],
            )  # fmt: skip
            facts[i, 4] = (rows[i] < 0).mean()
        if method == 0 or facts[i, 4] > 0:
            own, said = np.empty(len(rows[i]), np.int64), np.empty(len(rows[i]))
            told = facts[i].copy()
            chains(
                query, sharp, length, deep, vectors, order, level, prev, last, size, points, kids, cosines, highs, lows,
                count, running, weights, near, state, own, said, told,
            )  # fmt: skip
            _take(rows[i], logs[i], facts[i], own, said, told, method == 0)
        if method == 2:
            taken = hardest(vectors, order, size, query, length, points, kids, cosines, count, state, rows[i], logs[i])
            rows[i] = rows[i, np.arange(rows.shape[1]) % taken]  # where targets are fewer than places, the best again
            logs[i] = -np.log(taken)
            facts[i, 0], facts[i, 1], facts[i, 2], facts[i, 3] = np.inf, count, 1.0, 1.0
