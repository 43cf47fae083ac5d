"""The compiled loops that search several vectors an item. Imported only where such an index is built or searched.

A query's vectors are lanes, padded to whole tiles of `LANES`; tables over cells (centroids) are [cell, lane], so that what
one token of a document gives to every lane lies in one line of memory.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from flatcoat.errors import need
from flatcoat.index.multivector_simd import LANES, TILE, products, raise_bytes, raise_reals, top_bytes, unfold, widen
from flatcoat.index.sparse_kernels import LOW32, WORD, offer
from flatcoat.simd import F32, I8, I32, I64, U8, U16, U32, U64, compiled

numba: Any = need("numba", "search")
NONE = np.float32(-np.inf)
STAMP, MASK = np.uint32(20), np.uint32((1 << 20) - 1)  # in a document's total: which lane touched it last, and the sum
MOST_LANES = 4000  # (4000 + 1) × 255 < 2^20, and 4000 stamps fit the 12 bits above


@compiled
def pack(vectors: F32, factors: F32, weights: I8, start: I32, scale: F32) -> None:
    """Vectors [lane, dim] × factors [dim] as signed bytes: `weights` int8 [chunk, group, LANES, 4], with what undoes it.

    vector ≈ byte × scale[lane]; start[lane] = -128 × Σ bytes, for tokens whose bytes stand 128 too high.
    """
    weights[:] = 0
    start[:] = 0
    scale[:] = 0
    for lane in range(len(vectors)):
        most = np.float32(0)
        for d in range(vectors.shape[1]):
            most = max(most, abs(np.float32(vectors[lane, d]) * factors[d]))
        scale[lane] = most / np.float32(127)
        if most > 0:
            by, total = np.float32(127) / most, 0
            for d in range(vectors.shape[1]):
                value = int(np.rint(np.float32(vectors[lane, d]) * factors[d] * by))
                weights[lane // LANES, d // 4, lane % LANES, d % 4] = value
                total += value
            start[lane] = -128 * total


@compiled
def multiply(weights: F32, centroids: F32, out: F32) -> None:
    """out[cell, lane] = ⟨centroid, lane⟩; `weights` are floats [chunk, dim, LANES]."""
    count, dim = centroids.shape
    for first in range(0, count, TILE):
        for at in range(0, out.shape[1], LANES):
            products(out, out.shape[1], at, weights, centroids, first, count - 1, dim)


@compiled
def extent(scores: F32, mean: F32, most: F32) -> None:
    """Each lane's mean and greatest over the cells."""
    mean[:] = 0
    most[:] = NONE
    for at in range(0, scores.shape[1], LANES):
        for cell in range(len(scores)):
            row = scores[cell, at : at + LANES]
            for i in range(LANES):
                mean[at + i] += row[i]
                most[at + i] = row[i] if row[i] > most[at + i] else most[at + i]
    mean /= len(scores)


@compiled
def to_bytes(scores: F32, lanes: int, floor: F32, by: float, table: U8) -> None:
    """(scores - floor[lane]) × by as bytes, 0 where below the floor or past the last lane."""
    width = scores.shape[1]
    for cell in range(len(scores)):
        row, out = scores[cell], table[cell]
        for i in range(width):
            value = (row[i] - floor[i]) * by + np.float32(0.5)
            value = min(max(value, np.float32(0)), np.float32(255))
            out[i] = np.uint8(np.int32(value))
        out[lanes:] = 0


@compiled
def offer_row(row: U8, low: U8, cell: int, keys: U64, sizes: I64) -> None:
    """Offer one cell's bytes to its lanes' heaps; low[lane] is what a full heap holds at least."""
    for i in range(len(keys)):
        if row[i] > low[i] or sizes[i] < keys.shape[1]:
            sizes[i] = offer(keys[i], sizes[i], np.uint64(row[i]) << WORD | (LOW32 - np.uint64(cell)))
            if sizes[i] == keys.shape[1]:
                low[i] = np.uint8(keys[i, 0] >> WORD)


