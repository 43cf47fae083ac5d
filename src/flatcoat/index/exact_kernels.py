"""The compiled loop of exact search: a block's scores into the best so far."""

from __future__ import annotations

import numpy as np

from flatcoat.simd import BLOCK, F32, I64, PARTS, ROWS, compiled, product

NEAR = 384  # vectors that stay in a core's cache while every query passes by
STRIDE = 64  # scores that are looked at together: mostly none of them is among the best


@compiled
def keep(scores: F32, start: int, rows: I64, best: F32) -> None:
    """Put scores [query, item] of rows `start`, `start` + 1, … into heaps [query, k] whose first is the worst.

    Of equal scores the later row is the worse, and rows come in rising order: one that only equals the worst is left out.
    """
    width = scores.shape[1]
    for query in range(len(scores)):
        own, heap, held = scores[query], best[query], rows[query]
        worst = heap[0]
        for low in range(0, width, STRIDE):
            high, better = min(low + STRIDE, width), 0
            for item in range(low, high):
                better += own[item] > worst
            if better:
                for item in range(low, high):
                    if own[item] > worst:
                        _replace(heap, held, own[item], start + item)
                        worst = heap[0]


@compiled
def _replace(heap: F32, held: I64, score: float, row: int) -> None:
    """Take the worst out of a heap, and put another in."""
    at, size = 0, len(heap)
    while True:
        child = 2 * at + 1
        if child >= size:
            break
        other = child + 1
        if other < size and (heap[other] < heap[child] or (heap[other] == heap[child] and held[other] > held[child])):
            child = other
        if heap[child] > score or (heap[child] == score and held[child] < row):
            break
        heap[at], held[at] = heap[child], held[child]
        at = child
    heap[at], held[at] = score, row


scores_of = product(ROWS, PARTS)


@compiled
def scan(vectors: F32, first: int, last: int, queries: F32, real: int, rows: I64, best: F32) -> None:
    """Put the dot products of vectors `first` … `last` - 1 into heaps as `keep` does, `BLOCK` queries at a time.

    queries [block, number, lane] are the queries as lanes, those past `real` (of them all) padding; heaps are [query, k].
    A few vectors at a time are scored for every block, so that they are read from memory once.
    """
    flat, dim = vectors.reshape(-1), vectors.shape[1]
    room, worst = np.empty(ROWS * BLOCK, np.float32), np.full((len(queries), BLOCK), np.inf, np.float32)
    for query in range(real):
        worst[query // BLOCK, query % BLOCK] = best[query, 0]
    for low in range(first, last, NEAR):
        high = min(low + NEAR, last)
        for block in range(len(queries)):
            for item in range(low, high, ROWS):
                left = high - item
                scores_of(flat, item * dim, dim, 1, left - 1, queries[block], 0, BLOCK, room, 0, BLOCK, dim)
                take(room, item, min(ROWS, left), block * BLOCK, worst[block], rows, best)


@compiled
def take(room: F32, item: int, count: int, query: int, worst: F32, rows: I64, best: F32) -> None:
    """Put scores room[vector, lane] of `count` vectors from `item` on into the heaps of the queries from `query` on."""
    for r in range(count):
        better = 0
        for lane in range(BLOCK):
            better += room[r * BLOCK + lane] > worst[lane]
        if better:
            for lane in range(BLOCK):
                if room[r * BLOCK + lane] > worst[lane]:
                    _replace(best[query + lane], rows[query + lane], room[r * BLOCK + lane], item + r)
                    worst[lane] = best[query + lane, 0]


def keep_slowly(scores: np.ndarray, start: int, rows: np.ndarray, best: np.ndarray) -> None:
    """The same by sorting; in the heaps' place the best stand in order, the worst first. The twin."""
    some = np.arange(start, start + int(scores.shape[1]))
    for query in range(len(scores)):
        every, score = np.concatenate([rows[query], some]), np.concatenate([best[query], scores[query]])
        order = np.lexsort((every, -score))[: rows.shape[1]][::-1]
        rows[query], best[query] = every[order], score[order]