@compiled
def any_above(row: U8, low: U8) -> np.bool_:
    """Whether some byte is above its lane's least. A plain comparison: this shape becomes vector instructions."""
    some = np.uint8(0)
    for i in range(LANES):
        some |= np.uint8(row[i] > low[i])
    return some > 0


@compiled
def highest(table: U8, keys: U64) -> None:
    """Each lane's greatest bytes: keys [lane, count] = byte << 32 | ~cell, falling."""
    lanes, count = keys.shape
    least, sizes = np.zeros(table.shape[1], np.uint8), np.zeros(lanes, np.int64)
    for cell in range(len(table)):
        for at in range(0, lanes, LANES):
            row, low, end = table[cell, at : at + LANES], least[at : at + LANES], min(at + LANES, lanes)
            if cell < count or any_above(row, low):
                offer_row(row, low, cell, keys[at:end], sizes[at:end])
    for lane in range(lanes):
        keys[lane] = np.sort(keys[lane])[::-1]


@compiled
def probe(keys: U64, offsets: I64, postings: I32, totals: U32) -> None:
    """Add to each document what the best of a lane's probed cells that it has gives above the last of them, lane by lane.

    The last stands for the cells not probed: none of them could give more than it.
    """
    totals[:] = 0
    for lane in range(len(keys)):
        floor, stamp = np.uint32(keys[lane, -1] >> WORD), np.uint32(lane + 1) << STAMP
        for j in range(keys.shape[1]):
            gain = np.uint32(keys[lane, j] >> WORD) - floor
            cell = np.int64(LOW32 - (keys[lane, j] & LOW32))
            for at in range(offsets[cell], offsets[cell + 1]):
                doc = postings[at]
                held = totals[doc]
                if held < stamp:  # cells fall, so that the first that touches a document is the lane's best
                    totals[doc] = stamp | ((held & MASK) + gain)


@compiled
def scan_cells(rows: I32, start: I64, cells: U16, table: U8, out: I64) -> None:
    """out[i] = Σ over lanes of the greatest byte of document rows[i]'s cells: centroid interaction."""
    for i in range(len(rows)):
        low, total = start[rows[i]], 0
        for at in range(0, table.shape[1], LANES):
            total += top_bytes(table, table.shape[1], at, cells, low, start[rows[i] + 1] - low)
        out[i] = total


@compiled
def best_of(totals: I64, rows: I32, count: int) -> I32:
    """The `count` of `rows` with the greatest totals (integers), equal ones by rising place; in the order of `rows`."""
    if count >= len(rows):
        return rows.copy()
    held = np.zeros(np.int64(totals.max()) + 2, np.int64)
    for total in totals:
        held[total] += 1
    level, above = len(held) - 1, 0
    while above + held[level] < count:
        above += held[level]
        level -= 1
    ties, out, n = count - above, np.empty(count, rows.dtype), 0
    for i in range(len(rows)):
        if totals[i] > level or (totals[i] == level and ties > 0):
            ties -= 1 if totals[i] == level else 0
            out[n] = rows[i]
            n += 1
    return out


@compiled
def touched(totals: U32, dead: U8) -> tuple[I32, I64]:
    """Living documents that some lane touched, and their sums."""
    rows, sums, n = np.empty(len(totals), np.int32), np.empty(len(totals), np.int64), 0
    for doc in range(len(totals)):
        if totals[doc] and not (len(dead) and dead[doc]):
            rows[n], sums[n] = doc, totals[doc] & MASK
            n += 1
    return rows[:n], sums[:n]


@compiled
def sum_lanes(best: F32, lanes: int) -> np.float32:
    """Σ over the first lanes, in doubles."""
    total = np.float64(0)
    for i in range(lanes):
        total += np.float64(best[i])
    return np.float32(total)


@compiled
def score_codes(
    rows: I32, start: I64, cells: U16, codes: U8, gains: U16, levels: tuple[int, ...], lanes: int, weights: I8, begin: I32,
    scale: F32, table: F32, out: F32,
) -> None:  # fmt: skip
    """out[i] = Σ over lanes of max over tokens of table[cell, lane] + ⟨residual as coded, lane⟩, document rows[i].

    `levels` (a tuple of bytes) are what codes stand for; see `unfold`.
    """
    groups, longest = weights.shape[1], 1
    for row in rows:
        longest = max(longest, start[row + 1] - start[row])
    bytes_ = np.empty((longest, 4 * groups), np.uint8)
    which, factors, best = np.empty(longest, np.int32), np.empty(longest, np.float32), np.empty(len(scale), np.float32)
    for i in range(len(rows)):
        low, count = start[rows[i]], start[rows[i] + 1] - start[rows[i]]
        widen(gains, low, count, factors)
        for j in range(count):
            which[j] = cells[low + j]
            unfold(codes, low + j, codes.shape[1], levels, bytes_, j)
        best[:] = NONE
        for at in range(0, len(best), LANES):
            for j in range(0, count, TILE):
                raise_bytes(
                    best, at, weights, begin, scale, bytes_, factors, table, len(best), which, j, count - 1, groups
                )
        out[i] = sum_lanes(best, lanes)


@compiled
def score_bytes(
    rows: I32, start: I64, kept: U8, steps: F32, lanes: int, weights: I8, begin: I32, scale: F32, out: F32
) -> None:
    """out[i] = Σ over lanes of max over document rows[i]'s tokens of (byte - 128) × steps[token] · lane."""
    groups = weights.shape[1]
    nothing = np.zeros((1, len(scale)), np.float32)
    best = np.empty(len(scale), np.float32)
    for i in range(len(rows)):
        low, count = start[rows[i]], start[rows[i] + 1] - start[rows[i]]
        which = np.zeros(count, np.int32)
        best[:] = NONE
        tokens, factors = kept[low : low + count], steps[low : low + count]
        for at in range(0, len(best), LANES):
            for j in range(0, count, TILE):
                raise_bytes(
                    best, at, weights, begin, scale, tokens, factors, nothing, len(best), which, j, count - 1, groups
                )
        out[i] = sum_lanes(best, lanes)


@compiled
def ends(best: F32, firsts: I64, counts: I64, i: int, out: F32) -> None:
    """What each of several queries, whose lanes lie at firsts, makes of the greatest values."""
    for q in range(len(firsts)):
        out[q, i] = sum_lanes(best[firsts[q] :], counts[q]) if counts[q] else NONE


@compiled
def maxsim_halves(rows: I32, start: I64, halves: U16, weights: F32, firsts: I64, counts: I64, out: F32) -> None:
    """out[q, i] = MaxSim of query q and document rows[i], -inf where it has no vectors; `halves` are float16's bits."""
    dim = halves.shape[1]
    some, best = np.empty((TILE, dim), np.float32), np.empty(len(weights) * LANES, np.float32)
    for i in range(len(rows)):
        low, high = start[rows[i]], start[rows[i] + 1]
        best[:] = NONE
        for j in range(low, high, TILE):
            count = min(TILE, high - j)
            widen(halves, j * dim, count * dim, some)
            for at in range(0, len(best), LANES):
                raise_reals(best, at, weights, some, 0, count - 1, dim)
        ends(best, firsts, counts, i, out)


@compiled
def maxsim_floats(rows: I32, start: I64, vectors: F32, weights: F32, firsts: I64, counts: I64, out: F32) -> None:
    """As `maxsim_halves`, of float32 vectors."""
    dim = vectors.shape[1]
    best = np.empty(len(weights) * LANES, np.float32)
    for i in range(len(rows)):
        low, high = start[rows[i]], start[rows[i] + 1]
        best[:] = NONE
        for j in range(low, high, TILE):
            for at in range(0, len(best), LANES):
                raise_reals(best, at, weights, vectors, j, high - 1, dim)
        ends(best, firsts, counts, i, out)
